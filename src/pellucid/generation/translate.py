"""Translating: greedy search for speed, beam search for quality."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.networks.translator import Translator, TranslatorCache

MORE = 50  # tokens that a translation may be longer than its source (Vaswani et al. 2017, §6.1)


@dataclass(frozen=True)
class Translation:
    """What a translator wrote for one source."""

    ids: tuple[int, ...]  # without the start and the end token
    log_probability: float  # of all its tokens together, the end token included
    finished: bool  # false: it was cut off at its greatest length


def translate(
    network: Translator,
    source_BS: Tensor,
    source_mask_BS: Tensor | None = None,
    *,
    beams: int = 1,
    length_penalty: float = 0.6,
    max_tokens: int | None = None,
) -> list[Translation]:
    """Translate a batch. A sentence is translated alike alone and in a batch, but for rounding.

    Args:
        network: In evaluation mode.
        source_BS: Sentences, each with its end token, padded.
        source_mask_BS: True where there is no padding; None: nowhere is any.
        beams: Hypotheses followed at once; 1: always the most probable token. The paper has 4.
        length_penalty: The exponent α of `penalty`; of beam search only.
        max_tokens: Longest translation, the end token included; None: 50 more than the source has.

    Raises:
        ValueError: when a source is longer than the context, or `beams` is less than 1.
    """
    if beams < 1:
        raise ValueError(f"{beams} beams")
    lengths_B = (
        source_mask_BS.sum(1) if source_mask_BS is not None else torch.full(source_BS.shape[:1], source_BS.shape[1])
    )
    limits = [min(max_tokens or length + MORE, network.config.context) for length in lengths_B.tolist()]
    with torch.no_grad():
        memory_BSD = network.encode(source_BS, source_mask_BS)
        if beams == 1:
            return _greedy(network, memory_BSD, source_mask_BS, limits)
        return _beam_search(network, memory_BSD, source_mask_BS, limits, beams, length_penalty)


def penalty(length: int, exponent: float) -> float:
    """((5 + length) / 6)^α; divided by it, long texts are not at a loss (Wu et al. 2016, eq. 14)."""
    return ((5 + length) / 6) ** exponent


def _greedy(network: Translator, memory_BSD: Tensor, mask_BS: Tensor | None, limits: list[int]) -> list[Translation]:
    end_id, cache = network.config.end_id, TranslatorCache(network.config)
    written: list[list[int]] = [[] for _ in limits]
    totals, done = [0.0] * len(limits), [False] * len(limits)
    rows = list(range(len(limits)))  # those still written, in the order of the batch
    last_B1 = memory_BSD.new_full((len(rows), 1), network.config.start_id, dtype=torch.long)
    while rows:
        log_p_BV = torch.log_softmax(network.decode(last_B1, memory_BSD, mask_BS, cache)[:, -1].float(), dim=-1)
        best_B, ids_B = log_p_BV.max(dim=-1)
        going = []
        for place, (row, log_p, id) in enumerate(zip(rows, best_B.tolist(), ids_B.tolist(), strict=True)):
            totals[row] += log_p
            done[row] = id == end_id
            if not done[row]:
                written[row].append(id)
                if len(written[row]) < limits[row]:
                    going.append(place)
        last_B1 = ids_B[:, None]
        if len(going) < len(rows):
            rows = [rows[place] for place in going]
            kept = torch.tensor(going, dtype=torch.long, device=memory_BSD.device)
            last_B1, memory_BSD = last_B1[kept], memory_BSD[kept]
            mask_BS = mask_BS[kept] if mask_BS is not None else None
            cache.select(kept)
    return [Translation(tuple(ids), total, end) for ids, total, end in zip(written, totals, done, strict=True)]


def _beam_search(
    network: Translator,
    memory_BSD: Tensor,
    mask_BS: Tensor | None,
    limits: list[int],
    beams: int,
    exponent: float,
) -> list[Translation]:
    """Each sentence has `beams` rows, one beneath the other, until nothing that they begin could be its best."""
    searches = [_Search(network.config.end_id, limit, beams, exponent) for limit in limits]
    active = searches
    cache, device = TranslatorCache(network.config), memory_BSD.device
    memory_BSD = memory_BSD.repeat_interleave(beams, 0)
    mask_BS = mask_BS.repeat_interleave(beams, 0) if mask_BS is not None else None
    last_B1 = torch.full((len(memory_BSD), 1), network.config.start_id, device=device)
    while active:
        log_p_BV = torch.log_softmax(network.decode(last_B1, memory_BSD, mask_BS, cache)[:, -1].float(), dim=-1)
        totals_NWV = torch.tensor([search.totals for search in active], device=device)[..., None] + log_p_BV.unflatten(
            0, (-1, beams)
        )
        # of twice as many at most half can end
        best = totals_NWV.flatten(1).topk(min(2 * beams, beams * log_p_BV.shape[1]))
        for search, totals, choices in zip(active, best.values.tolist(), best.indices.tolist(), strict=True):
            search.step(totals, [divmod(choice, log_p_BV.shape[1]) for choice in choices])
        going = [n for n, search in enumerate(active) if not search.over]
        rows = torch.tensor([n * beams + row for n in going for row in active[n].rows], dtype=torch.long, device=device)
        if len(going) < len(active):
            active = [active[n] for n in going]
            memory_BSD = memory_BSD[rows]
            mask_BS = mask_BS[rows] if mask_BS is not None else None
            cache.select(rows)
        else:
            cache.select(rows, memory=False)
        last = [ids[-1] for search in active for ids in search.written]
        last_B1 = torch.tensor(last, dtype=torch.long, device=device)[:, None]
    return [search.best for search in searches]


class _Search:
    """The beam of one sentence."""

    def __init__(self, end_id: int, limit: int, beams: int, exponent: float) -> None:
        self.end_id, self.limit, self.beams, self.exponent = end_id, limit, beams, exponent
        self.written: list[tuple[int, ...]] = [()] * beams
        self.totals = [0.0] + [-torch.inf] * (beams - 1)  # all begin alike: one is enough
        self.rows = list(range(beams))  # which hypothesis of the step before each goes on
        self.best = Translation((), -torch.inf, False)
        self.score = -torch.inf
        self.over = False

    def step(self, totals: list[float], choices: list[tuple[int, int]]) -> None:
        """Take the best continuations, best first: the total, and which hypothesis goes on with which token."""
        length = len(self.written[0]) + 1
        going: list[tuple[float, int, int]] = []
        for total, (row, id) in zip(totals, choices, strict=True):
            if id == self.end_id:
                self._finish(Translation(self.written[row], total, True), length)
            elif len(going) < self.beams:
                going.append((total, row, id))
        if length == self.limit:
            for total, row, id in going if not self.best.finished else ():
                self._finish(Translation((*self.written[row], id), total, False), length)
            self.over = True
            return
        going += [(-torch.inf, 0, self.end_id)] * (self.beams - len(going))
        self.written = [(*self.written[row], id) for _total, row, id in going]
        self.totals = [total for total, _row, _id in going]
        self.rows = [row for _total, row, _id in going]
        # a log-probability only falls, and no penalty is larger than that of the greatest length
        self.over = max(self.totals) / penalty(self.limit, self.exponent) <= self.score

    def _finish(self, found: Translation, length: int) -> None:
        score = found.log_probability / penalty(length, self.exponent)
        if score > self.score:
            self.best, self.score = found, score
