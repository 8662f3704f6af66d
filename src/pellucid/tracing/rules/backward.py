"""Rules of a backward pass: its operations are linear in the incoming gradient, forward values are coefficients.

Most need no rule: the general one differentiates them once more. Here are those that have no derivative of their own,
and those whose every number would otherwise cost a whole tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pellucid.tracing.rules.attention import ATTENTION, attend, is_causal, mask_of
from pellucid.tracing.rules.general import general
from pellucid.tracing.rules.operation import Operation, Parts, Share, Unexplained
from pellucid.tracing.tape import Place

ATTENTION_BACKWARD = tuple(f"{name}_backward" for name in ATTENTION)


def norm_backward(op: Operation, w: Tensor) -> Parts:
    """Layer and RMS norm: dx = s (γg − mean(γg) − n mean(n γg)) with n = (x − μ) s; the map is its own transpose."""
    g, x, shape = op.args[:3]
    mean, scale, gain = op.args[3:6] if op.name == "native_layer_norm_backward" else (None, *op.args[3:5])
    centred = op.value(x) if mean is None else op.value(x) - op.value(mean)
    normed = centred * op.value(scale)
    if op.result:
        yield Share(g, w * normed if op.result == 1 else w.expand(g.shape))
        return
    dims = tuple(range(-len(shape), 0))
    w = w * op.value(scale)
    given = w - normed * (w * normed).mean(dims, keepdim=True)
    given = given if mean is None else given - w.mean(dims, keepdim=True)
    yield Share(g, given if gain is None else given * op.value(gain))


def group_norm_backward(op: Operation, w: Tensor) -> Parts:
    """By PyTorch's own decomposition, which can be differentiated."""
    from torch._decomp import decomposition_table  # takes a while to load

    f, g = decomposition_table[op.call.op], op.args[0]
    rest = [op.value(x) if isinstance(x, Place) else x for x in op.args[1:]]
    yield Share(g, _transposed(lambda dy: f(dy, *rest)[op.result], op.value(g), w))


def attention_backward(op: Operation, w: Tensor) -> Parts:
    """dv = pᵀ g; ds = p (g vᵀ − Σ g · y); dq = ds k, dk = dsᵀ q (Dao et al. 2022, appendix B.2)."""
    if op.argument("dropout_p") or op.result > 2:
        raise Unexplained("random" if op.result < 3 else "no rule", op.call)
    g, q, k, v, y = (op.args[0], *(op.argument(name) for name in ("query", "key", "value", "out")))
    scale = op.argument("scale") or q.shape[-1] ** -0.5
    mask = mask_of(op)
    q, k, v, y = (op.value(x) for x in (q, k, v, y))
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    p = attend(q, k, op.value(mask) if mask is not None else None, 0 if is_causal(op) else None, scale)

    def f(dy: Tensor) -> Tensor:
        if op.result == 2:
            given = p.mT @ dy
        else:
            ds = p * (dy @ v.mT - (dy * y).sum(-1, keepdim=True)) * scale
            given = ds.mT @ q if op.result else ds @ k
        return given.unflatten(1, (-1, groups)).sum(2) if op.result else given

    yield Share(g, _transposed(f, op.value(g), w))


def embedding_backward(op: Operation, w: Tensor) -> Parts:
    """Each row's gradient is the sum over the positions that read it."""
    g, ids, _, unused, by_frequency = op.args
    read = op.value(ids)
    given = w[read] * (read != unused).unsqueeze(-1)
    if by_frequency:
        given = given / read.flatten().bincount(minlength=len(w))[read].unsqueeze(-1)
    yield Share(g, given)


def convolution_backward(op: Operation, w: Tensor) -> Parts:
    if op.result < 2:
        yield from general(op, w)
    else:
        yield Share(op.args[0], w.reshape(1, -1, *[1] * (len(op.args[0].shape) - 2)).expand(op.args[0].shape))


def _transposed(f: Callable[[Tensor], Tensor], at: Tensor, w: Tensor) -> Tensor:
    """The transpose of a linear map, applied to `w`: its derivative, wherever it is taken."""
    with torch.enable_grad():
        leaf = at.detach().clone().requires_grad_()
        y = f(leaf)
        return torch.autograd.grad(y, leaf, w.reshape(y.shape))[0]


# ---- the smallest operation that gives one number


def _with(op: Operation, **new: Any) -> tuple[Any, ...]:
    """Its arguments, those in `new` replaced."""
    names = [argument.name for argument in op.call.op._schema.arguments]
    return tuple(new.get(name, x) for name, x in zip(names, op.args, strict=False))


def _narrow_norm(op: Operation, index: tuple[int, ...]) -> Any:
    g, x, shape = op.args[:3]
    outer = len(g.shape) - len(shape)
    if op.result:  # one column of all rows
        column = (*(None,) * outer, *index)
        return _with(op, grad_out=g.pick(column), input=x.pick(column)), (1,) * len(shape)
    row = (*index[:outer], *(None,) * len(shape))
    rows = {"grad_out": g, "input": x, "rstd": op.argument("rstd")}
    rows |= {"mean": op.args[3]} if op.name == "native_layer_norm_backward" else {}
    return _with(op, **{name: place.pick(row) for name, place in rows.items()}), (*(1,) * outer, *g.shape[outer:])


def _narrow_softmax(op: Operation, index: tuple[int, ...]) -> Any:
    g, y, dim = op.args[:3]
    row = tuple(None if d == dim % len(index) else i for d, i in enumerate(index))
    return (g.pick(row), y.pick(row), *op.args[2:]), tuple(g.shape[d] if i is None else 1 for d, i in enumerate(row))


def _narrow_embedding(op: Operation, index: tuple[int, ...]) -> Any:
    g = op.args[0]
    return (g.narrow(len(g.shape) - 1, index[1]), *op.args[1:]), (op.shape[0], 1)


def _narrow_attention(op: Operation, index: tuple[int, ...]) -> Any:
    if op.result > 2 or mask_of(op) is not None:
        return None, ()
    batch, head = index[:2]
    groups = op.argument("query").shape[1] // op.argument("key").shape[1]
    first, heads = (head * groups, groups) if op.result else (head, 1)
    new = {name: op.argument(name).narrow(0, batch).narrow(1, first, heads) for name in ("query", "out")}
    new |= {name: op.argument(name).narrow(0, batch).narrow(1, first // groups) for name in ("key", "value")}
    return (op.args[0].narrow(0, batch).narrow(1, first, heads), *_with(op, **new)[1:]), (1, 1, *op.shape[2:])


def _narrow_convolution(op: Operation, index: tuple[int, ...]) -> Any:
    g, x, kernel = op.args[:3]
    if op.result == 2:
        return _with(op, grad_output=g.narrow(1, index[0])), (1,)
    if op.argument("transposed") or op.argument("groups") != 1:
        return None, ()
    if op.result:
        g, x, kernel = g.narrow(1, index[0]), x.narrow(1, index[1]), kernel.narrow(0, index[0]).narrow(1, index[1])
    else:
        g, x, kernel = g.narrow(0, index[0]), x.narrow(0, index[0]).narrow(1, index[1]), kernel.narrow(1, index[1])
    wanted = [op.result == 0, op.result == 1, False]
    return (g, x, kernel, None, *op.args[4:10], wanted), (1, 1, *op.shape[2:])


def _narrow_batch_norm(op: Operation, index: tuple[int, ...]) -> Any:
    channel = index[0] if op.result else index[1]
    args = [x.narrow(i < 2, channel) if isinstance(x, Place) else x for i, x in enumerate(op.args)]
    return tuple(args), (1,) if op.result else (op.shape[0], 1, *op.shape[2:])


BACKWARD: dict[str, Callable[[Operation, Tensor], Parts]] = {
    "native_layer_norm_backward": norm_backward,
    "_fused_rms_norm_backward": norm_backward,
    "native_group_norm_backward": group_norm_backward,
    "embedding_dense_backward": embedding_backward,
    "convolution_backward": convolution_backward,
    **dict.fromkeys(ATTENTION_BACKWARD, attention_backward),
}
NARROW: dict[str, Callable[[Operation, tuple[int, ...]], Any]] = {
    "native_layer_norm_backward": _narrow_norm,
    "_fused_rms_norm_backward": _narrow_norm,
    "native_batch_norm_backward": _narrow_batch_norm,
    "_softmax_backward_data": _narrow_softmax,
    "_log_softmax_backward_data": _narrow_softmax,
    "embedding_dense_backward": _narrow_embedding,
    "convolution_backward": _narrow_convolution,
    **dict.fromkeys(ATTENTION_BACKWARD, _narrow_attention),
}
