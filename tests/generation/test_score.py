"""Scores against NumPy in float64 over the same blocks."""

import math

import numpy as np
import pytest
import torch

from pellucid.generation import score as scoring
from pellucid.generation.score import Evaluation, score
from pellucid.networks.decoder import Decoder, decoder_config


@pytest.fixture(scope="module")
def network() -> Decoder:
    config = decoder_config("qwen2", vocab_size=50, d_model=16, n_layers=2, n_heads=2, context=8, dropout=0.5)
    network = Decoder(config, seed=0)
    network.embedding.weight.data.mul_(30)
    return network


@pytest.mark.parametrize("length", [1, 7, 8, 9, 40, 43])
@pytest.mark.parametrize("batch", [1, 3])
def test_every_token_is_scored_once_in_its_block(network, length, batch, monkeypatch):
    monkeypatch.setattr(scoring, "LOGITS_AT_ONCE", 50 * 5)  # the head in pieces
    ids = torch.randint(0, 50, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    nats = score(network, ids, start_id=49, batch=batch)
    assert network.training  # as it was, and no dropout meanwhile
    stream, expected = [49, *ids], []
    for first in range(0, length, 8):
        inputs = stream[first : min(first + 8, length)]
        network.eval()
        logits = network(torch.tensor([inputs]))[0].detach().double().numpy()
        network.train()
        shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        expected += [-math.log(shares[n, stream[first + n + 1]]) for n in range(len(inputs))]
    np.testing.assert_allclose(nats.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_without_a_start_the_first_token_is_given(network):
    ids = [3, 1, 4, 1, 5]
    assert len(score(network, ids, None)) == 4
    torch.testing.assert_close(score(network, ids, None), score(network, ids[1:], start_id=3))
    assert len(score(network, [3], None)) == 0


def test_a_shorter_context_makes_shorter_blocks(network):
    ids = list(range(12))
    torch.testing.assert_close(score(network, ids, 49, context=4)[4:8], score(network, ids[4:8], start_id=ids[3]))


def test_the_figures_follow_from_nats_tokens_and_bytes():
    evaluation = Evaluation(nats=100 * math.log(2), tokens=50, bytes=200)
    assert evaluation.loss == pytest.approx(2 * math.log(2))
    assert evaluation.perplexity == pytest.approx(4)
    assert evaluation.bits_per_byte == pytest.approx(0.5)
