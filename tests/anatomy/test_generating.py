"""Bounds of generating, and their limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid import PellucidError
from pellucid.anatomy.cost.devices import find, table
from pellucid.anatomy.cost.generating import generating_cost

A100 = find("a100-80gb")
LLAMA = {
    "weights": 2 * 6_738_415_616,
    "cache": 1024 * 524_288,
    "flops": 2 * 6_738_415_616,
}  # Llama-2-7B at 1,024 tokens


def test_llama_2_7b_on_an_a100():
    alone = generating_cost(**LLAMA | {"cache": 0}, device=A100)
    assert alone.bound == "bandwidth"
    assert alone.tokens_per_second == pytest.approx(2039e9 / 13.48e9, rel=1e-3)  # 151
    assert alone.money == pytest.approx(1e6 / 151.3 / 3600 * 2.79, rel=1e-3)
    many = generating_cost(**LLAMA, device=A100, batch=64)
    assert 10 < many.tokens_per_second / alone.tokens_per_second < 64  # weights are read once, caches one by one
    assert "= 151.3" in alone.reasons["tokens_per_second"]
    assert "2.79 $" in alone.reasons["money"]
    assert len(alone.explain()) == 5


def test_large_batches_are_bound_by_arithmetic():
    busy = generating_cost(**LLAMA | {"cache": 0}, device=A100, batch=1000)
    assert busy.bound == "compute"
    assert busy.tokens_per_second == pytest.approx(312e12 / LLAMA["flops"])
    assert generating_cost(**LLAMA, device=find("h800")).money is None


@given(st.sampled_from(sorted(table())), st.integers(1, 512), st.floats(0, 1e10), st.integers(1, 16))
def test_what_holds_for_all(name, batch, cache, devices):
    device, sizes = find(name), LLAMA | {"cache": cache}
    one = generating_cost(**sizes, device=device, batch=batch, price=1)
    more = generating_cost(**sizes, device=device, batch=batch + 1, price=1)
    shared = generating_cost(**sizes, device=device, batch=batch, devices=devices, price=1)
    assert more.tokens_per_second >= one.tokens_per_second * (1 - 1e-9)  # a larger batch is never slower in all
    assert shared.tokens_per_second == pytest.approx(devices * one.tokens_per_second)
    assert shared.money == pytest.approx(one.money)  # twice the devices, half the time


@pytest.mark.parametrize(
    ("where", "value"),
    [("weights", 0), ("cache", -1), ("cache", float("nan")), ("flops", 0), ("batch", 0), ("devices", 0), ("price", -2)],
)
def test_impossible_numbers_are_refused(where, value):
    with pytest.raises(PellucidError) as caught:
        generating_cost(**LLAMA | {"device": A100, where: value})
    assert caught.value.where == where
