"""From logits to the next token: what may be drawn, and how probably."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.errors import PellucidError
from pellucid.language import _


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn. Applied in the order of the fields, which is that of `transformers`.

    Raises:
        PellucidError: when a value makes no sense.
    """

    repetition_penalty: float = 1.0
    """Logits of tokens already in the text are divided by this where positive, else multiplied (Keskar et al. 2019)."""
    temperature: float = 0.8
    """Logits are divided by this: below 1 plays safe, above 1 dares; 0 always takes the most probable token."""
    top_k: int | None = None
    """Draw only from this many of the most probable tokens; 0 or nothing: from all."""
    top_p: float | None = None
    """Draw only from the fewest tokens that together have at least this probability (Holtzman et al. 2019)."""
    min_p: float | None = None
    """Draw only from tokens at least this share as probable as the most probable one."""
    greedy: bool = False
    """Always take the most probable token, like temperature 0."""
    seed: int = 0
    """One seed gives one text; another seed, another text."""

    def __post_init__(self) -> None:
        above_0, at_least_0 = _("It must be more than 0."), _("It must not be negative.")
        share = _("It must be more than 0 and at most 1.")
        for name, good, fix in (
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, above_0),
            ("temperature", 0 <= self.temperature < math.inf, at_least_0),
            ("top_k", self.top_k is None or self.top_k >= 0, at_least_0),
            ("top_p", self.top_p is None or 0 < self.top_p <= 1, share),
            ("min_p", self.min_p is None or 0 <= self.min_p <= 1, _("It must be at least 0 and at most 1.")),
            ("seed", 0 <= self.seed < 2**63, at_least_0),
        ):
            if not good:
                option = "--" + name.replace("_", "-")
                value = getattr(self, name)
                raise PellucidError(
                    _("{option} {value} makes no sense.").format(option=option, value=value), option, fix
                )


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
