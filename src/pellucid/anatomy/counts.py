"""How many parameters a network has: one walk over its tree of shapes, and the only counter in the house."""

from dataclasses import dataclass

from pellucid.anatomy.tree import Convolution, Embedding, Linear, Node, walk

KINDS = ("embedding", "attention", "feed-forward", "convolution", "dense", "norm", "head")


@dataclass(frozen=True)
class Parameters:
    """How many numbers training sets. A tensor used twice (a tied head) is counted once, where it is first used."""

    total: int
    by_kind: dict[str, int]  # the kinds of `KINDS`; they add up to the total
    by_path: dict[str, int]  # each leaf that has parameters, all its repetitions together; they add up to the total


def parameters(tree: Node) -> Parameters:
    """Count the parameters of a tree of shapes.

    A dense layer has outputs x (inputs + 1) with bias, a convolution outputs x (inputs x size^2 + 1), an embedding
    rows x width, a layer or batch norm 2 x width, an RMS norm its width; what repeats n times counts n times.
    """
    by_kind, by_path = dict.fromkeys(KINDS, 0), {}
    for path, kind, leaf, times in walk(tree):
        if leaf.parameters:
            by_kind[kind] += times * leaf.parameters
            by_path[path] = times * leaf.parameters
    return Parameters(sum(by_path.values()), by_kind, by_path)


def matrices(tree: Node) -> int:
    """The parameters in matrices inside blocks: what the Muon optimiser updates (Jordan et al. 2024)."""
    return sum(v.times * v.leaf.weights for v in walk(tree) if isinstance(v.leaf, Linear) and v.kind != "head")


def multiplied(tree: Node) -> int:
    """The parameters N of the rule 6N: all but tables only looked up (a tied table multiplies, as the head)."""
    tied = {visit.leaf.tied_to for visit in walk(tree) if isinstance(visit.leaf, Linear)}
    return sum(
        visit.times * visit.leaf.parameters
        for visit in walk(tree)
        if not isinstance(visit.leaf, Embedding) or visit.path in tied
    )


def multiply_adds(tree: Node) -> int:
    """Multiplications by a weight, each with an addition, for one row or picture forward; products of data not counted.

    A training step takes 6 floating-point operations for each: two forward, four backward (Kaplan et al. 2020).
    """
    return sum(
        visit.times
        * (
            visit.leaf.weights * visit.leaf.height * visit.leaf.width
            if isinstance(visit.leaf, Convolution)
            else visit.leaf.weights
        )
        for visit in walk(tree)
        if isinstance(visit.leaf, Linear | Convolution)
    )
