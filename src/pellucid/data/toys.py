"""Toy data on a plane, drawn anew from a seed: circle, xor, gauss, spiral, plane, multi-gauss, nearest.

All but the last are distributed as those of the browser playground (Smilkov et al. 2017, "Direct-manipulation
visualization of deep networks", https://playground.tensorflow.org); its points themselves come from another generator.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pellucid.errors import PellucidError
from pellucid.language import _

Array = NDArray[np.float64]

MOST_NOISE = 80.0  # percent; the playground's slider ends at 50, its links at 80
CORNERS = ((-3.0, -2.0), (3.0, -2.0), (0.0, 3.0))  # the three points of `nearest`
BUMPS = ((-4, 2.5, 1), (0, 2.5, -1), (4, 2.5, 1), (-4, -2.5, -1), (0, -2.5, 1), (4, -2.5, -1))  # x1, x2, sign

FEATURES: dict[str, Callable[[Array, Array], Array]] = {
    "x1": lambda x1, x2: x1,
    "x2": lambda x1, x2: x2,
    "x1sq": lambda x1, x2: x1 * x1,
    "x2sq": lambda x1, x2: x2 * x2,
    "x1x2": lambda x1, x2: x1 * x2,
    "sinx1": lambda x1, x2: np.sin(x1),
    "sinx2": lambda x1, x2: np.sin(x2),
}


@dataclass(frozen=True)
class Points:
    """Points on a plane, in random order, and what is to be learned of them.

    Args:
        x: (n, 2); who brings points of their own may have more columns.
        y: (n,): a value; +1 or -1 for two classes; for more their numbers, from 0.
        problem: "classification" or "regression".
        classes: How the classes are called in a file, the highest target first for two; empty for regression.
        names: The columns of a file.
    """

    x: Array
    y: Array
    problem: Literal["classification", "regression"]
    classes: tuple[str, ...] = ()
    names: tuple[str, ...] = ("x1", "x2", "label")

    def split(self, percent: float) -> tuple[Points, Points]:
        """The first `percent` of the points, rounded down, for training; the rest for testing."""
        first = int(len(self.x) * percent / 100)
        return self._rows(slice(first)), self._rows(slice(first, None))

    def labels(self) -> list[str]:
        """Each point's class by name, or its value."""
        if not self.classes:
            return [repr(float(value)) for value in self.y]
        if len(self.classes) == 2:
            return [self.classes[0] if value > 0 else self.classes[1] for value in self.y]
        return [self.classes[int(value)] for value in self.y]

    def save(self, path: str | Path) -> None:
        """Write a CSV file with a header that `pellucid train` reads."""
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(self.names)
            writer.writerows(
                [repr(float(x1)), repr(float(x2)), label] for (x1, x2), label in zip(self.x, self.labels(), strict=True)
            )

    def _rows(self, rows: slice) -> Points:
        return Points(self.x[rows], self.y[rows], self.problem, self.classes, self.names)


def make(name: str, noise: float = 0.0, seed: int = 0, samples: int | None = None) -> Points:
    """Draw the toy data `name`, one of `TOYS`.

    Args:
        noise: In percent, 0 to 80.
        samples: How many points: 500 for classification, 1,200 for regression, when left out.

    Raises:
        PellucidError: no such data; noise or number of points out of range.
    """
    if name not in TOYS:
        raise PellucidError(
            _("There is no toy data {name}.").format(name=repr(name)),
            "",
            _("There are: {names}.").format(names=", ".join(TOYS)),
        )
    if not 0 <= noise <= MOST_NOISE:
        raise PellucidError(
            _("The noise is a percentage from 0 to {most:g}, not {noise:g}.").format(most=MOST_NOISE, noise=noise)
        )
    draw, classes = TOYS[name]
    if samples is None:
        samples = 500 if classes else 1200
    if samples < 2:
        raise PellucidError(_("At least two points are needed, not {n}.").format(n=samples))
    rng = np.random.default_rng(seed)
    x, y = draw(samples, noise / 100, rng)
    order = rng.permutation(samples)
    if classes:
        return Points(x[order], y[order], "classification", classes)
    return Points(x[order], y[order], "regression", names=("x1", "x2", "value"))


def features(x: Array, names: Sequence[str]) -> Array:
    """(n, len(names)): the chosen `FEATURES` of the points (n, 2)."""
    return np.stack([FEATURES[name](x[:, 0], x[:, 1]) for name in names], axis=1)


def nearest(
    samples: int, noise: float, rng: Generator, corners: Sequence[tuple[float, float]] = CORNERS
) -> tuple[Array, Array]:
    """Points on [-6, 6]² and which of the `corners` each is nearest to (counted from 0).

    With noise, a share of 0 to 1 of the plane's half width, the distance is taken from a place beside the point.
    """
    x = rng.uniform(-6, 6, (samples, 2))
    beside = x + rng.uniform(-6, 6, x.shape) * noise
    distances = np.linalg.norm(beside[:, None] - np.array(corners), axis=2)
    return x, distances.argmin(axis=1).astype(float)


def _circle(samples: int, noise: float, rng: Generator) -> tuple[Array, Array]:
    """A disc of radius 2.5 within a ring from 3.5 to 5. The label is that of a place beside the point."""
    inside = _halves(samples) > 0
    radius = np.where(inside, rng.uniform(0, 2.5, samples), rng.uniform(3.5, 5, samples))
    angle = rng.uniform(0, 2 * np.pi, samples)
    x = radius[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    beside = x + rng.uniform(-5, 5, x.shape) * noise
    return x, np.where(np.linalg.norm(beside, axis=1) < 2.5, 1.0, -1.0)


def _xor(samples: int, noise: float, rng: Generator) -> tuple[Array, Array]:
    """Four squares with 0.6 between them; the label is the sign of the product at a place beside the point."""
    x = rng.uniform(-5, 5, (samples, 2))
    x += np.where(x > 0, 0.3, -0.3)
    beside = x + rng.uniform(-5, 5, x.shape) * noise
    return x, np.where(beside.prod(axis=1) >= 0, 1.0, -1.0)


def _gauss(samples: int, noise: float, rng: Generator) -> tuple[Array, Array]:
    """Two normal distributions around (2, 2) and (-2, -2), of variance 0.5 without noise and 4 at 50 %."""
    y = _halves(samples)
    return rng.normal(2 * y[:, None], np.sqrt(0.5 + 7 * noise), (samples, 2)), y


def _spiral(samples: int, noise: float, rng: Generator) -> tuple[Array, Array]:
    """Two arms of 1.75 turns out to radius 5, opposite each other."""
    y = _halves(samples)
    way = np.concatenate([np.arange((y == sign).sum()) / (y == sign).sum() for sign in (1, -1)])
    turned = 1.75 * 2 * np.pi * way + np.where(y > 0, 0, np.pi)
    x = 5 * way[:, None] * np.stack([np.sin(turned), np.cos(turned)], axis=1)
    return x + rng.uniform(-1, 1, x.shape) * noise, y


def _plane(samples: int, noise: float, rng: Generator) -> tuple[Array, Array]:
    """A tenth of x1 + x2."""
    x = rng.uniform(-6, 6, (samples, 2))
    beside = x + rng.uniform(-6, 6, x.shape) * noise
    return x, beside.sum(axis=1) / 10


def _multi_gauss(samples: int, noise: float, rng: Generator) -> tuple[Array, Array]:
    """Six cones of height 1 and radius 2, three up and three down; where two meet, the one farther from 0 counts."""
    x = rng.uniform(-6, 6, (samples, 2))
    beside = x + rng.uniform(-6, 6, x.shape) * noise
    bumps = np.array(BUMPS)
    distances = np.linalg.norm(beside[:, None] - bumps[:, :2], axis=2)
    heights = bumps[:, 2] * np.clip(1 - distances / 2, 0, 1)
    return x, heights[np.arange(samples), np.abs(heights).argmax(axis=1)]


def _halves(samples: int) -> Array:
    """+1 for the first half, -1 for the second."""
    return np.where(np.arange(samples) < (samples + 1) // 2, 1.0, -1.0)


TWO = ("blue", "orange")  # the playground's colours of +1 and -1
TOYS: dict[str, tuple[Callable[[int, float, Generator], tuple[Array, Array]], tuple[str, ...]]] = {
    "circle": (_circle, TWO),
    "xor": (_xor, TWO),
    "gauss": (_gauss, TWO),
    "spiral": (_spiral, TWO),
    "plane": (_plane, ()),
    "multi-gauss": (_multi_gauss, ()),
    "nearest": (nearest, ("A", "B", "C")),
}
