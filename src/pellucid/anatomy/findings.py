"""What a tree of shapes shows that its owner may not know."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pellucid.anatomy.tree import Attention, Dropout, Input, Linear, Node, Part, Repeat, Reshape, Sequence, walk
from pellucid.language import _


@dataclass(frozen=True)
class Stack:
    """Linear layers one after another, nothing between: equal to one linear layer, y = (W2 W1) x + (W2 b1 + b2)."""

    paths: tuple[str, ...]
    widths: tuple[int, ...]  # what the first reads, and what each writes
    bias: bool
    parameters: int  # of all of them, tied ones too

    @property
    def inputs(self) -> int:
        return self.widths[0]

    @property
    def outputs(self) -> int:
        return self.widths[-1]

    @property
    def rank(self) -> int:
        """No product of the matrices has a higher rank."""
        return min(self.widths)

    @property
    def is_low_rank(self) -> bool:
        """Whether one layer could do more than they: a narrow one between saves parameters, often on purpose."""
        return self.rank < min(self.inputs, self.outputs)

    @property
    def equal_parameters(self) -> int:
        """Of the one layer."""
        return self.inputs * self.outputs + (self.outputs if self.bias else 0)

    def __str__(self) -> str:
        line = _(
            "{paths}: no activation between, so equal to one linear layer {inputs} × {outputs}: {one:,} parameters in "
            "place of {all:,}"
        )
        if self.is_low_rank:
            line = _(
                "{paths}: no activation between, so equal to one linear layer {inputs} × {outputs} of rank ≤ {rank}: "
                "{one:,} parameters in place of {all:,}"
            )
        return line.format(
            paths=" → ".join(self.paths),
            inputs=self.inputs,
            outputs=self.outputs,
            rank=self.rank,
            one=self.equal_parameters,
            all=self.parameters,
        )


def linear_stacks(tree: Node) -> list[Stack]:
    """Stacks of linear layers without an activation, a norm, a dropout or an attention between.

    In a module that was read while it ran, those of which the one's outputs go into the other unchanged, and nowhere
    else. In a tree made by a formula, which does not say what reads what, those that stand one after the other and
    belong to no attention or feed-forward layer.
    """
    stacks: list[list[tuple[str, Linear]]] = []
    ends: list[list[tuple[str, Linear]]] = []  # by linear layer: the stack that it is in
    last: Part | None = None  # the linear layer just before, if its tree is a formula's
    for part, is_alone in _single(tree, Part("", tree)):
        leaf = part.node
        if isinstance(leaf, Linear):
            before = leaf.follows or 0
            if leaf.follows is None and last is not None and last.positions == part.positions:
                before = 1
            stack = ends[-before] if 0 < before <= len(ends) else []
            if not is_alone or not stack or stack[-1][1].outputs != leaf.inputs:
                stack = []
                stacks.append(stack)
            stack.append((part.name, leaf))
            ends.append(stack if is_alone else [])
            last = part if is_alone and part.kind in ("dense", "head") else None
        elif not isinstance(leaf, (Input, Reshape)) and not (isinstance(leaf, Dropout) and not leaf.p):
            last = None
    return [_stack(stack) for stack in stacks if len(stack) > 1]


def unused(tree: Node) -> list[str]:
    """The paths of layers that have parameters and never run: heads that only training uses, say."""
    return [visit.path.removesuffix(".*") for visit in walk(tree) if visit.parameters and not visit.times]


def unread_masks(tree: Node) -> list[str]:
    """The paths of attentions with a mask whose numbers are not known: what it hides counts as seen."""
    visits = [visit for visit in walk(tree) if isinstance(visit.leaf, Attention) and visit.leaf.causal is None]
    return [visit.path.removesuffix(".*") for visit in visits]


def _single(node: Node, at: Part, is_alone: bool = True) -> Iterator[tuple[Part, bool]]:
    """Every leaf by its full path, equal children each by its number; and whether it stands alone, and runs once."""
    if isinstance(node, Sequence):
        for part in node.parts:
            name, kind, positions = (
                f"{at.name}.{part.name}".strip("."),
                part.kind or at.kind,
                part.positions or at.positions,
            )
            yield from _single(part.node, Part(name, part.node, kind, positions), is_alone)
    elif isinstance(node, Repeat) and not node.shared and node.active is None:
        name, _bracket, slices = at.name.rstrip("]").partition("[")
        bounds = [[*map(int, run.split(":"))] for run in slices.split(",")] if slices else [[0, node.n]]
        for n in (n for run in bounds for n in range(*run)):
            yield from _single(node.child, at._replace(name=f"{name}.{n}"), is_alone)
    elif isinstance(node, Repeat):
        yield from _single(node.child, at, is_alone=False)
    else:
        yield at._replace(node=node), is_alone


def _stack(layers: list[tuple[str, Linear]]) -> Stack:
    return Stack(
        paths=tuple(path for path, _layer in layers),
        widths=(layers[0][1].inputs, *(layer.outputs for _path, layer in layers)),
        bias=any(layer.bias for _path, layer in layers),
        parameters=sum(layer.weights + (layer.outputs if layer.bias else 0) for _path, layer in layers),
    )
