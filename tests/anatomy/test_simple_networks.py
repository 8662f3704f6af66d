"""Trees of dense and convolutional networks: they count what the live networks have."""

import subprocess
import sys
from collections import defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import pellucid as pl
from pellucid.anatomy import compute, counts, families
from pellucid.anatomy.tree import walk
from pellucid.networks.activations import ACTIVATIONS
from pellucid.networks.convnet import ConvNet, ConvNetConfig, convnet_config
from pellucid.networks.dense import Dense, DenseConfig


@st.composite
def dense_configs(draw):
    hidden = tuple(draw(st.lists(st.integers(1, 30), max_size=4)))
    names = st.sampled_from([*ACTIVATIONS])
    return DenseConfig(
        inputs=draw(st.integers(1, 30)),
        outputs=draw(st.integers(1, 12)),
        hidden=hidden,
        activation=tuple(draw(names) for _ in hidden),
        output_activation=draw(names),
        bias=tuple(draw(st.booleans()) for _ in range(len(hidden) + 1)),
        dropout=draw(st.sampled_from([0.0, 0.1])),
        norm=draw(st.sampled_from([None, "layer", "batch", "rms"])),
    )


PIECES = (
    "conv 5 3 padding=1", "conv 4 1", "conv 3 3 stride=2 padding=1", "batch", "relu", "max 2", "average 2",
    "residual 4", "residual 6 stride=2", "dropout 0.1",
)  # fmt: skip


@st.composite
def convnet_configs(draw):
    layers = draw(st.lists(st.lists(st.sampled_from(PIECES), min_size=1, max_size=4), max_size=3))
    last = draw(st.sampled_from(["flatten, dense 7, tanh", "average all", "average all, dropout 0.5, dense 8, relu"]))
    try:
        return ConvNetConfig(
            draw(st.integers(1, 3)),
            draw(st.integers(8, 40)),
            draw(st.integers(8, 40)),
            (*map(", ".join, layers), last, "dense 3"),
        )
    except pl.PellucidError:  # nothing is left of the pictures
        return convnet_config("residual", 3, 20, 24, 5)


def agrees(tree, network) -> None:
    """The tree's counts are the live network's: in all, for each module and for each kind."""
    counted = counts.parameters(tree)
    by_path: dict[str, int] = defaultdict(int)
    for name, parameter in network.named_parameters():
        by_path[name.rpartition(".")[0]] += parameter.numel()
    assert counted.by_path == by_path
    assert counted.total == sum(by_path.values()) == sum(counted.by_kind.values())
    by_kind = dict.fromkeys(counts.KINDS, 0)
    last = f"layers.{len(network.layers) - 1}."
    for path, n in by_path.items():
        module = network.get_submodule(path)
        if "Norm" in type(module).__name__:
            kind = "norm"
        elif isinstance(module, torch.nn.Conv2d):
            kind = "convolution"
        else:
            kind = "head" if path.startswith(last) else "dense"
        by_kind[kind] += n
    assert counted.by_kind == by_kind


@given(dense_configs())
@settings(max_examples=60)
def test_dense_networks_agree_with_the_live_ones(config):
    network = Dense(config, None)
    agrees(families.dense(config), network)
    multiplied = sum(p.numel() for name, p in network.named_parameters() if name.endswith("linear.weight"))
    assert compute.forward(families.dense(config)).total == multiplied


@given(convnet_configs())
@settings(max_examples=60)
def test_convolutional_networks_agree_with_the_live_ones(config):
    network, tree = ConvNet(config, None), families.convnet(config)
    agrees(tree, network)
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        network(torch.empty(2, config.channels, config.height, config.width))
    assert 2 * 2 * compute.forward(tree).total == counter.get_total_flops()


def test_lenet_by_layer():
    counted = counts.parameters(families.convnet(convnet_config("lenet5", 1, 28, 28, 10)))
    assert list(counted.by_path.values()) == [156, 2_416, 48_120, 10_164, 850]
    assert counted.total == 61_706
    assert counted.by_kind["convolution"] == 50_692


@pytest.mark.parametrize("name", ["lenet5", "residual"])
def test_leaves_stand_in_the_order_in_which_data_flow(name):
    config = convnet_config(name, 1, 32, 32, 10)
    network = ConvNet(config).eval()
    trace = pl.trace(network, torch.rand(1, 1, 32, 32))
    ran = [scope.path for scope in trace.tape.scopes]
    leaves = [v.path for v in walk(families.convnet(config)) if "activation" not in v.path]
    assert [path for path in ran if path in leaves] == leaves


def test_depth_without_activation_has_parameters_that_add_nothing():
    # S3: three matrices in a row are one matrix of 64 x 10
    deep, one = DenseConfig(64, 10, (32, 16), "linear"), DenseConfig(64, 10)
    assert counts.parameters(families.dense(deep)).total == 65 * 32 + 33 * 16 + 17 * 10
    assert counts.parameters(families.dense(one)).total == 650
    assert not [v for v in walk(families.dense(deep)) if "activation" in v.path]


def test_counting_imports_no_torch():
    code = (
        "import sys; from pellucid.anatomy import compute, counts, families;"
        "from pellucid.networks.convnet_config import convnet_config;"
        "assert counts.parameters(families.convnet(convnet_config('lenet5', 1, 28, 28, 10))).total == 61706;"
        "assert not {'torch', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
