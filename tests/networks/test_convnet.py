"""Convolutional networks: the same numbers as plain PyTorch, and reasons that add up to the pixels."""

import json
from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import pellucid as pl
from pellucid.networks import convnet_config as convnet_config_module
from pellucid.networks.activations import ACTIVATIONS
from pellucid.networks.convnet import ConvNet, ConvNetConfig, convnet_config
from pellucid.tracing.answers import Question


def shaken(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network with every parameter and running statistic away from what it starts with."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*network.parameters(), *(b for b in network.buffers() if b.is_floating_point())]:
            tensor.add_(torch.rand(tensor.shape, generator=generator) * 0.2)
    return network.eval()


def rather(trace, a: str, b: str) -> Question:
    """Why the number at `a` rather than the one at `b`."""
    one = torch.ones((), dtype=torch.float64)
    return Question(f"{a} - {b}", ((trace.find(a), one), (trace.find(b), -one)), together=True)


@pytest.mark.parametrize("side", [28, 32])
def test_lenet_has_the_parameters_of_its_table_and_equals_plain_pytorch(side):
    lenet = ConvNet(convnet_config("lenet5", 1, side, side, 10), 1)
    assert sum(p.numel() for p in lenet.parameters()) == 61_706
    padding = 2 if side == 28 else 0
    plain = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=padding), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(),
        nn.AvgPool2d(2), nn.Conv2d(16, 120, 5), nn.Tanh(), nn.Flatten(), nn.Linear(120, 84), nn.Tanh(),
        nn.Linear(84, 10),
    )  # fmt: skip
    plain.load_state_dict(dict(zip(plain.state_dict(), lenet.state_dict().values(), strict=True)))
    x, targets = torch.rand(4, 1, side, side), torch.tensor([1, 2, 3, 4])
    for network in (lenet, plain):
        F.cross_entropy(network(x), targets).backward()
    assert torch.equal(lenet(x), plain(x))
    for a, b in zip(lenet.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 8, 8), (3, 32, 24), (3, 64, 50)])
def test_residual_networks_take_pictures_of_any_size(channels, height, width):
    network = ConvNet(convnet_config("residual", channels, height, width, 4))
    assert network(torch.rand(2, channels, height, width)).shape == (2, 4)
    assert network.config.classes == 4


def test_a_residual_block_is_the_papers():
    network = shaken(ConvNet(ConvNetConfig(3, 6, 6, ("residual 3", "residual 5 stride=2", "flatten, dense 2"))))
    same, narrower = (layer.block for layer in network.layers[:2])
    x = torch.randn(2, 3, 6, 6)

    def part(name, block, v):
        return block.get_submodule(f"{name}_norm")(block.get_submodule(name)(v))

    straight = F.relu(part("second", same, F.relu(part("first", same, x))) + x)
    torch.testing.assert_close(same(x), straight)
    turned = F.relu(part("second", narrower, F.relu(part("first", narrower, x))) + part("shortcut", narrower, x))
    torch.testing.assert_close(narrower(x), turned)
    assert turned.shape == (2, 5, 3, 3)


LAYERS = {
    "lenet5": convnet_config("lenet5", 1, 28, 28, 10),
    "residual": convnet_config("residual", 3, 16, 16, 10),
    "large residual": convnet_config("residual", 3, 48, 48, 10),
    "two in a layer": ConvNetConfig(
        1, 12, 12, ("conv 4 3, gelu, conv 6 3 padding=1, batch, silu, max 2", "dropout 0.2, flatten, dense 10")
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_why_seven_rather_than_one_down_to_the_pixels(name):
    config = LAYERS[name]
    network = shaken(ConvNet(config, 2))
    shape = (1, config.channels, config.height, config.width)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    trace = pl.trace(network, x)
    question = rather(trace, ":out[0,7]", ":out[0,1]")
    answer, flow = trace.why(question), trace.flow(question, exact=True)
    logits = network(x)[0].double()
    size = answer.terms.contributions.abs().sum().item()
    assert answer.value == pytest.approx((logits[7] - logits[1]).item(), abs=1e-6 * size)
    assert abs(answer.residue) <= answer.budget
    (pixels,) = flow.inputs.values()
    assert pixels.shape == shape
    assert flow.stopped == {}
    assert pixels.sum().item() + sum(flow.constants.values()) == pytest.approx(answer.value, abs=1e-4 * size)
    assert [layer.name for layer in flow.layers] == [f"layers.{i}" for i in range(len(config.layers))]
    for layer in flow.layers:
        assert abs(layer.residue) <= 1e-4 * size


@pytest.mark.parametrize("name", LAYERS)
def test_every_kind_of_number_on_the_way_adds_up(name):
    config = LAYERS[name]
    network = shaken(ConvNet(config, 2))
    trace = pl.trace(network, torch.rand(2, config.channels, config.height, config.width))
    for path, module in network.named_modules():
        if path and not list(module.children()) and not isinstance(module, nn.Flatten):
            shape = trace[path].shape
            answer = trace.why(f"{path}[{','.join(str(n // 2) for n in shape)}]")
            assert answer.kind in ("sum", "leaf"), path
            assert abs(answer.residue) <= answer.budget, path


def test_a_seed_gives_one_network_and_leaves_torchs_own_generator():
    state = torch.get_rng_state()
    networks = [ConvNet(convnet_config("residual", 1, 8, 8, 3), seed) for seed in (1, 1, 2)]
    first, again, other = (torch.cat([p.flatten() for p in n.parameters()]) for n in networks)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


PIECES = ("conv 3 3 padding=1", "conv 2 1", "batch", "relu", "tanh", "max 2", "average 2 stride=1", "residual 4")


@given(st.lists(st.lists(st.sampled_from(PIECES), min_size=1, max_size=4), max_size=3), st.integers(4, 20))
@settings(max_examples=40)
def test_whatever_is_written_is_built_or_refused(layers, side):
    texts = (*(", ".join(pieces) for pieces in layers), "flatten, dense 3")
    try:
        config = ConvNetConfig(2, side, side + 1, texts)
    except pl.PellucidError:
        return  # the pictures are too small
    assert ConvNetConfig(**json.loads(json.dumps(asdict(config)))) == config
    network = ConvNet(config).eval()
    x = torch.rand(2, 2, side, side + 1)
    for layer, pieces in zip(network.layers, config.pieces, strict=True):
        for name, piece in pieces.items():
            assert x.shape[1:] == piece.inputs
            x = layer.get_submodule(name)(x)
            assert x.shape[1:] == piece.outputs


@pytest.mark.parametrize(
    ("settings", "what", "where"),
    [
        ({"layers": ()}, "does not end", ""),
        ({"layers": ("conv 4 3, relu",)}, "does not end", "conv 4 3, relu"),
        ({"layers": ("dense 10",)}, "does not fit", "dense 10"),
        ({"layers": ("flatten, conv 4 3",)}, "does not fit", "conv 4 3"),
        ({"layers": ("convolution 4 3", "flatten, dense 10")}, "cannot be read", "convolution 4 3"),
        ({"layers": ("conv 4", "flatten, dense 10")}, "cannot be read", "conv 4"),
        ({"layers": ("conv 4 3 pad=1", "flatten, dense 10")}, "cannot be read", "conv 4 3 pad=1"),
        ({"layers": ("conv 4 3 stride=0", "flatten, dense 10")}, "cannot be read", "conv 4 3 stride=0"),
        ({"layers": ("relu,", "flatten, dense 10")}, "cannot be read", ""),
        ({"layers": ("flatten, dropout 1", "dense 10")}, "cannot be read", "dropout 1"),
        ({"layers": ("conv 4 9", "flatten, dense 10")}, "too small", "8 × 8"),
        ({"layers": ("conv 0 3", "flatten, dense 10")}, "cannot be read", "conv 0 3"),
        ({"channels": 0}, "channels = 0", "channels"),
        ({"height": 8.0}, "height = 8.0", "height"),
    ],
)
def test_nonsense_is_refused(settings, what, where):
    with pytest.raises(pl.PellucidError, match=what) as error:
        ConvNetConfig(**{"channels": 1, "height": 8, "width": 8, "layers": ("flatten, dense 10",), **settings})
    assert error.value.where == where
    assert error.value.fix


def test_it_knows_the_activations_that_dense_networks_know():
    assert set(convnet_config_module.ACTIVATIONS) == ACTIVATIONS.keys() - {"linear", "step"}


def test_unknown_names_and_pictures_too_small_are_refused():
    with pytest.raises(pl.PellucidError, match="no convolutional network 'vgg'"):
        convnet_config("vgg", 1, 28, 28, 10)
    with pytest.raises(pl.PellucidError, match="too small"):
        convnet_config("lenet5", 1, 20, 28, 10)
    with pytest.raises(pl.PellucidError, match="no initialisation 'random'"):
        ConvNet(convnet_config("lenet5", 1, 28, 28, 10, initialisation="random"))
