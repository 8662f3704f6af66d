"""Questions and answers: what is asked, and the terms that add up to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, overload

import torch
from torch import Tensor

from pellucid.tracing.addresses import Numbers
from pellucid.tracing.effects import Checkable
from pellucid.tracing.shown import Context, Shown

Kind = Literal["sum", "decision", "leaf", "not a sum", "unexplained"]


@dataclass(frozen=True)
class Term:
    """One part of a number: coefficient · value = contribution."""

    source: str  # what made the value: a parameter, an input, an operation
    address: str
    coefficient: float
    value: float
    contribution: float
    factor: str | None = None  # the address of the coefficient, where it is a recorded number itself
    constant: bool = False  # enters here: a bias, f(0), an entropy
    _open: Callable[[], Answer] | None = field(default=None, repr=False, compare=False)
    _open_factor: Callable[[], Answer] | None = field(default=None, repr=False, compare=False)

    def why(self) -> Answer:
        """The terms of this term's value.

        Raises:
            LookupError: when it is no recorded number (f(0), an entropy).
        """
        if self._open is None:
            raise LookupError(f"{self.source} is defined by its operation: there is nothing behind it")
        return self._open()

    def why_factor(self) -> Answer:
        """The terms of this term's coefficient.

        Raises:
            LookupError: when the coefficient is no recorded number.
        """
        if self._open_factor is None:
            raise LookupError(f"the coefficient of {self.source} is not a single recorded number")
        return self._open_factor()


class Terms(Sequence[Term]):
    """The terms of an answer, largest contribution first; each is made when it is looked at."""

    def __init__(self, contributions: Tensor, make: Callable[[int], Term]) -> None:
        self.contributions = contributions  # in the order of the terms
        self._make = make

    def __len__(self) -> int:
        return len(self.contributions)

    @overload
    def __getitem__(self, n: int) -> Term: ...
    @overload
    def __getitem__(self, n: slice) -> list[Term]: ...
    def __getitem__(self, n: int | slice) -> Term | list[Term]:
        if isinstance(n, slice):
            return [self._make(i) for i in range(*n.indices(len(self)))]
        return self._make(range(len(self))[n])


def _nothing(n: int) -> Term:
    raise IndexError(n)


NO_TERMS = Terms(torch.zeros(0), _nothing)


@dataclass(frozen=True, repr=False)
class Answer(Shown, Checkable):
    """Why a number is what it is: value = Σ terms + Σ constants + residue."""

    question: str
    address: str
    kind: Kind
    value: float
    operation: str  # what made it
    terms: Terms
    constants: tuple[Term, ...]
    residue: float  # value − Σ terms − Σ constants: the arithmetic's rounding
    budget: float  # how large it may be
    convention: str
    notes: tuple[str, ...] = ()
    margin: float | None = None  # a decision's: by how much it was taken; a maximum's: to the runner-up
    context: Context | None = field(default=None, compare=False)
    asked: Any = field(default=None, repr=False, compare=False)  # the tape, and the question or number

    @property
    def total(self) -> float:
        """Σ terms + Σ constants."""
        return self.terms.contributions.sum().item() + self.constant

    @property
    def constant(self) -> float:
        """Σ constants."""
        return sum(term.contribution for term in self.constants)

    @property
    def cancellation(self) -> float:
        """Σ |terms| / |value|: how much larger the parts are than the whole."""
        size = self.terms.contributions.abs().sum().item() + sum(abs(term.contribution) for term in self.constants)
        return size / abs(self.value) if self.value else float("inf") if size else 1.0

    def rest(self, shown: int) -> float:
        """What all terms but the first `shown` add up to."""
        return self.terms.contributions[shown:].sum().item()


@dataclass(frozen=True)
class Question:
    """What is asked: Σ weights · numbers + constant, of which one number is the simplest case."""

    name: str
    seeds: tuple[tuple[Numbers, Tensor], ...]
    constants: tuple[tuple[str, float], ...] = ()
    together: bool = False  # unfold each of the numbers, and put the same terms of them together
    measure: Callable[[list[Tensor]], float] | None = None  # the target, where it is not linear
