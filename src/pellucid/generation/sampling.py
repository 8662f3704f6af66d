"""From logits to the next token: what may be drawn, and how probably."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.generation.options import Sampling


def sampled_distribution(logits_V: Tensor, sampling: Sampling, text: Sequence[int] = ()) -> Tensor:
    """The probabilities (V,) with which `sampling` draws each token after the ids in `text`.

    Tokens whose logit is -inf are never drawn. Where several tokens share the smallest logit that top-k admits, all
    are admitted.
    """
    scores_V = _penalised(logits_V.float(), sampling.repetition_penalty, text)
    if sampling.greedy or sampling.temperature == 0:
        return torch.zeros_like(scores_V).index_fill_(0, scores_V.argmax(), 1.0)
    # Subtracted first, or a tiny temperature overflows.
    scores_V = (scores_V - scores_V.max()) / sampling.temperature
    if sampling.top_k and sampling.top_k < len(scores_V):
        kth = scores_V.topk(sampling.top_k).values[-1]
        scores_V = scores_V.masked_fill(scores_V < kth, -math.inf)
    if sampling.top_p is not None and sampling.top_p < 1:
        scores_V = _nucleus(scores_V, sampling.top_p)
    if sampling.min_p:
        scores_V = scores_V.masked_fill(scores_V < scores_V.max() + math.log(sampling.min_p), -math.inf)
    return scores_V.softmax(0)


def draw(probabilities_V: Tensor, generator: torch.Generator) -> int:
    """One token, by inverting the cumulative distribution at one uniform number from `generator` (on the CPU).

    One number a token whatever the vocabulary and the device, so that a seed means the same text on each.
    """
    cumulative_V = probabilities_V.double().cumsum(0)
    point = torch.rand((), dtype=torch.float64, generator=generator).item() * cumulative_V[-1]
    index = int(torch.searchsorted(cumulative_V, point, right=True))
    # Rounding may put the point at the very end, past the last token that has any probability.
    return index if index < len(cumulative_V) else int(probabilities_V.nonzero()[-1])


def _penalised(scores_V: Tensor, penalty: float, text: Sequence[int]) -> Tensor:
    if penalty == 1 or not text:
        return scores_V
    ids = torch.tensor(sorted(set(text)), device=scores_V.device)
    seen = scores_V[ids]
    return scores_V.index_copy(0, ids, torch.where(seen < 0, seen * penalty, seen / penalty))


def _nucleus(scores_V: Tensor, top_p: float) -> Tensor:
    """Keep a token while the more probable ones together have less than `top_p`."""
    total = scores_V.logsumexp(0)
    count = 256  # the nucleus is nearly always among these, and choosing them is much cheaper than sorting all
    while True:
        best, ids = scores_V.topk(min(count, len(scores_V)))
        before = (best - total).double().exp().cumsum(0).roll(1)
        before[0] = 0.0
        kept = before < top_p
        if count >= len(scores_V) or not kept[-1]:
            return torch.full_like(scores_V, -math.inf).index_copy_(0, ids[kept], best[kept])
        count *= 16
