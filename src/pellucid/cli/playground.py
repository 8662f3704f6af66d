"""`pellucid playground`: a small network learns points on a plane."""

from __future__ import annotations

import json as json_
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from pellucid.cli.app import app
from pellucid.errors import PellucidError
from pellucid.experiments.playground_options import Settings
from pellucid.language import _

if TYPE_CHECKING:
    from pellucid.experiments.playground import Measured


@app.command
def playground(
    *,
    steps: int = 5000,
    every: int = 10,
    url: str | None = None,
    json: bool = False,
    settings: Annotated[Settings, Parameter(name="*")] = Settings(),  # noqa: B008
) -> None:
    """Train a small network on toy data, and print how it learned and what it became.

    Parameters
    ----------
    steps
        How many updates to make.
    every
        Print the losses after every so many epochs.
    url
        A link to the browser playground, whose settings and recipe to take instead of the options here.
    json
        Print one JSON object: settings, losses and accuracies, weights.
    """
    if url is not None:
        if settings != Settings():
            raise PellucidError(_("A link says everything itself."), "--url", _("Leave the other options out."))
        settings = Settings.from_url(url)
    from pellucid.experiments.playground import Playground

    board = Playground(settings)
    history = []
    for measured in board.play(steps, every):
        history.append(measured)
        if not json:
            print(_line(measured), flush=True)
    if json:
        parameters = {name: value.tolist() for name, value in board.parameters().items()}
        report = {
            "settings": asdict(settings),
            "history": [asdict(measured) for measured in history],
            "parameters": parameters,
        }
        print(json_.dumps(report, allow_nan=False))
    else:
        print("\n".join(["", *board.formulas()]))


def _line(measured: Measured) -> str:
    said = _("epoch {epoch:>5}  step {steps:>7}  loss {training:.4f}, on test points {test:.4f}").format(
        epoch=measured.epoch, steps=measured.steps, training=measured.training_loss, test=measured.test_loss
    )
    if measured.test_accuracy is None:
        return said
    return said + _("; right: {training:.1%}, {test:.1%}").format(
        training=measured.training_accuracy, test=measured.test_accuracy
    )
