"""Bits per byte, and what token frequencies, gzip and xz make of the same text: the yardsticks of a language model."""

from __future__ import annotations

import gzip
import lzma
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

MOST_TRAINING = 8 << 20  # bytes; xz -9e packs about a million bytes a second, so this bounds the time
MOST_HELD_OUT = 2 << 20


@dataclass(frozen=True)
class Compression:
    """Bits per byte of the held-out text, by compressors as anyone can run them (`gzip -9`, `xz -9e`)."""

    gzip: float
    xz: float
    xz_given_training: float | None  # (size of both parts − size of the training part) / the held-out bytes
    held_out_bytes: int  # how many were measured, from its start
    training_bytes: int  # how many xz was given, the last of the training part
    partial: bool  # whether a text was longer than that; figures of parts must say so


def bits_per_byte(nats: float, n_bytes: float) -> float:
    """Total loss in nats over a text of ``n_bytes`` bytes, as bits per byte: comparable across tokenizers.

    The mean loss a token and the mean bytes a token give the same figure.
    """
    return nats / math.log(2) / n_bytes


def unigram_nats(training_ids: np.ndarray, held_out_ids: np.ndarray, vocab_size: int) -> float:
    """Nats a held-out token costs whoever knows only how often each token occurs in training, plus one (Laplace).

    This cross-entropy is what a network reaches that has learned frequencies and nothing about order.
    """
    chunk = 1 << 24  # ids may be memory-mapped and many: counting converts them to 64 bits
    counts = np.ones(vocab_size)
    for start in range(0, len(training_ids), chunk):
        counts += np.bincount(training_ids[start : start + chunk], minlength=vocab_size)
    held_out = np.bincount(held_out_ids, minlength=vocab_size)
    return float(held_out @ -np.log(counts / counts.sum()) / max(1, held_out.sum()))


def compression(training: bytes, held_out: bytes) -> Compression:
    """Measure what compressors need for ``held_out``, alone and (xz) when they have seen ``training``.

    Takes up to about 10 s on 2 cores: of longer texts the first `MOST_HELD_OUT` and last `MOST_TRAINING` bytes count.

    Raises:
        ValueError: when ``held_out`` is empty.
    """
    if not held_out:
        raise ValueError("the held-out text is empty")
    partial = len(held_out) > MOST_HELD_OUT or len(training) > MOST_TRAINING
    held_out, training = held_out[:MOST_HELD_OUT], training[-MOST_TRAINING:]
    n_bytes = len(held_out)
    with ThreadPoolExecutor() as pool:  # lzma lets go of the interpreter: the two long ones run side by side
        both, first = pool.map(_xz, (training + held_out, training))
    return Compression(
        gzip=8 * len(gzip.compress(held_out, 9)) / n_bytes,
        xz=8 * _xz(held_out) / n_bytes,
        xz_given_training=8 * (both - first) / n_bytes if training else None,
        held_out_bytes=n_bytes,
        training_bytes=len(training),
        partial=partial,
    )


def _xz(data: bytes) -> int:
    """The size of ``xz -9e``. A dictionary larger than the data changes nothing, and costs 11 times its size."""
    smallest = 4096
    settings = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": max(len(data), smallest)}
    return len(lzma.compress(data, filters=[settings]))
