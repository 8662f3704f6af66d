"""The forecast against what torch really keeps and allocates: exact where it can be, in bytes, not by eye."""

import subprocess
import sys
from contextlib import nullcontext
from math import prod
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from pellucid.anatomy import families
from pellucid.anatomy.memory import peak
from pellucid.anatomy.memory.kept import Run, passes
from pellucid.anatomy.memory.peak import Training
from pellucid.networks.convnet import ConvNet, ConvNetConfig, convnet_config
from pellucid.networks.decoder import FAMILIES, Decoder, decoder_config
from pellucid.networks.dense import Dense, DenseConfig
from pellucid.networks.losses import cross_entropy_in_place
from pellucid.training.optimisers import Optimiser
from pellucid.training.recompute import recompute_blocks

LENGTH = 160  # more than one block of our attention's queries, and not a whole number of them


@st.composite
def configs(draw):
    heads = draw(st.sampled_from([2, 4]))
    family = draw(st.sampled_from(sorted(FAMILIES)))
    shape = {
        "vocab_size": 50,
        "d_model": 16 * heads,
        "n_layers": draw(st.integers(1, 3)),
        "n_heads": heads,
        "n_kv_heads": draw(st.sampled_from([1, 2, heads])) if FAMILIES[family].get("positions") is None else heads,
        "d_ff": 32 * draw(st.integers(1, 6)),
        "context": LENGTH,
        "tied": draw(st.booleans()),
        "dropout": draw(st.sampled_from([0.0, 0.1])),
    }
    if family == "mistral":
        shape["sliding_windows"] = tuple(draw(st.sampled_from([None, 64, LENGTH])) for _ in range(shape["n_layers"]))
    return decoder_config(family, **shape)


@given(configs(), st.sampled_from([2, 4]))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_what_autograd_keeps(config, e):
    batch = 4
    run = Run(batch, LENGTH, e=e)
    shared = 8 * batch * LENGTH + 8 * LENGTH * config.head_dim  # ids and, in fp32, angles: too small to foretell
    measured = kept_by_autograd(Decoder(config), torch.zeros(batch, LENGTH, dtype=torch.long), e)
    assert forecast_of_kept(families.decoder(config), run) == pytest.approx(measured, rel=0.002, abs=shared)


@given(
    st.sampled_from(["relu", "leaky_relu", "gelu", "silu", "tanh", "sigmoid", "step"]),
    st.sampled_from([None, "layer", "batch", "rms"]),
    st.sampled_from([0.0, 0.2]),
    st.sampled_from([2, 4]),
)
@settings(max_examples=50, deadline=None, derandomize=True)
@pytest.mark.filterwarnings("ignore:Mismatch dtype")
def test_what_autograd_keeps_of_dense_networks(activation, norm, dropout, e):
    config = DenseConfig(40, 10, (64, 96), activation, norm=norm, dropout=dropout)
    measured = kept_by_autograd(Dense(config), torch.randn(32, 40), e)
    assert forecast_of_kept(families.dense(config), Run(32, inputs=40, e=e)) == measured


CONVNETS = {
    "lenet5": (1, 28, 28),
    "residual": (3, 32, 32),
    "conv 8 3 padding=1, relu, max 2; conv 16 3, batch, gelu, dropout 0.2; average all, dense 10": (3, 16, 16),
    "conv 8 3 stride=2, tanh; flatten, dense 32, sigmoid, dropout 0.5, dense 10": (3, 16, 16),
    "conv 8 3 stride=2, relu, average 2; max 2, flatten, dense 32, leaky_relu, dense 10": (3, 24, 16),
}


def convnet(name: str) -> ConvNetConfig:
    picture = CONVNETS[name]
    return ConvNetConfig(*picture, tuple(name.split("; "))) if ";" in name else convnet_config(name, *picture, 10)


@pytest.mark.parametrize("e", [2, 4])
@pytest.mark.parametrize("name", CONVNETS)
def test_what_autograd_keeps_of_convolutional_networks(name, e):
    config, x = convnet(name), torch.randn(8, *CONVNETS[name])
    measured = kept_by_autograd(ConvNet(config).to(memory_format=torch.channels_last), x, e)
    forecast = forecast_of_kept(families.convnet(config), Run(8, inputs=prod(CONVNETS[name]), e=e))
    assert forecast == pytest.approx(measured, rel=0.02)  # LeNet-5's last maps are one pixel: flattening copies nothing


def kept_by_autograd(network, x, e: int) -> int:
    """Bytes of the tensors that autograd saves, but for parameters, statistics and the input."""
    network.train()
    own = {tensor.untyped_storage().data_ptr() for tensor in (x, *network.parameters(), *network.buffers())}
    live = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            live[storage.data_ptr()] = (storage.nbytes(), tensor)  # the tensor is held, so no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), precision(e):
        network(x)
    return sum(size for size, _ in live.values())


def forecast_of_kept(tree, run: Run) -> int:
    return sum(one.visit.times * one.kept + one.visit.copies * one.cast for one in passes(tree, run))


# each is decided at another moment
PLANS = {
    "head": ("gpt2", {"vocab_size": 5000, "d_model": 128, "n_layers": 2, "n_heads": 2}, 16, 128, "bf16", "adamw", 1),
    "blocks.*.feed_forward.activation": (
        "qwen3",
        {"vocab_size": 64, "d_model": 128, "n_layers": 3, "n_heads": 2},
        8,
        128,
        "fp32",
        "adamw",
        2,
    ),
    "embedding": ("llama", {"vocab_size": 9000, "d_model": 128, "n_layers": 2, "n_heads": 2}, 1, 16, "fp32", "muon", 1),
    "update": ("qwen3", {"vocab_size": 64, "d_model": 256, "n_layers": 4, "n_heads": 4}, 1, 16, "bf16", "muon", 1),
}


@pytest.mark.parametrize("moment", PLANS)
def test_peak_of_live_tensors(moment):
    family, shape, batch, context, name, optimiser, accumulation = PLANS[moment]
    config = decoder_config(family, **shape, context=context, dropout=0.1)
    training = Training(Run(batch, context, e=2 if name == "bf16" else 4), optimiser, accumulation=accumulation)
    told = in_a_step(families.decoder(config), training)
    assert max(told, key=told.__getitem__) == moment
    assert max(told.values()) == pytest.approx(peak_of_steps(lambda: Decoder(config), training), rel=0.03)


@pytest.mark.parametrize("e", [2, 4])
@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_peak_of_a_decoder_that_recomputes(family, e):
    config = decoder_config(family, vocab_size=500, d_model=128, n_layers=6, n_heads=2, context=128, dropout=0.1)
    kept, recomputed = (Training(Run(16, 128, e=e), recompute=recompute) for recompute in (False, True))
    told = [max(in_a_step(families.decoder(config), training).values()) for training in (kept, recomputed)]
    assert told[1] < 0.5 * told[0]
    assert told[1] == pytest.approx(peak_of_steps(lambda: Decoder(config), recomputed), rel=0.05)


@pytest.mark.parametrize("e", [2, 4])
@pytest.mark.parametrize(
    ("config", "optimiser"),
    [
        (DenseConfig(200, 10, (512,) * 4), "adam"),
        (DenseConfig(200, 10, (512,) * 3, "gelu", norm="layer", dropout=0.1), "sgd"),
        (DenseConfig(100, 10, (512,) * 3, "tanh", norm="batch"), "rmsprop"),
    ],
)
def test_peak_of_a_dense_network(config, optimiser, e):
    training = Training(Run(2048, inputs=config.inputs, e=e), optimiser, momentum=optimiser == "sgd")
    told = in_a_step(families.dense(config), training)
    assert max(told.values()) == pytest.approx(peak_of_steps(lambda: Dense(config), training), rel=0.03)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("e", [2, 4])
@pytest.mark.parametrize("name", ["lenet5", "residual"])
def test_peak_of_a_convolutional_network(name, e, recompute):
    config = convnet(name)
    training = Training(Run(256, inputs=prod(CONVNETS[name]), e=e), "adam", recompute=recompute)
    told = in_a_step(families.convnet(config), training)
    measured = peak_of_steps(lambda: ConvNet(config).to(memory_format=torch.channels_last), training)
    assert max(told.values()) == pytest.approx(measured, rel=0.05)


def in_a_step(tree, training: Training) -> dict[str, int]:
    """The bytes that torch asks for at each moment of a step."""
    told = peak.forecast(tree, training, process=0, held=0)
    return {name: size for name, size in told.moments.items() if name != "finish"}


@pytest.mark.slow
def test_resident_size_of_fresh_processes():
    script = Path(__file__).parents[2] / "benchmarks" / "memory_forecast.py"
    command = [sys.executable, str(script), "--plans", "3", "--seed", "0", "--steps", "4"]
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    # what the C library holds differs from run to run, by up to a tenth of all
    assert float(ran.stdout.rpartition("error is ")[2].rstrip("%\n")) < 20, ran.stdout


def test_parts_are_printed_and_add_up():
    config = decoder_config("qwen3", vocab_size=5000, d_model=128, n_layers=2, n_heads=2, context=128)
    told = peak.forecast(families.decoder(config), Training(Run(4, 128)))
    assert told.total == sum(told.parts.values()) == max(told.moments.values())
    assert f"{told.total / 1e6:,.1f} MB" in str(told)
    for family in FAMILIES:  # each part that there can be has a name in the user's language
        shape = {"vocab_size": 500, "d_model": 128, "n_layers": 2, "n_heads": 2, "context": 128}
        for e, optimiser, batch in ((4, "adamw", 1), (2, "muon", 64)):
            training = Training(Run(batch, 128, e=e), optimiser, data=10**6)
            assert str(peak.forecast(families.decoder(decoder_config(family, **shape)), training))


def test_the_peak_can_be_outside_of_steps():
    tree = families.dense(DenseConfig(4, 2, (8,)))
    told = peak.forecast(tree, Training(Run(8, inputs=4), data=10**6, outside=10**9))
    assert told.moment == "outside"
    assert told.total > peak.PROCESS + 10**9


def precision(e: int):
    return torch.autocast("cpu", torch.bfloat16) if e == 2 else nullcontext()


def peak_of_steps(make, training: Training) -> int:
    """The most bytes that torch's allocator had given out at once during three steps, by its own count."""
    plan = SimpleNamespace(optimiser=training.optimiser, learning_rate=1e-3, embedding_rate=1e-3, weight_decay=0.1)
    vars(plan).update(l1=0.0, l2=0.0, momentum=0.9 * training.momentum, nesterov=False)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        network = make().train()
        if training.recompute:
            recompute_blocks(network)
        optimise = Optimiser(network, plan)
        for _ in range(3):
            batches = []  # held until the step is made, as by the loop
            for _ in range(training.accumulation):
                batches.append(batch_for(network, training.run))
                with precision(training.run.e):
                    loss = loss_of(network, batches[-1])
                loss.backward()
            optimise.step(1.0)
            optimise.zero_grad()
    events = list(profiler.profiler.kineto_results.experimental_event_tree())
    sizes = []
    while events:
        event = events.pop()
        events += event.children
        if event.tag.name == "Allocation":
            fields = event.extra_fields
            sizes.append((event.start_time_ns, fields.alloc_size, fields.ptr))
    live, peak = {}, 0
    for _, size, address in sorted(sizes):
        if size > 0:
            live[address] = size
            peak = max(peak, sum(live.values()))
        else:  # what was made before the profile, such as another test's garbage, was never counted
            live.pop(address, None)
    return peak


def batch_for(network, run: Run) -> torch.Tensor:
    if not run.inputs:
        return torch.randint(network.config.vocab_size, (run.batch, run.length))
    config = network.config
    shape = (config.channels, config.height, config.width) if isinstance(network, ConvNet) else (run.inputs,)
    return torch.randn(run.batch, *shape)


def loss_of(network, x: torch.Tensor) -> torch.Tensor:
    if not x.is_floating_point():
        return cross_entropy_in_place(network(x).flatten(0, 1), x.flatten())
    return F.cross_entropy(network(x).float(), torch.zeros(len(x), dtype=torch.long), reduction="sum")
