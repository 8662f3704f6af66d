"""Margins: by how much a selection was made, over what nearly won."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from torch import Tensor

from pellucid.tracing.rules.operation import Operation
from pellucid.tracing.tape import Place


def chooses(op: Operation) -> bool:
    """Whether an operation takes one of several values."""
    return op.name in _MARGINS


def margin(op: Operation, index: tuple[int, ...]) -> float | None:
    """How far the value at `index` was from the one that would have been taken instead; None where nothing was chosen.

    A ReLU chooses between its input and zero, a maximum and max-pooling between the values of a row or window, top-k
    routing between the last that got in and the first that did not.
    """
    found = _MARGINS.get(op.name)
    return found(op, index) if found is not None else None


def _relu(op: Operation, index: tuple[int, ...]) -> float:
    return abs(op.value(op.call.args[0].expand(*op.shape).at(index)).item())


def _row(op: Operation, index: tuple[int, ...]) -> float | None:
    """A maximum along dimensions."""
    x = op.call.args[0]
    if len(op.call.args) < 2 or op.call.args[1] in ((), None):
        return _lead(op.value(x))
    dims = op.call.args[1] if isinstance(op.call.args[1], tuple) else (op.call.args[1],)
    gone = {d % len(x.shape) for d in dims}
    rest = iter(index)
    kept = len(index) == len(x.shape)
    picked: list[int | None] = []
    for d in range(len(x.shape)):
        if d in gone:
            picked.append(None)
            if kept:
                next(rest)
        else:
            picked.append(next(rest))
    return _lead(op.value(x.pick(tuple(picked))))


def _pool(op: Operation, index: tuple[int, ...]) -> float | None:
    """A window of max-pooling."""
    x: Place = op.call.args[0]
    dims = len(op.call.args[1])

    def setting(i: int, default: tuple[int, ...]) -> tuple[int, ...]:
        given = op.call.args[i] if len(op.call.args) > i else ()
        given = tuple(given) or default
        return given if len(given) == dims else given * dims

    kernel = setting(1, ())
    stride, padding, dilation = setting(2, kernel), setting(3, (0,) * dims), setting(4, (1,) * dims)
    lead, at = index[: len(index) - dims], index[len(index) - dims :]
    sizes = x.shape[len(x.shape) - dims :]
    reach = [
        [i for i in (at[d] * stride[d] - padding[d] + k * dilation[d] for k in range(kernel[d])) if 0 <= i < sizes[d]]
        for d in range(dims)
    ]
    whole = op.value(x.pick((*lead, *(None,) * dims))).reshape(sizes)
    values = sorted((whole[place].item() for place in itertools.product(*reach)), reverse=True)
    return values[0] - values[1] if len(values) > 1 else None


def _routing(op: Operation, index: tuple[int, ...]) -> float | None:
    """The last that top-k let in over the first that it did not."""
    x, k = op.call.args[:2]
    dim = (op.call.args[2] if len(op.call.args) > 2 else -1) % len(x.shape)
    row = op.value(x.pick(tuple(None if d == dim else i for d, i in enumerate(index)))).reshape(-1)
    ordered = row.sort(descending=True).values
    return (ordered[k - 1] - ordered[k]).item() if k < len(ordered) else None


def _lead(values: Tensor) -> float | None:
    best = values.reshape(-1).topk(2).values if values.numel() > 1 else None
    return (best[0] - best[1]).item() if best is not None else None


_MARGINS: dict[str, Callable[[Operation, tuple[int, ...]], float | None]] = {
    "relu": _relu,
    "threshold": _relu,
    "max": _row,
    "amax": _row,
    "max_pool2d_with_indices": _pool,
    "max_pool3d_with_indices": _pool,
    "topk": _routing,
}
