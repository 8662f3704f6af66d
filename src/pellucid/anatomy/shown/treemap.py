"""Where a network's parameters are, as areas: a squarified treemap (Bruls, Huizing and van Wijk 2000)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import log
from typing import NamedTuple

from pellucid.anatomy.tree import Layer, Node, Repeat, walk
from pellucid.anatomy.tree import Sequence as Parts

RAGGED = 0.4  # how much rows of unequal length are disliked: as much as sides of 3 to 2
TILE = 240.0  # least area of one of several equal children that is drawn by itself


class Rect(NamedTuple):
    x: float
    y: float
    width: float
    height: float

    @property
    def area(self) -> float:
        return self.width * self.height


class Area(NamedTuple):
    """A layer's parameters; of equal layers each has its own area, or `copies` of them have one together."""

    path: str
    kind: str
    leaf: Layer
    rect: Rect
    copies: int  # that the area stands for
    all: int  # that the network has

    @property
    def parameters(self) -> int:
        return self.copies * self.leaf.parameters


class Outline(NamedTuple):
    """What belongs together: a part with parts, or one of equal children. `depth` is 0 for parts of the network."""

    rect: Rect
    depth: int


class Treemap(NamedTuple):
    areas: list[Area]
    outlines: list[Outline]


def treemap(tree: Node, frame: Rect, tile: float = TILE) -> Treemap:
    """Fill `frame` with the layers that have parameters, each in proportion to them.

    Args:
        tree: The network, or a part of it.
        frame: Where to.
        tile: Least area for one of several equal children; smaller ones share the area of their layers.
    """
    areas, outlines = list[Area](), list[Outline]()
    for one in _place(tree, frame, Area("", "", Layer(), frame, 1, 1), tile, 0):
        if isinstance(one, Area):
            areas.append(one)
        else:
            outlines.append(one)
    return Treemap(areas, outlines)


def size(node: Node) -> int:
    """Parameters of a part."""
    return sum(visit.parameters for visit in walk(node))


def _place(node: Node, frame: Rect, at: Area, tile: float, depth: int) -> Iterator[Area | Outline]:
    if isinstance(node, Parts):
        parts = [(part, n) for part in node.parts if (n := size(part.node))]
        for (part, _n), rect in zip(parts, squarify([n for _part, n in parts], frame), strict=True):
            below = at._replace(path=f"{at.path}.{part.name}".strip("."), kind=part.kind or at.kind)
            yield Outline(rect, depth)
            yield from _place(part.node, rect, below, tile, depth + 1)
    elif isinstance(node, Repeat):
        n = 1 if node.shared else node.n
        below = at._replace(path=f"{at.path}.*".strip("."), all=at.all * n)
        if frame.area < n * tile or at.copies > 1:
            yield from _place(node.child, frame, below._replace(copies=at.copies * n), tile, depth)
        else:
            first, *others = grid(n, frame)
            inside = [Outline(first, depth), *_place(node.child, first, below, tile, depth + 1)]
            yield from inside
            for rect in others:
                yield from (one._replace(rect=_moved(one.rect, first, rect)) for one in inside)
    elif node.parameters:
        yield at._replace(leaf=node, rect=frame)


def _moved(rect: Rect, start: Rect, end: Rect) -> Rect:
    """Where `rect`, inside of `start`, lies when that is stretched to `end`: equal parts look alike."""
    across, down = end.width / start.width, end.height / start.height
    x, y = end.x + (rect.x - start.x) * across, end.y + (rect.y - start.y) * down
    return Rect(x, y, rect.width * across, rect.height * down)


def grid(n: int, frame: Rect) -> list[Rect]:
    """Cut `frame` into n rectangles of equal area in rows, near to squares; rows have as many of them, or one less."""

    def fault(rows: int) -> float:
        return abs(log(frame.width * rows**2 / (frame.height * n))) + RAGGED * (n % rows > 0)

    rows = min(range(1, n + 1), key=fault)
    cut, y = list[Rect](), frame.y
    for row in range(rows):
        columns = n // rows + (row < n % rows)
        width, height = frame.width / columns, frame.height * columns / n
        cut += [Rect(frame.x + column * width, y, width, height) for column in range(columns)]
        y += height
    return cut


def squarify(values: Sequence[float], frame: Rect) -> list[Rect]:
    """Cut `frame` into rectangles of areas in proportion to `values`, all above 0, each as square as may be.

    The largest come first. Rows are laid along the shorter side of what is left; a row takes in the next value as long
    as that makes its longest rectangle less long.
    """
    order = sorted(range(len(values)), key=lambda n: -values[n])
    scale = frame.area / sum(values) if values else 0.0
    areas = [values[n] * scale for n in order]
    cut: dict[int, Rect] = {}
    start = 0
    while start < len(order):
        side, end, row = min(frame.width, frame.height), start + 1, areas[start]
        while end < len(order) and _worst(areas[start], areas[end], row + areas[end], side) <= _worst(
            areas[start], areas[end - 1], row, side
        ):
            row += areas[end]
            end += 1
        *rects, frame = _laid(areas[start:end], row, frame)
        cut |= zip(order[start:end], rects, strict=True)
        start = end
    return [cut[n] for n in range(len(values))]


def _worst(largest: float, smallest: float, row: float, side: float) -> float:
    """The longest side by the shortest one, of all in a row of that area along `side`."""
    return max(side**2 * largest / row**2, row**2 / (side**2 * smallest))


def _laid(areas: Sequence[float], row: float, frame: Rect) -> Iterator[Rect]:
    """A row along the shorter side of `frame`; last, what is left of it."""
    upright = frame.width >= frame.height
    side = frame.height if upright else frame.width
    thick, at = row / side, 0.0
    for area in areas:
        long = area / thick
        yield Rect(frame.x, frame.y + at, thick, long) if upright else Rect(frame.x + at, frame.y, long, thick)
        at += long
    if upright:
        yield Rect(frame.x + thick, frame.y, max(0.0, frame.width - thick), frame.height)
    else:
        yield Rect(frame.x, frame.y + thick, frame.width, max(0.0, frame.height - thick))
