"""The encoder by itself and under the tape; that its numbers are BERT's is tested with the files."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pellucid as pl
from pellucid.networks.encoder import Classifier, Encoder, EncoderConfig, mean_over_tokens

SMALL = EncoderConfig(
    vocab_size=31, d_model=16, n_layers=2, n_heads=4, d_ff=24, context=12, classes=3, norm_eps=1e-5, pooling="first"
)


def noisy(network: torch.nn.Module) -> torch.nn.Module:
    """A network whose every parameter matters (biases start as zeros)."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.empty_like(parameter).normal_(0, 0.2, generator=generator))
    return network.eval()


def drawn(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids of these lengths with padding behind them, and their mask."""
    ids_BT = torch.randint(1, 31, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(1))
    mask_BT = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return ids_BT.masked_fill(~mask_BT, 0), mask_BT


@pytest.mark.parametrize("pooling", ["first", "mean"])
@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4))
def test_padding_means_nothing(pooling: str, lengths: list[int]) -> None:
    network = noisy(Classifier(replace(SMALL, pooling=pooling)))
    ids_BT, mask_BT = drawn(lengths)
    together = network(ids_BT, mask_BT)
    assert together.shape == (len(lengths), 3)
    for n, length in enumerate(lengths):
        torch.testing.assert_close(network(ids_BT[n : n + 1, :length])[0], together[n])
    torch.testing.assert_close(network(ids_BT.masked_fill(~mask_BT, 7), mask_BT.long()), together)


def test_every_layer_can_be_looked_at() -> None:
    network = noisy(Encoder(SMALL))
    ids_BT, mask_BT = drawn([5, 9])
    states = network.hidden_states(ids_BT, mask_BT)
    assert [tuple(state.shape) for state in states] == [(2, 9, 16)] * 3
    assert torch.equal(states[-1], network(ids_BT, mask_BT))
    torch.testing.assert_close(mean_over_tokens(states[1], mask_BT)[0], states[1][0, :5].mean(0))


def test_every_position_sees_all_and_knows_its_place_and_kind() -> None:
    network = noisy(Encoder(SMALL))
    ids_BT = drawn([6])[0]
    changed_BT = ids_BT.clone()
    changed_BT[0, 5] = (changed_BT[0, 5] + 1) % 31
    assert not torch.allclose(network(ids_BT)[0, 0], network(changed_BT)[0, 0])
    assert not torch.allclose(network(ids_BT.flip(1)).flip(1), network(ids_BT))
    assert not torch.allclose(network(ids_BT, types_BT=torch.ones_like(ids_BT)), network(ids_BT))
    torch.testing.assert_close(network(ids_BT, types_BT=torch.zeros_like(ids_BT)), network(ids_BT))


def test_one_seed_one_network_and_bfloat16_is_near() -> None:
    first, second, other = Classifier(SMALL), Classifier(SMALL), Classifier(SMALL, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.head.weight, other.head.weight)
    network, (ids_BT, mask_BT) = noisy(first), drawn([5, 9])
    with torch.autocast("cpu", torch.bfloat16):
        near = network(ids_BT, mask_BT)
    torch.testing.assert_close(near.float(), network(ids_BT, mask_BT), rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"n_heads": 3}, "heads"), ({"activation": "sine"}, "sine"), ({"classes": 0}, "class"), ({"pooling": "x"}, "x")],
)
def test_contradictions_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Classifier(replace(SMALL, **change))
    with pytest.raises(ValueError, match="context of 12"):
        Encoder(SMALL)(torch.zeros(1, 13, dtype=torch.long))


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_why_a_class_adds_up_and_its_flow_names_the_tokens(pooling: str) -> None:
    network = noisy(Classifier(replace(SMALL, pooling=pooling)))
    ids_BT, mask_BT = drawn([5, 9])
    trace = pl.trace(network, ids_BT, mask_BT)
    logits = network(ids_BT, mask_BT)
    for row in (0, 1):
        answer = trace.why(f"head:out[{row},1]")
        assert answer.value == logits[row, 1].item()
        assert abs(answer.total - answer.value) <= answer.budget
        flow = trace.flow(f"head:out[{row},1]")
        assert flow.tokens is not None
        assert flow.tokens.shape == (2, 9)
        total = flow.tokens.sum().item() + sum(flow.constants.values()) + sum(flow.stopped.values())
        assert total == pytest.approx(logits[row, 1].item(), abs=1e-4)
        assert not flow.stopped
        assert not flow.tokens[1 - row].any()
    assert not trace.flow("head:out[0,1]").tokens[0, 5:].any()  # padding brings nothing
    assert len(trace.flow("head:out[0,1]").layers) == 2


def test_attention_maps_are_distributions_over_tokens_in_either_precision() -> None:
    network = noisy(Classifier(SMALL))
    ids_BT, mask_BT = drawn([5, 9])
    for bf16 in (False, True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16), pl.record(network) as trace:
            network(ids_BT, mask_BT)
        maps = trace.attention_maps()
        assert [found.path for found in maps] == ["encoder.blocks.0.attention", "encoder.blocks.1.attention"]
        for found in maps:
            assert found.weights.shape == (2, 4, 9, 9)
            torch.testing.assert_close(found.weights.sum(-1), torch.ones(2, 4, 9), atol=2e-2, rtol=0)
            assert not found.weights[0, :, :, 5:].any()
