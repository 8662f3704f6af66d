"""`pellucid ladder`: more parameters, more ability."""

from __future__ import annotations

import json as json_
import sys
import warnings
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from pellucid.cli.app import app
from pellucid.language import _
from pellucid.training.options import TrainOptions

if TYPE_CHECKING:
    from pellucid.experiments.course import Size, Trained


@app.command
def ladder(
    source: str | None = None,
    /,
    *,
    out: str = "",
    sizes: str | None = None,
    seeds: int | None = None,
    tokens: float | None = None,
    tokens_per_parameter: float | None = None,
    next_size: Annotated[str | None, Parameter(name="--next")] = None,
    check: bool = False,
    embeddings: bool = False,
    save: str | None = None,
    json: bool = False,
    options: Annotated[TrainOptions, Parameter(name="*")] = TrainOptions(),  # noqa: B008
) -> None:
    """Train several sizes on one text: how much better is a larger network, and what would the next one reach?

    Fits the scaling curve L(N) = E + A / N^alpha to the losses on held-out text and foretells the next size, with an
    interval. All sizes see equally many tokens of the same text: `--minutes` (10) is the time of all of them together.
    What is finished is not trained again: `pellucid ladder --out FOLDER` goes on after Ctrl-C.

    Parameters
    ----------
    source
        A text, as for `pellucid train`. Left out: go on with the ladder in --out, or take the demo text.
    out
        The ladder's folder; each training is a run in it.
    sizes
        How many, from the smallest on (5), or which widths and depths: `64x3,96x4,128x6,192x8`.
    seeds
        How many trainings of each size, with seeds that follow each other.
    tokens
        How many tokens each training sees, instead of --minutes; --steps says it in steps.
    tokens_per_parameter
        How many tokens for each parameter, so that larger networks see more.
    next_size
        The width and depth to foretell. Left out: about 2.8 times the largest.
    check
        Train that one too, and say whether the truth lay inside the interval.
    embeddings
        Count embeddings and head on the axis as well.
    save
        Draw it: a .svg, .png or .pdf, or a page with the table (.html).
    json
        Print one JSON object.
    options
        What is the same for all trainings.
    """
    from pellucid.experiments.ladder import check_path
    from pellucid.experiments.ladder import ladder as climb
    from pellucid.experiments.ladder_display import Bar

    if save:
        check_path(save)
    found = climb(
        source, out, sizes=sizes, seeds=seeds, tokens=tokens, tokens_per_parameter=tokens_per_parameter,
        next_size=next_size, check=check, embeddings=embeddings, progress=Bar(), made=_made, **options.given(),
    )  # fmt: skip
    if save:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", UserWarning)
            found.save(save)
        for warning in said:
            print(f"• {warning.message}", file=sys.stderr)
    if json:
        print(json_.dumps(found.json(), ensure_ascii=False, allow_nan=False))
    else:
        found.show()
    if save:
        print(_("Written: {path}").format(path=save), file=sys.stderr)


def _made(size: Size, trained: Trained, n: int, of: int, left: float) -> None:
    from pellucid.training.progress import clock

    said = _("{size}, seed {seed}: {loss:.3f} nats a token, {bits:.3f} bits per byte, {time}").format(
        size=size.name, seed=trained.seed, loss=trained.loss, bits=trained.bits_per_byte, time=clock(trained.seconds)
    )
    said += _("; about {left} left").format(left=clock(left)) if left else ""
    print(f"{n}/{of}  {said}", file=sys.stderr, flush=True)
