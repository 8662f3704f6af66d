"""How much arithmetic a training step costs, from a network's tree of shapes."""

from dataclasses import dataclass

from pellucid.anatomy.counts import multiplied
from pellucid.anatomy.tree import Attention, Node, walk


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
        visit.times * 12 * visit.leaf.heads * visit.leaf.head_dim * min(context, visit.leaf.window or context)
        for visit in walk(tree)
        if isinstance(visit.leaf, Attention)
    )
    return TrainingFlops(weights=6 * multiplied(tree), attention=attention)
