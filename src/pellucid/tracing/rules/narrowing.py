"""Narrowing: the smallest operation that gives one number of a result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pellucid.tracing.recorder import facts
from pellucid.tracing.rules import backward
from pellucid.tracing.rules.attention import ATTENTION, is_causal, mask_of, scale_of
from pellucid.tracing.rules.operation import Operation
from pellucid.tracing.rules.steps import STEPS
from pellucid.tracing.tape import Place, substitute


def narrowed(op: Operation, weights: Tensor, index: tuple[int, ...]) -> tuple[Operation, Tensor]:
    """`op` cut down to the number at `index`, and the weight at its place in what is left."""
    if op.name in STEPS:
        args, kept = tuple(x if x is None or x.numel == 1 else x.pick(index) for x in op.args), (1,) * len(index)
    elif op.name in NARROW:
        args, kept = NARROW[op.name](op, index)
    elif facts(op.call.op).pointwise:
        args, kept = _one_element(op, index), (1,) * len(index)
    else:
        args, kept = op.args, op.shape
    if args is None:
        return op, _one_hot(op, weights, index, op.shape)
    if isinstance(args, Operation):
        return args, weights.reshape(args.shape)
    place = tuple(0 if size == 1 else i for size, i in zip(kept, index, strict=True))
    kwargs = op.kwargs
    if facts(op.call.op).pointwise and args is not op.args and op.name not in NARROW:
        kwargs = {name: substitute(x, lambda p: p.expand(*op.shape).pick(index)) for name, x in kwargs.items()}
    out = op.out.pick(tuple(i if size == 1 else None for size, i in zip(kept, index, strict=True)))
    return replace(op, args=args, kwargs=kwargs, shape=tuple(kept), out=out), _one_hot(op, weights, place, kept)


def _one_hot(op: Operation, weight: Tensor, index: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
    w = torch.zeros(shape, dtype=op.dtype, device=weight.device)
    w[index] = weight.reshape(())
    return w


def _one_element(op: Operation, index: tuple[int, ...]) -> tuple[Any, ...]:
    return tuple(substitute(x, lambda p: p.expand(*op.shape).pick(index)) for x in op.args)


def _row(dims: tuple[int, ...], op: Operation, index: tuple[int, ...]) -> tuple[Place, tuple[int, ...]]:
    """The first operand narrowed to the index in all dimensions but `dims`, and the shape that is left."""
    x = op.args[0]
    dims = tuple(d % len(x.shape) for d in dims)
    picked = tuple(None if d in dims else i for d, i in enumerate(index))
    return x.pick(picked), tuple(size if d in dims else 1 for d, size in enumerate(op.shape))


def _narrow_softmax(op: Operation, index: tuple[int, ...]) -> Any:
    if not op.shape:
        return op.args, op.shape
    row, kept = _row((op.args[1],), op, index)
    return (row, *op.args[1:]), kept


def _narrow_norm(op: Operation, index: tuple[int, ...]) -> Any:
    if op.result:
        return None, ()
    row, kept = _row(tuple(range(-len(op.args[1]), 0)), op, index)
    return (row, *op.args[1:]), kept


def _narrow_mm(op: Operation, index: tuple[int, ...]) -> Any:
    i, j = index
    a, b = op.args[:2]
    return (a.narrow(0, i), b.narrow(1, j)), (1, 1)


def _narrow_addmm(op: Operation, index: tuple[int, ...]) -> Any:
    i, j = index
    bias, a, b = op.args[:3]
    return (bias.expand(*op.shape).pick(index), a.narrow(0, i), b.narrow(1, j)), (1, 1)


def _narrow_bmm(op: Operation, index: tuple[int, ...]) -> Any:
    n, i, j = index
    a, b = op.args[:2]
    return (a.pick((n, i, None)), b.pick((n, None, j))), (1, 1, 1)


def _narrow_baddbmm(op: Operation, index: tuple[int, ...]) -> Any:
    n, i, j = index
    bias, a, b = op.args[:3]
    return (bias.expand(*op.shape).pick(index), a.pick((n, i, None)), b.pick((n, None, j))), (1, 1, 1)


def _narrow_embedding(op: Operation, index: tuple[int, ...]) -> Any:
    *where, column = index
    table, ids = op.args[:2]
    row = int(op.value(ids.at(tuple(where))))
    return replace(op, name="copy_of", args=(table.pick((row, column)),), shape=(1, 1)), None


def _narrow_cat(op: Operation, index: tuple[int, ...]) -> Any:
    parts, dim = op.args[0], (op.args[1] if len(op.args) > 1 else op.kwargs.get("dim", 0)) % len(index)
    at = index[dim]
    for part in parts:
        if part.shape == (0,):
            continue  # what `cat` ignores
        if at < part.shape[dim]:
            one = part.pick((*index[:dim], at, *index[dim + 1 :]))
            return replace(op, name="copy_of", args=(one,), shape=one.shape), None
        at -= part.shape[dim]
    raise AssertionError("an index beyond the parts")


def _narrow_convolution(op: Operation, index: tuple[int, ...]) -> Any:
    x, kernel, bias, stride, padding, dilation, transposed, _, groups = op.args
    if transposed or len(index) != len(kernel.shape):
        return None, ()
    n, channel, *where = index
    kernel, x = kernel.narrow(0, channel), x.narrow(0, n)
    inputs = kernel.shape[1]
    x = x.narrow(1, channel // (op.shape[1] // groups) * inputs, inputs)
    for d, at in enumerate(where):
        step, hole = _nth(stride, d), _nth(dilation, d)
        start = at * step - _nth(padding, d)
        first = -(start // hole) if start < 0 else 0
        last = min(kernel.shape[d + 2], (x.shape[d + 2] - 1 - start) // hole + 1)
        if last <= first:
            return None, ()
        kernel = kernel.narrow(d + 2, first, last - first)
        seen = x.narrow(d + 2, start + first * hole, last - first)
        strides = list(seen.strides)
        strides[d + 2] *= hole
        x = seen._replace(strides=tuple(strides))
    bias = bias.narrow(0, channel) if bias is not None else None
    return replace(op, name="dot", args=(x, kernel, bias), shape=(1,)), None


def _nth(sizes: Any, d: int) -> int:
    return sizes[d] if len(sizes) > 1 else sizes[0]


def _narrow_attention(op: Operation, index: tuple[int, ...]) -> Any:
    if op.result:
        return None, ()
    batch, head, query, column = index
    q, k, v = op.args[:3]
    shared = head * k.shape[1] // q.shape[1]
    mask = mask_of(op)
    if mask is not None:
        mask = mask.expand(*q.shape[:3], k.shape[2]).pick((batch, head, query, None))
    q = q.pick((batch, head, query, None))
    k, v = k.pick((batch, shared, None, None)), v.pick((batch, shared, None, column))
    return replace(
        op,
        name="attention_row",
        args=(q, k, v, mask, query if is_causal(op) else None, scale_of(op)),
        shape=(1, 1, 1, 1),
    ), None


def _narrow_sum(op: Operation, index: tuple[int, ...]) -> Any:
    x = op.args[0]
    dims = op.args[1] if len(op.args) > 1 and isinstance(op.args[1], (list, tuple)) else op.kwargs.get("dim")
    keepdim = op.args[2] if len(op.args) > 2 else op.kwargs.get("keepdim", False)
    if not dims:
        return None, ()
    gone = {d % len(x.shape) for d in dims}
    full: list[int | None] = list(index)
    if not keepdim:
        for d in sorted(gone):
            full.insert(d, None)
    picked = tuple(None if d in gone else i for d, i in enumerate(full))
    return (x.pick(picked), *op.args[1:]), (1,) * len(index)


NARROW: dict[str, Callable[[Operation, tuple[int, ...]], Any]] = {
    "mm": _narrow_mm,
    "addmm": _narrow_addmm,
    "bmm": _narrow_bmm,
    "baddbmm": _narrow_baddbmm,
    "embedding": _narrow_embedding,
    "cat": _narrow_cat,
    "convolution": _narrow_convolution,
    "_softmax": _narrow_softmax,
    "_log_softmax": _narrow_softmax,
    "native_layer_norm": _narrow_norm,
    "_fused_rms_norm": _narrow_norm,
    "sum": _narrow_sum,
    "mean": _narrow_sum,
    **dict.fromkeys(ATTENTION, _narrow_attention),
    **backward.NARROW,
}
