"""Endless batches of sequences of similar length, so that little of them is padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

WINDOW = 50  # batches whose examples are sorted together: more waste less padding, fewer mix lengths better


class ByLength:
    """Batches out of n examples; each pass has all of them once, in an order of its own.

    A pass is shuffled, cut into windows, each window sorted by length and cut into batches, and the batches shuffled.
    Its last batch may be smaller.

    Args:
        lengths_N: Of the examples.
        size: Examples in a batch.
        seed: Decides the order of every pass.
        take: Makes a batch of the examples' indices, (size,) int64.
    """

    def __init__(self, lengths_N: np.ndarray, size: int, seed: int, take: Callable[[np.ndarray], Any]) -> None:
        self._lengths_N, self._size, self._seed, self._take = lengths_N, size, seed, take
        self._per_pass = -(-len(lengths_N) // size)
        self._taken = 0
        self._order: tuple[int, list[np.ndarray]] = (-1, [])

    @property
    def position(self) -> dict[str, Any]:
        return {"batches": self._taken}

    @position.setter
    def position(self, position: dict[str, Any]) -> None:
        self._taken = int(position["batches"])

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        epoch, at = divmod(self._taken, self._per_pass)
        self._taken += 1
        return self._take(self._pass(epoch)[at])

    def _pass(self, epoch: int) -> list[np.ndarray]:
        if self._order[0] != epoch:
            random = np.random.default_rng([self._seed, epoch])
            shuffled = random.permutation(len(self._lengths_N))
            batches = []
            for start in range(0, len(shuffled), WINDOW * self._size):
                window = shuffled[start : start + WINDOW * self._size]
                window = window[np.argsort(self._lengths_N[window], kind="stable")]
                batches += [window[n : n + self._size] for n in range(0, len(window), self._size)]
            self._order = epoch, [batches[n] for n in random.permutation(len(batches))]
        return self._order[1]
