"""A ladder in a terminal: the table, the curve on logarithmic axes, the forecast and what it is worth."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from pellucid.experiments.ladder import Ladder
from pellucid.experiments.scaling import Curve
from pellucid.language import _
from pellucid.training.progress import Terminal, clock

WIDTH, HEIGHT = 64, 15  # characters of the chart


class Bar(Terminal):
    """The bar of the training that runs; its plan, evaluations and verdict are in its folder."""

    def __init__(self) -> None:
        super().__init__(Console(highlight=False, stderr=True))

    def recognised(self, what: str, task: Any) -> None: ...

    def planned(self, plan: Any, task: Any) -> None:
        self.close()

    def evaluated(self, step: int, said: str, verdict: Any) -> None: ...

    def finished(self, folder: Any, task: Any, seconds: float, best_step: int, said: str, verdict: Any) -> None:
        self.close()


def shown(found: Ladder) -> Group:
    """Everything that is printed."""
    lines = [Text(f"• {remark}", style="yellow") for remark in found.remarks()]
    return Group(table(found), Text(), *chart(found), Text(), *(Text(line) for line in sentences(found)), *lines)


def table(found: Ladder) -> Table:
    """A line a size: both counts, what it has seen, what it reached."""
    title = _("Loss on held-out text, by size")
    laid = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    laid.add_column(_("size"), header_style="bold", no_wrap=True)
    headings = (_("parameters"), _("without embeddings"), _("tokens"), _("nats a token"), _("bits per byte"), _("time"))
    for name, digits in zip(headings, (10, 10, 5, 5, 5, 4), strict=True):
        laid.add_column(name, justify="right", header_style="dim", min_width=digits)
    laid.add_column("", no_wrap=True)
    for rung in [*found.rungs, *filter(None, [found.checked])]:
        loss = f"{rung.loss:.3f}" + (f"±{rung.spread:.3f}" if len(rung.runs) > 1 else "")
        figures = (f"{rung.size.parameters:,}", f"{rung.size.without_embeddings:,}", short(rung.tokens), loss)
        last = Text(_("← the check"), style="bold") if rung is found.checked else Text()
        laid.add_row(rung.name, *figures, f"{rung.bits_per_byte:.3f}", clock(rung.seconds), last)
    return laid


def sentences(found: Ladder) -> list[str]:
    """The curve with its uncertainty, the forecast, and what came of it."""
    said = [
        _("On the axis, N: {which}.").format(which=axis(found)),
        _("Best curve: {formula}").format(formula=formula(found.fit)),
    ]
    if found.fit.noise is not None:
        said.append(
            _("Sizes lie {noise:.2%} from it (standard deviation; degrees of freedom: {n}); with 95 % {ranges}").format(
                noise=found.fit.noise, n=found.fit.freedom, ranges=ranges(found.fit)
            )
        )
    if found.fit.E and not found.has_floor:
        said.append(_("Pure power law: {formula}").format(formula=formula(found.power_law)))
    forecast = found.forecast()
    line = _("Forecast for {name}, N = {n:,}: {loss:.3f} nats a token, {bits:.3f} bits per byte").format(
        name=found.next.name, n=forecast.parameters, loss=forecast.loss, bits=forecast.bits_per_byte
    )
    if forecast.interval and forecast.bits_interval:
        (low, high), (low_bits, high_bits) = forecast.interval, forecast.bits_interval
        line += _("; with 95 % between {low:.3f} and {high:.3f} ({low_bits:.3f} and {high_bits:.3f})").format(
            low=low, high=high, low_bits=low_bits, high_bits=high_bits
        )
    if found.fit.E and not found.has_floor:
        line += _("; {loss:.3f} by the power law").format(loss=forecast.by_power_law)
    said.append(line)
    if found.checked is None:
        said.append(_("Train it and see: pellucid ladder --out {folder} --check").format(folder=found.folder))
    else:
        inside = _("inside the interval.") if forecast.holds(found.checked.loss) else _("outside the interval.")
        said.append(
            _("The check, {loss:.3f} nats a token, {bits:.3f} bits per byte, lies {off:+.1%} from it: {where}").format(
                loss=found.checked.loss,
                bits=found.checked.bits_per_byte,
                off=found.checked.loss / forecast.loss - 1,
                where=inside if forecast.interval else _("there was no interval."),
            )
        )
    return said


def axis(found: Ladder) -> str:
    """Which parameters are counted."""
    if found.embeddings:
        return _("all parameters, embeddings included")
    return _("parameters without embeddings and head (Kaplan et al. 2020)")


def formula(curve: Curve) -> str:
    """The curve with as many digits as are worth reading."""
    if not curve.A:
        return f"L(N) = {curve.E:.2f}"
    if curve.E:
        return f"L(N) = {curve.E:.2f} + {curve.A:.3g} / N^{curve.alpha:.3g}"
    critical = curve.A ** (1 / curve.alpha)  # Kaplan's N_c, where the loss would be 1 nat
    return f"L(N) = {curve.A:.3g} / N^{curve.alpha:.3g} = ({critical:.2g} / N)^{curve.alpha:.3g}"


def ranges(curve: Curve) -> str:
    """E and alpha with their intervals."""
    found = curve.intervals
    assert found is not None
    low, high = found["alpha"]
    if low and high < math.inf:
        alpha = f"{low:.2g} – {high:.2g}"
    elif low:
        alpha = _("{low:.2g} or more").format(low=low)
    else:
        alpha = _("{high:.2g} or less").format(high=high) if high < math.inf else _("unknown")
    floor = "0" if curve.pure else f"{found['E'][0]:.2f} – {found['E'][1]:.2f}"
    return f"E {floor}, alpha {alpha}"


def chart(found: Ladder) -> list[Text]:
    """Losses, curve, and where 95 % of new sizes should lie, as characters on logarithmic axes."""
    forecast = found.forecast()
    points = [(found.counted(rung.size), rung.loss) for rung in found.rungs]
    new = [(found.counted(found.checked.size), found.checked.loss)] if found.checked else []
    sizes = [n for n, _loss in points] + [forecast.parameters]
    # an interval may be very wide: the points must stay readable
    losses = [loss for _n, loss in (*points, *new)] + [forecast.loss]
    margin = 0.25 * (math.log(max(losses)) - math.log(min(losses))) + 0.005
    left, right = math.log(min(sizes)), math.log(max(sizes))
    low, high = math.log(min(losses)) - margin, math.log(max(losses)) + margin

    def column(n: float) -> int:
        return round((math.log(n) - left) / (right - left) * (WIDTH - 1))

    def row(loss: float) -> int:
        return round((high - math.log(max(loss, 1e-9))) / (high - low) * (HEIGHT - 1))

    cells: dict[tuple[int, int], tuple[str, str]] = {}
    for x in range(WIDTH):
        n = math.exp(left + x / (WIDTH - 1) * (right - left))
        interval = found.fit.interval(n) or (found.fit(n), found.fit(n))
        for y in range(max(0, row(interval[1])), min(HEIGHT - 1, row(interval[0])) + 1):
            cells[x, y] = ("░", "blue")
        cells[x, row(found.fit(n))] = ("─", "bold blue")
    cells[column(forecast.parameters), row(forecast.loss)] = ("○", "bold yellow")
    cells |= {(column(n), row(loss)): ("●", "bold") for n, loss in points}
    cells |= {(column(n), row(loss)): ("◆", "bold green" if forecast.holds(loss) else "bold red") for n, loss in new}
    lines = []
    for y in range(HEIGHT):
        loss = math.exp(high - y / (HEIGHT - 1) * (high - low))
        line = Text(f"{loss:7.3g} ┤" if y % 2 == 0 else f"{'│':>9}", style="dim")
        for x in range(WIDTH):
            line.append(*cells.get((x, y), (" ", "")))
        lines.append(line)
    signs = _("● trained  ○ forecast  ░ 95 % of new sizes") + (_("  ◆ the check") if new else "")
    return [Text(_("nats a token"), style="dim"), *lines, _ticks(sizes, column), Text(" " * 9 + signs, style="dim")]


def _ticks(sizes: list[int], column: Callable[[float], int]) -> Text:
    """The sizes below the chart, those that have room."""
    line = " " * (WIDTH + 16)
    free = 0
    for n in sizes:
        name = short(n)
        at = max(0, 9 + column(n) - len(name) // 2)
        if at >= free:
            line = line[:at] + name + line[at + len(name) :]
            free = at + len(name) + 1
    return Text(line.rstrip() + "  N", style="dim")


def short(n: float) -> str:
    """A number of parameters in three digits: 24.6k, 1.18M."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if n >= 0.9995 * unit:
            return f"{n / unit:.3g}{name}"
    return f"{n:.3g}"
