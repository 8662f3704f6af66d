"""How well classes and numbers were foretold: the figures that every task with classes or numbers reports."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.text import Text

from pellucid.language import _
from pellucid.tasks.task import Reference, Rival

LIBRARIES = 83_000_000  # bytes: scikit-learn, imported for a rival to what was trained; measured
MOST_CLASSES = 12  # in a confusion matrix that a terminal can show


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


def judging(sizes: Mapping[str, int], whole: bool) -> str:
    """The part of the examples that judges: validation, at the end (``whole``) the test; training where none is held
    out. ``sizes``: how many examples are in each part."""
    wanted = ("test", "validation") if whole else ("validation", "test")
    return next((part for part in wanted if sizes[part]), "train")


def judged_data(sizes: Mapping[str, int]) -> str:
    """What the held-out losses are of, as a `Reference` has it."""
    return "" if sizes["validation"] else _("the data it was trained on")


def class_reference(
    unit: str, n_classes: int, train_N: np.ndarray, held_N: np.ndarray, linear: Rival | None, data: str
) -> Reference:
    """What a loss of classes is compared with: guessing evenly, their frequencies, the commonest one, a linear model.

    Args:
        unit: Of the loss, nats for each example.
        n_classes: How many there are.
        train_N: Indices of the classes in training.
        held_N: Indices of the classes that are judged by.
        linear: What a linear model gets wrong of the latter, where it was asked.
        data: As `judged_data` gives it.
    """
    share_K = np.bincount(train_N, minlength=n_classes) / len(train_N)
    commonest = Rival("commonest_class", _("always the commonest class"), float((held_N != share_K.argmax()).mean()))
    return Reference(
        unit=unit,
        simple=float(-np.log(np.maximum(share_K, 1e-12))[held_N].mean()),
        simple_said=_("how often each class occurs"),
        figure="error",
        show=right,
        rivals=(commonest,) if linear is None else (commonest, linear),
        even=math.log(n_classes),
        even_said=f"ln({n_classes})",
        even_among=_("{n} classes").format(n=n_classes),
        decisive=True,
        data=data,
    )


def show(report: Any) -> None:
    """Print a report: of classes the figures of each, and who is taken for whom; of numbers the errors."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if hasattr(report, "__rich__"):  # it knows itself how a terminal shows it
        console.print(report)
        return
    if isinstance(report, NumberReport):
        said = _("{name}, {n:,} examples: RMSE {rmse:.4g}, mean error {mae:.4g}, R² {r2}")
        r2 = "–" if np.isnan(report.r2) else f"{report.r2:.4f}"
        numbers = {"rmse": report.rmse, "mae": report.mae, "r2": r2}
        console.print(said.format(name=report.name, n=report.examples, **numbers), markup=False, soft_wrap=True)
        return
    loss = "" if report.loss is None else _(", loss {loss:.4g}").format(loss=report.loss)
    said = _("{n:,} examples, {right}{loss}").format(n=report.examples, right=right(1 - report.accuracy), loss=loss)
    console.print(said, markup=False, soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in (_("class"), _("precision"), _("recall"), "F1", _("examples")):
        table.add_column(name, justify="left" if name == _("class") else "right")
    for score in report.by_class:
        figures = ("–" if np.isnan(value) else f"{value:.3f}" for value in (score.precision, score.recall, score.f1))
        table.add_row(Text(score.name), *figures, f"{score.examples:,}")
    console.print(table)
    if len(report.classes) <= MOST_CLASSES:
        console.print(_("true class below, said class across"), style="italic")
        confusion = Table(box=None, padding=(0, 1, 0, 0))
        for name in ("", *report.classes):
            confusion.add_column(Text(name), justify="right")
        for name, counts in zip(report.classes, report.confusion, strict=True):
            cells = (
                Text(f"{n:,}", "bold" if name == other else "") for n, other in zip(counts, report.classes, strict=True)
            )
            confusion.add_row(Text(name), *cells)
        console.print(confusion)
        return
    pairs = [
        (counts[j], name, report.classes[j])
        for i, (name, counts) in enumerate(zip(report.classes, report.confusion, strict=True))
        for j in range(len(counts))
        if j != i and counts[j]
    ]
    for n, true, taken_for in sorted(pairs, reverse=True)[:10]:
        console.print(_("{n:,} × {true} taken for {said}").format(n=n, true=true, said=taken_for), markup=False)


def right(error: float) -> str:
    """A share that is wrong, said as the share that is right."""
    return _("{share:.2%} right").format(share=1 - error)


def _without_nan(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in figures.items()}
