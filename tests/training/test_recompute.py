"""Recomputation: the same numbers to the last bit, in less memory, on every network that the loop trains."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F

import pellucid as pl
from pellucid.networks.convnet import ConvNet, convnet_config
from pellucid.networks.decoder import Decoder, decoder_config
from pellucid.networks.dense import Dense, DenseConfig
from pellucid.tracing.trace import record
from pellucid.training.recompute import recompute_blocks
from runs import Stop, digest

SHAPE = {"vocab_size": 50, "d_model": 32, "n_layers": 3, "n_heads": 2, "context": 40, "dropout": 0.1}
NETWORKS = {
    "decoder": lambda: Decoder(decoder_config("qwen3", **SHAPE)),
    "older decoder": lambda: Decoder(decoder_config("gpt1", **SHAPE)),
    "dense": lambda: Dense(DenseConfig(40, 50, (64, 64), "gelu", norm="batch", dropout=0.2)),
    "convnet": lambda: ConvNet(convnet_config("residual", 1, 8, 5, 50)).to(memory_format=torch.channels_last),
}


def inputs(name: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    if "decoder" in name:
        return torch.randint(50, (4, 40), generator=generator)
    numbers = torch.randn(4, 40, generator=generator)
    return numbers.view(4, 1, 8, 5) if name == "convnet" else numbers


def step(network, x, precision="fp32") -> list[torch.Tensor]:
    """Loss, random state, gradients and statistics after a forward and backward pass."""
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits = network.train()(x).flatten(0, -2).float()
        loss = F.cross_entropy(logits, torch.arange(len(logits)) % 50)
    loss.backward()
    return [loss.detach(), torch.get_rng_state(), *(p.grad for p in network.parameters()), *network.buffers()]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_numbers_to_the_last_bit(name, precision):
    recomputed = NETWORKS[name]()
    recompute_blocks(recomputed)
    copied = copy.deepcopy(recomputed)  # recomputes its own blocks, not those that it was copied from
    expected = step(NETWORKS[name](), inputs(name), precision)
    for network in (recomputed, copied):
        assert all(torch.equal(a, b) for a, b in zip(expected, step(network, inputs(name), precision), strict=True))


def test_what_is_recomputed_can_be_recorded():
    network = NETWORKS["decoder"]()
    recompute_blocks(network)
    with record(network) as trace:
        step(network, inputs("decoder"))
    answer = trace.why("blocks.0.feed_forward.gate_up.weight:grad[0,0]")
    assert answer.value == network.blocks[0].feed_forward.gate_up.weight.grad[0, 0].item()


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "numbers.txt"
    path.write_text(" ".join(str(n * n) for n in range(4000)))
    return path


def test_a_run_recomputes_when_it_is_resumed_and_ends_as_if_it_had_kept(text, tmp_path):
    options = {"width": 32, "depth": 2, "heads": 2, "context": 32, "vocab": 300, "batch": 4, "threads": 1}
    options |= {"steps": 12, "evaluations": 2, "dropout": 0.1, "precision": "fp32"}
    pl.train(text, tmp_path / "kept", **options)
    with pytest.raises(pl.PellucidError, match="everything is saved"):
        pl.train(text, tmp_path / "run", recompute=True, progress=Stop(5), **options)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pellucid.training.run.recompute_blocks", lambda n: (seen.append(n), recompute_blocks(n)))
        pl.resume(tmp_path / "run")
    assert len(seen) == 1
    plans = [json.loads((tmp_path / name / "plan.json").read_text()) for name in ("kept", "run")]
    assert [plan["recompute"] for plan in plans] == [False, True]
    for file in ("model.safetensors", "checkpoints/last/model.safetensors", "checkpoints/last/optimiser.safetensors"):
        assert digest(tmp_path / "kept" / file) == digest(tmp_path / "run" / file)
    assert pl.step(tmp_path / "run").loss > 0  # recorded, without computing twice
