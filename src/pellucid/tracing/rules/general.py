"""The general rule: any operation that is affine in what carries the credit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pellucid.tracing.rules.operation import (
    Constant,
    Operation,
    Parts,
    Share,
    Unexplained,
    inner,
    is_float,
    no_fraction,
)


def general(op: Operation, w: Tensor) -> Parts:
    """Any operation that is affine in its carriers: their derivative is the map transposed.

    Certified by its own values: at the recorded point, and at a second one. What passes only at the first (a maximum
    of several values) is labelled so.
    """
    if not is_float(op.call.outs[op.result]):
        raise Unexplained(no_fraction(op), op.call)
    data = op.data()
    if not data:
        yield from fresh(op, w)
        return
    values = [op.value(p).detach().clone() for p in data]

    def f(values: list[Tensor]) -> Tensor:
        return op.run(lambda p: values[data.index(p)] if p in data else op.value(p)).to(op.dtype)

    try:
        with torch.enable_grad():
            leaves = [value.requires_grad_() for value in values]
            y = f(leaves)
            if not y.requires_grad:
                raise Unexplained("decision", op.call)
            slopes = torch.autograd.grad(y, leaves, w.reshape(y.shape), allow_unused=True, materialize_grads=True)
    except (RuntimeError, NotImplementedError) as error:
        raise Unexplained("no rule", op.call) from error
    with torch.no_grad():
        amount = (w * f([torch.zeros_like(v) for v in values]).reshape(w.shape)).sum()
        if not _adds_up(w, y, slopes, values, amount):
            raise Unexplained("no rule", op.call)
        others = [1.5 * v + 0.25 for v in values]
        if not _adds_up(w, f(others), slopes, others, amount) and op.notes is not None:
            op.notes.append("recorded point only")
    for place, slope in zip(data, slopes, strict=True):
        yield Share(place, slope)
    if amount:
        yield Constant(f"{op.name}(0)", amount.item())


def _adds_up(w: Tensor, y: Tensor, slopes: Any, values: list[Tensor], amount: Tensor) -> bool:
    products = [slope * value for slope, value in zip(slopes, values, strict=True)]
    total, size = sum(p.sum() for p in products) + amount, sum(p.abs().sum() for p in products) + amount.abs()
    wanted = w.reshape(y.shape) * y
    slack = 64 * torch.finfo(y.dtype).eps * (size + wanted.abs().sum()) + 1e-30
    return bool((wanted.sum() - total).abs() <= slack)


def fresh(op: Operation, w: Tensor) -> Parts:
    """Made from no operand: a constant."""
    value = op.tape.read(op.call.outs[op.result], op.call.time + 1).to(op.dtype)
    yield Constant(op.name, inner(w, value))
