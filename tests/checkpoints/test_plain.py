"""Two files for the networks of our own kinds: the same network comes back, and what does not fit is refused."""

import json
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file, save_file

import pellucid as pl
from pellucid.checkpoints.plain import is_plain, open_plain, save_plain
from pellucid.networks.convnet import ConvNet, convnet_config
from pellucid.networks.dense import Dense, DenseConfig
from pellucid.networks.scaling import Scaled, Scaling


def dense(**settings):
    config = DenseConfig(3, 2, (5,), **settings)
    return Dense(config, 1), {"model_type": "pellucid-dense", **asdict(config)}


def convnet():
    config = convnet_config("residual", 1, 8, 8, 4)
    return ConvNet(config, 1), {"model_type": "pellucid-convnet", **asdict(config)}


NETWORKS = {
    "dense": lambda: dense(activation=("gelu",), bias=(True, False)),
    "perceptrons": lambda: dense(activation="step", norm="batch", dropout=0.1),
    "convnet": convnet,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_network_comes_back(name, tmp_path):
    network, config = NETWORKS[name]()
    x = torch.rand(6, 3) if name != "convnet" else torch.rand(6, 1, 8, 8)
    network(x)  # training: moves the statistics of batch norm
    save_plain(network, tmp_path / "run", config, {"task": "table", "columns": ["a", "b", "c"]})
    opened, content = open_plain(tmp_path / "run")
    assert content["pellucid"] == {"task": "table", "columns": ["a", "b", "c"]}
    assert is_plain(content)
    assert not is_plain({"model_type": "gpt2"})
    assert not is_plain({})
    assert opened.config == network.config
    for (a, first), (b, second) in zip(network.state_dict().items(), opened.state_dict().items(), strict=True):
        assert a == b
        assert torch.equal(first, second)
    assert torch.equal(opened.eval()(x), network.eval()(x))
    assert all(p.requires_grad for p in opened.parameters())


@pytest.mark.parametrize("outputs", [None, Scaling([5.0, 6.0], [7.0, 8.0])])
def test_scalings_are_saved_with_the_network(outputs, tmp_path):
    inner, config = dense()
    network = Scaled(inner, Scaling([1.0, 2.0, 3.0], [10.0, 20.0, 30.0]), outputs)
    x = torch.rand(6, 3) * 50
    save_plain(network, tmp_path, config, {})
    opened, _ = open_plain(tmp_path)
    assert isinstance(opened, Scaled)
    assert torch.equal(opened(x), network(x))
    expected = inner((x - torch.tensor([1.0, 2.0, 3.0])) / torch.tensor([10.0, 20.0, 30.0]))
    if outputs is not None:
        expected = expected * torch.tensor([7.0, 8.0]) + torch.tensor([5.0, 6.0])
        torch.testing.assert_close(outputs(outputs.inverse(expected)), expected)
    assert torch.equal(opened(x), expected)
    answer = pl.trace(opened, x).why(":out[0,1]")
    assert answer.value == pytest.approx(expected[0, 1].item())
    flow = pl.trace(opened, x).flow(":out[0,1]", exact=True)
    told = sum(t.sum().item() for t in flow.inputs.values()) + sum(flow.constants.values())
    assert told == pytest.approx(expected[0, 1].item(), abs=1e-4)


def test_the_same_network_gives_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        save_plain(*((made := dense())[0], tmp_path / folder, made[1], {}))
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.fixture
def saved(tmp_path):
    network, config = dense()
    save_plain(network, tmp_path, config, {"task": "table"})
    return tmp_path


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"model_type": "pellucid-spiking"}, "no kind of network 'pellucid-spiking'"),
        ({"model_type": None}, "no kind of network None"),
        ({"model_type": ["pellucid-dense"]}, "no kind of network"),
        ({"depth": 3}, "unexpected keyword argument 'depth'"),
        ({"inputs": "3"}, "cannot have 3 neurons"),
        ({"hidden": 5}, "config.json is damaged"),
        ({"activation": "swish"}, "no activation 'swish'"),
        ({"activation": None}, "config.json is damaged"),
        ({"dropout": "high"}, "config.json is damaged"),
        ({"scaling": {"inputs": -1}}, "config.json is damaged"),
        ({"scaling": {"pixels": 3}}, "config.json is damaged"),
        ({"scaling": 3}, "config.json is damaged"),
        ({"hidden": [6]}, r"The tensor layers.0.linear.weight is \(5, 3\); config.json makes it \(6, 3\)"),
        ({"norm": "layer"}, "The tensor layers.0.norm.weight is missing"),
        ({"bias": False}, "The tensor layers.0.linear.bias has no place"),
        ({"scaling": {"inputs": 3}}, "The tensor inputs.shift is missing"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(saved, change, what):
    content = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(content | change))
    with pytest.raises(pl.PellucidError, match=what) as error:
        open_plain(saved)
    assert str(saved) in error.value.where


def test_damaged_files_are_refused(saved):
    tensors = load_file(saved / "model.safetensors")
    save_file({name: t for name, t in tensors.items() if "0.linear.weight" not in name}, saved / "model.safetensors")
    with pytest.raises(pl.PellucidError, match=r"layers.0.linear.weight is missing"):
        open_plain(saved)
    (saved / "model.safetensors").write_bytes(b"short")
    with pytest.raises(pl.PellucidError, match="damaged"):
        open_plain(saved)
    (saved / "model.safetensors").unlink()
    with pytest.raises(pl.PellucidError, match=r"no model\.safetensors"):
        open_plain(saved)
