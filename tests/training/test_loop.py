"""The one loop, on tasks small enough to compute by hand."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pellucid import PellucidError
from pellucid.training.loop import one_step, steps
from pellucid.training.optimisers import Optimiser


class Points:
    """y = ax + b through points: the sum of squares, and how many."""

    name = "points"

    def __init__(self, x, y):
        self.x, self.y = x, y

    def loss(self, network, batch):
        x, y = self.x[batch], self.y[batch]
        seen = ~torch.isnan(y)
        return ((network(x) - y)[seen] ** 2).sum(), int(seen.sum())


class Order:
    """Endless micro-batches of indices."""

    def __init__(self, batches):
        self.batches, self.position = batches, {"batch": 0}

    def __next__(self):
        batch = self.batches[self.position["batch"] % len(self.batches)]
        self.position = {"batch": self.position["batch"] + 1}
        return batch


def plan(**changes):
    settings = {
        "optimiser": "adamw",
        "learning_rate": 0.01,
        "embedding_rate": 0.01,
        "weight_decay": 0.0,
        "schedule": "stable",
        "warmup": 0.0,
        "decay": 0.0,
        "planned_steps": 10,
        "steps": 10,
        "accumulation": 1,
        "clip": 1e9,
        "l1": 0.0,
        "l2": 0.0,
        "precision": "fp32",
        "device": "cpu",
        "events": [],
        **changes,
    }
    return SimpleNamespace(**settings)


def line():
    torch.manual_seed(0)
    return nn.Linear(1, 1).double()


x = torch.linspace(-1, 1, 12, dtype=torch.float64)[:, None]
y = 3 * x - 1
everything = torch.arange(12)


def test_micro_batches_of_unequal_size_give_the_gradient_of_the_whole():
    whole, parts = line(), line()
    by_parts = [everything[:7], everything[7:9], everything[9:]]
    first = one_step(0, whole, Points(x, y), Order([everything]), Optimiser(whole, plan()), plan())
    p = plan(accumulation=3)
    second = one_step(0, parts, Points(x, y), Order(by_parts), Optimiser(parts, p), p)
    assert first.loss == pytest.approx(second.loss, rel=1e-12)
    assert first.gradient_norm == pytest.approx(second.gradient_norm, rel=1e-12)
    assert first.targets == second.targets == 12
    torch.testing.assert_close(whole.weight, parts.weight, rtol=1e-12, atol=0)


def test_loss_and_gradient_norm_are_those_of_the_mean():
    network = line()
    a, b = network.weight.item(), network.bias.item()
    step = one_step(0, network, Points(x, y), Order([everything]), Optimiser(network, plan()), plan())
    errors = [a * xi + b - yi for xi, yi in zip(x.flatten().tolist(), y.flatten().tolist(), strict=True)]
    slope_a = sum(2 * e * xi for e, xi in zip(errors, x.flatten().tolist(), strict=True)) / 12
    slope_b = sum(2 * e for e in errors) / 12
    assert step.loss == pytest.approx(sum(e * e for e in errors) / 12, rel=1e-12)
    assert step.gradient_norm == pytest.approx(math.hypot(slope_a, slope_b), rel=1e-12)


def test_long_gradients_are_shortened_to_the_clip():
    class Kept(Optimiser):
        def step(self, factor):
            self.length = math.sqrt(sum(float((p.grad**2).sum()) for p in self.names))

    network = line()
    optimiser = Kept(network, plan())
    step = one_step(0, network, Points(x, y), Order([everything]), optimiser, plan(clip=0.5))
    assert step.gradient_norm > 0.5
    assert optimiser.length == pytest.approx(0.5, rel=1e-5)


def test_the_loop_finds_the_line():
    network = line()
    p = plan(learning_rate=0.1, decay=0.5, planned_steps=300, steps=300)
    losses = [step.loss for step in steps(network, Points(x, y), Optimiser(network, p), p, Order([everything]))]
    assert len(losses) == 300
    assert losses[-1] < 1e-6
    assert network.weight.item() == pytest.approx(3, abs=1e-2)
    assert network.bias.item() == pytest.approx(-1, abs=1e-2)


def test_a_plan_shortened_meanwhile_ends_the_loop():
    network, p = line(), plan()
    seen = []
    for step in steps(network, Points(x, y), Optimiser(network, p), p, Order([everything])):
        seen.append(step.number)
        p.steps = 4
    assert seen == [0, 1, 2, 3]


def test_a_batch_without_targets_is_named_and_nothing_is_updated():
    network = line()
    before = network.weight.clone()
    masked = torch.full_like(y, math.nan)
    with pytest.raises(PellucidError, match="masked") as caught:
        one_step(3, network, Points(x, masked), Order([everything]), Optimiser(network, plan()), plan())
    assert "3" in caught.value.where
    assert torch.equal(network.weight, before)


def test_a_micro_batch_without_targets_is_counted_and_leaves_the_rest_right():
    network, alone = line(), line()
    half = y.clone()
    half[6:] = math.nan
    p = plan(accumulation=2)
    step = one_step(0, network, Points(x, half), Order([everything[:6], everything[6:]]), Optimiser(network, p), p)
    expected = one_step(0, alone, Points(x, y), Order([everything[:6]]), Optimiser(alone, plan()), plan())
    assert step.empty == 1
    assert step.loss == pytest.approx(expected.loss, rel=1e-12)
    assert torch.equal(network.weight, alone.weight)


class Deep(nn.Module):
    """Three layers, the second of which can be made to overflow."""

    def __init__(self, scale=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.third = (nn.Linear(1, 1).double() for _ in range(3))
        self.scale = scale

    def forward(self, x):
        return self.third(torch.exp(self.second(self.first(x)) * self.scale))


def test_the_first_number_that_is_not_finite_is_named_and_the_step_is_not_applied():
    network = Deep()
    with torch.no_grad():
        network.second.weight.fill_(1e308)
        network.first.weight.fill_(1e10)
    before = [p.clone() for p in network.parameters()]
    with pytest.raises(PellucidError) as caught:
        one_step(5, network, Points(x, y), Order([everything]), Optimiser(network, plan()), plan())
    assert "step 5" in caught.value.where
    assert "output of second" in caught.value.where
    assert "--learning-rate" in caught.value.fix
    assert all(torch.equal(p, q) for p, q in zip(network.parameters(), before, strict=True))


def test_a_gradient_that_is_not_finite_is_named_where_the_backward_pass_meets_it_first():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.inside, self.outside = nn.Linear(1, 1).double(), nn.Linear(1, 1).double()

        def forward(self, x):
            return self.outside(torch.sqrt(self.inside(x) * 0))  # the root's slope at 0 is infinite

    network = Root()
    with pytest.raises(PellucidError) as caught:
        one_step(0, network, Points(x, y), Order([everything]), Optimiser(network, plan()), plan())
    assert "gradient at the output of inside" in caught.value.where
