"""Questions and answers: what is asked, and the terms that add up to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, overload

import torch
from torch import Tensor

from pellucid.tracing.addresses import Numbers
from pellucid.tracing.effects import Checkable
from pellucid.tracing.shown import Context, Shown

FIRST = 1024  # terms found without sorting all
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
    """The terms of an answer, largest contribution first; each is made when it is looked at.

    Args:
        unsorted: The contributions, in any order.
        make: Makes the term of one of them.
    """

    def __init__(self, unsorted: Tensor, make: Callable[[int], Term]) -> None:
        self.unsorted = unsorted.cpu()
        self._make = make

    def __len__(self) -> int:
        return len(self.unsorted)

    @property
    def contributions(self) -> Tensor:
        """In the order of the terms."""
        return self.unsorted[self._order]

    def first(self, n: int) -> Tensor:
        """The places of the `n` largest in `unsorted`. To sort all of a vocabulary takes longer than all else."""
        if n > FIRST or len(self) <= 2 * FIRST or "_order" in self.__dict__:
            return self._order[:n]
        return self._largest[:n]

    @cached_property
    def _order(self) -> Tensor:
        return self.unsorted.abs().argsort(descending=True, stable=True)

    @cached_property
    def _largest(self) -> Tensor:
        among = self.unsorted.abs().topk(FIRST).indices.sort().values
        return among[self.unsorted[among].abs().argsort(descending=True, stable=True)]

    @overload
    def __getitem__(self, n: int) -> Term: ...
    @overload
    def __getitem__(self, n: slice) -> list[Term]: ...
    def __getitem__(self, n: int | slice) -> Term | list[Term]:
        if isinstance(n, slice):
            wanted = range(*n.indices(len(self)))
            places = self.first(max(wanted, default=-1) + 1)
            return [self._make(int(places[i])) for i in wanted]
        i = range(len(self))[n]
        return self._make(int(self.first(i + 1)[i]))


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
        return self.terms.unsorted.sum().item() + self.constant

    @property
    def constant(self) -> float:
        """Σ constants."""
        return sum(term.contribution for term in self.constants)

    @property
    def cancellation(self) -> float:
        """Σ |terms| / |value|: how much larger the parts are than the whole."""
        size = self.terms.unsorted.abs().sum().item() + sum(abs(term.contribution) for term in self.constants)
        return size / abs(self.value) if self.value else float("inf") if size else 1.0

    def rest(self, shown: int) -> float:
        """What all terms but the first `shown` add up to."""
        return (self.terms.unsorted.sum() - self.terms.unsorted[self.terms.first(shown)].sum()).item()


@dataclass(frozen=True)
class Question:
    """What is asked: Σ weights · numbers + constant, of which one number is the simplest case."""

    name: str
    seeds: tuple[tuple[Numbers, Tensor], ...]
    constants: tuple[tuple[str, float], ...] = ()
    together: bool = False  # unfold each of the numbers, and put the same terms of them together
    measure: Callable[[list[Tensor]], float] | None = None  # the target, where it is not linear
