"""Values and slopes of the activations against NumPy in float64."""

import math

import numpy as np
import pytest
import torch

import pellucid as pl
from pellucid.networks import dense_config, names
from pellucid.networks.activations import ACTIVATIONS, Step, activation
from pellucid.networks.dense import NORMS

X = np.concatenate([np.linspace(-8, 8, 321), [-0.0, 1e-6, -1e-6]])
ERF = np.vectorize(math.erf)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def phi(x):
    return (1 + ERF(x / np.sqrt(2))) / 2


# name: value, slope
FORMULAS = {
    "linear": (lambda x: x, np.ones_like),
    "step": (lambda x: (x > 0).astype(float), np.zeros_like),
    "sigmoid": (sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x))),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "relu": (lambda x: np.maximum(x, 0), lambda x: (x > 0).astype(float)),
    "leaky_relu": (lambda x: np.where(x > 0, x, 0.01 * x), lambda x: np.where(x > 0, 1, 0.01)),
    "gelu": (lambda x: x * phi(x), lambda x: phi(x) + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)),
    "silu": (lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x)))),
}


def test_every_activation_is_checked_here():
    assert FORMULAS.keys() == ACTIVATIONS.keys()


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_values_and_slopes(name, dtype):
    value, slope = FORMULAS[name]
    x = torch.tensor(X, dtype=dtype, requires_grad=True)
    y = activation(name)(x)
    (dx,) = torch.autograd.grad(y.sum(), x)
    exact = x.detach().double().numpy()
    close = {"rtol": 0, "atol": 1e-14 if dtype == torch.float64 else 2e-6}
    np.testing.assert_allclose(y.detach().double().numpy(), value(exact), **close)
    np.testing.assert_allclose(dx.double().numpy(), slope(exact), **close)


def test_the_sigmoid_tells_its_own_slope():
    x = torch.tensor(X, requires_grad=True)
    s = activation("sigmoid")(x)
    (slope,) = torch.autograd.grad(s.sum(), x)
    torch.testing.assert_close(slope, s * (1 - s), rtol=0, atol=1e-15)


def test_a_step_at_its_threshold_is_still_zero_and_leaves_what_stands_before_it():
    step = Step(2)
    with torch.no_grad():
        step.threshold.copy_(torch.tensor([8.0, -1.0]))
    x = torch.tensor([[8.0, -1.0], [8.5, -0.5]], requires_grad=True)
    y = step(x)
    assert y.tolist() == [[0, 0], [1, 1]]
    y.sum().backward()
    assert x.grad.tolist() == [[0, 0], [0, 0]]
    assert step.threshold.grad.tolist() == [0, 0]


def test_an_unknown_activation_is_refused_with_those_there_are():
    with pytest.raises(pl.PellucidError, match="no activation 'swish'") as error:
        activation("swish")
    assert all(name in error.value.fix for name in ACTIVATIONS)


def test_every_name_has_its_activation_and_its_norm():
    assert tuple(ACTIVATIONS) == names.ACTIVATIONS
    assert tuple(NORMS) == dense_config.NORMS
