"""Why: one number, unfolded into the terms that add up to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pellucid.tracing.addresses import Addresses, Numbers
from pellucid.tracing.answers import NO_TERMS, Answer, Kind, Question, Term, Terms
from pellucid.tracing.margins import chooses, margin
from pellucid.tracing.recorder import facts
from pellucid.tracing.roles import Roles
from pellucid.tracing.rules import operation, shares
from pellucid.tracing.rules.elementwise import DECISIONS
from pellucid.tracing.rules.operation import Constant, Operation, Share, Unexplained, functional
from pellucid.tracing.tape import Call, LostError, Place, Tape


class Why:
    """Unfolds the numbers of one tape."""

    def __init__(self, tape: Tape, roles: Roles, addresses: Addresses) -> None:
        self.tape, self.roles, self.addresses = tape, roles, addresses

    def value(self, numbers: Numbers) -> Tensor:
        """The recorded numbers."""
        return self.tape.read(numbers.place, numbers.time)

    def answer(self, question: Question, convention: str = "values") -> Answer:
        """The terms of a question."""
        if not question.together and len(question.seeds) == 1 and question.seeds[0][0].place.shape == ():
            (number, weight) = question.seeds[0]
            if weight.item() == 1 and not question.constants:
                return replace(self.number(number, convention), question=question.name)
        found: dict[Any, _Gathered] = {}
        constants = [Constant(name, amount) for name, amount in question.constants]
        value = sum(amount for _, amount in question.constants)
        dtype = torch.float64
        notes: list[str] = []
        eps = 0.0
        for numbers, weights in question.seeds:
            recorded = self.value(numbers)
            eps = max(eps, torch.finfo(recorded.dtype).eps)
            value += (recorded.to(dtype) * weights.to(dtype)).sum().item()
            parts: Sequence[tuple[Share | Constant, int]] = [(Share(numbers.place, weights.to(dtype)), numbers.time)]
            if question.together:
                parts = self._parts(numbers, weights.to(dtype), convention, notes) or parts
            for part, time in parts:
                if isinstance(part, Constant):
                    constants.append(part)
                else:
                    _gather(found, part, time, drop_factor=question.together)
        answer = self._answer(
            question.name, "", "sum", value, "Σ", list(found.values()), constants, eps, convention, tuple(notes)
        )
        return replace(answer, asked=(self.tape, question))

    def number(self, number: Numbers, convention: str = "values") -> Answer:
        """The terms of one number. What was only copied on is followed to where it was made."""
        try:
            return replace(self._number(number, convention), asked=(self.tape, number))
        except LostError as lost:
            return self._ending(number, "unexplained", float("nan"), str(lost), convention)

    def _number(self, number: Numbers, convention: str) -> Answer:
        dtype = torch.float64
        value = self.value(number)
        while True:
            found = self.tape.writer(number.place, number.time)
            if found is None:
                return self._leaf(number, value.item(), convention)
            call, k, index = found
            notes: list[str] = []
            op = replace(operation(self.tape, self.roles, call, k, dtype, convention), notes=notes)
            try:
                with torch.no_grad():
                    parts = list(shares(op, torch.ones((), dtype=dtype), index))
            except Unexplained as stop:
                return self._unexplained(number, op, index, stop.reason, value.item(), convention)
            copied = _copied_from(parts, call.time)
            if copied is None or chooses(op) or self.value(copied).item() != value.item():
                break
            number = copied
        gathered: dict[Any, _Gathered] = {}
        for part in parts:
            if isinstance(part, Share):
                _gather(gathered, part, call.time)
        constants = [part for part in parts if isinstance(part, Constant)]
        kind = call.outs[k].dtype  # not the value's: a copy in another format may have been followed
        eps = torch.finfo(kind if kind.is_floating_point else torch.float32).eps
        if kind in (torch.bfloat16, torch.float16):
            notes.append(f"computed in {str(kind).removeprefix('torch.')}: the residue is the kernel's rounding")
        address = self.addresses.name(number)
        answer = self._answer(
            address, address, "sum", value.item(), call.name, list(gathered.values()), constants, eps, convention,
            tuple(notes),
        )  # fmt: skip
        if abs(answer.residue) > answer.budget and _only_rounding(op, call, index, answer):
            more = "more rounding than the terms show: the kernel gives the value again, and the sum in float64"
            answer = replace(answer, budget=abs(answer.residue), notes=(*answer.notes, more))
        if abs(answer.residue) > answer.budget or answer.residue != answer.residue:
            return replace(answer, kind="unexplained", notes=(*answer.notes, f"{call.name} does not add up"))
        return replace(answer, margin=margin(op, index))

    def _parts(
        self, numbers: Numbers, weights: Tensor, convention: str, notes: list[str]
    ) -> list[tuple[Share | Constant, int]]:
        """The parts of weighted numbers, each unfolded; nothing where one of them is no sum."""
        parts: list[tuple[Share | Constant, int]] = []
        for index in torch.ones(numbers.place.shape).nonzero().tolist():
            number = numbers.at(tuple(index))
            found = self.tape.writer(number.place, number.time)
            if found is None:
                return []
            call, k, where = found
            op = replace(operation(self.tape, self.roles, call, k, torch.float64, convention), notes=notes)
            try:
                with torch.no_grad():
                    parts += [(part, call.time) for part in shares(op, weights[tuple(index)], where)]
            except Unexplained:
                return []
        return parts

    def _answer(
        self,
        question: str,
        address: str,
        kind: Kind,
        value: float,
        made_by: str,
        gathered: list[_Gathered],
        constants: list[Constant],
        eps: float,
        convention: str,
        notes: tuple[str, ...] = (),
    ) -> Answer:
        free = [g for g in gathered if not g.constant]
        fixed = [g for g in gathered if g.constant]
        values = [self._values(g) for g in free]
        products = [
            torch.where(g.weights == 0, 0.0, g.weights * v).reshape(-1) for g, v in zip(free, values, strict=True)
        ]
        flat = torch.cat(products) if products else torch.zeros(0, dtype=torch.float64)
        weights = torch.cat([g.weights.reshape(-1) for g in free]) if free else flat
        touched = weights.nonzero()[:, 0]
        starts = [0]
        for g in free:
            starts.append(starts[-1] + g.weights.numel())

        def make(n: int) -> Term:
            at = int(touched[n])
            which = next(i for i in range(len(free)) if at < starts[i + 1])
            return self._term(free[which], values[which], at - starts[which], convention)

        bias = [
            self._term(g, self._values(g), i, convention)
            for g in fixed
            for i in g.weights.reshape(-1).nonzero()[:, 0].tolist()
        ]
        bias += [Term(c.name, "", 1.0, c.amount, c.amount, constant=True) for c in constants]
        terms = Terms(flat[touched], make)
        size = flat.abs().sum().item() + sum(abs(term.contribution) for term in bias)
        residue = value - flat.sum().item() - sum(term.contribution for term in bias)
        budget = 8 * eps * (size + abs(value)) + 1e-30
        return Answer(question, address, kind, value, made_by, terms, tuple(bias), residue, budget, convention, notes)

    def _values(self, gathered: _Gathered) -> Tensor:
        return self.tape.read(gathered.place, gathered.time).to(torch.float64)

    def _term(self, gathered: _Gathered, values: Tensor, i: int, convention: str) -> Term:
        index = tuple(map(int, np.unravel_index(i, gathered.weights.shape)))  # torch's own would load its compiler
        number = Numbers(gathered.place.at(index), gathered.time)
        coefficient, value = gathered.weights[index].item(), values[index].item()
        factor = Numbers(gathered.factor.at(index), gathered.time) if gathered.factor is not None else None
        return Term(
            self.addresses.source(number),
            self.addresses.name(number),
            coefficient,
            value,
            coefficient * value,
            self.addresses.name(factor) if factor is not None else None,
            gathered.constant,
            lambda: self.number(number, convention),
            (lambda: self.number(factor, convention)) if factor is not None else None,
        )

    def _leaf(self, number: Numbers, value: float, convention: str) -> Answer:
        writers = self.tape.version(number.place.storage, number.time)
        known = self.tape.name_of(number.place)
        if known is not None:
            what = "parameter"
        elif writers:
            return self._ending(number, "unexplained", value, "written in another format", convention)
        else:
            name = self.tape.input_name(number.place.storage)
            what = "input" if ":in." in name else "made where the tape does not see it" if ":out" in name else "outside"
        return self._ending(number, "leaf", value, what, convention)

    def _ending(self, number: Numbers, kind: Kind, value: float, what: str, convention: str) -> Answer:
        address = self.addresses.name(number)
        return Answer(address, address, kind, value, what, NO_TERMS, (), 0.0, 0.0, convention)

    def _unexplained(
        self, number: Numbers, op: Operation, index: tuple[int, ...], reason: str, value: float, convention: str
    ) -> Answer:
        answer = self._ending(number, "unexplained", value, op.name, convention)
        if reason == "not a sum":
            return replace(answer, kind="not a sum", notes=("a probability is not a sum",))
        if reason != "decision":
            return replace(answer, notes=(reason,))
        sides = _sides(op, index)
        gathered = [
            _Gathered(p, torch.ones((1,) * len(p.shape), dtype=torch.float64), op.call.time, None, False) for p in sides
        ]
        sum_of = self._answer("", "", "decision", value, op.name, gathered, [], 1.0, convention)
        other = next((x for x in op.args[1:] if isinstance(x, (int, float))), 0.0)
        values = [self._values(g).item() for g in gathered]
        by = values[0] - values[1] if len(values) > 1 else values[0] - other if values else None
        if op.name in ("lt", "le") and by is not None:
            by = -by
        constants = () if len(values) != 1 else (Term(f"{other:g}", "", 1.0, other, other, constant=True),)
        return replace(answer, kind="decision", terms=sum_of.terms, constants=constants, margin=by)


def _only_rounding(op: Operation, call: Call, index: tuple[int, ...], answer: Answer) -> bool:
    """Whether the operation itself, run again, gives the recorded value, and in float64 the sum of the terms."""
    known = facts(functional(call.op))
    if known.writes or known.random or facts(call.op).random or op.call is not call:
        return False
    try:
        with torch.no_grad():
            again = op.run(lambda p: op.tape.read(p, call.time))[index].item()
            exact = op.run(op.value)[index].item()
    except (RuntimeError, NotImplementedError):
        return False
    return abs(again - answer.value) + abs(exact - answer.total) <= abs(answer.residue) / 16


@dataclass
class _Gathered:
    place: Place
    weights: Tensor
    time: int
    factor: Place | None
    constant: bool


def _gather(found: dict[Any, _Gathered], share: Share, time: int, drop_factor: bool = False) -> None:
    """Put shares of the same numbers together."""
    key = (share.place, share.constant)
    if key in found:
        found[key].weights = found[key].weights + share.weights
        found[key].factor = None
    else:
        found[key] = _Gathered(share.place, share.weights, time, None if drop_factor else share.factor, share.constant)


def _copied_from(parts: list[Any], time: int) -> Numbers | None:
    """The number that an operation has only taken over."""
    if len(parts) != 1 or not isinstance(parts[0], Share) or parts[0].constant:
        return None
    share = parts[0]
    if share.factor is not None:
        return None
    where = share.weights.nonzero()
    if len(where) != 1:
        return None
    index = tuple(where[0].tolist())
    return Numbers(share.place.at(index), time) if share.weights[index].item() == 1 else None


def _sides(op: Operation, index: tuple[int, ...]) -> list[Place]:
    """What a comparison compares, narrowed to one number."""
    if op.name not in DECISIONS or op.name.startswith("arg"):
        return []
    return [x.expand(*op.shape).pick(index) for x in op.call.args if isinstance(x, Place)]
