"""What an optimiser does while it is recorded: its settings, its state, and the copies that undo its step."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.tracing.tape import Place, Scope, Tape

# tensors of a parameter's size: the state that an optimiser will make, where it has none yet
STATES = {"Adam": 2, "AdamW": 2, "NAdam": 2, "RAdam": 2, "Adamax": 2, "Adadelta": 2, "Adagrad": 1, "RMSprop": 1}
MUON = 14  # of the same size: the steps of the orthogonalisation, which are kept so that they can be asked for


@dataclass(frozen=True)
class StepMemory:
    """What recording one step of an optimiser takes, beside forward and backward pass, in bytes."""

    copies: dict[str, int]  # by parameter: of what the step overwrites, its state's numbers included
    new: int  # the optimiser's state, if it has none yet, and intermediate results of all parameters

    @property
    def bytes(self) -> int:
        """All of it."""
        return sum(self.copies.values()) + self.new

    def fitting(self, budget: float) -> list[str]:
        """Parameters, in their order, whose step fits into `budget` bytes: for `record(..., updates=...)`."""
        chosen, left = [], budget - self.new
        for name, size in self.copies.items():
            if size <= left:
                chosen.append(name)
                left -= size
        return chosen

    def __str__(self) -> str:
        return _("recording this step takes {size:,.1f} MB: copies of {n} parameters and their state").format(
            size=self.bytes / 1e6, n=len(self.copies)
        )


def step_memory(
    module: nn.Module, optimiser: torch.optim.Optimizer | Any, updates: Collection[str] | None = None
) -> StepMemory:
    """What `record` will need for one step of `optimiser`: print it before it is spent.

    Args:
        module: Whose parameters it changes.
        optimiser: A `torch.optim.Optimizer`, or what has several as its `parts`; it may not have made a step yet.
        updates: As for `record`; None: all parameters.
    """
    names: dict[Tensor, str] = {parameter: name for name, parameter in module.named_parameters()}
    copies, new = {}, 0
    for part in getattr(optimiser, "parts", (optimiser,)):
        for group, parameter in _updated(part, with_gradient=False):
            copied, made = _bytes(part, group, parameter)
            new += made
            if updates is None or names.get(parameter) in updates:
                copies[names.get(parameter, "?")] = copied
    return StepMemory(copies, new)


def _updated(optimiser: torch.optim.Optimizer, with_gradient: bool = True) -> Iterator[tuple[dict[str, Any], Tensor]]:
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None or not with_gradient:
                yield group, parameter


def _bytes(optimiser: torch.optim.Optimizer, group: dict[str, Any], parameter: Tensor) -> tuple[int, int]:
    """Copies of what the step overwrites of one parameter, and what it computes anew; rather too much."""
    kind, fused = type(optimiser).__name__, bool(group.get("fused"))
    known = [x for x in optimiser.state.get(parameter, {}).values() if isinstance(x, Tensor)]
    whole = parameter.numel() * parameter.element_size()
    states = sum(x.numel() == parameter.numel() for x in known)
    if not known:
        states = STATES.get(kind, 0) + sum(bool(group.get(name)) for name in ("momentum", "centered", "amsgrad"))
    made = 0 if known else states
    changes = sum(bool(group.get(name)) for name in ("weight_decay", "maximize", "nesterov", "centered"))
    copies = 1 + sum(bool(group.get(name)) for name in ("l1", "l2"))  # penalties are added to the gradient
    made += bool(group.get("l1"))
    if kind == "Muon":
        return (2 + copies) * whole, (made + MUON) * whole
    if fused:  # parameter and state are overwritten once each
        return (states + copies) * whole + 64, made * whole
    divided = kind != "SGD"  # by a square root, made in several steps
    copies += 2 * states + changes + 3 * divided
    return copies * whole + 64, (made + changes + 2 * divided) * whole + 64


class Watcher(Protocol):
    """What recording an optimiser needs of the recorder."""

    tape: Tape
    updating: Scope | None
    copied: set[int] | None
    budget: float


@contextlib.contextmanager
def optimisers_watched(recorder: Watcher) -> Iterator[None]:
    """Know what an optimiser does, and which gradients it read."""
    counts: defaultdict[str, int] = defaultdict(int)
    tape = recorder.tape

    def before(optimiser: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        name = type(optimiser).__name__
        path = f"optimiser.{name}"
        _name_states(tape, optimiser, path)
        need, new = {}, 0
        for group, parameter in _updated(optimiser):
            assert parameter.grad is not None
            place, gradient = tape.place(parameter), tape.place(parameter.grad)
            settings = {key: x for key, x in group.items() if isinstance(x, (bool, int, float))}
            tape.gradients[place.storage] = (gradient, len(tape.calls))
            tape.steps[place.storage].append((len(tape.calls), gradient, settings))
            copies, made = _bytes(optimiser, group, parameter)
            new += made
            if recorder.copied is not None and place.storage not in recorder.copied:
                continue
            need[_name(tape, place)] = copies
            if recorder.copied is not None:
                states = [x for x in optimiser.state.get(parameter, {}).values() if isinstance(x, Tensor)]
                recorder.copied |= {gradient.storage, *(tape.place(x).storage for x in states)}
        _check(StepMemory(need, new), recorder.budget - tape.kept_bytes, path)
        recorder.updating = Scope(path, counts[path], name, None, len(tape.calls))
        counts[path] += 1
        tape.scopes.append(recorder.updating)

    def after(optimiser: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if recorder.updating is not None:
            recorder.updating.ended.append(len(tape.calls))
            _name_states(tape, optimiser, recorder.updating.path)
        recorder.updating = None

    handles: list[Any] = [register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def spread(copied: set[int], held: Any, outs: list[Place | None]) -> None:
    """What is computed from numbers of which copies are kept (of lists: item by item) is copied too, if overwritten."""
    for i, out in enumerate(outs):
        sources = [x[i] if isinstance(x, tuple) and len(x) == len(outs) else x for x in held]
        if out is not None and any(_holds(copied, x) for x in sources):
            copied.add(out.storage)


def _holds(copied: set[int], x: Any) -> bool:
    if isinstance(x, Place):
        return x.storage in copied
    return isinstance(x, tuple) and any(_holds(copied, y) for y in x)


def _name_states(tape: Tape, optimiser: torch.optim.Optimizer, path: str) -> None:
    """Give an optimiser's state addresses: `optimiser.AdamW.fc.weight.exp_avg`."""
    for parameter, state in optimiser.state.items():
        if not (isinstance(parameter, Tensor) and isinstance(state, dict)):
            continue
        for what, x in state.items():
            if isinstance(x, Tensor) and not (known := tape.parameters[(place := tape.place(x)).storage]):
                known.append((place, f"{path}.{_name(tape, tape.place(parameter))}.{what}"))


def _name(tape: Tape, place: Place) -> str:
    known = tape.name_of(place)
    return known[0] if known is not None else f"parameter{place.storage}"


def _check(need: StepMemory, left: float, path: str) -> None:
    if need.bytes <= left:
        return
    fits = need.fitting(left)
    shown = ", ".join(repr(name) for name in fits[:3]) + (", ..." if len(fits) > 3 else "")
    raise PellucidError(
        _(
            "Recording this step takes {need:,.1f} MB; {left:,.1f} MB of the budget are left. Nothing was updated."
        ).format(need=need.bytes / 1e6, left=max(left, 0) / 1e6),
        path,
        _(
            "Name what to see through: record(..., updates=[{names}]) would fit, or allow more with budget=... (bytes)."
        ).format(names=shown)
        if fits
        else _("Allow more with budget=... (bytes), or record without the step."),
    )
