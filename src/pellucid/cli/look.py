"""`pellucid look`: what a convolutional network sees in a picture."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pellucid.cli.app import app
from pellucid.cli.opening import OPENING, Opening
from pellucid.errors import PellucidError
from pellucid.language import _

if TYPE_CHECKING:
    from torch import nn

    from pellucid.tracing.pictures import Scale


@app.command
def look(
    run: str,
    picture: str,
    /,
    *,
    layer: list[str] | None = None,
    channel: list[int] | None = None,
    pictures: str | None = None,
    target: str | None = None,
    rather_than: str | None = None,
    no_dreams: bool = False,
    steps: int | None = None,
    seed: int = 0,
    save: str | None = None,
    opening: Opening = OPENING,
) -> None:
    """Look inside a convolutional network: which region of a picture decided, and what its channels answer to.

    Parameters
    ----------
    run
        A run, or a folder of an EfficientNet-lite0 (`pellucid sets get efficientnet-lite0`).
    picture
        A picture.
    layer
        Paths of parts of the network; without any, an early one, two between and a late one.
    channel
        Channels of these parts; without any, two that spoke clearly for the answer.
    pictures
        A folder of pictures in which to look for the patches that each channel answers to most.
    target
        The class to ask about, by name; without one, the most probable.
    rather_than
        Ask about the target rather than this class.
    no_dreams
        Make up no pictures for the channels; most of the time goes into these.
    steps
        Of each dream; more are clearer.
    seed
        Of the dreams.
    save
        Write a page that needs nothing else (.html) or a sheet of pictures (.png).
    """
    from pellucid.tracing.pictures import look, read_pictures
    from pellucid.tracing.pictures.looking import DREAM_STEPS

    network, labels, scale, (colours, height, width) = _opened(run, opening)
    inputs = read_pictures(picture, (height, width), scale, colours)
    if len(inputs) > 1:
        raise PellucidError(
            _("These are {n:,} pictures.").format(n=len(inputs)), picture, _("Name one; a folder goes with --pictures.")
        )
    others = read_pictures(pictures, (height, width), scale, colours) if pictures else {}
    ((name, pixels),) = inputs.items()
    found = look(
        network,
        pixels,
        labels,
        scale=scale,
        target=_class(target, labels, "--target"),
        rather_than=_class(rather_than, labels, "--rather-than"),
        layers=layer,
        channels=channel or 2,
        pictures=others,
        dreams=save is not None and not no_dreams,
        steps=steps or DREAM_STEPS,
        seed=seed,
        name=name,
        model=run,
        progress=lambda said: print(said, file=sys.stderr, flush=True),
    )
    print(found)
    if save is not None:
        found.save(save)
        print(_("Written: {path}").format(path=save), file=sys.stderr)


def _opened(run: str, opening: Opening) -> tuple[nn.Module, list[str], Scale, tuple[int, int, int]]:
    """The network, its classes, and the scaling and shape of its pictures.

    Raises:
        PellucidError: when it is no network that sees.
    """
    from pellucid.model import Model
    from pellucid.networks.scaling import Scaled
    from pellucid.tracing.pictures import Scale

    model = opening.open_any(run)
    if not (isinstance(model, Model) and model.task.name == "pictures" and isinstance(model.network, Scaled)):
        raise PellucidError(
            _("This network does not look at pictures."), run, _("Name a run of pictures, or an EfficientNet-lite0.")
        )
    facts, scaling = model.task.facts(), model.network.inputs  # which is for bytes, not for numbers from 0 to 1
    assert scaling is not None
    mean, std = ((column.flatten() / 255).tolist() for column in (scaling.shift, scaling.scale))
    return model.network.network, facts["classes"], Scale(tuple(mean), tuple(std)), tuple(facts["picture"])


def _class(name: str | None, labels: list[str], option: str) -> int | None:
    if name is None:
        return None
    if name not in labels:
        near = [label for label in labels if name.lower() in label.lower()] or labels
        raise PellucidError(
            _("There is no class {name}.").format(name=repr(name)),
            option,
            _("There are {names}.").format(names=", ".join(near[:10])),
        )
    return labels.index(name)
