"""The scaling curve L(N) = E + A / N^alpha through the losses of a few sizes, and how sure it is.

Kaplan et al. 2020, equation 1.1 (there E is 0); Hoffmann et al. 2022, equation 2, with the number of tokens held fixed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

LEVEL = 0.95  # of every interval
FLATTEST, STEEPEST = 0.01, 3.0  # exponents that are tried; published ones lie between 0.05 and 0.5

Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Curve:
    """L(N) = E + A / N^alpha with E >= 0 and A >= 0, by least squares of relative errors.

    An interval holds every value that some curve has whose squared errors are not too large for the noise (a profile).
    Were the curve linear in what is fitted it would be the classical t interval; here it keeps its width where E and
    alpha can hardly be told apart, as with few sizes, and where E meets its bound 0.

    Attributes:
        E, A, alpha: Of the best curve; E is the loss, in nats a token, that no size gets below.
        noise: How far a size's loss, the mean of its seeds, lies from the curve: a standard deviation, as a share of
            the loss. None where nothing tells: as many numbers were fitted as there are sizes, with one seed each.
        freedom: The degrees of freedom that ``noise`` rests on.
        pure: Whether E was fixed at 0: a pure power law.
    """

    E: float
    A: float
    alpha: float
    noise: float | None
    freedom: int
    pure: bool
    _faces: tuple[_Face, ...]
    _unit: float  # the size that the faces count in

    def __call__(self, parameters: float) -> float:
        """The loss of a network of this size, in nats a token."""
        return self.E + self.A * parameters**-self.alpha

    @cached_property
    def intervals(self) -> dict[str, Interval] | None:
        """Of E, A and alpha; None without ``noise``. An end of alpha at 0 or infinity: it was not found."""
        if self.noise is None:
            return None
        alphas = self._faces[0].alphas
        kept = alphas[np.min([face.feasible_error for face in self._faces], axis=0) <= self._most_error]
        low = 0.0 if kept[0] == alphas[0] else float(kept[0])
        high = math.inf if kept[-1] == alphas[-1] else float(kept[-1])
        return {
            "E": (0.0, 0.0) if self.pure else self._extremes(1.0, np.zeros_like(alphas)),
            "A": self._extremes(0.0, self._unit**alphas),
            "alpha": (low, high),
        }

    def interval(self, parameters: float) -> Interval | None:
        """Where the loss of one more size will lie, trained with as many seeds as the others; None without `noise`."""
        if self.noise is None:
            return None
        return self._extremes(1.0, (parameters / self._unit) ** -self._faces[0].alphas, new=self(parameters))

    @property
    def _most_error(self) -> float:
        """The largest sum of squares at which a curve is still believed."""
        from scipy.special import stdtrit

        assert self.noise is not None
        best = min(face.feasible_error.min() for face in self._faces)
        return float(best + (stdtrit(self.freedom, (1 + LEVEL) / 2) * self.noise) ** 2)

    def _extremes(self, c: float, d_G: np.ndarray, new: float = 0.0) -> Interval:
        """The least and the largest c E + d A of all curves that are believed; ``new``: plus noise of that size.

        For one exponent the sum of squares is quadratic, so c E + d A is extreme where a line touches an ellipse, or,
        if E or A is negative there, on the face where it is 0.
        """
        found = []
        for face in self._faces:
            left_G = self._most_error - face.error
            along_E, along_A = face.uu * c + face.uv * d_G, face.uv * c + face.vv * d_G
            squared_G = c * along_E + d_G * along_A + new**2
            step_G = np.sqrt(np.maximum(left_G, 0) / np.maximum(squared_G, 1e-300))
            for sign in (-1, 1):
                E, A = face.E + sign * step_G * along_E, face.A + sign * step_G * along_A
                believed = (left_G >= 0) & (E >= -1e-12) & (A >= -1e-12)
                found.append((face.E * c + face.A * d_G + sign * step_G * squared_G)[believed])
        values = np.concatenate(found)
        return max(0.0, float(values.min())), float(values.max())


@dataclass(frozen=True, eq=False)
class _Face:
    """For each exponent the least-squares E and A, one of which may be fixed at 0; A for sizes counted in a unit.

    ``uu``, ``uv`` and ``vv`` are the inverse of the normal matrix, with 0 for what is fixed.
    """

    alphas: np.ndarray
    E: np.ndarray
    A: np.ndarray
    uu: np.ndarray
    uv: np.ndarray
    vv: np.ndarray
    error: np.ndarray  # the sum of squares

    @property
    def feasible_error(self) -> np.ndarray:
        return np.where((self.E >= 0) & (self.A >= 0), self.error, np.inf)


def fit(sizes: Sequence[float], losses: Sequence[Sequence[float]], *, pure: bool = False) -> Curve:
    """Fit the curve to at least three sizes.

    The noise is what the sizes miss the curve by; where they miss it by no more than seeds differ, both are pooled.

    Args:
        sizes: (n,) parameters, all different.
        losses: (n, seeds) nats a token, more than 0.
        pure: Fix E at 0.
    """
    size_N, loss_NS = np.asarray(sizes, float), np.asarray(losses, float)
    loss_N = loss_NS.mean(1)
    unit = float(np.exp(np.log(size_N).mean()))
    alphas = np.geomspace(FLATTEST, STEEPEST, 800)
    for width in (1.1, 1.001):  # again around the best, more finely
        faces = _solve(size_N / unit, loss_N, alphas, pure)
        best = alphas[np.argmin(np.min([face.feasible_error for face in faces], axis=0))]
        alphas = np.union1d(alphas, np.geomspace(best / width, best * width, 401).clip(FLATTEST, STEEPEST))
    faces = _solve(size_N / unit, loss_N, alphas, pure)
    face = min(faces, key=lambda face: face.feasible_error.min())
    at = int(np.argmin(face.feasible_error))
    freedom = len(size_N) - (2 if pure else 3)
    noise, freedom = _noise(float(face.error[at]), freedom, loss_NS)
    alpha = float(face.alphas[at])
    E, A = float(face.E[at]), float(face.A[at] * unit**alpha)
    return Curve(E, A, alpha, noise, freedom, pure, tuple(faces), unit)


def _noise(error: float, freedom: int, loss_NS: np.ndarray) -> tuple[float | None, int]:
    """Standard deviation of a size's relative error, and its degrees of freedom."""
    sizes, seeds = loss_NS.shape
    around = error / freedom if freedom else math.inf
    if seeds > 1:
        between = float((loss_NS.var(1, ddof=1) / loss_NS.mean(1) ** 2).mean()) / seeds
        free = sizes * (seeds - 1)
        if not freedom or around <= between:
            return math.sqrt((error + free * between) / (freedom + free)), freedom + free
    return (math.sqrt(around), freedom) if freedom else (None, 0)


def _solve(size_N: np.ndarray, loss_N: np.ndarray, alphas: np.ndarray, pure: bool) -> list[_Face]:
    """1 = E u + A v, solved for each exponent; u = 1 / L and v = N^-alpha / L make the errors shares of the loss."""
    u, v_GN = 1 / loss_N, size_N ** -alphas[:, None] / loss_N
    uu, uv, vv = np.full(len(alphas), u @ u), v_GN @ u, (v_GN**2).sum(1)
    u1, v1, zero = u.sum(), v_GN.sum(1), np.zeros(len(alphas))
    determinant = uu * vv - uv**2

    def face(uu: np.ndarray, uv: np.ndarray, vv: np.ndarray) -> _Face:
        E, A = uu * u1 + uv * v1, uv * u1 + vv * v1
        error = ((1 - E[:, None] * u - A[:, None] * v_GN) ** 2).sum(1)
        return _Face(alphas, E, A, uu, uv, vv, error)

    power = face(zero, zero, 1 / vv)
    if pure:
        return [power]
    return [face(vv / determinant, -uv / determinant, uu / determinant), power, face(1 / uu, zero, zero)]
