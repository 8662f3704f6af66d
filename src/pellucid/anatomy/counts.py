"""How many parameters, neurons and dimensions a network has: each one walk over its tree of shapes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from pellucid.anatomy.tree import Embedding, Linear, Node, Shape, Visit, walk

KINDS = ("embedding", "attention", "feed-forward", "mixer", "convolution", "recurrent", "dense", "norm", "head")


@dataclass(frozen=True)
class Parameters:
    """How many numbers training sets. A tensor used twice (a tied head) is counted once, where it is first used."""

    total: int
    by_kind: dict[str, int]  # the kinds of `KINDS`; they add up to the total
    by_path: dict[str, int]  # each leaf that has parameters, all its copies together; they add up to the total
    fixed: int  # of the total, those that training leaves alone
    active: int  # of the total, those that one token meets: a router leaves most experts out
    buffers: int  # saved with the network, and no parameters: not in the total

    @property
    def trainable(self) -> int:
        return self.total - self.fixed


def parameters(tree: Node) -> Parameters:
    """Count the parameters of a tree of shapes.

    A dense layer has outputs x (inputs + 1) with bias, a convolution outputs x (inputs x size^2 / groups + 1), an
    embedding rows x width, a layer or batch norm 2 x width, an RMS norm its width; what has n copies counts n times.
    """
    visits = list(walk(tree))
    by_kind, by_path = _sums(visits, lambda visit: visit.parameters)
    return Parameters(
        total=sum(by_path.values()),
        by_kind=by_kind,
        by_path=by_path,
        fixed=sum(visit.parameters for visit in visits if visit.leaf.fixed),
        active=sum(visit.active * visit.leaf.parameters for visit in visits),
        buffers=sum(visit.copies * visit.leaf.buffers for visit in visits),
    )


@dataclass(frozen=True)
class Neurons:
    """How many outputs layers with weights have: weighted sums, plus a bias where there is one.

    Each position of a convolution is a neuron; a layer that reads tokens has the same neurons at every token, and they
    count once. Lookups, norms, and products of data with data are no neurons.
    """

    total: int
    by_kind: dict[str, int]
    by_path: dict[str, int]
    active: int  # of the total, those that one token meets
    maps: int  # those that share their weights counted once: a convolution's channels


def neurons(tree: Node) -> Neurons:
    """Count the neurons of a tree of shapes: GPT-2 small has 82,944 in its blocks and 50,257 in its head."""
    visits = list(walk(tree))
    by_kind, by_path = _sums(visits, lambda visit: max(visit.copies, visit.times) * visit.leaf.neurons)
    return Neurons(
        total=sum(by_path.values()),
        by_kind=by_kind,
        by_path=by_path,
        active=sum(visit.times * visit.leaf.neurons for visit in visits),
        maps=sum(max(visit.copies, visit.times) * visit.leaf.maps for visit in visits),
    )


class Point(NamedTuple):
    """A point of the flow: what a leaf writes."""

    path: str
    positions: str | int  # it writes that for each of so many, or for each "token" or "source" token
    dimensions: Shape


def dimensions(tree: Node) -> list[Point]:
    """The dimensions at every point of the flow, in its order."""
    return [Point(visit.path, visit.positions, visit.leaf.output) for visit in walk(tree) if visit.leaf.output]


def activations(tree: Node, **lengths: int) -> int:
    """Every number that a layer writes for one input of `lengths` (token=..., source=...), also those without weights.

    Some books call these units, or neurons.
    """
    return sum(v.times * positions(v.positions, lengths) * prod(v.leaf.output) for v in walk(tree) if v.leaf.output)


def positions(given: str | int, lengths: dict[str, int]) -> int:
    """How many positions `given` stands for; a text of one token where `lengths` does not say."""
    return given if isinstance(given, int) else lengths.get(given, 1)


def matrices(tree: Node) -> int:
    """The parameters in matrices inside blocks: what the Muon optimiser updates (Jordan et al. 2024)."""
    return sum(v.copies * v.leaf.weights for v in walk(tree) if isinstance(v.leaf, Linear) and v.kind != "head")


def multiplied(tree: Node) -> int:
    """The parameters N of the rule 6N: all that a token meets but tables only looked up (a tied one is the head)."""
    tied = {visit.leaf.tied_to for visit in walk(tree) if isinstance(visit.leaf, Linear)}
    return sum(
        visit.active * visit.leaf.parameters
        for visit in walk(tree)
        if not isinstance(visit.leaf, Embedding) or visit.path in tied
    )


def _sums(visits: Iterable[Visit], count: Callable[[Visit], int]) -> tuple[dict[str, int], dict[str, int]]:
    """`count` added up by kind and by path."""
    by_kind, by_path = dict.fromkeys(KINDS, 0), dict[str, int]()
    for visit in visits:
        if n := count(visit):
            by_kind[visit.kind] += n
            by_path[visit.path] = by_path.get(visit.path, 0) + n
    return by_kind, by_path
