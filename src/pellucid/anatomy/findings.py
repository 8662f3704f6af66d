"""What a tree of shapes shows that its owner may not know."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from pellucid.anatomy.tree import Dropout, Input, Linear, Node, Repeat, Reshape, Visit, walk
from pellucid.language import _


@dataclass(frozen=True)
class Stack:
    """Linear layers one after another, with nothing between: equal to one linear layer, y = (W2 W1) x + (W2 b1 + b2)."""

    paths: tuple[str, ...]
    widths: tuple[int, ...]  # what the first reads, and what each writes
    bias: bool
    parameters: int  # of all of them

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
            "{paths}: no activation between, so equal to one linear layer {inputs} x {outputs}: {one:,} parameters, not {all:,}"
        )
        if self.is_low_rank:
            line = _(
                "{paths}: no activation between, so equal to one linear layer {inputs} x {outputs} of rank <= {rank}: "
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
    linears: list[tuple[str, Linear, bool]] = []  # path, layer, and whether the one before it in the list is its source
    stacks: list[list[tuple[str, Linear]]] = []
    last: Visit | None = None
    ends: dict[int, list[tuple[str, Linear]]] = {}
    for path, visit in _single(tree):
        leaf = visit.leaf
        if isinstance(leaf, Linear):
            source = None
            if leaf.follows:
                source = len(linears) - leaf.follows
            elif leaf.follows is None and last is not None and last.positions == visit.positions:
                source = len(linears) - 1
            stack = ends.pop(source, None) if source is not None and source >= 0 else None
            if stack is None or stack[-1][1].outputs != leaf.inputs:
                stack = []
                stacks.append(stack)
            stack.append((path, leaf))
            ends[len(linears)] = stack
            linears.append((path, leaf, source is not None))
            last = visit if visit.kind in ("dense", "head") else None
        elif not isinstance(leaf, (Input, Reshape)) and not (isinstance(leaf, Dropout) and not leaf.p):
            last = None
    return [_stack(stack) for stack in stacks if len(stack) > 1]


def unused(tree: Node) -> list[str]:
    """The paths of layers that have parameters and never run: heads that only training uses, say."""
    return [visit.path for visit in walk(tree) if visit.parameters and not visit.times]


def _single(tree: Node) -> list[tuple[str, Visit]]:
    """Every leaf with its path in the module; of equal children that could follow each other, each by its number."""
    return [(path, visit) for visit in walk(tree) for path in [visit.path]]


def _stack(layers: list[tuple[str, Linear]]) -> Stack:
    return Stack(
        paths=tuple(path for path, _layer in layers),
        widths=(layers[0][1].inputs, *(layer.outputs for _path, layer in layers)),
        bias=any(layer.bias for _path, layer in layers),
        parameters=sum(layer.parameters for _path, layer in layers),
    )
