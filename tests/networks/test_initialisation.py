"""Spread and biases of each recipe, and one seed for one result."""

import pytest
import torch

import pellucid as pl
from pellucid.networks.initialisation import initialise
from pellucid.networks.names import INITIALISATIONS


def drawn(name, activation="relu", shape=(300, 200), seed=0):
    weight, bias = torch.empty(shape), torch.empty(shape[0])
    initialise(weight, bias, name, activation, torch.Generator().manual_seed(seed))
    return weight, bias


# name: standard deviation of (300, 200), largest that is possible, bias
SPREADS = {
    "he": ((2 / 200) ** 0.5, None, 0.0),
    "xavier": ((2 / 500) ** 0.5, (6 / 500) ** 0.5, 0.0),
    "normal": (1.0, None, None),
    "uniform": (1 / 12**0.5, 0.5, 0.1),
    "zero": (0.0, 0.0, 0.0),
}


@pytest.mark.parametrize("name", SPREADS)
def test_spread(name):
    spread, most, constant = SPREADS[name]
    weight, bias = drawn(name)
    assert weight.std().item() == pytest.approx(spread, rel=0.02)
    assert abs(weight.mean().item()) < 0.02
    assert most is None or weight.abs().max() <= most
    if constant is None:
        assert bias.std().item() == pytest.approx(1, rel=0.15)
    else:
        assert bias.unique().tolist() == pytest.approx([constant])


def test_a_kernel_counts_every_pixel_that_it_reads():
    weight, _ = drawn("he", shape=(50, 20, 5, 5))
    assert weight.std().item() == pytest.approx((2 / 500) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("activation", "recipe"),
    [("relu", "he"), ("silu", "he"), ("tanh", "xavier"), ("sigmoid", "xavier"), ("linear", "xavier")],
)
def test_default_is_what_suits_the_activation(activation, recipe):
    assert torch.equal(drawn("default", activation)[0], drawn(recipe)[0])


@pytest.mark.parametrize("name", INITIALISATIONS)
def test_one_seed_gives_one_result_whatever_was_drawn_before(name):
    first = drawn(name, seed=5)
    torch.rand(3)
    assert all(torch.equal(a, b) for a, b in zip(first, drawn(name, seed=5), strict=True))
    assert name == "zero" or not torch.equal(first[0], drawn(name, seed=6)[0])


def test_an_unknown_recipe_is_refused_with_those_there_are():
    with pytest.raises(pl.PellucidError, match="no initialisation 'lecun'") as error:
        drawn("lecun")
    assert all(name in error.value.fix for name in INITIALISATIONS)
