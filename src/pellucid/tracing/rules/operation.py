"""An operation as the rules see it, and what they make of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pellucid.tracing.roles import ACTIVATION, Roles
from pellucid.tracing.tape import Call, Place, Tape, places, substitute


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a result that comes from one operand: Σ weights · values."""

    place: Place
    weights: Tensor  # of the place's shape
    factor: Place | None = None  # the numbers that the weights are, where they are recorded numbers themselves
    constant: bool = False  # enters the sum here: a bias, a shift


@dataclass(frozen=True, slots=True)
class Constant:
    """A part of a result that comes from no operand."""

    name: str
    amount: float


@dataclass(frozen=True, slots=True)
class Unexplained(Exception):  # noqa: N818 - an answer, not an error
    """No rule makes a sum of this operation."""

    reason: str  # "decision", "not a sum", "random", "no rule", "opaque"
    call: Call


Parts = Iterator[Share | Constant]


@dataclass(frozen=True)
class Operation:
    """A recorded call, perhaps narrowed, seen from one of its results."""

    tape: Tape
    roles: Roles
    call: Call
    result: int  # which of the call's outputs
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shape: tuple[int, ...]  # of the result
    dtype: torch.dtype  # to compute in
    out: Place  # the result
    convention: str = "values"
    notes: list[str] | None = None

    def value(self, place: Place) -> Tensor:
        """The recorded numbers, those with a fraction in `dtype`."""
        x = self.tape.read(place, self.call.time)
        if not (x.is_floating_point() or x.is_complex()):
            return x
        return x.to(self.dtype) if x.dtype != self.dtype else x

    def argument(self, name: str) -> Any:
        """An argument by its name in the schema, or its default."""
        for i, argument in enumerate(self.call.op._schema.arguments):
            if argument.name == name:
                return self.args[i] if i < len(self.args) else self.kwargs.get(name, argument.default_value)
        raise KeyError(name)

    def operands(self) -> list[Place]:
        """Every tensor it reads."""
        return list(places((self.args, *self.kwargs.values())))

    def data(self) -> list[Place]:
        """The operands that carry the credit."""
        return self.roles.data(self.call, self.operands())

    def credit(self, a: Place, b: Place, sizes: tuple[int, int] = (1, 1)) -> tuple[float, float]:
        """How the credit for a product of two operands is divided; `sizes` are theirs, where they count."""
        data = self.data()
        if (a in data) != (b in data):
            return (1.0, 0.0) if a in data else (0.0, 1.0)
        if a == b or self.convention == "half":
            return 0.5, 0.5
        level_a, level_b = (self.roles.of(p, self.call.time).level for p in (a, b))
        if level_a == level_b:  # a factor that is repeated for many values scales them
            level_a, level_b = -sizes[0], -sizes[1]
        if level_a == level_b or (self.convention == "values" and max(level_a, level_b) == ACTIVATION):
            return 0.5, 0.5
        first = (level_a < level_b) == (self.convention == "values")
        return (1.0, 0.0) if first else (0.0, 1.0)

    def run(self, put: Callable[[Place], Tensor]) -> Tensor:
        """Compute the result anew from what `put` says about each operand."""
        op = functional(self.call.op)
        kwargs = {name: x for name, x in self.kwargs.items() if not (name == "dtype" and x and x.is_floating_point)}
        kwargs = {name: substitute(x, put) for name, x in kwargs.items() if name != "out"}
        out = op(*[substitute(x, put) for x in self.args], **kwargs)
        return out[self.result] if isinstance(out, (list, tuple)) else out


def functional(op: Any) -> Any:
    """The operation that computes the same without writing in place."""
    namespace, name = op._schema.name.split("::")
    if not op._schema.is_mutable or namespace != "aten":
        return op
    overload = op._schema.overload_name.removesuffix("out").removesuffix("_") or "default"
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None)
    return getattr(packet, overload, op) if packet is not None else op


def summed_to(w: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Weights of a broadcast operand: the sum over its copies."""
    return w if w.shape == shape else w.sum_to_size(shape) if shape else w.sum()


def inner(w: Tensor, values: Tensor) -> float:
    """Σ w · values, in which what has no weight counts nothing, even where it is not finite (a mask, unused memory)."""
    return torch.where(w == 0, 0.0, w * values).sum().item()


def no_fraction(op: Operation) -> str:
    """Why what is no number with a fraction is no sum."""
    return "complex numbers" if op.out.dtype.is_complex else "decision"


def is_float(place: Place | None) -> bool:
    return place is not None and place.dtype.is_floating_point
