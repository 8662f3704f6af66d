"""Addresses: every number on a tape has a name that stays the same from run to run.

``path[#call][/op.k][:in|:out|:grad|:updated][.item][index]``: the module's path; its call, counted from 0 (the last
one, if left out); the k-th operation of that name which it ran itself; what it was given, gave, or the gradient; which
of several; and the index in it. A parameter's name is the path of its values before the recording.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.tracing.tape import BACKWARD, Call, Place, Scope, Tape

OUTSIDE = "outside"  # stands for a path where no recorded module is at work: a loss, a tensor from before
_PATTERN = re.compile(
    r"^(?P<path>[^#/:\[\]]*)(#(?P<call>\d+))?(/(?P<op>\w+?)\.(?P<k>\d+))?"
    r"(:(?P<side>in|out|grad|updated))?(\.(?P<item>\d+))?(\[(?P<index>[-\d,\s]*)\])?$"
)


@dataclass(frozen=True, slots=True)
class Numbers:
    """Recorded numbers: where they lie, and when. One number has the shape ()."""

    place: Place
    time: int  # as they were before this call

    def at(self, index: tuple[int, ...]) -> Numbers:
        """One of them; negative indices count from the end."""
        whole = tuple(i + size if i < 0 else i for i, size in zip(index, self.place.shape, strict=True))
        return Numbers(self.place.at(whole), self.time)


class Addresses:
    """The names of the numbers on a finished tape."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self._by_path: defaultdict[str, list[Scope]] = defaultdict(list)
        for scope in tape.scopes:
            self._by_path[scope.path].append(scope)
        self._calls: defaultdict[tuple[int, str], list[Call]] = defaultdict(list)
        self._ordinal: dict[int, int] = {}
        for call in tape.calls:
            same = self._calls[id(call.scope), call.name]
            self._ordinal[call.time] = len(same)
            same.append(call)
        self._parameters = {name: place for known in tape.parameters.values() for place, name in known}

    # ---- from a name to numbers

    def find(self, address: str) -> Numbers:
        """The numbers at an address.

        Raises:
            PellucidError: when there is nothing there; it names what is near.
        """
        found = _PATTERN.match(address.strip())
        if found is None:
            raise self._unknown(address)
        numbers = self._whole(address, found)
        if found["index"] is None:
            return numbers
        index = tuple(int(i) for i in found["index"].split(",") if i.strip())
        shape = numbers.place.shape
        if len(index) != len(shape) or any(not -size <= i < size for i, size in zip(index, shape, strict=True)):
            raise PellucidError(
                _("The index {index} does not fit.").format(index=list(index)),
                address,
                _("The numbers there have the shape {shape}.").format(shape=list(shape)),
            )
        return numbers.at(index)

    def _whole(self, address: str, found: re.Match[str]) -> Numbers:
        path, side, item = found["path"], found["side"] or "out", int(found["item"] or 0)
        if path in self._parameters and found["op"] is None:
            return self._parameter(address, path, found["side"])
        scopes = self._by_path.get(path, [])
        storage = path.removeprefix(f"{OUTSIDE}.")
        if not scopes and storage != path and storage.isdecimal() and int(storage) < self.tape.storages:
            return Numbers(self.tape.whole(int(storage)), 0)
        if not scopes and path not in ("", OUTSIDE):
            raise self._unknown(address)
        number = int(found["call"]) if found["call"] else len(scopes) - 1
        if scopes and number >= len(scopes):
            raise PellucidError(
                _("{path} was called {n} times only.").format(path=path or "the module", n=len(scopes)),
                address,
                _("Calls are counted from 0."),
            )
        scope = scopes[number] if scopes else None
        if found["op"] is not None:
            return self._operation(address, scope, found["op"], int(found["k"]), side, item)
        if scope is None:
            raise self._unknown(address)
        if side == "grad":
            return self._gradient_of_output(address, scope)
        places = scope.inputs if side == "in" else scope.outputs
        if item >= len(places):
            raise self._unknown(address)
        return Numbers(places[item], scope.start if side == "in" else min(scope.end, len(self.tape.calls)))

    def _parameter(self, address: str, name: str, side: str | None) -> Numbers:
        place = self._parameters[name]
        if side == "grad":
            if place.storage not in self.tape.gradients:
                raise PellucidError(
                    _("No gradient of {name} was recorded.").format(name=name),
                    address,
                    _("Run the backward pass inside `with pl.record(...)`."),
                )
            return Numbers(*self.tape.gradients[place.storage])
        return Numbers(place, len(self.tape.calls) if side == "updated" else 0)

    def _operation(self, address: str, scope: Scope | None, op: str, k: int, side: str, item: int) -> Numbers:
        calls = self._calls.get((id(scope), op), [])
        if k >= len(calls):
            raise self._unknown(address)
        call = calls[k]
        places = list(call.operands()) if side == "in" else list(call.outs)
        if item >= len(places) or places[item] is None:
            raise self._unknown(address)
        return Numbers(places[item], call.time if side == "in" else call.time + 1)

    def _gradient_of_output(self, address: str, scope: Scope) -> Numbers:
        shapes = {place.shape for place in scope.outputs}
        for call in self.tape.calls:
            if call.phase == BACKWARD and call.scope is not None and call.scope.within(scope):
                for place in call.operands():
                    if place.shape in shapes and place.storage not in self._parameters:
                        return Numbers(place, call.time)
        raise PellucidError(
            _("No gradient of {name} was recorded.").format(name=scope.path),
            address,
            _("Run the backward pass inside `with pl.record(...)`."),
        )

    def _unknown(self, address: str) -> PellucidError:
        near = difflib.get_close_matches(address, self.all(), n=4, cutoff=0.4)
        return PellucidError(
            _("There is nothing at this address."),
            address,
            _("Near to it: {names}.").format(names=", ".join(near)) if near else _("trace.tree() lists what there is."),
        )

    # ---- from numbers to a name

    def name(self, numbers: Numbers) -> str:
        """The address of one number."""
        place, time = numbers.place, numbers.time
        found = self.tape.writer(place, time)
        if found is None:
            return self._leaf(place)
        call, k, index = found
        known = self.tape.name_of(place)
        last = self.tape.writer(place, len(self.tape.calls))
        if known is not None and call.phase != BACKWARD and last is not None and last[0] is call:
            return f"{known[0]}:updated{_brackets(known[1].find(place))}"
        scope = call.scope
        while scope is not None:
            for item, out in enumerate(scope.outputs):
                where = out.find(place)
                if where is not None and self._made_by(place, scope.end) is call:
                    which = f":out.{item}" if len(scope.outputs) > 1 and item else "" if scope.path else ":out"
                    return f"{self._path(scope)}{which}{_brackets(where)}"
            scope = scope.parent
        which = f":out.{k}" if k else ""
        return f"{self._path(call.scope)}/{call.name}.{self._ordinal[call.time]}{which}{_brackets(index)}"

    def source(self, numbers: Numbers) -> str:
        """What made a number, for people: a parameter, an input, or an operation in a module."""
        found = self.tape.writer(numbers.place, numbers.time)
        if found is None:
            known = self.tape.name_of(numbers.place)
            return known[0] if known else self.tape.input_name(numbers.place.storage)
        call = found[0]
        return f"{call.scope.path}: {call.name}" if call.scope is not None and call.scope.path else call.name

    def all(self) -> list[str]:
        """Every path, with its calls and operations, and every parameter."""
        names = list(self._parameters)
        for path, scopes in self._by_path.items():
            names.append(path or ":out")
            names.extend(f"{path}#{scope.call}" for scope in scopes[:-1])
        names.extend(f"{self._path(call.scope)}/{call.name}.{self._ordinal[call.time]}" for call in self.tape.calls)
        return names

    def _leaf(self, place: Place) -> str:
        known = self.tape.name_of(place)
        if known is not None:
            return f"{known[0]}{_brackets(known[1].find(place))}"
        for scope in self.tape.scopes:
            sides = (("in", scope.start, scope.inputs), ("out", scope.end, scope.outputs))
            for side, time, all_places in sides:
                for item, whole in enumerate(all_places):
                    if (index := whole.find(place)) is not None and self._made_by(place, time) is None:
                        return f"{self._path(scope)}:{side}.{item}{_brackets(index)}"
        whole = self.tape.whole(place.storage)
        return f"{OUTSIDE}.{place.storage}{_brackets(whole.find(place))}"

    def _made_by(self, number: Place, before: int) -> Call | None:
        found = self.tape.writer(number, before)
        return found[0] if found is not None else None

    def _path(self, scope: Scope | None) -> str:
        if scope is None:
            return OUTSIDE
        calls = self._by_path[scope.path]
        return scope.path if calls[-1] is scope else f"{scope.path}#{scope.call}"


def _brackets(index: Iterable[int] | None) -> str:
    inside = ",".join(map(str, index or ()))
    return f"[{inside}]"
