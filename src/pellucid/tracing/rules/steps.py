"""Rules of optimisers: one step of one parameter, number by number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pellucid.tracing.rules.operation import Operation, Parts, Share, Unexplained
from pellucid.tracing.tape import Call, Place


def of_list(call: Call, result: int) -> tuple[Call, int]:
    """What an operation on lists of tensors does to the items that its result number `result` is one of."""
    if call.name in STEPS:
        which, i = divmod(result, len(call.args[0]))
        items = [x[i] for x in call.args if isinstance(x, tuple) and x]  # amsgrad's list is empty
        if call.name == "_fused_sgd" and len(items) < 3:
            items.append(None)
        return replace(call, args=tuple(items), outs=call.outs[i :: len(call.args[0])]), which
    if not call.name.startswith("_foreach_"):
        return call, result
    name = call.name.removeprefix("_foreach_")
    packet = getattr(torch.ops.aten, {"norm": "linalg_vector_norm"}.get(name, name))
    wanted = call.op._schema.overload_name
    wanted = {"List": "Tensor", "ScalarList": "Scalar"}.get(wanted, wanted)
    op = next(getattr(packet, o) for o in (wanted or "default", "Tensor", "Scalar", "default") if hasattr(packet, o))
    args = tuple(x[result] if isinstance(x, tuple) and len(x) == len(call.outs) else x for x in call.args)
    return replace(call, op=op, args=args, outs=(call.outs[result],)), 0


def _fused_adam(op: Operation, w: Tensor) -> Parts:
    """One step of Adam or AdamW (Loshchilov and Hutter 2019): the second moment is part of the coefficients."""
    p, g, m, v, *largest, step = op.args
    rate, beta1, beta2, decay, eps = (_setting(op, x) for x in ("lr", "beta1", "beta2", "weight_decay", "eps"))
    decoupled = op.name == "_fused_adamw"
    sign = -1.0 if op.argument("maximize") else 1.0
    gradient = sign * op.value(g) if decoupled else sign * op.value(g) + decay * op.value(p)
    if op.result == 1:
        yield Share(g, w)
        return
    if op.result == 0:
        steps = op.value(step)
        second = beta2 * op.value(v) + (1 - beta2) * gradient.square()
        second = torch.maximum(second, op.value(largest[0])) if largest else second
        yield Share(p, w * (1 - rate * decay) if decoupled else w)
        w = -w * rate / (1 - beta1**steps) / ((second / (1 - beta2**steps)).sqrt() + eps)
    if op.result > 3:
        raise Unexplained("decision", op.call)
    kept, new = (beta2, (1 - beta2) * gradient) if op.result == 3 else (beta1, 1 - beta1)
    yield Share(v if op.result == 3 else m, w * kept)
    yield Share(g, sign * w * new)
    if not decoupled and decay:
        yield Share(p, w * new * decay)


def _fused_sgd(op: Operation, w: Tensor) -> Parts:
    """One step of SGD with momentum; decay is added to the gradient."""
    p, g, m = op.args
    rate, momentum, decay, damping = (_setting(op, x) for x in ("lr", "momentum", "weight_decay", "dampening"))
    sign = -1.0 if op.argument("maximize") else 1.0
    if op.result == 1:
        yield Share(g, w)
        return
    if op.result == 0:
        yield Share(p, w)
        w = -rate * w
        if m is not None and op.argument("nesterov"):
            yield Share(g, sign * w)
            yield Share(p, decay * w)
            w = momentum * w
    if m is not None and not op.argument("is_first_step"):
        yield Share(m, momentum * w)
        w = (1 - damping) * w
    yield Share(g, sign * w)
    yield Share(p, decay * w)


def _fused_adagrad(op: Operation, w: Tensor) -> Parts:
    """One step of Adagrad (Duchi et al. 2011): the sum of squares is part of the coefficients."""
    p, g, squares, step = op.args
    rate, slower, decay, eps = (_setting(op, x) for x in ("lr", "lr_decay", "weight_decay", "eps"))
    sign = -1.0 if op.argument("maximize") else 1.0
    gradient = sign * op.value(g) + decay * op.value(p)
    if op.result == 1:
        yield Share(g, w)
        return
    yield Share(p if op.result == 0 else squares, w)
    root = (op.value(squares) + gradient.square()).sqrt() + eps
    w = -w * rate / (1 + (op.value(step) - 1) * slower) / root if op.result == 0 else w * gradient
    yield Share(g, sign * w)
    yield Share(p, decay * w)


def _setting(op: Operation, name: str) -> float | Tensor:
    """A setting of a step, which may be a tensor."""
    x = op.argument(name)
    return op.value(x) if isinstance(x, Place) else x


STEPS: dict[str, Callable[[Operation, Tensor], Parts]] = {
    "_fused_adam": _fused_adam,
    "_fused_adamw": _fused_adam,
    "_fused_sgd": _fused_sgd,
    "_fused_adagrad": _fused_adagrad,
}
