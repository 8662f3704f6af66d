"""The flow: what every tensor on the tape contributes to a target, from one sweep back through the rules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pellucid.tracing.roles import Roles
from pellucid.tracing.rules import operation, shares
from pellucid.tracing.rules.operation import Constant, Unexplained, inner
from pellucid.tracing.tape import UPDATE, Call, Place, Tape

Seed = tuple[Place, int, Tensor]  # numbers, the time at which they count, and their weights in the target


@dataclass
class Swept:
    """Where a sweep has arrived."""

    weights: dict[int, Tensor] = field(default_factory=dict)  # by storage: weights of what is there at the beginning
    at: dict[tuple[int, int], Tensor] = field(default_factory=dict)  # by call and output: weights of the whole storage
    constants: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    ends: list[tuple[Call, int, Tensor, str]] = field(default_factory=list)  # where credit stops, its weights, and why
    stopped: list[tuple[Call, int, Tensor]] = field(default_factory=list)  # where it was to stop, and the weights there


def sweep(
    tape: Tape,
    roles: Roles,
    seeds: Iterable[Seed],
    *,
    since: int = 0,
    stop: Callable[[Call], bool] | None = None,
    dtype: torch.dtype = torch.float32,
    convention: str = "values",
) -> Swept:
    """Carry the weights of `seeds` back to what was there before call `since`, except through calls to `stop` at.

    What enters on the way without carrying credit is added up under `constants`. Embedding rows and what no rule
    explains are `ends`.
    """
    swept = Swept()
    waiting = sorted(seeds, key=lambda seed: -seed[1])
    time = waiting[0][1] if waiting else 0
    while time > since or waiting:
        while waiting and waiting[0][1] >= time:
            place, _, weights = waiting.pop(0)
            _accumulate(swept.weights, tape, place, weights.to(dtype))
        if time <= since:
            break
        time -= 1
        call = tape.calls[time]
        for k, out in enumerate(call.outs):
            if out is None or out.storage not in swept.weights:
                continue
            w = _take(swept, call, k, out)
            if w is None:
                continue
            if stop is not None and stop(call):
                swept.stopped.append((call, k, w))
            else:
                _through(swept, tape, roles, call, k, w, dtype, convention)
    return swept


def _take(swept: Swept, call: Call, k: int, out: Place) -> Tensor | None:
    """The weights of a result, taken from those that are still to be carried back; None where there are none."""
    flat = swept.weights[out.storage]
    w = view(flat, out)
    if out.numel == flat.numel():
        swept.at[call.time, k] = swept.weights.pop(out.storage)
        return w
    if not w.any():
        return None
    swept.at[call.time, k] = flat.clone()
    w = w.clone()
    view(flat, out).zero_()
    return w


def _through(
    swept: Swept, tape: Tape, roles: Roles, call: Call, k: int, w: Tensor, dtype: torch.dtype, convention: str
) -> None:
    op = operation(tape, roles, call, k, dtype, convention)
    table = op.name == "embedding" and op.args[0].storage in tape.parameters
    if table and any(roles.of(p, call.time).data for p in op.args[1:2]):
        swept.ends.append((call, k, w, "embedding"))
        return
    try:
        for part in shares(op, w):
            if isinstance(part, Constant):
                swept.constants[f"{where(call)}{part.name}"] += part.amount
            elif part.constant or not _carries(roles, part.place, call):
                amount = inner(part.weights, op.value(part.place))
                swept.constants[_name(tape, part.place, call)] += amount
            else:
                _accumulate(swept.weights, tape, part.place, part.weights)
    except Unexplained as stopped:
        swept.ends.append((call, k, w, stopped.reason))


def _carries(roles: Roles, place: Place, call: Call) -> bool:
    role = roles.of(place, call.time)
    return role.data or role.gradient or call.phase == UPDATE


def where(call: Call) -> str:
    """The module that a call ran in, as the beginning of a name."""
    return f"{call.scope.path}: " if call.scope is not None and call.scope.path else ""


def _name(tape: Tape, place: Place, call: Call) -> str:
    """What a constant is called: its parameter, or the module that made it."""
    known = tape.name_of(place)
    if known is not None:
        return known[0]
    found = tape.writer(place.at((0,) * len(place.shape)), call.time)
    if found is not None and found[0].scope is not None and found[0].scope is not call.scope:
        return found[0].scope.path
    return f"{where(call)}{found[0].name if found is not None else call.name}"


def _accumulate(weights: dict[int, Tensor], tape: Tape, place: Place, w: Tensor) -> None:
    for dim, stride in enumerate(place.strides):  # copies of one number
        if stride == 0 and place.shape[dim] > 1:
            w, place = w.sum(dim, keepdim=True), place.narrow(dim, 0)
    flat = weights.get(place.storage)
    if flat is None:
        size = tape.bytes_of(place.storage) // place.dtype.itemsize
        if place.numel == size and _dense(place) and w.is_contiguous():
            weights[place.storage] = w.reshape(-1).clone() if w._base is not None else w.reshape(-1)
            return
        flat = weights[place.storage] = w.new_zeros(size)
    if _overlaps(place):
        numbers = torch.arange(flat.numel(), device=flat.device)
        flat.index_add_(0, view(numbers, place).reshape(-1), w.reshape(-1))
    else:
        view(flat, place).add_(w)


def view(flat: Tensor, place: Place) -> Tensor:
    """A place in a whole storage's weights."""
    return flat.as_strided(place.shape, place.strides, place.offset // place.dtype.itemsize)


def _dense(place: Place) -> bool:
    """Whether it lies in order and without gaps."""
    expected = 1
    for size, stride in zip(reversed(place.shape), reversed(place.strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _overlaps(place: Place) -> bool:
    """Whether two indices may be one number."""
    reach = 1
    for stride, size in sorted(zip(place.strides, place.shape, strict=True)):
        if size > 1:
            if stride < reach:
                return True
            reach = stride * (size - 1) + reach
    return False
