"""Compute-optimal sizes against the papers, and budgets as the inverse of costs."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid import PellucidError
from pellucid.anatomy.cost.devices import find, table
from pellucid.anatomy.cost.optimal import BESIROGLU, HOFFMANN, caveat, compute_optimal, what_fits
from pellucid.anatomy.cost.training import training_cost

A100 = find("a100-80gb")
CHINCHILLA = 5.76e23  # FLOPs; trained at 70 billion parameters on 1.4 trillion tokens (Hoffmann et al. 2022, table 4)


def test_the_budget_of_chinchilla():
    rule, anew, approach_3 = compute_optimal(CHINCHILLA)
    assert rule.parameters == pytest.approx(70e9, rel=0.02)
    assert rule.tokens == pytest.approx(1.4e12, rel=0.02)
    assert anew.parameters == pytest.approx(70e9, rel=0.05)
    assert 18 < anew.tokens / anew.parameters < 20
    assert approach_3.parameters == pytest.approx(40e9, rel=0.02)  # Hoffmann et al. 2022, section 3.4: 40 billion


@pytest.mark.parametrize(
    ("law", "a", "b"), [(HOFFMANN, 0.46, 0.54), (BESIROGLU, 0.51, 0.49)]
)  # N grows as C^a, D as C^b: Hoffmann et al. 2022, table 2; Besiroglu et al. 2024, section 3
def test_growth_with_compute(law, a, b):
    growth = math.log10(law.best_size(1e22) / law.best_size(1e21))
    assert growth == pytest.approx(a, abs=0.005)
    assert 1 - growth == pytest.approx(b, abs=0.005)


@given(st.floats(1e10, 1e28), st.sampled_from([HOFFMANN, BESIROGLU]), st.floats(-1, 1))
def test_no_other_split_is_better(flops, law, nudge):
    best = law.best_size(flops)
    other = best * 10**nudge
    assert law.loss(best, flops / 6 / best) <= law.loss(other, flops / 6 / other) * (1 + 1e-12)
    assert all(6 * found.parameters * found.tokens == pytest.approx(flops) for found in compute_optimal(flops))


@given(
    st.sampled_from(sorted(table())), st.floats(1e6, 1e30), st.floats(1e-3, 1), st.integers(1, 99), st.floats(0.1, 9)
)
def test_a_budget_is_a_cost_backwards(name, flops, share, devices, price):
    device = find(name)
    cost = training_cost(flops, device, devices, utilisation=share, price=price)
    assert what_fits(device, money=cost.money, utilisation=share, price=price).flops == pytest.approx(flops)
    assert what_fits(device, hours=cost.hours, devices=devices, utilisation=share).flops == pytest.approx(flops)


def test_a_budget_is_explained():
    budget = what_fits(A100, money=1000)
    assert budget.device_hours == 1000 / 2.79
    lines = "\n".join(budget.explain())
    for words in ("assumed", "lambda.ai", "1,000 $ / 2.79 $ = 358.4", "20 tokens a parameter", "Besiroglu", "nats"):
        assert words in lines
    assert len([name for name in budget.reasons if name.startswith("optimum")]) == len(budget.optima) == 3
    assert "100 × 8 = 800" in what_fits(A100, hours=100, devices=8).reasons["device_hours"]


def test_extrapolation_is_said():
    assert "outside" not in caveat(1e20)
    assert "6e+18 to 3e+21" in caveat(1e25)
    assert "6e+18 to 3e+21" in caveat(1e12)


@pytest.mark.parametrize(
    ("where", "wrong"),
    [
        ("money, hours", {}),
        ("money, hours", {"money": 1, "hours": 1}),
        ("money", {"money": 0}),
        ("hours", {"hours": float("nan")}),
        ("devices", {"hours": 1, "devices": 0}),
        ("utilisation", {"hours": 1, "utilisation": 2}),
        ("price", {"money": 1, "price": 0}),
        ("price", {"money": 1, "device": find("h800")}),
    ],
)
def test_impossible_budgets_are_refused(where, wrong):
    with pytest.raises(PellucidError) as caught:
        what_fits(**{"device": A100} | wrong)
    assert caught.value.where == where
    assert caught.value.fix


def test_no_compute_is_refused():
    with pytest.raises(PellucidError, match="flops"):
        compute_optimal(-1)
