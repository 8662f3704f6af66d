"""int8 weights against the same sums in NumPy, and against the network they were rounded from."""

import numpy as np
import torch
from torch import nn

from pellucid.generation.int8 import Int8Linear, int8
from pellucid.generation.score import score
from pellucid.networks.cache import KeyValueCache
from pellucid.networks.decoder import Decoder, decoder_config


def small(family: str = "gpt2", **shape) -> Decoder:
    config = decoder_config(family, vocab_size=256, d_model=64, n_layers=2, n_heads=2, context=32, **shape)
    return Decoder(config, seed=0).eval().requires_grad_(False)


def test_a_layer_is_the_rounded_sum():
    generator = np.random.default_rng(0)
    linear = nn.Linear(33, 20)
    x = generator.normal(size=(2, 3, 33)).astype(np.float32)
    weight = linear.weight.detach().numpy().astype(np.float64)
    scales = np.abs(weight).max(1) / 127
    vector_scales = np.abs(x).max(-1, keepdims=True) / 127
    expected = np.rint(x / vector_scales) @ np.rint(weight / scales[:, None]).T * vector_scales * scales
    ours = Int8Linear(linear)(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(ours, expected + linear.bias.detach().numpy(), atol=2e-3)
    exact = linear(torch.from_numpy(x)).detach().numpy()
    assert np.abs(ours - exact).max() < 0.03
    assert Int8Linear(linear)(torch.zeros(1, 33)).isfinite().all()


def test_the_copy_has_int8_everywhere_and_leaves_the_original_alone():
    for network in (small(), small("qwen3", tied=False)):
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        rounded = int8(network)
        assert not any(isinstance(module, nn.Linear) for module in rounded.modules())
        assert isinstance(rounded.head, Int8Linear)
        assert rounded.embedding.weight is network.embedding.weight
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
        assert isinstance(network.head, nn.Linear)


def test_probabilities_hardly_change():
    network = small()
    for parameter in network.parameters():
        if parameter.dim() == 2:
            parameter.mul_(4)
    ids = torch.randint(0, 256, (200,), generator=torch.Generator().manual_seed(0))
    change = score(int8(network), ids, 0) - score(network, ids, 0)
    assert 0 < change.abs().mean() < 0.05


def test_it_reads_the_cache_that_the_original_filled():
    network = small()
    rounded, ids = int8(network), torch.tensor([[5, 6, 7, 8, 9]])
    cache = KeyValueCache(network.config)
    network(ids[:, :-1], cache)
    last = rounded(ids[:, -1:], cache)
    torch.testing.assert_close(last, network(ids)[:, -1:], atol=0.05, rtol=0.05)
