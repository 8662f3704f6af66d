"""A tree of shapes in a terminal: one line a layer, deep networks folded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from math import prod

from rich.console import RenderableType
from rich.text import Text

from pellucid.anatomy.shown.words import cut, table
from pellucid.anatomy.tree import (
    Activation,
    Attention,
    Buffer,
    Convolution,
    Dropout,
    Embedding,
    Layer,
    Linear,
    Lone,
    Node,
    Norm,
    Pool,
    Recurrence,
    Repeat,
    Scan,
    Sequence,
    Shape,
)
from pellucid.language import _

ROWS = 40  # most lines of a tree, where the reader does not say how deep it is unfolded
INDENT = 2
ALIKE = 4  # children called alike, from which on they are gathered
NAME = 32  # columns, up to which a name stays whole


@dataclass(frozen=True)
class Branch:
    """A line of the tree; what is counted are all its copies."""

    name: str
    makeup: str  # such as 12288 → 49152
    parameters: int
    neurons: int
    shape: Shape  # of what it writes
    positions: str | int
    tied: bool = False  # its parameters are another layer's
    layers: int = 1
    children: tuple[Branch, ...] = ()

    @property
    def height(self) -> int:
        return 1 + max((child.height for child in self.children), default=-1)


def tree_lines(tree: Node, depth: int | None = None) -> Iterator[RenderableType]:
    """The tree as a table, and what of it was folded."""
    root = branch("", tree)
    if not root.children:
        root = Branch("", "", root.parameters, root.neurons, (), 1, children=(root,))
    if depth is None:
        depth = next((d for d in range(root.height, 1, -1) if sum(1 for _row in _rows(root, d)) <= ROWS), 1)
    depth = max(1, depth)
    lines = table("", "", (_("parameters"), "right"), (_("neurons"), "right"), _("dimensions"), gap=1)
    lines.columns[0].no_wrap = all(len(guide) + len(row.name) <= NAME for guide, row in _rows(root, depth))
    folded = layers = 0
    for guide, row in _rows(root, depth):
        name = Text(guide, style="dim").append(row.name, style="none")
        if row.children and len(guide) // INDENT == depth:
            folded, layers = folded + 1, layers + row.layers
            what = Text(_("{n} layers").format(n=row.layers), style="dim")
        else:
            what = Text(row.makeup)
        own = f"{row.parameters:,}" if row.parameters else _("tied") if row.tied else ""
        lines.add_row(name, what, own, f"{row.neurons:,}" if row.neurons else "", flow(row.shape, row.positions))
    yield lines
    if folded:
        said = _("Folded at depth {depth}: {layers:,} layers in {n:,} groups; --depth {all} shows all.")
        yield Text(said.format(depth=depth, layers=layers, n=folded, all=root.height), style="dim")


def _rows(parent: Branch, depth: int, guide: str = "") -> Iterator[tuple[str, Branch]]:
    """Each line with what is drawn before it, `INDENT` columns a level."""
    for n, child in enumerate(parent.children):
        last = n == len(parent.children) - 1
        yield guide + ("└ " if last else "├ "), child
        if len(guide) // INDENT + 1 < depth:
            yield from _rows(child, depth, guide + ("  " if last else "│ "))


def branch(
    name: str, node: Node, copies: int = 1, times: int = 1, positions: str | int = 1, before: Shape = ()
) -> Branch:
    """A node as a line with those below it; counted as `counts` counts. `before`: the dimensions that it reads."""
    if isinstance(node, Repeat):
        active = node.n if node.active is None else node.active
        inside = branch("", node.child, copies * (1 if node.shared else node.n), times * active, positions, before)
        said = f"{cut(name)} × {node.n}" if node.n > 1 else cut(name)
        if node.shared:
            said = _("{name}, shared").format(name=said)
        elif active < node.n:
            said = _("{name} × {active} of {n}").format(name=cut(name), active=active, n=node.n)
        return replace(inside, name=f"{said} {inside.name}".strip())
    if isinstance(node, Sequence):
        children: list[Branch] = []
        for part in node.parts:
            if not isinstance(part.node, Dropout):
                child = branch(part.name, part.node, copies, times, part.positions or positions, before)
                children.append(child)
                before = child.shape or before
        if len(children) == 1 and children[0].children:
            return replace(children[0], name=f"{name}.{children[0].name}".strip("."))
        return _parent(name, list(_gathered(children)), positions)
    # an activation keeps the shape that it reads, which its tree does not say
    shape = before if isinstance(node, Activation) and prod(before) == node.width else node.output
    tied = getattr(node, "tied_to", None) is not None
    neurons = max(copies, times) * node.neurons
    return Branch(name, makeup(node), copies * node.parameters, neurons, shape, positions, tied)


def _parent(name: str, children: list[Branch], positions: str | int = 1) -> Branch:
    """The line above others."""
    last = next((child for child in reversed(children) if child.shape), None)
    return Branch(
        name,
        "",
        sum(child.parameters for child in children),
        sum(child.neurons for child in children),
        last.shape if last else (),
        last.positions if last else positions,
        layers=sum(child.layers for child in children),
        children=tuple(children),
    )


def _gathered(children: list[Branch]) -> Iterator[Branch]:
    """Children of which many in a row are called alike, dense1[0], dense1[1] and so on, below a line of their own."""
    for stem, run in groupby(children, key=lambda child: child.name.partition("[")[0]):
        alike = list(run)
        yield from [_parent(stem, alike)] if len(alike) >= ALIKE else alike


def flow(dimensions: Shape, positions: str | int = 1) -> str:
    """The dimensions at a point: token × 12288, 197 × 768, 20 × 24 × 24."""
    if not dimensions:
        return ""
    places = {"token": _("token"), "source": _("source")}
    before = [] if positions == 1 else [places.get(str(positions), str(positions))]
    return " × ".join([*before, *map(str, dimensions)])


def makeup(leaf: Layer) -> str:
    """What a layer is made of, in a few characters: 12288 → 49152."""
    match leaf:
        case Linear():
            return f"{leaf.inputs} → {leaf.outputs}"
        case Convolution():
            groups = f" / {leaf.groups}" if leaf.groups > 1 else ""
            return f"{leaf.inputs} → {leaf.outputs}{groups}, {'×'.join(map(str, leaf.window))}"
        case Embedding():
            return f"{leaf.rows} × {leaf.width}"
        case Attention():
            shared = f" / {leaf.kv_heads}" if leaf.kv_heads != leaf.heads else ""
            seen = f" ≤ {leaf.window}" if leaf.window else ""
            return f"{leaf.heads}{shared} × {leaf.head_dim}{seen}"
        case Recurrence():
            return f"{leaf.inputs} → {leaf.width}" + (f" × {leaf.gates}" if leaf.gates > 1 else "")
        case Norm():
            return " + ".join([str(leaf.width)] * len(leaf.tensors))
        case Activation() | Pool():
            return leaf.name
        case Scan():
            return f"{leaf.width} × {leaf.states}"
        case Lone() | Buffer():
            return " × ".join(map(str, leaf.shape))
    return " + ".join(str(prod(shape)) for shape in leaf.tensors.values())
