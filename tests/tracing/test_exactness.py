"""Every number of every network in the zoo adds up, and every link is the right one."""

from __future__ import annotations

import copy
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import pellucid as pl
from pellucid.tracing.addresses import Numbers
from pellucid.tracing.rules import RULES
from pellucid.tracing.rules.operation import Share
from pellucid.tracing.trace import Trace
from tracing.witness import Witness
from tracing.zoo import ZOO, Case, make

FAST = 60  # numbers of each network
SLOW = 2_800
FINE = {name: 1e-13 for name in ZOO if "float64" in name} | {name: 2e-2 for name in ZOO if "autocast" in name}

# What ends without a sum, and why that is right.
NO_SUM = {
    ("_softmax", "a probability is not a sum"),
    ("native_dropout", "random"),  # its mask
    ("bernoulli", "random"),
    ("_scaled_dot_product_flash_attention_for_cpu", "kept for the backward pass"),  # its logsumexp
}


def recorded(case: Case) -> tuple[Trace, Witness]:
    with torch.no_grad(), pl.record(case.net) as trace, Witness(trace.tape) as witness:
        case()
    return trace, witness


def some_numbers(trace: Trace, n: int, seed: int) -> list[tuple[int, int, tuple[int, ...]]]:
    """Random numbers on a tape: call, result, index."""
    draw = random.Random(seed)
    results = [
        (call.time, k, out.shape)
        for call in trace.tape.calls
        for k, out in enumerate(call.outs)
        if out is not None and out.numel and out.dtype.is_floating_point and "empty" not in call.name
    ]
    chosen = draw.choices(results, k=n)
    return [(time, k, tuple(draw.randrange(size) for size in shape)) for time, k, shape in chosen]


class Check:
    """Holds numbers of one recorded run against the witness."""

    def __init__(self, name: str, seed: int = 0) -> None:
        self.name, self.seed = name, seed
        case = make(name, seed)
        self.parameters = {k: v.clone() for k, v in copy.deepcopy(case.net).state_dict(keep_vars=False).items()}
        self.trace, self.witness = recorded(case)
        self.kinds: Counter[Any] = Counter()
        self.links = 0

    def number(self, time: int, k: int, index: tuple[int, ...]) -> None:
        call = self.trace.tape.calls[time]
        value = self.witness.seen[time].results[k][index].item()
        numbers = Numbers(call.outs[k].at(index), time + 1)
        answer = self.trace.why(numbers)
        about = f"{self.name}: {answer.address} ({call.name} {k} {index})"
        assert answer.value == value or value != value, about
        if value != value or abs(value) == float("inf"):
            self.kinds["not finite"] += 1
            return
        self.kinds[answer.kind if answer.kind != "unexplained" else (answer.operation, *answer.notes)] += 1
        if answer.kind == "not a sum":
            assert (answer.operation, *answer.notes) in NO_SUM, about
        if answer.kind != "sum":
            return
        size = answer.terms.contributions.abs().sum().item() + sum(abs(c.contribution) for c in answer.constants)
        assert abs(value - answer.total) <= FINE.get(self.name, 1e-6) * size + 1e-30, about
        picked = random.Random(time).sample(range(len(answer.terms)), min(2, len(answer.terms)))
        for term in (*(answer.terms[i] for i in picked), *answer.constants[:1]):
            self.link(term.address, term.value, about)

    def link(self, address: str, value: float, about: str) -> None:
        """A term has the value that the number it links to had when it was made."""
        if not address:
            return
        numbers = self.trace.find(address)
        found = self.trace.tape.writer(numbers.place, numbers.time)
        if found is not None:
            call, k, index = found
            seen = self.witness.seen[call.time].results[k][index].item()
        elif (name := address.partition("[")[0]) in self.parameters:
            index = tuple(int(i) for i in address[len(name) + 1 : -1].split(",") if i)
            seen = self.parameters[name][index].item()
        else:
            return
        self.links += 1
        assert seen == value or seen != seen, f"{about} -> {address}"


@pytest.mark.parametrize("name", ZOO)
def test_random_numbers_add_up_and_link_right(name: str) -> None:
    check = Check(name)
    for number in some_numbers(check.trace, FAST, seed=1):
        check.number(*number)
    unexplained = {kind for kind in check.kinds if isinstance(kind, tuple)}
    assert unexplained <= NO_SUM, unexplained
    assert check.links or name == "perceptron"


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_many_random_numbers_add_up_and_link_right(name: str) -> None:
    check = Check(name, seed=7)
    for number in some_numbers(check.trace, SLOW, seed=8):
        check.number(*number)
    unexplained = {kind for kind in check.kinds if isinstance(kind, tuple)}
    assert unexplained <= NO_SUM, unexplained


def test_the_slow_test_asks_about_a_hundred_thousand_numbers() -> None:
    assert SLOW * len(ZOO) >= 100_000


@pytest.mark.parametrize("name", ZOO)
def test_every_cut_and_the_constants_equal_the_target(name: str) -> None:
    case = make(name)
    trace = pl.trace(case.net, *case.args, **case.named)
    draw = random.Random(3)
    for place in [p for p in trace.tape.scopes[0].outputs if p.dtype.is_floating_point and p.numel][:3]:
        numbers = Numbers(place.at(tuple(draw.randrange(size) for size in place.shape)), trace.tape.scopes[0].end)
        flow = trace.flow(numbers, exact=True)
        parts: list[Tensor | float] = [*flow.inputs.values(), *flow.constants.values(), *flow.stopped.values()]
        parts += [flow.tokens] if flow.tokens is not None else []
        sums = [torch.as_tensor(part, dtype=torch.float64) for part in parts]
        size = sum(part.abs().sum().item() for part in sums)
        fine = FINE.get(name, 1e-6) * len(trace.tape.calls)
        assert abs(flow.value - sum(part.sum().item() for part in sums)) <= fine * size + 1e-12
        for layer in flow.layers:
            groups = [group.amount for group in layer.groups]
            total = sum(groups) + layer.past + layer.constant + layer.later
            size = sum(map(abs, [*groups, layer.past, layer.constant, layer.later]))
            assert abs(flow.value - total) <= fine * size + 1e-12, layer.name


def unsound(trace: Trace) -> set[int]:
    """Calls of which some number is said to be unexplained, or does not add up: asked without any witness."""
    found = set()
    for time, k, index in some_numbers(trace, 600, seed=2):
        answer = trace.why(Numbers(trace.tape.calls[time].outs[k].at(index), time + 1))
        size = answer.terms.contributions.abs().sum().item() + sum(abs(c.contribution) for c in answer.constants)
        reason = (answer.operation, *answer.notes)
        said = answer.kind == "unexplained" and reason not in NO_SUM
        if said or (answer.kind == "sum" and abs(answer.value - answer.total) > 1e-5 * size):
            found.add(time)
    return found


def traced(name: str = "gpt2, ours") -> Trace:
    trace, _ = recorded(make(name))
    assert not unsound(trace)
    return trace


def test_an_altered_value_surfaces() -> None:
    trace = traced()
    call = next(call for call in trace.tape.calls if call.name == "addmm")
    trace.tape.read(call.outs[0], call.time + 1).add_(0.01)
    readers = {c.time for c in trace.tape.calls if any(p.storage == call.outs[0].storage for p in c.operands())}
    assert unsound(trace) == {call.time} | readers


def test_an_altered_coefficient_surfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = traced()
    rule = RULES["native_layer_norm"]

    def one_percent_more(op: Any, w: Tensor) -> Any:
        for part in rule(op, w):
            yield replace(part, weights=1.01 * part.weights) if isinstance(part, Share) else part

    monkeypatch.setitem(RULES, "native_layer_norm", one_percent_more)
    assert {trace.tape.calls[time].name for time in unsound(trace)} == {"native_layer_norm"}


def test_an_altered_link_surfaces() -> None:
    trace = traced()
    first, second = [call for call in trace.tape.calls if call.name == "add" and call.scope is not None][-2:]
    assert first.outs[0].shape == second.args[0].shape
    second.args = (first.args[1], *second.args[1:])
    assert second.time in unsound(trace)
