"""Pairs of texts as token ids, in files and in batches of similar length."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pellucid.data.tokenizer import Tokenizer
from pellucid.errors import PellucidError
from pellucid.language import _

MASKED = -100  # no target, for every loss
# lengths are rounded up to a multiple of it: where every batch has a shape of its own, matrix products in bf16 on a CPU
# are prepared anew each time, which takes half as long again and gigabytes
ROUND = 8


class PairBatch(NamedTuple):
    """Some pairs, filled up to one length on either side."""

    source: Tensor  # (B, S), each with its end token, then padding
    mask: Tensor  # (B, S), true where the source is no padding
    target: Tensor  # (B, T), what the decoder reads: the start token, then the target without its end
    wanted: Tensor  # (B, T), what it should write: the target and its end, then `MASKED`


@dataclass(frozen=True, eq=False)
class PairTokens:
    """Encoded pairs: both sides of all pairs one after the other, an end token after each text."""

    source_ids: np.ndarray
    target_ids: np.ndarray
    end_id: int

    @staticmethod
    def encode(sources: list[str], targets: list[str], tokenizer: Tokenizer) -> PairTokens:
        """Raises:
        PellucidError: when the tokenizer has no end token.
        """
        source_ids, target_ids = (tokenizer.encode_documents(texts) for texts in (sources, targets))
        assert tokenizer.end_id is not None, "else it could not have encoded documents"
        return PairTokens(source_ids, target_ids, tokenizer.end_id)

    @staticmethod
    def open(path: Path, end_id: int) -> PairTokens:
        """Read what `save` wrote.

        Raises:
            PellucidError: when it is missing or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found = PairTokens(arrays["source"], arrays["target"], end_id)
            if len(found.source_starts) == len(found.target_starts):
                return found
            why = _("its sides are of unequal length")
        except FileNotFoundError:
            raise PellucidError(_("The data of this run are gone."), str(path), _("Train again.")) from None
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            why = str(error)
        raise PellucidError(
            _("{name} is damaged: {why}.").format(name=path.name, why=why), str(path), _("Train again.")
        )

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, source=self.source_ids, target=self.target_ids)

    def __len__(self) -> int:
        return len(self.source_starts) - 1

    @cached_property
    def source_starts(self) -> np.ndarray:
        """Where each source begins, and behind the last: (n + 1,). No text holds the end token."""
        return np.append(0, np.flatnonzero(self.source_ids == self.end_id) + 1)

    @cached_property
    def target_starts(self) -> np.ndarray:
        return np.append(0, np.flatnonzero(self.target_ids == self.end_id) + 1)

    @property
    def source_lengths(self) -> np.ndarray:
        """Tokens of each source, the end token included: (n,)."""
        return np.diff(self.source_starts)

    @property
    def target_lengths(self) -> np.ndarray:
        return np.diff(self.target_starts)

    def source(self, row: int) -> np.ndarray:
        """Ids of a source, its end token included."""
        return self.source_ids[self.source_starts[row] : self.source_starts[row + 1]]

    def target(self, row: int) -> np.ndarray:
        return self.target_ids[self.target_starts[row] : self.target_starts[row + 1]]

    def select(self, rows: np.ndarray) -> PairTokens:
        """These pairs, in this order."""
        none = self.source_ids[:0]
        return PairTokens(
            np.concatenate([none, *(self.source(row) for row in rows)]),
            np.concatenate([none, *(self.target(row) for row in rows)]),
            self.end_id,
        )

    def batch(self, rows: np.ndarray, start_id: int, pad_id: int) -> PairBatch:
        """These pairs, ready for a translator."""
        source_BS = padded([self.source(row) for row in rows], pad_id)
        wanted_BT = padded([self.target(row) for row in rows], MASKED)
        target_BT = wanted_BT.roll(1, 1)
        target_BT[target_BT == MASKED] = pad_id
        target_BT[:, 0] = start_id
        lengths_B = torch.from_numpy(self.source_lengths[rows])
        return PairBatch(source_BS, torch.arange(source_BS.shape[1]) < lengths_B[:, None], target_BT, wanted_BT)

    def in_batches(self, rows: np.ndarray, tokens: int, random: np.random.Generator | None = None) -> list[np.ndarray]:
        """Share pairs out into batches of similar length, each with at most so many target tokens, padding included.

        With ``random``, pairs of equal length meet others each time, and the batches come in any order.
        """
        rows = rows if random is None else random.permutation(rows)
        target = -(-self.target_lengths[rows] // ROUND)
        order = np.lexsort((self.source_lengths[rows] // ROUND, target))
        rows, target = rows[order], target[order]
        batches: list[np.ndarray] = []
        for length in np.unique(target).tolist():
            alike = rows[target == length]
            size = max(1, tokens // (length * ROUND))
            batches += [alike[n : n + size] for n in range(0, len(alike), size)]
        return batches if random is None else [batches[n] for n in random.permutation(len(batches))]


class PairBatches:
    """Endless batches, each pass over the pairs in an order of its own, from a position that can be saved and resumed.

    Args:
        pairs: To learn from; at least one.
        tokens: Target tokens in a batch at most, padding included; a longer pair is a batch of its own.
        seed: Decides every pass.
        start_id, pad_id: See `PairTokens.batch`.
    """

    def __init__(self, pairs: PairTokens, tokens: int, seed: int, start_id: int, pad_id: int) -> None:
        self._pairs, self._tokens, self._seed = pairs, tokens, seed
        self._start_id, self._pad_id = start_id, pad_id
        self._pass = self._taken = 0
        self._order: tuple[int, list[np.ndarray]] = (-1, [])

    @property
    def position(self) -> dict[str, Any]:
        return {"pass": self._pass, "batches": self._taken}

    @position.setter
    def position(self, position: dict[str, Any]) -> None:
        self._pass, self._taken = int(position["pass"]), int(position["batches"])

    def __iter__(self) -> Iterator[PairBatch]:
        return self

    def __next__(self) -> PairBatch:
        if self._order[0] != self._pass:
            random = np.random.default_rng([self._seed, self._pass])
            self._order = self._pass, self._pairs.in_batches(np.arange(len(self._pairs)), self._tokens, random)
        batches = self._order[1]
        rows = batches[self._taken]
        self._taken += 1
        if self._taken == len(batches):
            self._pass, self._taken = self._pass + 1, 0
        return self._pairs.batch(rows, self._start_id, self._pad_id)


def padded(texts: list[np.ndarray], filling: int, multiple: int = ROUND) -> Tensor:
    """Ids of several texts, int64, filled up to the longest and on to a multiple."""
    longest = max(map(len, texts))
    whole_BT = np.full((len(texts), -(-longest // multiple) * multiple), filling, np.int64)
    for row, ids in zip(whole_BT, texts, strict=True):
        row[: len(ids)] = ids
    return torch.from_numpy(whole_BT)
