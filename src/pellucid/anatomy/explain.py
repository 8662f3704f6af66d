"""Any count as its formula, with this network's own numbers in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from math import prod
from typing import Any, NamedTuple

from pellucid.anatomy import counts
from pellucid.anatomy.compute import pairs
from pellucid.anatomy.tree import Attention, Linear, Node, Repeat, Sequence, Visit, walk
from pellucid.errors import PellucidError
from pellucid.language import _

QUANTITIES = ("parameters", "neurons", "multiply-adds")
Factor = int | tuple[int, ...]  # several numbers: their sum


class Term(NamedTuple):
    """A product: 12288 x 49152, the entries of `blocks.*.feed_forward.up`'s weight."""

    path: str
    name: str  # of the tensor, or what else is counted
    factors: tuple[Factor, ...]

    @property
    def value(self) -> int:
        return prod(sum(factor) if isinstance(factor, tuple) else factor for factor in self.factors)

    def __str__(self) -> str:
        return " × ".join(
            f"({' + '.join(map(str, factor))})" if isinstance(factor, tuple) else str(factor) for factor in self.factors
        )


@dataclass(frozen=True)
class Group:
    """What occurs equally often: `times` the sum of the terms."""

    times: int
    terms: tuple[Term, ...]

    @property
    def each(self) -> int:
        return sum(term.value for term in self.terms)

    @property
    def total(self) -> int:
        return self.times * self.each

    def __str__(self) -> str:
        """12288 × 49152 + 49152 = 604,028,928; 96 × 604,028,928 = 57,986,777,088."""
        line = f"{' + '.join(map(str, self.terms))} = {self.each:,}"
        return line if self.times == 1 else f"{line}; {self.times} × {self.each:,} = {self.total:,}"


@dataclass(frozen=True)
class Formula:
    """A count of `part`: the groups add up to it."""

    quantity: str  # one of `QUANTITIES`
    part: str  # a kind, a path or "" for the whole network
    groups: tuple[Group, ...]

    @property
    def total(self) -> int:
        return sum(group.total for group in self.groups)

    def json(self) -> dict[str, Any]:
        """Plain data: the formula as text, and term by term."""
        groups = [
            {
                "times": group.times,
                "each": group.each,
                "terms": [term._asdict() | {"value": term.value} for term in group.terms],
            }
            for group in self.groups
        ]
        return {
            "quantity": self.quantity,
            "part": self.part,
            "total": self.total,
            "formula": str(self),
            "groups": groups,
        }

    def __str__(self) -> str:
        lines = [str(group) for group in self.groups]
        if len(self.groups) > 1:
            lines.append(f"{' + '.join(f'{group.total:,}' for group in self.groups)} = {self.total:,}")
        return "\n".join(lines)


def explain(tree: Node, part: str = "", quantity: str = "parameters", **lengths: int) -> Formula:
    """The formula of a count of a part of the network.

    Args:
        tree: The network.
        part: A kind ("feed-forward"), the path of a layer or of what it belongs to ("blocks.*.attention", each;
            "blocks.3.attention", one), or "" for all of it.
        quantity: "parameters", "neurons", or the "multiply-adds" of a forward pass.
        lengths: token=..., source=...: of the example that multiply-adds are counted for.

    Raises:
        PellucidError: when there is no such quantity, or no such part: the nearest are named.
    """
    if quantity not in QUANTITIES:
        raise _unknown(quantity, QUANTITIES)
    chosen = [visit for visit in walk(_narrowed(tree, part.split("."))) if matches(visit, part)]
    if not chosen:
        visits = list(walk(tree))
        kinds = [kind for kind in counts.KINDS if any(visit.kind == kind for visit in visits)]
        paths = {".".join(steps[: n + 1]) for v in visits if (steps := v.path.split(".")) for n in range(len(steps))}
        raise _unknown(part, [*kinds, *sorted(paths - {*kinds})])
    groups: dict[int, list[Term]] = {}
    for visit in chosen:
        for times, term in _terms(visit, quantity, lengths):
            groups.setdefault(times, []).append(term)
    return Formula(quantity, part, tuple(Group(times, tuple(terms)) for times, terms in groups.items()))


def matches(visit: Visit, part: str) -> bool:
    """Whether a leaf belongs to `part`: a kind or a path, in which a number chooses one of several equal children."""
    if part in ("", visit.kind):
        return True
    steps, wanted = visit.path.split("."), part.split(".")
    return len(wanted) <= len(steps) and _leads(steps, wanted)


def _leads(steps: Iterable[str], wanted: list[str]) -> bool:
    """Whether each step is what is wanted there, as far as both go."""
    return all(
        _step_matches(step, want, wanted[n + 1] if n + 1 < len(wanted) else "")
        for n, (step, want) in enumerate(zip(steps, wanted, strict=False))
    )


def _narrowed(node: Node, wanted: list[str], path: tuple[str, ...] = ()) -> Node:
    """The same network with one of several equal children where a number in `wanted` chooses it; none of them where
    there are not so many."""
    if isinstance(node, Sequence):
        parts = (p._replace(node=_narrowed(p.node, wanted, (*path, *p.name.split(".")))) for p in node.parts)
        return replace(node, parts=tuple(parts))
    if not isinstance(node, Repeat):
        return node
    child, index = _narrowed(node.child, wanted, (*path, "*")), wanted[len(path)] if len(path) < len(wanted) else ""
    if not index.isdigit() or not _leads(path, wanted):
        return replace(node, child=child)
    is_sliced = bool(path) and "[" in path[-1]  # then the name has said which there are
    return replace(node, n=1, active=None, child=child) if is_sliced or int(index) < node.n else Sequence(())


def _step_matches(step: str, want: str, index: str) -> bool:
    """`step` of a path against what is wanted there; blocks[0:3] holds blocks.1, the wanted `index` being 1."""
    if step == want or (step == "*" and want.isdigit()):
        return True
    name, _bracket, slices = step.partition("[")
    if name != want:
        return False
    runs = [run.split(":") for run in slices.rstrip("]").split(",")]
    return not index.isdigit() or any(
        int(index) in range(*map(int, run)) if run[1:] else index == run[0] for run in runs
    )


def _terms(visit: Visit, quantity: str, lengths: dict[str, int]) -> Iterator[tuple[int, Term]]:
    """The products that a leaf's count is the sum of, each with how often it occurs."""
    leaf, path = visit.leaf, visit.path
    factors: tuple[Factor, ...]
    parts = tuple(n for _name, n in leaf.parts) if isinstance(leaf, Linear) else ()
    if quantity == "parameters":
        for name, shape in leaf.tensors.items():
            yield visit.copies, Term(path, name, (*shape[:-1], parts) if parts else shape)
    elif quantity == "neurons" and leaf.neurons:
        factors = (parts,) if parts else leaf.output if prod(leaf.output) == leaf.neurons else (leaf.neurons,)
        yield max(visit.copies, visit.times), Term(path, "outputs", factors)
    elif quantity == "multiply-adds" and isinstance(leaf, Attention):
        widths = (leaf.head_dim, leaf.value_dim or leaf.head_dim)
        yield (
            visit.times,
            Term(path, "queries by keys, weights by values", (*pairs(visit, lengths), leaf.heads, widths)),
        )
    elif quantity == "multiply-adds" and leaf.product:
        rows = counts.positions(visit.positions, lengths)
        factors = (*leaf.product[:-1], parts) if parts else leaf.product
        yield visit.times, Term(path, "products", factors if rows == 1 else (rows, *factors))


def _unknown(name: str, known: list[str] | tuple[str, ...]) -> PellucidError:
    plain = re.sub(r"[^a-z]", "", name.lower())
    near = get_close_matches(name, known, 5, 0.6) or [k for k in known if plain and plain in re.sub(r"[^a-z]", "", k)]
    names = ", ".join((near or known)[:12])
    return PellucidError(
        _("There is no part {name!r}.").format(name=name), "", _("There are {names}.").format(names=names)
    )
