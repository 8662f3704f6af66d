"""Rules of what is linear: copies, matrix products, convolution, embedding."""

from __future__ import annotations

import torch
from torch import Tensor

from pellucid.tracing.rules.general import general
from pellucid.tracing.rules.operation import Operation, Parts, Share, summed_to
from pellucid.tracing.tape import Place


def copy_of(op: Operation, w: Tensor) -> Parts:
    """A value taken as it is."""
    yield Share(op.args[0], w.reshape(op.args[0].shape))


def copied(op: Operation, w: Tensor) -> Parts:
    """clone, a change of format, copy_: the same value in another place."""
    source = op.args[1] if op.name == "copy" else op.args[0]
    yield Share(source, summed_to(w, source.shape))


def triangle(op: Operation, w: Tensor) -> Parts:
    yield Share(op.args[0], (torch.triu if op.name == "triu" else torch.tril)(w, op.argument("diagonal")))


def mm(op: Operation, w: Tensor) -> Parts:
    yield from _matrix_product(op, w, op.args[0], op.args[1])


def addmm(op: Operation, w: Tensor) -> Parts:
    bias, a, b = op.args[:3]
    beta, alpha = op.argument("beta"), op.argument("alpha")
    yield from _matrix_product(op, w, a, b, alpha)
    if beta:
        yield Share(bias, beta * summed_to(w, bias.shape), constant=bias not in op.data())


def _matrix_product(op: Operation, w: Tensor, a: Place, b: Place, scale: float = 1.0) -> Parts:
    to_a, to_b = op.credit(a, b)
    one = w.numel() == 1
    if to_a and w.dim() == 2 and w.shape[0] > 1 and (rows := w.any(1)).sum() * 2 < w.shape[0]:
        given = w.new_zeros(a.shape)
        given[rows] = scale * to_a * (w[rows] @ op.value(b).mT)
        yield Share(a, given)
    elif to_a:
        yield Share(a, scale * to_a * (w @ op.value(b).mT), factor=b.transpose(-1, -2) if one else None)
    if to_b:
        yield Share(b, scale * to_b * (op.value(a).mT @ w), factor=a.transpose(-1, -2) if one else None)


def dot(op: Operation, w: Tensor) -> Parts:
    """One number of a convolution: a patch of the picture times the kernel, elementwise, added up."""
    x, kernel, bias = op.args
    to_x, to_kernel = op.credit(x, kernel)
    if to_x:
        yield Share(x, to_x * w * op.value(kernel), factor=kernel)
    if to_kernel:
        yield Share(kernel, to_kernel * w * op.value(x), factor=x)
    if bias is not None:
        yield Share(bias, w.reshape(bias.shape), constant=True)


def convolution(op: Operation, w: Tensor) -> Parts:
    x, kernel, bias, *rest = op.args
    if op.credit(x, kernel) != (1.0, 0.0):
        yield from general(op, w)
        return
    dx, _, _ = torch.ops.aten.convolution_backward(w, op.value(x), op.value(kernel), None, *rest, [True, False, False])
    yield Share(x, dx)
    if bias is not None:
        yield Share(bias, w.sum(dim=[0, *range(2, w.dim())]), constant=True)
