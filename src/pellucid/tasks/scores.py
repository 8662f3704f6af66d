"""How well classes and numbers were foretold: the figures that every task with classes or numbers reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pellucid.language import _


@dataclass(frozen=True)
class ClassScore:
    """One class: of what was said to be it the share that is (precision), of what is the share found (recall)."""

    name: str
    precision: float  # NaN where none was said to be it
    recall: float
    f1: float
    examples: int


@dataclass(frozen=True)
class ClassReport:
    """Classes foretold and true, counted."""

    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]  # a row a true class, a column a class said
    loss: float | None = None  # nats an example

    @property
    def examples(self) -> int:
        return sum(map(sum, self.confusion))

    @property
    def accuracy(self) -> float:
        return sum(self.confusion[i][i] for i in range(len(self.classes))) / self.examples

    @property
    def by_class(self) -> tuple[ClassScore, ...]:
        said = [sum(column) for column in zip(*self.confusion, strict=True)]
        found = []
        for i, name in enumerate(self.classes):
            right, true = self.confusion[i][i], sum(self.confusion[i])
            f1 = 2 * right / (said[i] + true) if said[i] + true else float("nan")
            found.append(
                ClassScore(
                    name, right / said[i] if said[i] else float("nan"), right / true if true else float("nan"), f1, true
                )
            )
        return tuple(found)

    @staticmethod
    def of(classes: Sequence[str], true: np.ndarray, said: np.ndarray, loss: float | None = None) -> ClassReport:
        """Count pairs of indices of classes."""
        n = len(classes)
        counts = np.bincount(true * n + said, minlength=n * n).reshape(n, n)
        return ClassReport(tuple(classes), tuple(tuple(map(int, row)) for row in counts), loss)

    def json(self) -> dict[str, Any]:
        return {
            "examples": self.examples,
            "accuracy": self.accuracy,
            "loss": self.loss,
            "classes": [_without_nan(vars(score)) for score in self.by_class],
            "confusion": [list(row) for row in self.confusion],
        }


@dataclass(frozen=True)
class NumberReport:
    """Numbers foretold and true, in the user's units."""

    name: str
    examples: int
    rmse: float  # √ of the mean squared error
    mae: float  # mean absolute error
    r2: float  # 1 - squared error / that of always saying the mean; NaN where all are equal

    @staticmethod
    def of(name: str, true: np.ndarray, said: np.ndarray) -> NumberReport:
        wrong, spread = true - said, ((true - true.mean()) ** 2).sum()
        r2 = 1 - (wrong**2).sum() / spread if spread else float("nan")
        return NumberReport(name, len(true), float(np.sqrt((wrong**2).mean())), float(np.abs(wrong).mean()), float(r2))

    def json(self) -> dict[str, Any]:
        return _without_nan(vars(self))


def right(error: float) -> str:
    """A share that is wrong, said as the share that is right."""
    return _("{share:.2%} right").format(share=1 - error)


def _without_nan(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in figures.items()}
