"""Greedy and beam search against plain recomputation and against trying every translation there is."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.generation.translate import Translation, penalty, translate
from pellucid.networks.translator import Translator, TranslatorConfig

START, END = 0, 1


def network(seed: int, vocab_size: int = 5, ending: float = 0.0) -> Translator:
    """Random and decided; `ending` makes the end token more probable."""
    config = TranslatorConfig(
        vocab_size=vocab_size,
        d_model=16,
        encoder_layers=1,
        decoder_layers=2,
        n_heads=2,
        d_ff=16,
        context=16,
        pad_id=START,
        start_id=START,
        end_id=END,
    )
    made = Translator(config, seed)
    with torch.no_grad():
        made.head.weight *= 2
        made.head.bias[END] = ending
    return made.eval()


def sentences(lengths: list[int], vocab_size: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    mask_BS = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ids_BS = torch.randint(2, vocab_size, mask_BS.shape, generator=torch.Generator().manual_seed(0))
    return ids_BS.masked_fill(~mask_BS, START), mask_BS


def log_probability(made: Translator, source_S: torch.Tensor, ids: tuple[int, ...]) -> float:
    target_T = torch.tensor([START, *ids])
    with torch.no_grad():
        log_p_TV = made(source_S[None], target_T[None, :-1])[0].log_softmax(-1)
    return log_p_TV.gather(1, target_T[1:, None]).sum().item()


def best_of_all(made: Translator, source_S: torch.Tensor, limit: int, exponent: float) -> tuple[int, ...]:
    """Every translation that ends within `limit` tokens, the end token included."""
    words = [id for id in range(made.config.vocab_size) if id != END]
    every = (ids for length in range(limit) for ids in product(words, repeat=length))
    return max(every, key=lambda ids: log_probability(made, source_S, (*ids, END)) / penalty(len(ids) + 1, exponent))


def same(a: Translation, b: Translation) -> bool:
    return (a.ids, a.finished) == (b.ids, b.finished) and a.log_probability == pytest.approx(
        b.log_probability, abs=1e-4
    )


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), exponent=st.sampled_from([0.0, 0.6, 1.0]), ending=st.sampled_from([-2.0, 0.0, 2.0]))
def test_a_wide_beam_finds_the_best_of_all(seed: int, exponent: float, ending: float) -> None:
    made = network(seed, vocab_size=4, ending=ending)
    source_BS, _ = sentences([3], 4)
    (found,) = translate(made, source_BS, beams=40, length_penalty=exponent, max_tokens=4)
    assert found.finished
    assert found.ids == best_of_all(made, source_BS[0], 4, exponent)
    expected = log_probability(made, source_BS[0], (*found.ids, END))
    assert found.log_probability == pytest.approx(expected, abs=1e-4)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 99),
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    beams=st.sampled_from([1, 2, 4]),
    ending=st.sampled_from([-3.0, 0.0, 2.0]),
)
def test_a_sentence_is_translated_alike_alone_and_in_a_batch(
    seed: int, lengths: list[int], beams: int, ending: float
) -> None:
    made = network(seed, vocab_size=9, ending=ending)
    source_BS, mask_BS = sentences(lengths, 9)
    together = translate(made, source_BS, mask_BS, beams=beams)
    for n, length in enumerate(lengths):
        (alone,) = translate(made, source_BS[n : n + 1, :length], beams=beams)
        assert same(alone, together[n])
        ids = (*alone.ids, END) if alone.finished else alone.ids
        assert alone.log_probability == pytest.approx(log_probability(made, source_BS[n, :length], ids), abs=1e-3)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99))
def test_greedy_takes_the_most_probable_token_each_time(seed: int) -> None:
    made = network(seed, vocab_size=9)
    source_BS, _ = sentences([4], 9)
    (found,) = translate(made, source_BS, max_tokens=8)
    written: list[int] = []
    while len(written) < 8:
        with torch.no_grad():
            id = int(made(source_BS, torch.tensor([[START, *written]]))[0, -1].argmax())
        if id == END:
            break
        written.append(id)
    assert list(found.ids) == written
    assert found.finished == (len(written) < 8)


def test_what_never_ends_is_cut_off_at_its_limit() -> None:
    made = network(0, vocab_size=9, ending=-1e4)
    source_BS, mask_BS = sentences([2, 5], 9)
    for beams in (1, 3):
        for found in translate(made, source_BS, mask_BS, beams=beams, max_tokens=7):
            assert len(found.ids) == 7
            assert not found.finished
        assert len(translate(made, source_BS, mask_BS, beams=beams)[0].ids) == 16  # as much as the context holds
    with pytest.raises(ValueError, match="0 beams"):
        translate(made, source_BS, beams=0)
    with pytest.raises(ValueError, match="context of 16"):
        translate(made, torch.ones(1, 17, dtype=torch.long))


def test_the_penalty_is_googles() -> None:
    assert penalty(1, 0.6) == 1.0
    assert penalty(7, 1.0) == 2.0
    assert penalty(9, 0.0) == 1.0
