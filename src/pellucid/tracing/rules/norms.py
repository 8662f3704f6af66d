"""Rules of norms: affine given the recorded scale; the mean is a sum of the same values."""

from __future__ import annotations

import torch
from torch import Tensor

from pellucid.tracing.rules.operation import Constant, Operation, Parts, Share, summed_to
from pellucid.tracing.tape import Place


def layer_norm(op: Operation, w: Tensor) -> Parts:
    x, shape, gain, shift, eps = op.args
    dims = tuple(range(-len(shape), 0))
    value = op.value(x)
    if op.result:
        yield from _statistic(x, value, w, dims, eps, is_mean=op.result == 1)
        return
    scale = (value.var(dim=dims, unbiased=False, keepdim=True) + eps).rsqrt()
    scaled = w * scale if gain is None else w * scale * op.value(gain)
    yield Share(x, scaled - scaled.mean(dim=dims, keepdim=True))
    if shift is not None:
        yield Share(shift, summed_to(w, shift.shape), constant=True)


def rms_norm(op: Operation, w: Tensor) -> Parts:
    x, shape, gain, eps = op.args
    dims = tuple(range(-len(shape), 0))
    value = op.value(x)
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    if op.result:
        yield from _scale(x, value, w, dims, eps)
        return
    scale = (value.square().mean(dim=dims, keepdim=True) + eps).rsqrt()
    yield Share(x, w * scale if gain is None else w * scale * op.value(gain))


def batch_norm(op: Operation, w: Tensor) -> Parts:
    """By the statistics of the batch in training (whose mean is a sum of the batch), by the stored ones otherwise."""
    x, gain, shift, *stored = op.args[:5]
    eps = op.argument("eps")
    training = op.name == "_native_batch_norm_legit" or (
        op.name in ("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm") and op.argument("training")
    )
    value = op.value(x)
    dims = (0, *range(2, value.dim()))

    def channels(v: Tensor) -> Tensor:
        return v.reshape(1, -1, *[1] * (value.dim() - 2))

    if op.result > 2:  # the stored statistics, moved towards the batch's
        rate = op.args[6]
        yield Share(stored[op.result - 3], w * (1 - rate))
        w = rate * channels(w)
        if op.result == 3:
            yield from _statistic(x, value, w, dims, eps, is_mean=True)
        else:
            count = value.numel() // w.numel()
            yield Share(x, w * (value - value.mean(dims, keepdim=True)) / (count - 1))
        return
    if op.result:
        yield from _statistic(x, value, channels(w), dims, eps, is_mean=op.result == 1)
        return
    scaled = w if gain is None else w * channels(op.value(gain))
    if training:
        scaled = scaled * (value.var(dim=dims, unbiased=False, keepdim=True) + eps).rsqrt()
        yield Share(x, scaled - scaled.mean(dim=dims, keepdim=True))
    else:
        mean, variance = stored
        scaled = scaled * channels((op.value(variance) + eps).rsqrt())
        yield Share(x, scaled)
        yield Share(mean, -scaled.sum(dim=dims), constant=True)
    if shift is not None:
        yield Share(shift, w.sum(dim=dims), constant=True)


def group_norm(op: Operation, w: Tensor) -> Parts:
    x, gain, shift, n, channels, _, groups, eps = op.args
    grouped = (n, groups, -1)
    value = op.value(x).reshape(grouped)
    if op.result:
        yield from _statistic(x, value, w.unsqueeze(2), (2,), eps, is_mean=op.result == 1)
        return
    scale = (value.var(dim=2, unbiased=False, keepdim=True) + eps).rsqrt()

    def wide(v: Tensor) -> Tensor:
        return v.reshape(1, channels, *[1] * (w.dim() - 2))

    scaled = (w if gain is None else w * wide(op.value(gain))).reshape(grouped) * scale
    yield Share(x, (scaled - scaled.mean(dim=2, keepdim=True)).reshape(w.shape))
    if shift is not None:
        yield Share(shift, w.sum(dim=[0, *range(2, w.dim())]), constant=True)


def _statistic(x: Place, value: Tensor, w: Tensor, dims: tuple[int, ...], eps: float, *, is_mean: bool) -> Parts:
    """A mean that a norm has taken, or its scale."""
    if is_mean:
        yield Share(x, (w * w.numel() / value.numel()).expand(value.shape).reshape(x.shape))
    else:
        yield from _scale(x, value - value.mean(dims, keepdim=True), w, dims, eps)


def _scale(x: Place, spread: Tensor, w: Tensor, dims: tuple[int, ...], eps: float) -> Parts:
    """s = (v + eps)^-1/2 = s / (v + eps) · (v + eps), in which the variance v is a sum of spread · x."""
    variance = spread.square().mean(dims, keepdim=True) + eps
    c = w * variance**-1.5
    yield Share(x, (c * spread * c.numel() / spread.numel()).reshape(x.shape))
    yield Constant("eps", (c * eps).sum().item())
