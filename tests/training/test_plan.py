"""What the plan derives, from a speed that the test decides."""

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid import PellucidError
from pellucid.tasks.task import Design
from pellucid.tasks.text import TextTask
from pellucid.training.machine import Machine
from pellucid.training.options import TrainOptions, parameters
from pellucid.training.plan import Plan, derive

MACHINE = Machine("cpu", 2, "bf16", {})
MOST_PASSES = 40


class Ladder:
    """A task whose networks do nothing, each twice as large as the one before."""

    name, unit = "ladder", "tokens"
    recipe, regularisation = TextTask.recipe, TextTask.regularisation

    def __init__(self, items):
        self.items = items

    def facts(self):
        return {"held_out_items": self.items // 20}

    def designs(self, options):
        return [Design({"d_model": 64 << n, "dropout": 0.0}, 100_000 << n, 6 * (100_000 << n), 128) for n in range(8)]

    def why(self, design, options):
        return {}

    def regularised(self, network, dropout):
        return {**network, "dropout": dropout}


def derived(items=10_000_000, flops=5e10, **options):
    """A plan on a machine that makes so many FLOPs a second."""
    return derive(
        Ladder(items),
        TrainOptions(**options),
        MACHINE,
        lambda plan: plan.items_per_step * 6 * plan.parameters / flops,
    )


@given(st.floats(0.05, 600), st.floats(1e9, 1e13), st.integers(1000, 10**9))
def test_the_promised_time_is_kept_and_every_decision_has_a_reason(minutes, flops, items):
    plan = derived(items, flops, minutes=minutes)
    seconds = plan.steps * plan.forecast["seconds_per_step"]
    assert seconds <= 60 * minutes or plan.steps == 1
    passes = plan.steps * plan.items_per_step / items
    assert passes <= MOST_PASSES + 1 or plan.steps <= 100
    assert plan.forecast["training_seconds"] == pytest.approx(seconds)
    assert 1 <= plan.evaluate_every <= plan.steps
    assert 0 < plan.evaluate_items <= items
    assert {"network", "batch", "steps", "optimiser", "learning_rate", "dropout", "weight_decay"} <= plan.reasons.keys()


def test_more_time_gives_larger_networks_and_larger_batches():
    plans = [derived(10**9, minutes=minutes) for minutes in (1, 10, 100, 1000)]
    sizes, batches = [p.parameters for p in plans], [p.items_per_step for p in plans]
    assert sizes == sorted(sizes)
    assert sizes[-1] > sizes[0]
    assert batches == sorted(batches)
    assert batches[-1] > batches[0]


def test_little_text_is_regularised_and_not_passed_over_for_ever():
    little, much = derived(20_000, minutes=5), derived(10**9, minutes=5)
    assert little.network["dropout"] > much.network["dropout"] == 0
    assert little.weight_decay > much.weight_decay
    assert little.steps * little.items_per_step <= (MOST_PASSES + 1) * 20_000
    assert "passes" in little.reasons["steps"]


def test_what_the_user_says_stands():
    plan = derived(
        steps=77, batch=3, accumulation=5, learning_rate=0.5, dropout=0.05, weight_decay=0.7, optimiser="adamw"
    )
    assert (plan.steps, plan.batch, plan.accumulation, plan.learning_rate) == (77, 3, 5, 0.5)
    assert (plan.network["dropout"], plan.weight_decay, plan.optimiser) == (0.05, 0.7, "adamw")
    assert plan.reasons["steps"] == plan.reasons["optimiser"] == "as given"
    assert plan.budget_seconds is None


def test_a_size_chooses_the_nearest_network_and_twenty_items_a_parameter():
    plan = derived(10**9, size="1.5M")
    assert plan.parameters == 1_600_000
    assert plan.steps * plan.items_per_step == pytest.approx(20 * 1_600_000, rel=0.01)


@pytest.mark.parametrize(("text", "number"), [("3M", 3e6), ("1.5B", 1.5e9), ("400k", 4e5), ("124000000", 1.24e8)])
def test_sizes(text, number):
    assert parameters(text) == number


@pytest.mark.parametrize("text", ["", "M", "-3M", "0", "nan", "1e400", "three"])
def test_sizes_that_are_none(text):
    with pytest.raises(PellucidError, match="--size"):
        parameters(text)


def test_a_plan_survives_its_file(tmp_path):
    plan = derived(minutes=3)
    plan.decay_early(5, 50)
    plan.save(tmp_path / "plan.json")
    again = Plan.open(tmp_path / "plan.json")
    assert asdict(again) == asdict(plan)
    assert again.steps == 50


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"task": "text"}', '{"unknown": 1}', "not json"])
def test_a_damaged_plan_is_refused(tmp_path, damage):
    (tmp_path / "plan.json").write_text(damage)
    with pytest.raises(PellucidError, match=r"plan\.json"):
        Plan.open(tmp_path / "plan.json")
    whole = asdict(derived(minutes=3))
    (tmp_path / "plan.json").write_text(json.dumps(whole | {"steps_": 3}))
    with pytest.raises(PellucidError, match=r"plan\.json"):
        Plan.open(tmp_path / "plan.json")
