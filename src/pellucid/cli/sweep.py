"""`pellucid sweep`: a range of settings, each trained with several seeds."""

from __future__ import annotations

import json as json_
import sys
import time
from typing import Annotated, Any

from cyclopts import Parameter

from pellucid.cli.app import app
from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.training.options import TrainOptions


@app.command
def sweep(
    source: str | None = None,
    /,
    *,
    out: str | None = None,
    vary: list[str] | None = None,
    seeds: int = 3,
    json: bool = False,
    options: Annotated[TrainOptions, Parameter(name="*")] = TrainOptions(),  # noqa: B008
) -> None:
    """Train over a range of settings: how many layers, how many neurons, which learning rate?

    Prints a table with the spread over seeds, says what under- and overfits, and saves results.json, results.csv and
    pictures. What is finished is not made again: the same command goes on after Ctrl-C.

    Parameters
    ----------
    source
        What to train on, as for `pellucid train`. Left out: go on with the sweep in --out.
    out
        The sweep's folder; each training is a run in it.
    vary
        An option of `pellucid train` and the values to try, with commas between them: `--vary layers=0,4,8,8-8`. Given
        several times, every combination is tried.
    seeds
        How many trainings of each setting, with seeds that follow each other.
    json
        Print one JSON object.
    options
        What is the same for all trainings.
    """
    if not out:
        raise PellucidError(_("Where should the trainings go?"), "--out", _("Name a folder: --out sweeps/name"))
    grid = _grid(vary or [])
    if not grid and (source is not None or options.given()):
        raise PellucidError(
            _("There is nothing to try."), "--vary", _("Name an option and its values: --vary layers=0,2,8,8-8")
        )
    from pathlib import Path

    if source is None and not (Path(out) / "sweep.json").exists():
        raise PellucidError(
            _("There is no sweep here."), out, _("Name what to train on: pellucid sweep SOURCE --out FOLDER")
        )
    from pellucid.experiments.sweep import sweep as try_all

    started = time.monotonic()

    def made(trained: Any, n: int, of: int) -> None:
        print(_line(trained, n, of, time.monotonic() - started), file=sys.stderr, flush=True)

    found = try_all(source, out, grid, seeds, made=made, **options.given())
    if json:
        print(json_.dumps(found.json(), ensure_ascii=False, allow_nan=False))
        return
    found.show()
    pictures = sorted(path.name for path in found.folder.iterdir() if path.suffix in (".png", ".svg"))
    print(
        _("Written in {folder}: {names}").format(
            folder=out, names=", ".join(["results.json", "results.csv", *pictures])
        )
    )


def _grid(vary: list[str]) -> dict[str, list[str]]:
    grid: dict[str, list[str]] = {}
    for given in vary:
        name, equals, values = given.partition("=")
        if not equals or not name.strip() or name in grid:
            raise PellucidError(
                _("This is no range: {given}").format(given=given),
                "--vary",
                _("Give values with commas between them, as in: --vary layers=0,8,8-8 --vary learning_rate=0.01,0.1"),
            )
        grid[name.strip()] = [value.strip() for value in values.split(",")]
    return grid


def _line(trained: Any, n: int, of: int, seconds: float) -> str:
    from pellucid.experiments.sweep import named, shown
    from pellucid.training.progress import clock

    said = f"{n}/{of}  {named(trained.setting)}, {_('seed')} {trained.seed}: "
    if trained.failed:
        return said + trained.failed
    figure = next(iter(trained.unseen))
    return said + _("{unseen} on unseen data, {time}; about {left} left").format(
        unseen=shown(figure, trained.unseen[figure]),
        time=f"{trained.seconds:.1f} s",
        left=clock(seconds / n * (of - n)),
    )
