"""A sweep in a terminal."""

from __future__ import annotations

import statistics

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pellucid.experiments.sweep import Setting, Sweep, shown
from pellucid.language import _
from pellucid.training.progress import clock


def show(found: Sweep, console: Console | None = None) -> None:
    """Print the table, what under- or overfits, and which setting is best."""
    console = console or Console(highlight=False)
    seeds = max((len(setting.runs) for setting in found.settings), default=0)
    title = _("{figure}, mean±standard deviation over {seeds} seeds; lower is better").format(
        figure=found.figure or _("nothing"), seeds=seeds
    )
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    for name in found.vary:
        table.add_column(name, header_style="bold", overflow="fold")
    for name in (_("training"), _("unseen"), _("best state"), _("parameters"), _("steps"), _("time")):
        table.add_column(name, justify="right", header_style="dim", overflow="fold")
    table.add_column("", overflow="fold")
    for setting in found.settings:
        table.add_row(
            *(str(value) for value in setting.values.values()), *_numbers(found, setting), _mark(found, setting)
        )
    console.print(table)
    said = _(
        "training, unseen: at the end, on the data it was trained on and on validation data; best state: the one that "
        "was kept, on validation data"
    )
    console.print(Text(said, style="dim"))
    for setting in found.settings:
        if sentence := found.sentence(setting):
            console.print(Padding(Text(f"• {sentence}", style="yellow"), (0, 0, 0, 0)))
    best, smallest = found.best, found.smallest
    if best is None or smallest is None:
        return
    said = _("Best: {name}, {unseen} on validation data; {test} on test data, which decided nothing.").format(
        name=best.name, unseen=shown(found.figure, best.mean("best")), test=shown(found.figure, best.mean("test"))
    )
    console.print(Text(said, style="bold"))
    if smallest is not best:
        said = _("The smallest that is as good within the spread: {name}, {unseen}, {n:,} parameters.").format(
            name=smallest.name, unseen=shown(found.figure, smallest.mean("best")), n=smallest.parameters
        )
        console.print(Text(said))


def _numbers(found: Sweep, setting: Setting) -> list[str]:
    if not setting.finished:
        return ["–"] * 6
    several = len(setting.finished) > 1
    figures = []
    for part in ("training", "unseen", "best"):
        mean, spread = (shown(found.figure, x) for x in (setting.mean(part), setting.spread(part)))
        figures.append(f"{mean.removesuffix('%')}±{spread}" if several else mean)
    steps = statistics.fmean(run.steps for run in setting.finished)
    seconds = statistics.fmean(run.seconds for run in setting.finished)
    return [
        *figures,
        f"{setting.parameters:,}",
        f"{steps:,.0f}",
        clock(seconds) if seconds >= 10 else f"{seconds:.1f} s",
    ]


def _mark(found: Sweep, setting: Setting) -> Text:
    if setting is found.best:
        return Text(_("← best"), style="bold green")
    words = {"overfits": _("overfits"), "underfits": _("underfits"), "diverged": _("failed"), "": ""}
    return Text(words[found.state(setting)], style="yellow")
