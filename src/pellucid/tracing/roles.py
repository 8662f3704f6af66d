"""What each recorded number is: data that carries credit, or a coefficient of it."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass

from pellucid.tracing.recorder import facts
from pellucid.tracing.tape import BACKWARD, UPDATE, Call, Place, Tape, places

# How much a value is a factor of others rather than a value of its own. Where two data values are multiplied, the one
# with the higher level is the coefficient (convention "values") or carries the credit (convention "gates"). An
# activation (silu(gate) * up) carries as much as what it is multiplied with: that agrees better with leaving out.
ACTIVATION, GATE = 1, 2
GATES = dict.fromkeys(("_softmax", "_safe_softmax", "sigmoid", "hardsigmoid", "rsqrt", "reciprocal", "exp"), GATE)
GATES |= dict.fromkeys(("silu", "gelu", "relu", "elu", "leaky_relu", "softplus", "hardswish", "mish"), ACTIVATION)
# A level survives what only scales, moves or copies.
CARRIERS = {
    "clone", "copy", "_to_copy", "mul", "div", "neg", "cat", "stack", "native_dropout", "masked_fill", "where", "index",
    "index_select", "gather", "constant_pad_nd", "expand_copy", "repeat", "slice_copy", "view_copy", "roll", "flip",
}  # fmt: skip
GRADIENTS = {"grad_output", "grad", "grad_out", "grad_outputs", "dy", "grad_y", "out_grad"}


@dataclass(frozen=True, slots=True)
class Role:
    """Of the numbers in a storage, since a time."""

    data: bool  # depends on an input
    gradient: bool  # depends on the gradient that a backward pass began with
    level: int  # see GATES


NOTHING = Role(False, False, 0)


class Roles:
    """The role of every place at every time, from one walk along a finished tape."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.composed: dict[int, Place] = {}  # call of a composed pointwise function -> the place it is a function of
        self._history: defaultdict[int, list[tuple[int, Role]]] = defaultdict(list)
        self._roots: dict[int, tuple[Place, Call]] = {}  # by storage: what a pointwise chain began with, and its end
        incoming = deque(tape.incoming)
        for call in tape.calls:
            while incoming and incoming[0][0] <= call.time:
                self._mark(*incoming.popleft())
            if call.phase == BACKWARD:
                self._mark_gradients(call)
            self._walk(call)

    def of(self, place: Place, before: int) -> Role:
        """What the numbers at `place` were before call `before`."""
        history = self._history.get(place.storage)
        if history:
            n = bisect_left(history, before, key=lambda entry: entry[0])
            if n:
                return history[n - 1][1]
        leaf = place.storage not in self.tape.parameters
        return Role(leaf, False, 0) if leaf else NOTHING

    def data(self, call: Call, operands: Iterable[Place]) -> list[Place]:
        """Those of a call's `operands` that carry the credit."""
        floating = [p for p in dict.fromkeys(operands) if p.dtype.is_floating_point]
        if call.phase == UPDATE:
            return floating
        if call.phase == BACKWARD:
            chosen = [p for p in floating if self.of(p, call.time).gradient]
            if chosen:
                return chosen
        chosen = [p for p in floating if (role := self.of(p, call.time)).data or role.gradient]
        return chosen or [p for p in floating if p.storage not in self.tape.parameters] or floating

    def chain(self, place: Place) -> Call | None:
        """The pointwise call that made `place`, if it belongs to a chain with one beginning."""
        return self._roots[place.storage][1] if place.storage in self._roots else None

    def root(self, place: Place) -> Place | None:
        """What that chain is a function of."""
        return self._roots[place.storage][0] if place.storage in self._roots else None

    def _walk(self, call: Call) -> None:
        known = facts(call.op)
        operands = list(call.operands())
        name = call.name
        drawn = known.random and not name.startswith(("native_dropout", "_scaled_dot_product"))
        if drawn or name.endswith("_like") or name.startswith("new_") or name in ("fill", "zero"):
            role = NOTHING
        else:
            roles = [self.of(p, call.time) for p in operands]
            level = GATES.get(name, 0)
            if name in CARRIERS:
                level = max((r.level for r in roles if r.data), default=0)
            role = Role(any(r.data for r in roles), any(r.gradient for r in roles), level)
        whole = known.writes == ()
        for out in call.outs:
            if out is None:
                continue
            now = role
            if not whole and (old := self.of(out, call.time)) != role:
                now = Role(role.data or old.data, role.gradient or old.gradient, max(role.level, old.level))
            self._history[out.storage].append((call.time, now))
        if known.pointwise and whole and len(call.outs) == 1 and call.phase != UPDATE:
            self._compose(call, operands)

    def _compose(self, call: Call, operands: list[Place]) -> None:
        """See whether `call` ends a chain of pointwise operations that is a function of one tensor alone."""
        out = call.outs[0]
        if any(p.storage in self.tape.parameters for p in operands):
            return
        carriers = self.data(call, operands)
        roots = set()
        inner = False
        for place in carriers:
            known = self._roots.get(place.storage)
            if known is not None and known[1].scope is call.scope and known[1].outs[0] == place:
                roots.add(known[0])
                inner = True
            else:
                roots.add(place)
        if len(roots) != 1:
            return
        (root,) = roots
        if root.shape != out.shape or self.tape.version(root.storage, call.time) != self.tape.version(
            root.storage, self._began(call, carriers)
        ):
            return
        self._roots[out.storage] = (root, call)
        if inner and len(carriers) > 1:
            self.composed[call.time] = root

    def _began(self, call: Call, carriers: list[Place]) -> int:
        """When the first operation of the chain read its root."""
        times = [self._roots[p.storage][1].time for p in carriers if p.storage in self._roots]
        return min(times, default=call.time)

    def _mark_gradients(self, call: Call) -> None:
        """Incoming gradients known by their name alone."""
        for i, argument in enumerate(call.op._schema.arguments):
            if argument.name in GRADIENTS:
                for place in places(call.args[i] if i < len(call.args) else call.kwargs.get(argument.name)):
                    self._mark(call.time, place)

    def _mark(self, time: int, place: Place) -> None:
        """From `time` on it is a gradient."""
        old = self.of(place, time)
        if not old.gradient:
            self._history[place.storage].append((time - 1, Role(old.data, True, old.level)))
