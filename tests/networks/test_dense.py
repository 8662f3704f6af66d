"""Dense networks: the perceptron, the line, softmax regression and deeper ones, and why they say what they say."""

import json
import math
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import pellucid as pl
from pellucid.networks.activations import ACTIVATIONS
from pellucid.networks.dense import Dense, DenseConfig, in_units
from pellucid.networks.names import INITIALISATIONS
from pellucid.networks.scaling import Scaled, Scaling
from pellucid.tracing.answers import Question


def filled(network: nn.Module, **values: list) -> Dense:
    """The network with these parameters."""
    with torch.no_grad():
        for name, value in values.items():
            network.get_parameter(name.replace("__", ".")).copy_(torch.tensor(value))
    return network


def shaken(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network with every parameter and running statistic away from what it starts with."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*network.parameters(), *(b for b in network.buffers() if b.is_floating_point())]:
            tensor.add_(torch.rand(tensor.shape, generator=generator) * 0.4)
    return network.eval()


def rather(trace, a: str, b: str) -> Question:
    """Why the number at `a` rather than the one at `b`."""
    one = torch.ones((), dtype=torch.float64)
    return Question(f"{a} - {b}", ((trace.find(a), one), (trace.find(b), -one)), together=True)


# ---- S1: the perceptron

PERCEPTRON = {"layers__0__linear__weight": [[8.0, 4.0, 4.0]], "layers__0__activation__threshold": [8.0]}


@pytest.mark.parametrize(("inputs", "total", "says"), [((1, 1, 1), 16, 1), ((1, 1, 0), 12, 1), ((0, 1, 0), 4, 0)])
def test_weather_price_and_company_decide_whether_to_go(inputs, total, says):
    perceptron = filled(Dense(DenseConfig(3, 1, output_activation="step")), **PERCEPTRON)
    x = torch.tensor([inputs], dtype=torch.float32)
    assert perceptron(x).item() == says
    assert perceptron.scores(x).item() == total - 8
    answer = pl.trace(perceptron, x).why(":out[0,0]")
    assert (answer.kind, answer.value, answer.margin) == ("decision", says, total - 8)
    assert {term.value for term in answer.terms} == {total, 8}
    (side,) = (term for term in answer.terms if term.value == total)
    opened = side.why()
    assert (opened.value, opened.residue, opened.constants) == (total, 0, ())
    assert {(t.coefficient, t.value) for t in opened.terms} == set(zip((8, 4, 4), inputs, strict=True))
    (threshold,) = (term for term in answer.terms if term.value == 8 and term is not side)
    assert threshold.address == "layers.0.activation.threshold[0]"


def test_the_perceptrons_rule_finds_weights_that_decide_alike():
    # Rosenblatt's update is the gradient of max(0, -target * score) for a learning rate of 1
    taught = filled(Dense(DenseConfig(3, 1, output_activation="step")), **PERCEPTRON)
    inputs = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    targets = 2 * taught(inputs).detach() - 1
    pupil = Dense(DenseConfig(3, 1, output_activation="step", initialisation="zero"))
    for i in [*range(len(inputs))] * 20:
        score = pupil.scores(inputs[i : i + 1])
        if (score.item() > 0) != (targets[i].item() > 0):
            pupil.zero_grad()
            (-targets[i] * score).sum().backward()
            with torch.no_grad():
                for parameter in pupil.parameters():
                    parameter -= parameter.grad
    assert torch.equal(pupil(inputs), taught(inputs))


# ---- S2: the line


def test_a_line_learned_between_scalings_is_told_in_the_users_units():
    scaled = Scaled(Dense(DenseConfig(1, 1)), Scaling([165.0], [5.0]), Scaling([55.0], [5.0]))
    filled(scaled.network, layers__0__linear__weight=[[1.0]])
    heights = torch.tensor([[170.0], [160.0]])
    assert scaled(heights).flatten().tolist() == [60, 50]
    line = in_units(scaled.network, scaled.inputs, scaled.outputs)
    assert {name: value.tolist() for name, value in line.state_dict().items()} == {
        "layers.0.linear.weight": [[1.0]],
        "layers.0.linear.bias": [-110.0],
    }
    assert torch.equal(line(heights), scaled(heights))
    answer = pl.trace(line, heights).why(":out[0,0]")
    assert [(t.coefficient, t.value) for t in answer.terms] == [(1, 170)]
    assert (answer.constant, answer.value, answer.residue) == (-110, 60, 0)


@st.composite
def configs(draw, norms=(None, "layer", "batch", "rms")):
    hidden = tuple(draw(st.lists(st.integers(1, 7), max_size=3)))
    each = draw(st.booleans())
    names = st.sampled_from([*ACTIVATIONS])
    return DenseConfig(
        inputs=draw(st.integers(1, 6)),
        outputs=draw(st.integers(1, 4)),
        hidden=hidden,
        activation=tuple(draw(names) for _ in hidden) if each else draw(names),
        output_activation=draw(names),
        bias=tuple(draw(st.booleans()) for _ in range(len(hidden) + 1)) if each else draw(st.booleans()),
        dropout=draw(st.sampled_from([0.0, 0.3])),
        norm=draw(st.sampled_from(norms)),
        initialisation=draw(st.sampled_from([i for i in INITIALISATIONS if i != "zero"])),
    )


@given(configs(norms=(None,)), st.integers(0, 99))
@settings(max_examples=60)
def test_units_change_nothing_but_the_units(config, seed):
    network = shaken(Dense(config, seed)).double()
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(5, config.inputs, generator=generator, dtype=torch.float64) * 30 + 100
    inputs = Scaling(torch.full((config.inputs,), 100.0), torch.linspace(20, 40, config.inputs))
    outputs = None
    if config.output_activation == "linear":
        outputs = Scaling(torch.full((config.outputs,), 7.0), torch.full((config.outputs,), 3.0))
    told = in_units(network, inputs, outputs)
    torch.testing.assert_close(told(x), Scaled(network, inputs, outputs)(x), rtol=1e-9, atol=1e-9)


# ---- S3: depth


def test_a_stack_of_linear_layers_is_one_linear_layer():
    deep = shaken(Dense(DenseConfig(5, 3, (8, 6), "linear"), 1)).double()
    weight, bias = np.eye(5), np.zeros(5)
    for layer in deep.layers:
        w, b = layer.linear.weight.detach().numpy(), layer.linear.bias.detach().numpy()
        weight, bias = w @ weight, w @ bias + b
    one = Dense(DenseConfig(5, 3)).double()
    with torch.no_grad():
        one.layers[0].linear.weight.copy_(torch.tensor(weight))
        one.layers[0].linear.bias.copy_(torch.tensor(bias))
    x = torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(deep(x), one(x), rtol=0, atol=1e-12)
    bent = Dense(DenseConfig(5, 3, (8, 6), "tanh"), None)
    bent.load_state_dict(deep.state_dict(), assign=True)
    assert (bent(x) - one(x)).abs().max() > 0.1


# ---- the arithmetic, and what it is traced to


def by_hand(network: Dense, x):
    """The network in float64 NumPy, layer by layer."""
    formulas = {
        "linear": lambda v: v,
        "step": lambda v: (v > 0).astype(float),
        "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
        "tanh": np.tanh,
        "relu": lambda v: np.maximum(v, 0),
        "leaky_relu": lambda v: np.where(v > 0, v, 0.01 * v),
        "gelu": lambda v: v * (1 + np.vectorize(math.erf)(v / 2**0.5)) / 2,
        "silu": lambda v: v / (1 + np.exp(-v)),
    }
    state = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
    for i, name in enumerate(network.config.activations):
        x = x @ state[f"layers.{i}.linear.weight"].T
        x = x + state.get(f"layers.{i}.linear.bias", 0) - state.get(f"layers.{i}.activation.threshold", 0)
        x = formulas[name](x)
    return x


@given(configs(norms=(None,)), st.integers(0, 99))
@settings(max_examples=80)
def test_equals_numpy(config, seed):
    network = shaken(Dense(config, seed), seed)
    x = torch.randn(6, config.inputs, generator=torch.Generator().manual_seed(seed))
    network, x = network.double(), x.double()
    np.testing.assert_allclose(network(x).detach().numpy(), by_hand(network, x.numpy()), rtol=1e-9, atol=1e-9)


@given(configs(), st.integers(0, 99))
@settings(max_examples=60)
def test_every_output_adds_up(config, seed):
    network = shaken(Dense(config, seed), seed)
    x = torch.randn(2, config.inputs, generator=torch.Generator().manual_seed(seed))
    trace = pl.trace(network, x)
    torch.testing.assert_close(trace[":out"], network(x).detach())
    for o in range(config.outputs):
        answer = trace.why(f":out[1,{o}]")
        if config.output_activation == "step":
            assert answer.kind == "decision"
            continue
        assert answer.kind == "sum"
        assert abs(answer.residue) <= answer.budget
        flow = trace.flow(f":out[1,{o}]", exact=True)
        told = sum(t.sum().item() for t in flow.inputs.values()) + sum(flow.constants.values())
        if "step" not in config.activations:
            assert flow.stopped == {}
        assert told + sum(flow.stopped.values()) == pytest.approx(answer.value, abs=1e-4)


@pytest.mark.parametrize("norm", [None, "layer", "batch", "rms"])
def test_why_one_class_rather_than_another(norm):
    network = shaken(Dense(DenseConfig(64, 10, (16, 12), "relu", norm=norm), 3))
    trace = pl.trace(network, torch.rand(1, 64, generator=torch.Generator().manual_seed(0)))
    question = rather(trace, ":out[0,7]", ":out[0,1]")
    answer = trace.why(question)
    logits = trace[":out"][0].double()
    assert answer.value == pytest.approx((logits[7] - logits[1]).item(), abs=1e-6)
    assert abs(answer.residue) <= answer.budget
    assert len(answer.terms) == 12  # one for each neuron of the last hidden layer
    assert all(term.address.startswith("layers.1") for term in answer.terms)
    flow = trace.flow(question, exact=True)
    assert [layer.name for layer in flow.layers] == ["layers.0", "layers.1", "layers.2"]
    (pixels,) = flow.inputs.values()
    assert pixels.shape == (1, 64)
    assert pixels.sum().item() + sum(flow.constants.values()) == pytest.approx(answer.value, abs=1e-5)
    assert abs(flow.residue) < 1e-5


def test_gradients_equal_those_of_the_same_network_written_plainly():
    config = DenseConfig(10, 3, (8, 6), ("tanh", "relu"))
    ours = Dense(config, 4)
    plain = nn.Sequential(nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    plain.load_state_dict(dict(zip(plain.state_dict(), ours.state_dict().values(), strict=True)))
    x = torch.randn(20, 10)
    for network in (ours, plain):
        network(x).square().sum().backward()
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_dropout_and_batch_norm_are_for_training():
    network = Dense(DenseConfig(4, 2, (50,), dropout=0.5, norm="batch"))
    x = torch.randn(30, 4)
    before = network.layers[0].norm.running_mean.clone()
    network.train()
    assert not torch.equal(network(x), network(x))
    assert not torch.equal(network.layers[0].norm.running_mean, before)
    network.eval()
    assert torch.equal(network(x), network(x))


# ---- configurations


def test_a_seed_gives_one_network_and_leaves_torchs_own_generator():
    state = torch.get_rng_state()
    networks = [Dense(DenseConfig(5, 2, (4,)), seed) for seed in (1, 1, 2)]
    first, again, other = (torch.cat([p.flatten() for p in n.parameters()]) for n in networks)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_playgrounds_start():
    network = Dense(DenseConfig(2, 1, (4, 2), "tanh", "tanh", initialisation="uniform"))
    for layer, (inputs, outputs) in zip(network.layers, pairwise((2, 4, 2, 1)), strict=True):
        assert layer.linear.weight.shape == (outputs, inputs)
        assert layer.linear.weight.abs().max() <= 0.5
        assert layer.linear.bias.unique().tolist() == pytest.approx([0.1])
    zero = Dense(DenseConfig(2, 1, (4, 2), norm="layer", initialisation="zero"))
    assert all(not p.any() for name, p in zero.named_parameters() if "norm" not in name)


@given(configs())
def test_settings_survive_json(config):
    assert DenseConfig(**json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"inputs": 0}, "cannot have 0 neurons"),
        ({"hidden": (4, -1)}, "cannot have -1 neurons"),
        ({"hidden": (4, 2.5)}, "cannot have 2.5 neurons"),
        ({"outputs": True}, "cannot have True neurons"),
        ({"activation": "softmax"}, "no activation 'softmax'"),
        ({"output_activation": ""}, "no activation ''"),
        ({"hidden": (4, 2), "activation": ("relu",)}, "1 activations do not fit 2 hidden layers"),
        ({"hidden": (4, 2), "bias": (True, False)}, "2 settings of the bias do not fit 3 layers"),
        ({"norm": "group"}, "no norm 'group'"),
        ({"dropout": 1.0}, "dropout of 1.0"),
        ({"dropout": math.nan}, "dropout of nan"),
        ({"initialisation": "random"}, "no initialisation 'random'"),
    ],
)
def test_nonsense_is_refused(settings, what):
    with pytest.raises(pl.PellucidError, match=what) as error:
        DenseConfig(**{"inputs": 2, "outputs": 1, **settings})
    assert error.value.where
    assert error.value.fix
