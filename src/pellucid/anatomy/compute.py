"""How much arithmetic a network does, from its tree of shapes: exact by operation, and by the rule of thumb.

Counted are multiplications, each with its addition, of data by weights and of data by data: all but a percent or so of
what a network computes. One of them is two floating-point operations (FLOPs).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from pellucid.anatomy.counts import multiplied, positions
from pellucid.anatomy.tree import Attention, Embedding, Layer, Node, Product, Visit, walk


@dataclass(frozen=True)
class Work:
    """Multiply-adds."""

    weights: int  # data by weights
    data: int  # data by data: queries by keys and weights by values, every query with every key in its window
    seen: int  # of those, what a causal mask leaves: a kernel that skips the rest does no more
    by_path: dict[str, int]  # they add up to `total`

    @property
    def total(self) -> int:
        return self.weights + self.data

    @property
    def flops(self) -> int:
        return 2 * self.total


def forward(tree: Node, **lengths: int) -> Work:
    """The work of one example's forward pass; a text has `lengths`: token=..., and source=... that it translates."""

    def met(visit: Visit, masked: bool) -> int:
        return _seen(visit, lengths) if masked else prod(pairs(visit, lengths))

    return _sum(list(walk(tree)), met, lengths)


def generated_token(tree: Node, past: int, source: int = 0) -> Work:
    """The work of one more token after `past` others whose keys and values are kept (itself is one more)."""
    running = [visit for visit in walk(tree) if visit.positions == "token"]
    return _sum(running, lambda visit, _masked: _before(visit.leaf, past + 1, source), {"token": 1})


def _sum(visits: list[Visit], met: Callable[[Visit, bool], int], lengths: dict[str, int]) -> Work:
    """The work of these layers, where so many pairs of a query and a key are `met`."""
    weights, data, seen, by_path = 0, 0, 0, dict[str, int]()
    for visit in visits:
        leaf = visit.leaf
        if isinstance(leaf, Attention):
            work = visit.times * leaf.reach * met(visit, False)
            data += work
            seen += visit.times * leaf.reach * met(visit, True)
        else:
            work = _product(visit, lengths)
            if isinstance(leaf, Product):
                data, seen = data + work, seen + work
            else:
                weights += work
        if work:
            by_path[visit.path] = by_path.get(visit.path, 0) + work
    return Work(weights, data, seen, by_path)


@dataclass(frozen=True)
class TrainingWork:
    """Multiply-adds of a training step on one example."""

    forward: int
    backward: int
    recomputed: int  # forward once more, where activations are not kept

    @property
    def total(self) -> int:
        return self.forward + self.backward + self.recomputed

    @property
    def flops(self) -> int:
        return 2 * self.total


def training_step(tree: Node, fused: bool = True, recompute: bool = False, **lengths: int) -> TrainingWork:
    """The work of a forward and a backward pass.

    Backward, each product becomes two: the gradient of its weights and of its input. The layer that reads the input of
    the network needs no gradient of that, fixed weights none of theirs. Attention has four products for its two, and a
    fused kernel, which has not kept the scores, makes them again: five (Dao et al. 2022, appendix B).
    """
    once = forward(tree, **lengths)
    visits = list(walk(tree))
    products = sum((2 - v.leaf.fixed) * _product(v, lengths) for v in visits)
    first = next((v for v in visits if v.leaf.product or isinstance(v.leaf, Embedding)), None)
    products -= _product(first, lengths) if first is not None else 0
    scores = once.total - sum(_product(v, lengths) for v in visits)
    return TrainingWork(once.total, products + scores * (5 if fused else 4) // 2, once.total if recompute else 0)


def _product(visit: Visit, lengths: dict[str, int]) -> int:
    """Multiply-adds of a leaf that is not attention."""
    factors = visit.leaf.product
    return visit.times * positions(visit.positions, lengths) * prod(factors) if factors else 0


def pairs(visit: Visit, lengths: dict[str, int]) -> tuple[int, int]:
    """How many queries an attention has, and how many keys each is multiplied with: all in its window."""
    leaf = visit.leaf
    assert isinstance(leaf, Attention)
    queries = positions(visit.positions, lengths)
    keys = queries if leaf.keys is None else positions(leaf.keys, lengths)
    return queries, min(keys, leaf.window or keys)


def _seen(visit: Visit, lengths: dict[str, int]) -> int:
    """The pairs that a causal mask leaves: the n-th query sees n keys, until its window is full."""
    leaf, (queries, window) = visit.leaf, pairs(visit, lengths)
    assert isinstance(leaf, Attention)
    return window * (window + 1) // 2 + (queries - window) * window if leaf.causal else queries * window


def _before(leaf: Layer, past: int, source: int) -> int:
    """Keys that a query sees after so many."""
    assert isinstance(leaf, Attention)
    if leaf.keys is None:
        return min(past, leaf.window or past)
    return leaf.keys if isinstance(leaf.keys, int) else source


@dataclass(frozen=True)
class TrainingFlops:
    """Floating-point operations for one token of a training step (forward and backward; a multiply-add is two)."""

    weights: int  # 6N: each parameter that multiplies is used once forward and twice backward, two operations each
    attention: int  # 12LCT: queries by keys and weights by values over T positions, forward and twice backward

    @property
    def total(self) -> int:
        return self.weights + self.attention


def training_flops(tree: Node, context: int) -> TrainingFlops:
    """FLOPs a token of a training step on sequences of `context` tokens, by the rule 6N + 12LCT.

    N is all parameters but lookup tables, L the layers, C the width of the queries (heads x head size), T the context,
    or the window of a layer that sees less. As in nanoGPT's `estimate_mfu`, the causal half of attention is not halved.

    Source: Kaplan et al. 2020, section 2.1; Chowdhery et al. 2022 (PaLM), appendix B.
    """
    attention = sum(
        visit.times * 6 * visit.leaf.reach * min(context, visit.leaf.window or context)
        for visit in walk(tree)
        if isinstance(visit.leaf, Attention)
    )
    return TrainingFlops(weights=6 * multiplied(tree), attention=attention)
