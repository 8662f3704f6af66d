"""Reading with a cache against reading everything anew."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.generation.reader import Reader
from pellucid.networks.decoder import Decoder, decoder_config


def small(**shape) -> Decoder:
    config = decoder_config("mistral", vocab_size=9, d_model=16, n_layers=2, n_heads=2, context=20, **shape)
    return Decoder(config, seed=0).eval().requires_grad_(False)


NETWORK = small(n_kv_heads=1, sliding_windows=(3, None))
CACHED, ANEW = Reader(NETWORK), Reader(NETWORK, cached=False)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.data())
def test_whatever_was_read_before_the_logits_are_the_same(ids, data):
    last = data.draw(st.integers(1, len(ids)))
    torch.testing.assert_close(CACHED.logits(ids, last), ANEW.logits(ids, last), atol=1e-5, rtol=1e-4)


def test_turning_the_weights_leaves_values_and_ties_alone():
    network, twin = small(), small()
    reader = Reader(network)
    for length in range(1, 20):
        reader.logits([1] * length)
    assert not network.head.weight.is_contiguous()
    assert network.head.weight is network.embedding.weight
    for (name, turned), weight in zip(network.state_dict().items(), twin.state_dict().values(), strict=True):
        assert torch.equal(turned, weight), name


def test_a_network_in_training_is_not_touched():
    network = small().requires_grad_()
    reader = Reader(network)
    for length in range(1, 20):
        reader.logits([1] * length)
    assert all(parameter.is_contiguous() for parameter in network.parameters())
