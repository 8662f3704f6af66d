"""Rules of what works number by number: secants, products, selections, decisions."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pellucid.tracing.rules.general import fresh, general
from pellucid.tracing.rules.operation import (
    Constant,
    Operation,
    Parts,
    Share,
    Unexplained,
    is_float,
    no_fraction,
    summed_to,
)
from pellucid.tracing.tape import Call, Place

AFFINE = {"neg", "maximum", "minimum"}
DECISIONS = (
    "gt", "ge", "lt", "le", "eq", "ne", "argmax", "argmin", "sign", "heaviside", "floor", "ceil", "round", "trunc",
    "logical_not", "logical_and", "logical_or", "logical_xor", "isnan", "isinf", "bucketize",
)  # fmt: skip


def pointwise(op: Operation, w: Tensor) -> Parts:
    """One carrier: the secant through its recorded value. Several: affine, or unexplained."""
    if not is_float(op.call.outs[op.result]):
        raise Unexplained(no_fraction(op), op.call)
    data = op.data()
    if not op.operands():
        yield from fresh(op, w)
    elif len(data) == 1 and op.name not in AFFINE:
        yield from secant(op, w, data[0])
    else:
        yield from general(op, w)


def secant(op: Operation, w: Tensor, x: Place) -> Parts:
    """f(x) = f(0) + x (f(x) − f(0)) / x; where f(0) is not finite, f(x) = x · f(x) / x."""

    def f(value: Tensor) -> Tensor:
        return op.run(lambda p: value if p == x else op.value(p))

    value = op.value(x)
    recorded = op.tape.read(op.out, op.call.time + 1)
    yield from line(x, w, value, f(value), f(torch.zeros_like(value)), recorded, f"{op.name}(0)")


def line(x: Place, w: Tensor, value: Tensor, y: Tensor, y_0: Tensor, recorded: Tensor, name: str) -> Parts:
    # where the operation lost digits by cancellation (GELU far below 0), the line goes through what it gave
    eps = torch.finfo(recorded.dtype).eps
    recorded = recorded.to(y.dtype)
    off = (y - recorded).abs()
    y = torch.where((off > 4 * eps * y.abs()) & (off <= 4 * eps * value.abs()), recorded, y)
    y_0 = torch.where(y_0.isfinite(), y_0, 0.0)
    slope = torch.where(value == 0, 0.0, (y - y_0) / value)
    # a slope too steep for the format: the whole value is the constant's
    lost = ~slope.isfinite()
    slope, y_0 = torch.where(lost, 0.0, slope), torch.where(lost | (value == 0), y, y_0)
    yield Share(x, summed_to(w * slope, x.shape))
    amount = (w * y_0).sum().item()
    if amount:
        yield Constant(name, amount)


def composed(op: Operation, w: Tensor, index: tuple[int, ...] | None) -> Parts:
    """A chain of pointwise operations that is a function of one tensor, such as a GELU written out: one secant."""
    root = op.roles.composed[op.call.time]

    def narrowed(place: Place) -> Place:
        return place.expand(*op.call.outs[op.result].shape).pick(index) if index is not None else place

    def f(value: Tensor, call: Call) -> Tensor:
        def put(place: Place) -> Tensor:
            if place == root:
                return value
            maker = op.roles.chain(place)
            if maker is not None and maker.time < call.time and op.roles.root(place) == root:
                return f(value, maker)
            x = op.tape.read(narrowed(place), call.time)
            return x.to(op.dtype) if x.is_floating_point() else x

        return replace(op, call=call, args=call.args, kwargs=call.kwargs, result=0, name=call.name).run(put)

    x = narrowed(root)
    value = op.value(x)
    scope = op.call.scope
    name = f"{scope.kind}(0)" if scope is not None else "f(0)"
    w = w.reshape(value.shape)
    recorded = op.tape.read(narrowed(op.out), op.call.time + 1).reshape(value.shape)
    yield from line(x, w, value, f(value, op.call), f(torch.zeros_like(value), op.call), recorded, name)


def mul(op: Operation, w: Tensor) -> Parts:
    a, b = (op.args[0], op.args[1]) if len(op.args) > 1 else (op.args[0], op.kwargs["other"])
    if not (isinstance(a, Place) and isinstance(b, Place)):
        place, number = (a, b) if isinstance(a, Place) else (b, a)
        yield Share(place, summed_to(w * number, place.shape))
        return
    yield from _product(op, w, a, b)


def _product(op: Operation, w: Tensor, a: Place, b: Place) -> Parts:
    whole = [p.numel for p in op.call.args if isinstance(p, Place)]  # before it was narrowed
    to_a, to_b = op.credit(a, b, (whole[-2], whole[-1]) if len(whole) > 1 else (1, 1))
    one = w.numel() == 1
    if to_a:
        yield Share(a, summed_to(to_a * w * op.value(b), a.shape), factor=b if one else None)
    if to_b:
        yield Share(b, summed_to(to_b * w * op.value(a), b.shape), factor=a if one else None)


def glu(op: Operation, w: Tensor) -> Parts:
    """a · sigmoid(b), the halves of one tensor: the gate is the coefficient."""
    x, dim = op.args[0], op.argument("dim")
    gate = op.value(x).chunk(2, dim)[1].sigmoid()
    yield Share(x, torch.cat([w * gate, torch.zeros_like(gate)], dim))


def div(op: Operation, w: Tensor) -> Parts:
    """The numerator carries the credit."""
    if op.argument("rounding_mode") if "_mode" in op.call.op._schema.overload_name else None:
        raise Unexplained("decision", op.call)
    a, b = op.args[:2]
    if not isinstance(a, Place):
        yield from secant(op, w, b)
    elif isinstance(b, Place):
        if a not in op.data() and b in op.data():
            yield from secant(op, w, b)
        else:
            yield Share(a, summed_to(w / op.value(b), a.shape))
    else:
        yield Share(a, summed_to(w / b, a.shape))


def add(op: Operation, w: Tensor) -> Parts:
    """a + alpha b, and its like: what carries no credit is a constant."""
    first, second = op.args[0], op.args[1] if len(op.args) > 1 else op.kwargs["other"]
    alpha = op.argument("alpha")
    scales = {"add": (1.0, alpha), "sub": (1.0, -alpha), "rsub": (-alpha, 1.0)}[op.name]
    data = op.data()
    for x, scale in zip((first, second), scales, strict=True):
        if isinstance(x, Place):
            yield Share(x, summed_to(w * scale, x.shape), constant=x not in data)
        elif x * scale:
            yield Constant(f"{x * scale:+g}", (w.sum() * x * scale).item())


def addcmul(op: Operation, w: Tensor) -> Parts:
    start, a, b = op.args[:3]
    yield Share(start, summed_to(w, start.shape))
    yield from _product(op, w * op.argument("value"), a, b)


def addcdiv(op: Operation, w: Tensor) -> Parts:
    start, a, b = op.args[:3]
    yield Share(start, summed_to(w, start.shape))
    yield Share(a, summed_to(w * op.argument("value") / op.value(b), a.shape), factor=None)


def lerp(op: Operation, w: Tensor) -> Parts:
    """a + t (b − a): the parameter t is a coefficient."""
    a, b, t = op.args[:3]
    t = op.value(t) if isinstance(t, Place) else t
    yield Share(a, summed_to(w * (1 - t), a.shape))
    yield Share(b, summed_to(w * t, b.shape))


def where(op: Operation, w: Tensor) -> Parts:
    """What the condition selects."""
    condition, a, b = op.args[:3]
    chosen = op.value(condition)
    data = op.data()
    for x, mask in ((a, chosen), (b, ~chosen)):
        yield Share(x, summed_to(w * mask, x.shape), constant=x not in data)


def masked_fill(op: Operation, w: Tensor) -> Parts:
    x, mask, fill = op.args[:3]
    chosen = op.value(mask).expand(w.shape)
    yield Share(x, summed_to(w * ~chosen, x.shape))
    filled = w[chosen].sum()
    if filled:
        yield Constant(op.name, (filled * (op.value(fill) if isinstance(fill, Place) else fill)).item())


def dropout(op: Operation, w: Tensor) -> Parts:
    """By the mask that was drawn: nothing is drawn again."""
    x, p = op.args[:2]
    mask = op.tape.read(op.call.outs[1], op.call.time + 1)
    yield Share(x, w * mask.to(op.dtype) / (1 - p) if p < 1 else torch.zeros_like(w))


def decision(op: Operation, w: Tensor) -> Parts:
    raise Unexplained("decision", op.call)
    yield
