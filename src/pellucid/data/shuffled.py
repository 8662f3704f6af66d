"""Endless batches of examples, each pass in an order of its own, from a position that can be saved and resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


class Shuffled:
    """Batches of equal size out of n examples; one that begins in a pass may end in the next.

    Args:
        n: How many examples there are.
        size: Of a batch; all examples, where there are no more.
        seed: Decides the order of every pass.
        take: Makes a batch of the examples' indices, (size,) int64.
    """

    def __init__(self, n: int, size: int, seed: int, take: Callable[[np.ndarray], Any]) -> None:
        self._n, self._size, self._seed, self._take = n, min(n, size), seed, take
        self._taken = 0
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    @property
    def position(self) -> dict[str, Any]:
        return {"examples": self._taken}

    @position.setter
    def position(self, position: dict[str, Any]) -> None:
        self._taken = int(position["examples"])

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        found: list[np.ndarray] = []
        wanted = self._size
        while wanted:
            epoch, at = divmod(self._taken, self._n)
            part = self._pass(epoch)[at : at + wanted]
            found.append(part)
            self._taken += len(part)
            wanted -= len(part)
        return self._take(np.concatenate(found) if len(found) > 1 else found[0])

    def _pass(self, epoch: int) -> np.ndarray:
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self._seed, epoch]).permutation(self._n)
        return self._order[1]
