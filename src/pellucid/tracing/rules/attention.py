"""Rules of softmax and of fused attention, whose probabilities are computed again from queries and keys."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pellucid.tracing.rules.operation import Constant, Operation, Parts, Share, Unexplained
from pellucid.tracing.tape import Place

ATTENTION = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)


def log_softmax(op: Operation, w: Tensor) -> Parts:
    """log pₜ = sₜ − Σ pⱼ sⱼ − H(p), with p as it was."""
    x, dim = op.args[:2]
    log_p = torch.log_softmax(op.value(x), dim)
    p = log_p.exp()
    total = w.sum(dim, keepdim=True)
    entropy = -torch.where(p > 0, p * log_p, 0.0).sum(dim, keepdim=True)
    yield Share(x, w - p * total)
    yield Constant("entropy", -(total * entropy).sum().item())


def logsumexp(op: Operation, w: Tensor) -> Parts:
    """log Σ exp sⱼ = Σ pⱼ sⱼ + H(p)."""
    x, dims = op.args[:2]
    keepdim = op.args[2] if len(op.args) > 2 else op.kwargs.get("keepdim", False)
    value = op.value(x)
    for d in sorted(d % value.dim() for d in dims) if not keepdim else ():
        w = w.unsqueeze(d)
    value = value - value.amax(dims, keepdim=True)
    log_p = value - torch.logsumexp(value, dims, keepdim=True)
    p = log_p.exp()
    yield Share(x, w * p)
    yield Constant("entropy", -(w * torch.where(p > 0, p * log_p, 0.0)).sum().item())


def softmax(op: Operation, w: Tensor) -> Parts:
    raise Unexplained("not a sum", op.call)
    yield


def attention_row(op: Operation, w: Tensor) -> Parts:
    """One number of fused attention: the values, weighted by one row of probabilities computed again."""
    q, k, v, mask, last, scale = op.args
    p = attend(op.value(q), op.value(k), op.value(mask) if mask is not None else None, last, scale)
    yield Share(v, p.mT @ w)


def attention(op: Operation, w: Tensor) -> Parts:
    if op.result:
        raise Unexplained("kept for the backward pass", op.call)
    v = op.args[2]
    given = attention_weights(op).mT @ w
    groups = w.shape[1] // v.shape[1]
    if groups > 1:
        given = given.unflatten(1, (v.shape[1], groups)).sum(2)
    yield Share(v, given)


def attention_weights(op: Operation) -> Tensor:
    """The probabilities of a fused attention call, (B, H, queries, positions), computed from its queries and keys."""
    q, k = op.value(op.args[0]), op.value(op.args[1])
    if op.call.op._schema.name.startswith("aten::_scaled_dot_product") and op.argument("dropout_p"):
        raise Unexplained("random", op.call)
    if k.shape[1] != q.shape[1]:
        k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    mask = mask_of(op)
    return attend(q, k, op.value(mask) if mask is not None else None, 0 if is_causal(op) else None, scale_of(op))


def attend(q: Tensor, k: Tensor, mask: Tensor | None, last: int | None, scale: float) -> Tensor:
    """softmax(q kᵀ scale + mask); with `last`, query i sees the positions up to `last` + i."""
    scores = q @ k.mT * scale
    if last is not None:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril(last)
        scores = scores.masked_fill(~seen, -math.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    return torch.softmax(scores, -1)


def mask_of(op: Operation) -> Place | None:
    for name in ("attn_mask", "attn_bias"):
        if any(argument.name == name for argument in op.call.op._schema.arguments):
            return op.argument(name)
    return None


def is_causal(op: Operation) -> bool:
    return op.argument("is_causal")


def scale_of(op: Operation) -> float:
    scale = op.argument("scale")
    return op.args[0].shape[-1] ** -0.5 if scale is None else scale
