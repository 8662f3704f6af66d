"""`pellucid step` and `pellucid weights`: one training step seen through, and the numbers that training set."""

from __future__ import annotations

import json as json_
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from pellucid.cli.app import app
from pellucid.cli.opening import OPENING, Opening
from pellucid.errors import PellucidError
from pellucid.language import _

if TYPE_CHECKING:
    from pellucid.tracing.training import Sources


@app.command
def step(
    run: str,
    /,
    *,
    at: Literal["last", "best", "start"] = "last",
    skip: int = 0,
    batch: int | None = None,
    seed: int | None = None,
    learning_rate: float | None = None,
    why: Annotated[str | None, Parameter(name=("--why", "--about"))] = None,
    open: str | None = None,
    top: int = 8,
    json: bool = False,
) -> None:
    """Make one training step of a run and show it: batch, forward values, loss, gradients, update, new weights.

    Nothing in the run is changed.

    Parameters
    ----------
    run
        The folder of a run.
    at
        Where to step: `last`, as the run itself would go on; `best`, from the best model; or `start`, the network as
        it was drawn.
    skip
        Make so many steps before, unseen.
    batch
        Examples in the step.
    seed
        Of the order of the data; at the start, of the network too.
    learning_rate
        Instead of what the plan's schedule says.
    why
        A number to ask about instead: an address, as `fc.weight:grad[0,1]`, or `updated("fc.weight[0,1]")`. Of a whole
        gradient, `fc.weight:grad`: which examples it came from.
    open
        Open single terms of it: `1.2` is the first term's second one.
    top
        How many rows to show of each kind.
    json
        Print one JSON object.
    """
    if top < 1:
        raise PellucidError(
            _("{option} {value} makes no sense.").format(option="--top", value=top),
            "--top",
            _("It must be more than 0."),
        )
    from pellucid.training import stepping

    shown = stepping.step(run, at=at, skip=skip, batch=batch, seed=seed, learning_rate=learning_rate)
    if why is None:
        if json:
            print(json_.dumps(shown.json(top), ensure_ascii=False, allow_nan=False))
        else:
            shown.show(top)
        return
    from pellucid.tracing import display, plain

    if why.endswith(":grad"):  # all of a gradient
        _show_sources(shown.trace.by_token(why), top, json)
        return
    answer = shown.why(why)
    if json:
        print(json_.dumps(answer.to_dict(top), ensure_ascii=False, allow_nan=False))
    else:
        display.show(answer, top=top, path=plain.steps(open) if open else [])


def _show_sources(sources: Sources, top: int, json: bool) -> None:
    """Which examples, and which of their tokens, a parameter's gradient came from."""
    if json:
        print(json_.dumps(asdict(sources), ensure_ascii=False, allow_nan=False))
        return
    print(_("{address}: its length {value:.6g} is made up of").format(address=sources.address, value=sources.value))
    for source in sources.sources[:top]:
        if source.example is None:
            said = _("what cannot be told apart by example")
        elif source.position is None:
            said = _("example {n}").format(n=source.example)
        else:
            said = _("example {n}, position {position}").format(n=source.example, position=source.position)
        print(f"{source.contribution:+12.4g}  {said}  {source.shown}".rstrip())
    others = sources.sources[top:]
    if others:
        together = sum(source.contribution for source in others)
        print(f"{together:+12.4g}  " + _("{n:,} others").format(n=len(others)))
    for note in sources.notes:
        print(f"• {note}")


@app.command
def weights(run: str, /, *, json: bool = False, opening: Opening = OPENING) -> None:
    """Show every parameter by its name, with its shape; of a small network every number, of a table's in its units.

    Parameters
    ----------
    run
        A run, or a folder of any network that Pellucid opens.
    json
        Print one JSON object.
    """
    found = opening.open_any(run).weights()
    if json:
        print(json_.dumps(found.json(), ensure_ascii=False, allow_nan=False))
    else:
        found.show()
