"""Rules of norms: affine given the recorded scale; the mean is a sum of the same values."""

from __future__ import annotations

import torch
from torch import Tensor

from pellucid.tracing.rules.operation import Operation, Parts, Share, Unexplained, summed_to


def layer_norm(op: Operation, w: Tensor) -> Parts:
    """Affine given the recorded scale; the mean is a sum of the same values."""
    if op.result:
        raise Unexplained("no rule" if op.result == 2 else "use the general rule", op.call)
    x, shape, gain, shift, eps = op.args
    dims = tuple(range(-len(shape), 0))
    x_value = op.value(x)
    scale = (x_value.var(dim=dims, unbiased=False, keepdim=True) + eps).rsqrt()
    scaled = w * scale if gain is None else w * scale * op.value(gain)
    yield Share(x, scaled - scaled.mean(dim=dims, keepdim=True))
    if shift is not None:
        yield Share(shift, summed_to(w, shift.shape), constant=True)


def rms_norm(op: Operation, w: Tensor) -> Parts:
    if op.result:
        raise Unexplained("no rule", op.call)
    x, shape, gain, eps = op.args
    x_value = op.value(x)
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    scale = (x_value.square().mean(dim=tuple(range(-len(shape), 0)), keepdim=True) + eps).rsqrt()
    yield Share(x, w * scale if gain is None else w * scale * op.value(gain))


def batch_norm(op: Operation, w: Tensor) -> Parts:
    """By the statistics of the batch in training (whose mean is a sum of the batch), by the stored ones otherwise."""
    if op.result:
        raise Unexplained("no rule", op.call)
    x, gain, shift = op.args[:3]
    eps = op.argument("eps")
    training = op.name == "_native_batch_norm_legit" or (
        op.name in ("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm") and op.argument("training")
    )
    dims = [0, *range(2, w.dim())]

    def channels(v: Tensor) -> Tensor:
        return v.reshape(1, -1, *[1] * (w.dim() - 2))

    scaled = w if gain is None else w * channels(op.value(gain))
    x_value = op.value(x)
    if training:
        scaled = scaled * (x_value.var(dim=dims, unbiased=False, keepdim=True) + eps).rsqrt()
        yield Share(x, scaled - scaled.mean(dim=dims, keepdim=True))
    else:
        mean, variance = op.args[3:5]
        scaled = scaled * channels((op.value(variance) + eps).rsqrt())
        yield Share(x, scaled)
        yield Share(mean, -scaled.sum(dim=dims), constant=True)
    if shift is not None:
        yield Share(shift, w.sum(dim=dims), constant=True)


def group_norm(op: Operation, w: Tensor) -> Parts:
    if op.result:
        raise Unexplained("no rule", op.call)
    x, gain, shift, n, channels, _, groups, eps = op.args
    grouped = (n, groups, -1)
    x_value = op.value(x).reshape(grouped)
    scale = (x_value.var(dim=2, unbiased=False, keepdim=True) + eps).rsqrt()

    def wide(v: Tensor) -> Tensor:
        return v.reshape(1, channels, *[1] * (w.dim() - 2))

    scaled = (w if gain is None else w * wide(op.value(gain))).reshape(grouped) * scale
    yield Share(x, (scaled - scaled.mean(dim=2, keepdim=True)).reshape(w.shape))
    if shift is not None:
        yield Share(shift, w.sum(dim=[0, *range(2, w.dim())]), constant=True)
