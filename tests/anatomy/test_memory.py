"""The forecast against what torch really keeps and allocates: exact where it can be, in bytes, not by eye."""

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from pellucid.anatomy import families, memory
from pellucid.anatomy.tree import Linear, walk
from pellucid.networks.decoder import FAMILIES, Decoder, decoder_config
from pellucid.networks.losses import cross_entropy_in_place
from pellucid.training.optimisers import Optimiser

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
    network = Decoder(config).train()
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    live = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            live[storage.data_ptr()] = (storage.nbytes(), tensor)  # the tensor is held, so no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), precision(e):
        network(torch.zeros(batch, LENGTH, dtype=torch.long))
    visits = list(walk(families.decoder(config)))
    forecast = sum(v.times * memory.kept(v.leaf, batch * LENGTH, e, LENGTH) for v in visits)
    forecast += sum(2 * v.times * v.leaf.weights for v in visits if isinstance(v.leaf, Linear)) if e == 2 else 0
    shared = 8 * batch * LENGTH + 8 * LENGTH * config.head_dim  # ids and, in fp32, angles: too small to foretell
    assert forecast == pytest.approx(sum(size for size, _ in live.values()), rel=0.002, abs=shared)


# each is decided at another moment
PLANS = {
    "head": ("gpt2", {"vocab_size": 5000, "d_model": 128, "n_layers": 2, "n_heads": 2}, 16, 128, "bf16", "adamw", 1),
    "last block": (
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
    told = memory.forecast(config, batch, context, name, optimiser, accumulation, process=0, held=0)
    tensors = {name: size for name, size in told.moments.items() if name != "finish"}  # no step has that one
    assert max(tensors, key=tensors.__getitem__) == moment
    measured = peak_of_steps(config, batch, context, 2 if name == "bf16" else 4, optimiser, accumulation)
    assert max(tensors.values()) == pytest.approx(measured, rel=0.05)


@pytest.mark.slow
def test_resident_size_of_fresh_processes():
    script = Path(__file__).parents[2] / "benchmarks" / "memory_forecast.py"
    command = [sys.executable, str(script), "--plans", "3", "--seed", "0", "--steps", "4"]
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    assert ran.stdout.splitlines()[-1].startswith("3 of 3 within 10 %"), ran.stdout


def test_parts_are_printed_and_add_up():
    config = decoder_config("qwen3", vocab_size=5000, d_model=128, n_layers=2, n_heads=2, context=128)
    told = memory.forecast(config, 4)
    assert told.total == sum(told.parts.values()) == max(told.moments.values())
    assert f"{told.total / 1e6:,.1f} MB" in str(told)
    for family in FAMILIES:  # each part that there can be has a name in the user's language
        shape = {"vocab_size": 500, "d_model": 128, "n_layers": 2, "n_heads": 2, "context": 128}
        for name, optimiser, batch in (("fp32", "adamw", 1), ("bf16", "muon", 64)):
            assert str(memory.forecast(decoder_config(family, **shape), batch, None, name, optimiser))


def precision(e: int):
    return torch.autocast("cpu", torch.bfloat16) if e == 2 else nullcontext()


def peak_of_steps(config, batch, context, e, optimiser, accumulation) -> int:
    """The most bytes that torch's allocator had given out at once during three steps, by its own count."""
    plan = SimpleNamespace(
        optimiser=optimiser, learning_rate=1e-3, embedding_rate=1e-3, weight_decay=0.1, l1=0.0, l2=0.0
    )
    generator = torch.Generator().manual_seed(0)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        network = Decoder(config).train()
        optimise = Optimiser(network, plan)
        for _ in range(3):
            for _ in range(accumulation):
                ids_BT = torch.randint(config.vocab_size, (batch, context), generator=generator)
                with precision(e):
                    loss = cross_entropy_in_place(network(ids_BT).flatten(0, 1), ids_BT.flatten())
                loss.backward()
            optimise.step(1.0)
            optimise.zero_grad()
    events = list(profiler.profiler.kineto_results.experimental_event_tree())
    sizes = []
    while events:
        event = events.pop()
        events += event.children
        if event.tag.name == "Allocation":
            sizes.append((event.start_time_ns, event.extra_fields.alloc_size))
    live = peak = 0
    for _, size in sorted(sizes):
        live += size
        peak = max(peak, live)
    return peak
