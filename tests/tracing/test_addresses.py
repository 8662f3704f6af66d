"""Addresses: every number has one, it leads back to the number, and it is the same in the next run."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import pellucid as pl
from pellucid.tracing.addresses import Numbers
from pellucid.tracing.trace import Trace
from tracing.zoo import ZOO, make


@cache
def traced(name: str, again: bool = False) -> Trace:
    case = make(name)
    with torch.no_grad(), pl.record(case.net) as trace:
        out = case()
        for x in out if isinstance(out, tuple) else [out]:
            if isinstance(x, torch.Tensor) and x.is_floating_point():
                (x * 2).sum()  # outside of every module
    return trace


def numbers_of(trace: Trace) -> list[Numbers]:
    """All tensors that a call has made or read."""
    tape = trace.tape
    made = [Numbers(out, call.time + 1) for call in tape.calls for out in call.outs if out is not None and out.numel]
    return made + [Numbers(place, call.time) for call in tape.calls for place in call.operands() if place.numel]


@pytest.mark.parametrize("name", ZOO)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_numbers_address_leads_back_to_it(name: str, data: st.DataObject) -> None:
    trace = traced(name)
    all_of_them = numbers_of(trace)
    several = all_of_them[data.draw(st.integers(0, len(all_of_them) - 1))]
    index = tuple(data.draw(st.integers(0, size - 1)) for size in several.place.shape)
    number = several.at(index)
    address = trace.addresses.name(number)
    found = trace.find(address)
    assert found.place == number.place, address
    made = trace.tape.writer(number.place, number.time)
    assert trace.tape.writer(found.place, found.time) == made, address
    assert trace.addresses.name(found) == address


@pytest.mark.parametrize("name", ["strange", "gpt2", "qwen3, ours, writing", "resnet, training", "t5"])
def test_addresses_are_the_same_in_the_next_run(name: str) -> None:
    first, second = traced(name), traced(name, again=True)
    assert first is not second
    assert first.addresses.all() == second.addresses.all()
    for address in first.addresses.all()[::7]:
        if "empty" in address:
            continue  # memory that nothing has been written to
        assert first.find(address).place.shape == second.find(address).place.shape
        torch.testing.assert_close(first.value(address), second.value(address), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", ZOO)
def test_every_listed_address_is_found(name: str) -> None:
    trace = traced(name)
    for address in trace.addresses.all():
        trace.find(address)


def test_a_wrong_address_gets_the_nearest_names() -> None:
    trace = traced("gpt2, ours")
    with pytest.raises(pl.PellucidError, match=r"blocks\.1\.attention"):
        trace.find("blocks.1.atention")
    with pytest.raises(pl.PellucidError, match=r"head\.weight|embedding\.weight"):
        trace.find("embeding.weight")
    with pytest.raises(pl.PellucidError):
        trace.find("]what[")
    with pytest.raises(pl.PellucidError):
        trace.find("outside.99999[0]")


@pytest.mark.parametrize("index", ["[0,0]", "[0,0,50]", "[0,7,0]", "[0,0,-51]", "[0,0,0,0]"])
def test_an_index_that_does_not_fit_names_the_shape(index: str) -> None:
    with pytest.raises(pl.PellucidError, match=r"\[1, 7, 50\]"):
        traced("gpt2, ours").find(f"head{index}")


def test_negative_indices_count_from_the_end() -> None:
    trace = traced("gpt2, ours")
    assert trace.find("head[-1,-1,-50]") == trace.find("head[0,6,0]")


def test_a_call_too_many_is_counted() -> None:
    trace = traced("strange")
    assert trace.find("again#0[0,0]") != trace.find("again#2[0,0]")
    assert trace.find("again#2[0,0]") == trace.find("again[0,0]")
    with pytest.raises(pl.PellucidError, match="3 times"):
        trace.find("again#3[0,0]")


def test_the_tree_lists_every_call_of_every_module() -> None:
    trace = traced("strange")
    tree = trace.tree()
    assert [f"again#{n}" in tree for n in range(4)] == [True, True, True, False]
    assert "Embedding" in tree
    assert "/index_add.0" in tree
    assert "[5, 8]" in tree


def test_what_a_module_reads_and_gives_by_side_and_item() -> None:
    class Both(nn.Module):
        def forward(self, x: torch.Tensor, *, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x += 1
            return x * y, x - y

    x, y = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0])
    trace = pl.trace(Both(), x.clone(), y=y)
    assert trace.value(":in.0").tolist() == [1.0, 2.0]  # before it was added to
    assert trace.value(":in.1").tolist() == [3.0, 5.0]
    assert trace.value(":out").tolist() == [6.0, 15.0]
    assert trace.value(":out.1").tolist() == [-1.0, -2.0]
    assert trace.value("/add.0").tolist() == [2.0, 3.0]
    assert trace.value("/mul.0:in.1").tolist() == [3.0, 5.0]


def test_names_are_completed() -> None:
    trace = traced("gpt2, ours")
    assert "blocks.0.attention" in trace._ipython_key_completions_()
    assert trace["blocks.0.attention"].shape == (1, 7, 32)
