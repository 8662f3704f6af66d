"""A ladder as a picture: losses and curve on logarithmic axes; and as a page with its table."""

from __future__ import annotations

import io
import warnings
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import get_cachedir
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from rich.text import Text

from pellucid.checkpoints.whole_file import write_text
from pellucid.experiments.ladder import Ladder
from pellucid.experiments.ladder_display import axis, formula, sentences, short, table
from pellucid.experiments.sweep_pictures import COLOURS, fonts, has_chinese, lacks_letters
from pellucid.language import _, speaking

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:right}th{font-weight:600;color:#555}"
    "td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}"
)


def save(found: Ladder, path: Path) -> None:
    """Write a picture, or for .html a page that needs nothing else; in English, with a warning, without the font."""
    kind = path.suffix.lower()
    with fonts(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's fonts draw an SVG's text
        figure = draw(found, _name(found))
        if kind == ".html":
            write_text(path, _page(found, _svg(figure)))
            return
        is_english = kind != ".svg" and lacks_letters(figure)
        if is_english:
            with speaking("en"):
                figure = draw(found, "text" if has_chinese(_name(found)) else _name(found))
        figure.savefig(path, dpi=150, bbox_inches="tight", facecolor="white")
    if is_english:
        warnings.warn(
            _(
                "matplotlib knows no font with Chinese letters: {name} is in English. Save an .svg, or install such a "
                "font (Noto Sans CJK) and delete {cache}, where matplotlib keeps its list."
            ).format(name=path.name, cache=get_cachedir()),
            stacklevel=3,
        )


def draw(found: Ladder, source: str) -> Figure:
    """The losses, the curve with what 95 % of new sizes should reach, the forecast and the check.

    Args:
        found: The ladder.
        source: What its text is called.
    """
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log")
    forecast = found.forecast()
    sizes = np.array([found.counted(rung.size) for rung in found.rungs])
    losses = [rung.loss for rung in found.rungs]
    n = np.geomspace(0.8 * sizes[0], 1.3 * max(sizes[-1], forecast.parameters), 120)
    if found.fit.noise is not None:
        band = np.array([found.fit.interval(x) for x in n])
        axes.fill_between(n, *band.T, color=COLOURS[0], alpha=0.15, lw=0, label=_("95 % of new sizes"))
    axes.plot(n, [found.fit(x) for x in n], color=COLOURS[0], lw=1.5, label=formula(found.fit))
    if found.fit.E and not found.has_floor:
        axes.plot(n, [found.power_law(x) for x in n], color=COLOURS[7], lw=1, ls="--", label=formula(found.power_law))
    for rung, x in zip(found.rungs, sizes, strict=True):
        axes.plot([x] * len(rung.runs), [run.loss for run in rung.runs], "_", color="#333333", ms=7)
    axes.plot(sizes, losses, "o", color="#333333", ms=6, label=_("trained"))
    ends = forecast.interval or (forecast.loss, forecast.loss)
    reach = [[forecast.loss - ends[0]], [ends[1] - forecast.loss]]
    axes.errorbar(
        [forecast.parameters], [forecast.loss], reach, fmt="o", mfc="white", color=COLOURS[1], capsize=4,
        label=_("forecast for {name}").format(name=found.next.name),
    )  # fmt: skip
    if found.checked is not None:
        losses = [*losses, found.checked.loss]
        axes.plot(found.counted(found.checked.size), found.checked.loss, "D", color=COLOURS[2], label=_("the check"))
    low, high = min([*losses, forecast.loss]), max([*losses, forecast.loss])
    margin = (high / low) ** 0.25  # the interval may be very wide: the points must stay readable
    axes.set_ylim(max(ends[0] * 0.99, low / margin**2), min(max(ends[1], high) * 1.02, high * margin**2))
    axes.set_xlabel(_("N: {which}").format(which=axis(found)))
    axes.set_ylabel(_("loss on held-out text, nats a token"))
    ticks = [*sizes, forecast.parameters]
    axes.set_xticks(ticks, [short(x) for x in ticks])
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:.3g}"))
    for one in (axes.xaxis, axes.yaxis):
        one.set_minor_locator(NullLocator())
    bits = found.bits_per_nat
    ways: Any = (lambda nats: nats * bits, lambda nats: nats / bits)
    right = axes.secondary_yaxis("right", functions=ways)
    right.set_ylabel(_("bits per byte"))
    right.yaxis.set_major_locator(MaxNLocator(6))
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:.3g}"))
    right.yaxis.set_minor_locator(NullLocator())
    axes.grid(color="#e5e5e5", lw=0.8)
    axes.set_axisbelow(True)
    tokens = found.rungs[0].tokens
    same = all(rung.tokens == tokens for rung in found.rungs)
    said = _("{source}: {tokens} tokens for each size") if same else _("{source}: {tokens} tokens and more")
    axes.set_title(said.format(source=source, tokens=short(tokens)), fontsize=10, loc="left")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _name(found: Ladder) -> str:
    return Path(found.source).name if found.source else _("demo text")


def _svg(figure: Figure) -> str:
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()[drawn.getvalue().index("<svg") :]


def _page(found: Ladder, picture: str) -> str:
    laid = table(found)
    columns = [[str(column.header), *(_plain(cell) for cell in column.cells)] for column in laid.columns]
    first, *rows = zip(*columns, strict=True)
    head = "".join(f"<th>{escape(name)}</th>" for name in first)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    lines = "".join(f"<p>{escape(line)}</p>" for line in sentences(found))
    remarks = "".join(f"<li>{escape(line)}</li>" for line in found.remarks())
    title = escape(_("More parameters, more ability: {source}").format(source=_name(found)))
    return (
        f'<!doctype html><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>{picture}'
        f"<table><tr>{head}</tr>{body}</table>{lines}<ul>{remarks}</ul>\n"
    )


def _plain(cell: object) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)
