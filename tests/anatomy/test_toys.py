"""Shapes typed by hand: neurons, parameters and dimensions of dense networks, down to y = ax + b."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.anatomy import catalogue, compute, counts, families
from pellucid.anatomy.tree import walk
from pellucid.errors import PellucidError
from pellucid.networks.dense import Dense, DenseConfig


def described(layers: str, **rest):
    return families.describe({"model_type": "dense", "layers": layers, **rest})


@pytest.mark.parametrize(
    ("layers", "parameters", "neurons"),
    [
        ("1-1", 2, 1),
        ("2-1", 3, 1),
        ("2-4-2-1", 25, 7),
        ("2-16-16-1", 337, 33),
        ("784-16-16-10", 13_002, 42),
        ("784-128-10", 101_770, 138),
    ],
)
def test_a_shape_is_counted_as_by_hand(layers, parameters, neurons):
    tree = described(layers)
    assert counts.parameters(tree).total == parameters
    assert counts.neurons(tree).total == neurons
    assert (
        compute.forward(tree).total == parameters - neurons
    )  # one for each weight; each neuron has a bias beside them


@given(widths=st.lists(st.integers(1, 50), min_size=2, max_size=6), bias=st.booleans())
def test_a_shape_is_the_network_that_we_build(widths, bias):
    tree = described("-".join(map(str, widths)), bias=bias)
    network = Dense(DenseConfig(widths[0], widths[-1], tuple(widths[1:-1]), bias=bias), seed=None)
    built = {}
    for name, parameter in network.named_parameters():
        path = name.rpartition(".")[0]
        built[path] = built.get(path, 0) + parameter.numel()
    assert counts.parameters(tree).by_path == built


def test_the_flow_has_its_dimensions_and_its_activations():
    points = counts.dimensions(described("784-128-10", output_activation="softmax"))
    assert [(point.path, point.dimensions) for point in points] == [
        ("input", (784,)),
        ("layers.0.linear", (128,)),
        ("layers.0.activation", (128,)),
        ("layers.1.linear", (10,)),
        ("layers.1.activation", (10,)),
    ]


def test_hidden_layers_can_be_linear():
    names = [type(visit.leaf).__name__ for visit in walk(described("3-4-1", activation="linear"))]
    assert names == ["Input", "Linear", "Linear"]


def test_the_catalogue_has_the_smallest():
    line = catalogue.find("y=ax+b")
    assert counts.parameters(families.describe(line.config)).total == line.published_total == 2


@pytest.mark.parametrize("layers", ["784", "784-", "784--10", "a-b", "", 784, None, "3-05"])
def test_what_is_no_shape_is_refused(layers):
    with pytest.raises(PellucidError) as error:
        described(layers)
    assert "layers" in error.value.what
    assert error.value.where == "config.json"
    assert error.value.fix
