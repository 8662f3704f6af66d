"""The translator by itself, with its cache and under the tape; that its numbers are Marian's is tested with files."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pellucid as pl
from pellucid.networks.translator import Translator, TranslatorCache, TranslatorConfig

SMALL = TranslatorConfig(
    vocab_size=31,
    d_model=16,
    encoder_layers=2,
    decoder_layers=3,
    n_heads=4,
    d_ff=24,
    context=12,
    pad_id=0,
    start_id=0,
    end_id=1,
)


def noisy() -> Translator:
    """A translator whose every parameter matters (biases start as zeros)."""
    network = Translator(SMALL)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.empty_like(parameter).normal_(0, 0.2, generator=generator))
    return network.eval()


def drawn(lengths: list[int], target: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sources of these lengths with padding behind them, targets, and the sources' mask."""
    generator = torch.Generator().manual_seed(1)
    source_BS = torch.randint(2, 31, (len(lengths), max(lengths)), generator=generator)
    mask_BS = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    target_BT = torch.randint(2, 31, (len(lengths), target), generator=generator)
    return source_BS.masked_fill(~mask_BS, 0), target_BT, mask_BS


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4))
def test_padding_means_nothing(lengths: list[int]) -> None:
    network = noisy()
    source_BS, target_BT, mask_BS = drawn(lengths)
    together = network(source_BS, target_BT, mask_BS)
    assert together.shape == (len(lengths), 6, 31)
    for n, length in enumerate(lengths):
        alone = network(source_BS[n : n + 1, :length], target_BT[n : n + 1])
        torch.testing.assert_close(alone[0], together[n])
    torch.testing.assert_close(network(source_BS.masked_fill(~mask_BS, 7), target_BT, mask_BS.long()), together)


def test_it_never_looks_ahead_in_the_target_and_sees_the_whole_source() -> None:
    network = noisy()
    source_BS, target_BT, mask_BS = drawn([9, 5])
    logits_BTV = network(source_BS, target_BT, mask_BS)
    changed_BT = target_BT.clone()
    changed_BT[:, 3:] = (changed_BT[:, 3:] + 1) % 31
    torch.testing.assert_close(network(source_BS, changed_BT, mask_BS)[:, :3], logits_BTV[:, :3])
    changed_BS = source_BS.clone()
    changed_BS[0, 8] = (changed_BS[0, 8] + 1) % 31
    assert not torch.allclose(network(changed_BS, target_BT, mask_BS)[0, 0], logits_BTV[0, 0])


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, 4), min_size=1, max_size=4), bf16=st.booleans())
def test_reading_in_pieces_with_a_cache_is_reading_at_once(cuts: list[int], bf16: bool) -> None:
    network = noisy()
    source_BS, target_BT, mask_BS = drawn([9, 5], 12)
    cuts = [*cuts, 12 - sum(cuts)] if sum(cuts) < 12 else [5, 7]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        memory_BSD, cache = network.encode(source_BS, mask_BS), TranslatorCache(SMALL)
        pieces = [network.decode(piece, memory_BSD, mask_BS, cache) for piece in target_BT.split(cuts, 1)]
        whole = network(source_BS, target_BT, mask_BS)
    assert cache.length == 12
    tolerance = 0.2 if bf16 else 1e-4
    torch.testing.assert_close(torch.cat(pieces, 1).float(), whole.float(), rtol=0, atol=tolerance)
    with pytest.raises(ValueError, match="13 tokens"):
        network.decode(target_BT[:, :1], memory_BSD, mask_BS, cache)


def test_rows_of_a_cache_are_chosen() -> None:
    network = noisy()
    source_BS, target_BT, mask_BS = drawn([9, 5])
    with torch.no_grad():
        memory_BSD, cache = network.encode(source_BS, mask_BS), TranslatorCache(SMALL)
        network.decode(target_BT[:, :4], memory_BSD, mask_BS, cache)
        rows = torch.tensor([1, 1])
        cache.select(rows)
        found = network.decode(target_BT[rows, 4:5], memory_BSD[rows], mask_BS[rows], cache)
        torch.testing.assert_close(found[:, 0], network(source_BS, target_BT, mask_BS)[rows, 4])


def test_one_seed_one_network_tied_and_of_a_sound_size() -> None:
    first, second, other = Translator(SMALL), Translator(SMALL), Translator(SMALL, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.encoder.embedding.weight, other.encoder.embedding.weight)
    assert first.head.weight is first.encoder.embedding.weight
    wide = Translator(replace(SMALL, d_model=64, d_ff=256))
    assert wide.decoder.embedding.weight.std().item() == pytest.approx(1 / 8, rel=0.1)
    bound = (6 / 128) ** 0.5  # of a 64 x 64 matrix, each of the three
    assert wide.encoder.blocks[0].attention.qkv.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    with pytest.raises(ValueError, match="heads"):
        Translator(replace(SMALL, n_heads=3))


def test_why_a_logit_adds_up_and_its_flow_names_the_tokens_of_the_source() -> None:
    network = noisy()
    source_BS, target_BT, mask_BS = drawn([9, 5])
    trace = pl.trace(network, source_BS, target_BT, mask_BS)
    logits = network(source_BS, target_BT, mask_BS)
    for row in (0, 1):
        question = f"head:out[{row},3,7]"
        answer = trace.why(question)
        assert answer.value == logits[row, 3, 7].item()
        assert abs(answer.total - answer.value) <= answer.budget
        flow = trace.flow(question)
        assert flow.tokens is not None
        assert flow.tokens.shape == (2, source_BS.shape[1])  # of the source
        target = flow.inputs["decoder"]
        assert target.shape == (2, 6)
        assert not flow.stopped
        total = flow.tokens.sum() + target.sum() + sum(flow.constants.values())
        assert total.item() == pytest.approx(logits[row, 3, 7].item(), abs=1e-4)
        assert not target[row, 4:].any()  # what comes later
        assert flow.tokens[row, : mask_BS[row].sum()].all()
        assert not flow.tokens[row][~mask_BS[row]].any()  # padding
        assert not flow.tokens[1 - row].any()


@pytest.mark.parametrize("bf16", [False, True])
def test_cross_attention_can_be_seen(bf16: bool) -> None:
    network = noisy()
    source_BS, target_BT, mask_BS = drawn([9, 5])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16), pl.record(network) as trace:
        network(source_BS, target_BT, mask_BS)
    for n in range(3):
        (found,) = trace.attention_maps(f"decoder.blocks.{n}.cross_attention")
        assert found.weights.shape == (2, 4, 6, 9)  # B, H, T, S
        torch.testing.assert_close(found.weights.sum(-1), torch.ones(2, 4, 6), rtol=0, atol=2e-2 if bf16 else 1e-5)
        assert not found.weights[1, :, :, 5:].any()
    paths = [found.path for found in trace.attention_maps()]
    assert paths == [f"encoder.blocks.{n}.attention" for n in range(2)] + [
        f"decoder.blocks.{n}.{kind}" for n in range(3) for kind in ("attention", "cross_attention")
    ]
