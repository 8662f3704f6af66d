"""Where a network's parameters are, as a page of HTML that needs nothing else."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from pellucid.anatomy.shown.display import published
from pellucid.anatomy.shown.drawing import COLOURS, WIDE, Sheet, block_title, drawn, enlarged, legend
from pellucid.anatomy.shown.treemap import Rect, treemap
from pellucid.language import _

if TYPE_CHECKING:
    from pellucid.anatomy.report import Anatomy
    from pellucid.anatomy.tree import Node

ASSETS = Path(__file__).parent / "assets"
MARK = '<meta name="generator" content="Pellucid">'  # by which a page of ours is known
NARROW = Sheet(360, 470, 330, 10.5)  # a telephone


def page(anatomy: Anatomy) -> str:
    """The whole page."""
    style, script = ((ASSETS / name).read_text("utf-8") for name in ("anatomy.css", "anatomy.js"))
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        f'<!DOCTYPE html>\n<html lang="{_("en")}">\n<head>\n<meta charset="utf-8">\n{MARK}\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(anatomy.title)}</title>\n<style>\n{_palette()}{style}</style>\n</head>\n<body>\n"
        f'<main class="anatomy">{_head(anatomy)}{_map(anatomy)}{_legend(anatomy)}{_blocks(anatomy)}'
        f"{_foot()}</main>\n<script>\n{script}</script>\n</body>\n</html>\n"
    )


def _palette() -> str:
    pairs = "".join(f" --{kind}: {fill}; --on-{kind}: {ink};" for kind, (fill, ink) in COLOURS.items())
    rules = "".join(
        f".{kind} {{ fill: var(--{kind}); background: var(--{kind}); }} .on-{kind} {{ fill: var(--on-{kind}); }}\n"
        for kind in COLOURS
    )
    return f":root {{{pairs} }}\n{rules}"


def _head(anatomy: Anatomy) -> str:
    lead = _("{n:,} parameters, {neurons:,} neurons. Each area is a layer's share of the parameters.").format(
        n=anatomy.parameters.total, neurons=anatomy.neurons.total
    )
    lines = [f"<h1>{escape(anatomy.title)}</h1>", f'<p class="lead">{escape(lead)}</p>']
    if anatomy.entry:
        lines.append(f'<p class="quiet">{escape(published(anatomy))}</p>')
    return f"<header>{''.join(lines)}</header>"


def _map(anatomy: Anatomy) -> str:
    if not anatomy.parameters.total:
        return f"<p>{escape(_('It has no parameters.'))}</p>"
    said = _("Point at an area, or go there with Tab and the arrow keys: here it says what it is.")
    label = _("Where the parameters are")
    return (
        f'<section class="map" aria-label="{escape(label)}">{_both(anatomy, "", anatomy.tree, 1)}'
        f'<p class="said" aria-live="polite">{escape(said)}</p></section>'
    )


def _both(anatomy: Anatomy, path: str, node: Node, copies: int) -> str:
    """The drawing for wide screens and the one for narrow ones; a style sheet chooses."""
    return "".join(
        f'<svg class="{name}" viewBox="0 0 {sheet.width:g} {height:g}" role="group">'
        f"{drawn(anatomy, treemap(node, frame), path, copies, sheet)}</svg>"
        for name, sheet in (("wide", WIDE), ("narrow", NARROW))
        for height in [sheet.enlarged if path else sheet.height]
        for frame in [Rect(0, 0, sheet.width, height)]
    )


def _legend(anatomy: Anatomy) -> str:
    rows = "".join(
        f'<tr><th scope="row"><i class="{kind}"></i>{escape(name)}<small>{escape(note)}</small></th>'
        f"<td>{own}</td><td>{part}</td><td>{neurons}</td></tr>"
        for kind, name, own, part, neurons, note in legend(anatomy)
    )
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in (_("parameters"), _("share"), _("neurons")))
    total = f"<td>{anatomy.parameters.total:,}</td><td>100 %</td><td>{anatomy.neurons.total:,}</td>"
    return (
        f'<section class="legend"><table><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody>'
        f'<tfoot><tr><th scope="row">{escape(_("in all"))}</th>{total}</tr></tfoot></table></section>'
    )


def _blocks(anatomy: Anatomy) -> str:
    """One of each kind of equal layers, enlarged."""
    return "".join(
        f'<section class="map" data-block="{escape(block.path)}" tabindex="-1"><h2>{escape(title)}</h2>'
        f'{_both(anatomy, block.path, block.node, block.n)}<p class="said" aria-live="polite"></p></section>'
        for block in enlarged(anatomy)
        for title in [block_title(anatomy, block)]
    )


def _foot() -> str:
    said = _(
        "A parameter is a number that training sets; a neuron is an output of a layer with weights. Equal layers have "
        "equal areas."
    )
    made = _("Made with Pellucid: a file of its own, which asks nothing of the network.")
    return f"<footer><p>{escape(said)}</p><p>{escape(made)}</p></footer>"
