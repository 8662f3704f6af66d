"""What was seen of a network while it ran, put together as a tree of shapes. Knows nothing of torch."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, groupby
from typing import NamedTuple

from pellucid.anatomy.tree import (
    Attention,
    BatchNorm,
    Convolution,
    Embedding,
    Layer,
    Linear,
    Lone,
    Node,
    Norm,
    Part,
    Recurrence,
    Repeat,
    Sequence,
)


class Claim(NamedTuple):
    """Numbers of a parameter that a layer reads: a chunk of a matrix is not the whole of it."""

    name: str
    start: int
    numbers: int


@dataclass(eq=False)
class Record:
    """A layer, or a product of data, as it was met."""

    path: str
    leaf: Layer
    positions: int = 1
    claims: tuple[Claim, ...] = ()  # what its tensors are: the weight first
    at: int = 0  # when it was met
    runs: int = 1  # so many times at each position; 0: never
    copies: int = 1  # so many with weights of their own
    reads: Record | None = None  # the linear layer whose outputs it reads unchanged
    readers: int = 0  # operations that read its outputs
    sources: frozenset[Record] = frozenset()  # the layers with weights that what it reads comes from
    kind: str = ""


def tree(records: list[Record], sizes: dict[str, int], fixed: set[str]) -> Sequence:
    """The tree of what was met.

    Every parameter is counted once, where it is first used. What runs again with the same weights is `shared`, and
    equal neighbours become one `Repeat`.

    Args:
        records: What was met, in any order.
        sizes: Every parameter's numbers.
        fixed: The parameters that training leaves alone.
    """
    records = sorted(records, key=lambda record: record.at)
    _kinds(records)
    _stacks(records)
    parts = list(_parts([*_counted_once(records, sizes)], fixed))
    taken = {".".join(steps[:n]) for path, _part in parts if (steps := path.split(".")) for n in range(len(steps))}
    root: dict = {}
    for path, part in parts:
        if path in taken:  # a module that has parts and also is a layer
            path = f"{path}.{_called(part.node)}".strip(".")
        at = root
        *above, last = path.split(".")
        for step in above:
            at = at.setdefault(step, {})
        at[next(name for n in count(1) if (name := last if n == 1 else f"{last}#{n}") not in at)] = part
    return Sequence(tuple(_folded(root)))


def _called(node: Node) -> str:
    while isinstance(node, Repeat):
        node = node.child
    return type(node).__name__.lower()


# whose parameters


def _counted_once(records: list[Record], sizes: dict[str, int]) -> Iterator[tuple[Record, list[bool]]]:
    """Each record, and of each of its claims whether it is counted there; what is left of a parameter stands alone."""
    claimed: defaultdict[str, set[tuple[int, int]]] = defaultdict(set)
    for record in records:
        for claim in record.claims:
            claimed[claim.name].add(claim[1:])
    torn = {name for name, pieces in claimed.items() if sum(n for _start, n in pieces) > sizes[name]}  # they overlap
    met: set[Claim] = set()
    for record in records:
        first = []
        for claim in record.claims:
            first.append(claim not in met and claim.name not in torn)
            met.add(claim)
        yield record, first
    for name, pieces in claimed.items():
        rest = sizes[name] - (0 if name in torn else sum(n for _start, n in pieces))
        if rest:
            record = Record(name, Lone((rest,)), claims=(Claim(name, 0, rest),), kind=_kind_of(records, name))
            yield record, [True]


def _kind_of(records: list[Record], name: str) -> str:
    return next(record.kind for record in records for claim in record.claims if claim.name == name)


def _parts(counted: list[tuple[Record, list[bool]]], fixed: set[str]) -> Iterator[tuple[str, Part]]:
    """Each layer's path and part; calls of the same layer are one where they can be."""
    owners = {
        claim: record.path
        for record, first in counted
        for claim, here in zip(record.claims, first, strict=True)
        if here
    }
    by_path: defaultdict[str, list[tuple[Record, list[bool]]]] = defaultdict(list)
    for record, first in counted:
        by_path[record.path].append((record, first))
    done: set[int] = set()
    for record, first in counted:
        if id(record) in done:
            continue
        same = [r for r, here in by_path[record.path] if id(r) not in done and not any(here) and _alike(r, record)]
        calls = [record, *(r for r in same if r is not record)]
        done.update(id(call) for call in calls)
        equal = len({call.positions for call in calls}) == 1 and not isinstance(record.leaf, Recurrence)
        positions = record.positions if equal else sum(call.positions for call in calls)
        for name, node in _nodes(record, first, owners, fixed, len(calls) if equal else 1):
            yield name, Part(name.rpartition(".")[2], node, record.kind, positions)


def _alike(call: Record, first: Record) -> bool:
    """Whether a later call can be told with the first one."""
    varies = isinstance(call.leaf, (Linear, Recurrence, Embedding))
    return (
        call.claims == first.claims
        and call.leaf == first.leaf
        and (call.runs, call.copies) == (first.runs, first.copies)
        and (varies or call.positions == first.positions)
    )


def _nodes(
    record: Record, first: list[bool], owners: dict[Claim, str], fixed: set[str], calls: int
) -> Iterator[tuple[str, Node]]:
    """A layer, and what of it must stand beside it because it is counted, or trained, otherwise."""
    leaf, path, runs = record.leaf, record.path, record.runs
    still = [claim.name in fixed for claim in record.claims]
    beside: Lone | None = None
    if record.claims and not any(first):
        tied = len(record.claims) == 1 and record.claims[0] in owners
        if isinstance(leaf, (Linear, Embedding)) and tied and record.copies == 1:
            leaf = replace(leaf, tied_to=owners[record.claims[0]])
        else:
            record = replace(record, copies=0)
    elif isinstance(leaf, Linear) and first == [False, True] and record.claims[0] in owners and record.copies == 1:
        leaf, still = replace(leaf, tied_to=owners[record.claims[0]]), still[1:]  # a tied head with its own bias
    elif (
        isinstance(leaf, (Linear, Convolution)) and len(first) == 2 and (first != [True, True] or len(set(still)) == 2)
    ):
        leaf = replace(leaf, bias=False)
        if first[1]:
            beside = Lone((record.claims[1].numbers,), fixed=still[1])
        if not first[0]:
            record = replace(record, copies=0)
        still = still[:1]
    if still and all(still):
        leaf = replace(leaf, fixed=True)
    node: Node = leaf
    if record.copies != 1 or runs != 1:
        shared = record.copies == 1 and runs > 1
        node = Repeat(runs, node, shared=True) if shared else Repeat(record.copies, node, active=runs)
    yield path, Repeat(calls, node, shared=True) if calls > 1 else node
    if beside is not None:
        yield f"{path}_bias".strip("_"), beside


# what kind


BY_LEAF = {
    Attention: "attention",
    BatchNorm: "norm",
    Convolution: "convolution",
    Embedding: "embedding",
    Norm: "norm",
    Recurrence: "recurrent",
}


def _kinds(records: list[Record]) -> None:
    """Sort the layers by what they are for. Only the names of sums depend on it."""
    attentions = [record for record in records if isinstance(record.leaf, Attention)]
    linears = [record for record in records if isinstance(record.leaf, Linear)]
    for source in (source for attention in attentions for source in attention.sources):
        source.kind = "attention" if isinstance(source.leaf, Linear) else source.kind
    for linear in linears:
        if linear.sources and linear.sources <= set(attentions):
            linear.kind = "attention"
    homes = {_parent(linear) for linear in linears if linear.kind == "attention"}
    latest = {home: max((a.at for a in attentions if a.path.startswith(home)), default=0) for home in homes if home}
    blocks = {block for attention in attentions for block in _numbered(attention.path)}
    final = max(linears, key=lambda linear: linear.at * linear.runs, default=None)
    last = "embedding" if attentions else "dense"
    for record in records:
        if isinstance(record.leaf, Linear) and not record.kind:
            if record.at < latest.get(_parent(record), 0):  # it comes before the product in the same module
                record.kind = "attention"
            elif attentions and blocks & set(_numbered(record.path)):
                record.kind = "feed-forward"
            elif attentions:
                record.kind = "embedding" if record.at < attentions[0].at else "head"
            else:
                record.kind = "head" if record is final else "dense"
        record.kind = record.kind or BY_LEAF.get(type(record.leaf), last)
        last = last if record.kind == "norm" else record.kind


def _numbered(path: str) -> list[str]:
    """The numbered modules that a layer stands in: blocks.3."""
    steps = path.split(".")
    return [".".join(steps[: n + 1]) for n, step in enumerate(steps) if step.isdigit()]


def _parent(record: Record) -> str:
    return record.path.rpartition(".")[0]


def _stacks(records: list[Record]) -> None:
    """Note which linear layer reads another one's outputs unchanged, and as their only reader."""
    linears = [record for record in records if isinstance(record.leaf, Linear)]
    order = {path: n for n, path in enumerate(dict.fromkeys(record.path for record in linears))}
    calls = Counter(record.path for record in linears)
    for record in linears:
        before, follows = record.reads, 0
        if before is not None and before.readers == calls[before.path] == calls[record.path] == 1:
            follows = order[record.path] - order[before.path]
        assert isinstance(record.leaf, Linear)
        record.leaf = replace(record.leaf, follows=follows)


# equal children


def _folded(children: dict) -> Iterator[Part]:
    """The parts of a module. Numbered children that are equal become one `Repeat`: blocks.*, or blocks[1:3]."""
    for name, child in children.items():
        if isinstance(child, Part):
            yield child._replace(name=name)
            continue
        if not all(step.isdigit() for step in child):
            yield Part(name, _hoisted(Sequence(tuple(_folded(child)))))
            continue
        nodes = [(int(step), _only(step, inner)) for step, inner in child.items()]
        runs = [
            list(run) for _key, run in groupby(enumerate(nodes), key=lambda pair: (pair[1][1], pair[1][0] - pair[0]))
        ]
        if len(runs) == 1 and len(nodes) > 1 and nodes[0][0] == 0:
            yield _repeat(name, nodes[0][1], len(nodes))
        else:
            for run in runs:
                (_n, (start, part)), length = run[0], len(run)
                yield (
                    part._replace(name=f"{name}.{start}")
                    if length == 1
                    else _repeat(f"{name}[{start}:{start + length}]", part, length)
                )


def _only(step: str, inner: dict | Part) -> Part:
    """A numbered child, whatever its number."""
    if isinstance(inner, Part):
        return inner._replace(name="")
    return Part("", _hoisted(Sequence(tuple(_folded(inner)))))


def _repeat(name: str, part: Part, n: int) -> Part:
    return part._replace(name=name, node=Repeat(n, part.node))


def _hoisted(sequence: Sequence) -> Node:
    """Where all layers of a module run n times with the same weights, the module does: ALBERT's one block."""
    shared = {part.node.n if isinstance(part.node, Repeat) and part.node.shared else 1 for part in sequence.parts}
    if len(shared) != 1 or shared == {1}:
        return sequence
    inside = tuple(part._replace(node=part.node.child) for part in sequence.parts if isinstance(part.node, Repeat))
    return Repeat(shared.pop(), Sequence(inside), shared=True)
