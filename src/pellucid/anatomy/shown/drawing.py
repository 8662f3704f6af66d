"""Where a network's parameters are, as a drawing for papers; and the pieces that the page draws with."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len

from pellucid.anatomy.explain import Term
from pellucid.anatomy.shown.treemap import Area, Outline, Rect, Treemap, size, treemap
from pellucid.anatomy.shown.words import by_kind, cut, share, short
from pellucid.anatomy.tree import Node, Repeat, Sequence
from pellucid.language import _

if TYPE_CHECKING:
    from pellucid.anatomy.report import Anatomy

MADE = "<!-- Pellucid -->"  # by which a drawing of ours is known
# told apart by readers who are colour-blind, too (Tol 2021, the muted scheme): the area, and letters on it
COLOURS = {
    "embedding": ("#ddcc77", "#1d2025"),
    "attention": ("#332288", "#ffffff"),
    "feed-forward": ("#44aa99", "#1d2025"),
    "mixer": ("#999933", "#1d2025"),
    "convolution": ("#88ccee", "#1d2025"),
    "recurrent": ("#882255", "#ffffff"),
    "dense": ("#117733", "#ffffff"),
    "norm": ("#bbbbbb", "#1d2025"),
    "head": ("#cc6677", "#1d2025"),
}
LETTER = 0.57  # width of a letter by its height
SEEN, THIN = 0.4, 4.0  # narrower areas are not drawn, and drawn without a line around them
LARGE = 6000.0
STROKES = (2.4, 1.6, 1.0, 0.6)  # between what belongs together, by depth
SHARE, ENLARGED = 0.03, 1 / 16  # equal layers that have so much of the network, each less than that, are enlarged


class Sheet(NamedTuple):
    """Sizes of a drawing."""

    width: float
    height: float
    enlarged: float  # height of one block
    letters: float


WIDE = Sheet(1040, 600, 320, 12)


class Block(NamedTuple):
    """One of several equal parts, to be shown enlarged."""

    path: str
    node: Node
    n: int


def drawing(anatomy: Anatomy) -> str:
    """The map, one of each kind of equal layers, and a legend, as SVG."""
    sheet, y, parts = WIDE, 34.0, [_line(0, 22, anatomy.title, 20, "bold")]
    y = _below(parts, y, sheet.height, anatomy, "", anatomy.tree, 1)
    for block in enlarged(anatomy):
        parts.append(_line(0, y + 20, block_title(anatomy, block), 14, "bold"))
        y = _below(parts, y + 30, sheet.enlarged, anatomy, block.path, block.node, block.n)
    rows = [
        (kind, f"{name}: {own} ({part})" + f"; {note}" * bool(note))
        for kind, name, own, part, _n, note in legend(anatomy)
    ]
    for n, (kind, text) in enumerate(rows):
        x, row = n % 2 * sheet.width / 2, y + 20 + n // 2 * 20
        parts.append(f'<rect class="{kind}" x="{x:g}" y="{row - 10:g}" width="12" height="12"/>')
        parts.append(_line(x + 18, row, text, 13))
    y += 26 + (len(rows) + 1) // 2 * 20
    total = _("{n:,} parameters ({short}), {neurons:,} neurons").format(
        n=anatomy.parameters.total, short=short(anatomy.parameters.total), neurons=anatomy.neurons.total
    )
    parts.append(_line(0, y, total, 13, "bold"))
    style = "text { font-family: sans-serif; fill: #1d2025 } .outline { fill: none; stroke: #ffffff }"
    style += " .area { stroke: #ffffff; stroke-width: 0.5 } .thin { stroke: none }"
    style += "".join(
        f" .{kind} {{ fill: {fill} }} .on-{kind} {{ fill: {ink} }}" for kind, (fill, ink) in COLOURS.items()
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-10 -10 {sheet.width + 20:g} {y + 30:g}">{MADE}'
        f"<title>{escape(anatomy.title)}</title><style>{style}</style>"
        f'<rect x="-10" y="-10" width="100%" height="100%" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )


def _below(parts: list[str], y: float, height: float, anatomy: Anatomy, path: str, node: Node, copies: int) -> float:
    """Draw a map at `y`, and say where it ends."""
    if not size(node):
        return y
    shown = treemap(node, Rect(0, y, WIDE.width, height))
    parts.append(drawn(anatomy, shown, path, copies, WIDE))
    return y + height


def _line(x: float, y: float, text: str, letters: float, weight: str = "normal") -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{letters:g}" font-weight="{weight}">{escape(text)}</text>'


def legend(anatomy: Anatomy) -> Iterator[tuple[str, str, str, str, str, str]]:
    """The rows of a legend; what no area shows is said there."""
    total = anatomy.parameters.total
    areas = treemap(anatomy.tree, Rect(0, 0, WIDE.width, WIDE.height)).areas if total else []
    seen = {area.kind for area in areas if min(area.rect.width, area.rect.height) >= 1}
    for kind, name, n, neurons, tied_to in by_kind(anatomy):
        note = ""
        if tied_to is not None:
            note = _("shares the table of {path}, counted there").format(path=tied_to)
        elif n and kind not in seen:
            note = _("too small to be seen")
        part = share(n, total) if n else "–"
        yield kind, name, f"{n:,}" if n else "–", part, f"{neurons:,}" if neurons else "–", note


def block_title(anatomy: Anatomy, block: Block) -> str:
    n = size(block.node)
    return _("{path}, one of {n}: {each:,} parameters, {share}").format(
        n=block.n, path=cut(block.path.removesuffix(".*")), each=n, share=share(n, anatomy.parameters.total)
    )


def enlarged(anatomy: Anatomy) -> list[Block]:
    """Equal layers that are much of the network, and each too small there to be read; at most three."""
    total = anatomy.parameters.total
    found = [
        block
        for block in _repeated(anatomy.tree, "")
        if size(block.node) < ENLARGED * total and block.n * size(block.node) >= SHARE * total
    ]
    return sorted(found, key=lambda block: -block.n * size(block.node))[:3]


def _repeated(node: Node, path: str) -> Iterator[Block]:
    """The outermost equal parts."""
    if isinstance(node, Sequence):
        for part in node.parts:
            yield from _repeated(part.node, f"{path}.{part.name}".strip("."))
    elif isinstance(node, Repeat) and node.n > 1 and not node.shared:
        yield Block(f"{path}.*", node.child, node.n)


def drawn(anatomy: Anatomy, shown: Treemap, path: str, copies: int, sheet: Sheet) -> str:
    """Areas, the outlines of what belongs together, letters.

    Args:
        anatomy: Whose parameters are the whole.
        shown: The map.
        path: Of what it shows.
        copies: How many like it there are.
        sheet: Sizes.
    """
    areas = [area for area in shown.areas if min(area.rect.width, area.rect.height) >= SEEN]
    areas = [a._replace(path=f"{path}.{a.path}".strip("."), all=a.all * copies) for a in areas]
    areas.sort(key=lambda area: _is_thin(area.rect))
    rects = [_area(anatomy, area, n == 0) for n, area in enumerate(areas)]
    first_thin = sum(not _is_thin(area.rect) for area in areas)
    outlines = [_outline(one) for one in reversed(shown.outlines) if not _is_thin(one.rect)]
    lines = [*rects[:first_thin], *outlines, *rects[first_thin:]]  # which outlines would cover
    labelled: set[str] = set()
    for area in areas:
        if area.path not in labelled or area.rect.area > LARGE:  # small ones that are equal: the first only
            lines += _letters(anatomy, area, sheet)
        labelled.add(area.path)
    return "".join(lines)


def _is_thin(rect: Rect) -> bool:
    return min(rect.width, rect.height) < THIN


def _area(anatomy: Anatomy, area: Area, first: bool) -> str:
    rect, tab = area.rect, 0 if first else -1
    thin = " thin" if _is_thin(rect) else ""
    return (
        f'<rect class="area{thin} {area.kind}" x="{rect.x:.2f}" y="{rect.y:.2f}" width="{rect.width:.2f}" '
        f'height="{rect.height:.2f}" tabindex="{tab}"><title>{escape(about(anatomy, area))}</title></rect>'
    )


def _outline(one: Outline) -> str:
    rect = one.rect
    stroke = min(STROKES[min(one.depth, len(STROKES) - 1)], 0.05 * min(rect.width, rect.height))
    return (
        f'<rect class="outline" x="{rect.x:.2f}" y="{rect.y:.2f}" width="{rect.width:.2f}" '
        f'height="{rect.height:.2f}" stroke-width="{stroke:.2f}"/>'
    )


def about(anatomy: Anatomy, area: Area) -> str:
    """What an area stands for: path, formula, parameters, share, neurons."""
    said = _("{path}: {formula} = {n:,} parameters, {share}").format(
        path=area.path,
        formula=_formula(area),
        n=area.parameters,
        share=share(area.parameters, anatomy.parameters.total),
    )
    if area.leaf.neurons:
        said += _("; {n:,} neurons").format(n=area.copies * area.leaf.neurons)
    if area.all > area.copies:
        said += _("; there are {n:,} of these").format(n=area.all // area.copies)
    return said


def _formula(area: Area) -> str:
    """12288 × 49152 + 49152, or 256 × (7168 × 4096)."""
    formula = " + ".join(str(Term(area.path, name, shape)) for name, shape in area.leaf.tensors.items())
    return f"{area.copies} × ({formula})" if area.copies > 1 else formula


def _letters(anatomy: Anatomy, area: Area, sheet: Sheet) -> Iterator[str]:
    """As much of a label as fits: the end of the path, the formula, the parameters."""
    rect, letters, n = area.rect, sheet.letters, area.parameters
    steps = [step for step in area.path.split(".") if step != "*"]
    part = share(n, anatomy.parameters.total)
    candidates = [
        [".".join(steps[start:]) for start in range(len(steps))],
        [_formula(area)],
        [f"{short(n)} · {part}", part],
    ]
    fitting = ([text for text in texts if cell_len(text) * LETTER * letters <= rect.width - 8] for texts in candidates)
    lines = [texts[0] if texts else "" for texts in fitting]
    if not lines[0]:
        return
    rows = max(0, int((rect.height - 6) // (1.25 * letters)))
    for row, text in enumerate([text for text in lines if text][:rows]):
        y = rect.y + 4 + letters * (0.95 + 1.25 * row)
        yield (
            f'<text class="on-{area.kind}" x="{rect.x + 4:.1f}" y="{y:.1f}" font-size="{letters:g}">'
            f"{escape(text)}</text>"
        )
