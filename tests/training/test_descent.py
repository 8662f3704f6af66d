"""Learning as the textbooks have it: Rosenblatt's rule, steepest descent, gradients against finite differences."""

from itertools import product
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pellucid.networks.dense import Dense, DenseConfig
from pellucid.networks.losses import LOSSES, count
from pellucid.training.loop import one_step
from pellucid.training.optimisers import Optimiser

INPUTS = torch.tensor(list(product((0.0, 1.0), repeat=3)), dtype=torch.float64)  # weather, price, company


class Examples:
    """Inputs and targets, judged by a named loss."""

    def __init__(self, x, y, loss):
        self.x, self.y, self.by = x, y, LOSSES[loss]

    def loss(self, network, batch):
        outputs = network.scores(self.x[batch]) if isinstance(network, Dense) else network(self.x[batch])
        return self.by(outputs, self.y[batch]), count(self.y[batch])


def batches(indices):
    for index in indices:
        yield torch.tensor(index)


def plan(rate, **changes):
    settings = {
        "optimiser": "sgd",
        "learning_rate": rate,
        "momentum": 0.0,
        "nesterov": False,
        "l1": 0.0,
        "l2": 0.0,
        "clip": 1e9,
        "schedule": "stable",
        "warmup": 0.0,
        "decay": 0.0,
        "planned_steps": 10**9,
        "accumulation": 1,
        "precision": "fp32",
        "device": "cpu",
        "events": [],
        **changes,
    }
    return SimpleNamespace(**settings)


def test_a_perceptron_learns_by_rosenblatts_rule_update_by_update():
    wanted = INPUTS @ torch.tensor([8.0, 4.0, 4.0], dtype=torch.float64) > 8
    targets = torch.where(wanted, 1.0, -1.0).double()
    network = Dense(DenseConfig(3, 1, output_activation="step")).double()
    nn.init.zeros_(network.layers[0].linear.weight)
    nn.init.zeros_(network.layers[0].threshold)
    order = [[n] for _ in range(30) for n in range(8)]
    p, task, examples = plan(1.0), Examples(INPUTS, targets, "perceptron"), batches(order)
    optimiser = Optimiser(network, p)
    w, threshold, mistakes = [0.0, 0.0, 0.0], 0.0, []
    for number, (n,) in enumerate(order):
        x, t = INPUTS[n].tolist(), targets[n].item()
        one_step(number, network, task, examples, optimiser, p)
        if t * (sum(a * b for a, b in zip(w, x, strict=True)) - threshold) <= 0:
            w, threshold = [a + t * b for a, b in zip(w, x, strict=True)], threshold - t
            mistakes.append(number)
        assert network.layers[0].linear.weight.tolist() == [w]
        assert network.layers[0].threshold.item() == threshold
    assert mistakes[0] == 0
    assert mistakes[-1] < len(order) - 8  # a whole pass without a mistake: it has converged
    assert torch.equal(network(INPUTS).flatten() > 0, wanted)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Sigmoid(), nn.Linear(5, 2)).double()


def sixty():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(60, 3, generator=generator, dtype=torch.float64)
    return x, torch.stack([x[:, 0] * x[:, 1], x[:, 2].sin()], dim=1)


@pytest.mark.parametrize("rate", [1e-2, 1e-3, 1e-4])
def test_a_small_step_lowers_the_cost_by_rate_times_the_squared_gradient(rate):
    network, (x, y) = net(), sixty()
    p, task, everything = plan(rate), Examples(x, y, "squared_error"), list(range(60))
    step = one_step(0, network, task, batches([everything]), Optimiser(network, p), p)
    with torch.no_grad():
        loss, targets = task.loss(network, torch.tensor(everything))
    assert step.loss == pytest.approx(((y - net()(x)) ** 2).sum().item() / (2 * 60))  # C = 1/2n Σ |y - a|²
    change = loss.item() / targets - step.loss
    assert change == pytest.approx(-rate * step.gradient_norm**2, rel=5 * rate)


@pytest.mark.parametrize("name", ["squared_error", "absolute", "binary_cross_entropy", "hinge", "perceptron"])
def test_one_update_is_the_rate_times_the_slopes_of_finite_differences(name):
    network, (x, y) = net(), sixty()
    y = y if name in ("squared_error", "absolute") else (y > 0).double() if "binary" in name else y.sign()
    task, everything, size = Examples(x, y, name), torch.arange(60), 1e-6
    slopes = []
    with torch.no_grad():
        for parameter in network.parameters():
            for number in parameter.view(-1):
                costs = []
                for shift in (size, -2 * size):
                    number += shift
                    costs.append(task.loss(network, everything)[0].item() / 60)
                number += size
                slopes.append((costs[0] - costs[1]) / (2 * size))
    before = nn.utils.parameters_to_vector(network.parameters()).detach()
    p = plan(0.1)
    one_step(0, network, task, iter([everything]), Optimiser(network, p), p)
    moved = nn.utils.parameters_to_vector(network.parameters()).detach() - before
    torch.testing.assert_close(moved, -0.1 * torch.tensor(slopes, dtype=torch.float64), rtol=1e-4, atol=1e-9)
