"""Schedules as functions of the step, and the early decay that overrides them."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.training.schedules import SCHEDULES, factor

plans = st.builds(
    lambda schedule, steps, warmup, decay: SimpleNamespace(
        schedule=schedule, planned_steps=steps, warmup=warmup, decay=decay, events=[]
    ),
    st.sampled_from(sorted(SCHEDULES)),
    st.integers(1, 3000),
    st.floats(0, 0.3),
    st.floats(0, 0.7),
)


@given(plans)
def test_the_rate_rises_to_its_peak_and_never_leaves_zero_to_one(plan):
    factors = [factor(plan, step) for step in range(plan.planned_steps)]
    assert all(0 < f <= 1 for f in factors)
    peak = factors.index(max(factors))
    assert factors[:peak] == sorted(factors[:peak])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_stable_is_one_in_the_middle_and_almost_zero_in_the_last_step():
    plan = SimpleNamespace(schedule="stable", planned_steps=1000, warmup=0.1, decay=0.4, events=[])
    assert factor(plan, 0) == pytest.approx(0.01)
    assert factor(plan, 300) == factor(plan, 599) == 1
    assert factor(plan, 800) == pytest.approx(0.5)
    assert factor(plan, 999) == pytest.approx(1 / 400)


def test_cosine_ends_at_a_tenth():
    plan = SimpleNamespace(schedule="cosine", planned_steps=1000, warmup=0.0, decay=0.0, events=[])
    assert factor(plan, 500) == pytest.approx(0.55)
    assert factor(plan, 999) == pytest.approx(0.1, abs=1e-4)


@given(plans, st.floats(0, 0.9), st.floats(0.05, 1))
def test_early_decay_goes_on_from_the_rate_it_finds_down_to_zero(plan, share, left):
    step = int(plan.planned_steps * share)
    before = factor(plan, step)
    end = step + max(1, int((plan.planned_steps - step) * left))
    earlier = [factor(plan, n) for n in range(step)]
    plan.events.append({"step": step, "steps": end, "factor": before})
    assert [factor(plan, n) for n in range(step)] == earlier
    after = [factor(plan, n) for n in range(step, end)]
    assert after[0] == before
    assert after == sorted(after, reverse=True)
    assert factor(plan, end) == 0
