"""From a network's config to its tree of shapes. The one place that says what a family is made of, in numbers."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from pellucid.anatomy.tree import (
    Activation,
    Attention,
    Dropout,
    Embedding,
    Linear,
    Norm,
    Part,
    Repeat,
    Sequence,
)

if TYPE_CHECKING:
    from pellucid.networks.decoder import DecoderConfig  # the module imports torch, which counting does without


def decoder(config: DecoderConfig) -> Sequence:
    """The tree of a decoder-only transformer; part names are those of `networks.decoder.Decoder`."""
    parts = [Part("embedding", Embedding(config.vocab_size, config.d_model), "embedding")]
    if config.positions == "learned":
        parts.append(Part("positions", Embedding(config.context, config.d_model), "embedding"))
    parts.append(Part("dropout", Dropout(config.d_model, config.dropout), "embedding"))
    parts += _blocks(config)
    if not config.post_norm:
        parts.append(Part("norm", _norm(config), "norm"))
    tied_to = "embedding" if config.tied else None
    parts.append(Part("head", Linear(config.d_model, config.vocab_size, bias=False, tied_to=tied_to), "head"))
    return Sequence(tuple(parts))


def _blocks(config: DecoderConfig) -> list[Part]:
    """One `Repeat`, or one for each run of layers that see equally far."""
    windows = config.sliding_windows or (None,) * config.n_layers
    runs = [(window, len(list(layers))) for window, layers in groupby(windows)]
    if len(runs) == 1:
        return [Part("blocks", Repeat(config.n_layers, _block(config, runs[0][0])))]
    starts = [sum(n for _, n in runs[:i]) for i in range(len(runs))]
    return [
        Part(f"blocks[{start}:{start + n}]", Repeat(n, _block(config, window)))
        for start, (window, n) in zip(starts, runs, strict=True)
    ]


def _block(config: DecoderConfig, window: int | None) -> Sequence:
    norms = (Part("attention_norm", _norm(config), "norm"), Part("feed_forward_norm", _norm(config), "norm"))
    work = (
        Part("attention", _attention(config, window), "attention"),
        Part("feed_forward", _feed_forward(config), "feed-forward"),
    )
    first, second = ((work[i], norms[i]) if config.post_norm else (norms[i], work[i]) for i in (0, 1))
    return Sequence((*first, *second))


def _attention(config: DecoderConfig, window: int | None) -> Sequence:
    heads, kv_heads, head_dim = config.n_heads, config.n_kv_heads, config.head_dim
    parts = [Part("qkv", Linear(config.d_model, (heads + 2 * kv_heads) * head_dim, config.qkv_bias))]
    if config.qk_norm:
        parts.append(Part("query_norm", Norm(head_dim, shift=False, heads=heads), "norm"))
        parts.append(Part("key_norm", Norm(head_dim, shift=False, heads=kv_heads), "norm"))
    product = Attention(heads, kv_heads, head_dim, window, rotated=config.positions == "rotary", normed=config.qk_norm)
    parts.append(Part("product", product))
    parts.append(Part("output", Linear(heads * head_dim, config.d_model, config.output_bias)))
    parts.append(Part("dropout", Dropout(config.d_model, config.dropout)))
    return Sequence(tuple(parts))


def _feed_forward(config: DecoderConfig) -> Sequence:
    name, width = ("gate_up", 2 * config.d_ff) if config.gated else ("up", config.d_ff)
    up = Part(name, Linear(config.d_model, width, config.ff_bias))
    activation = Part("activation", Activation(config.activation, config.d_ff, config.gated))
    down = Part("down", Linear(config.d_ff, config.d_model, config.ff_bias))
    return Sequence((up, activation, down, Part("dropout", Dropout(config.d_model, config.dropout))))


def _norm(config: DecoderConfig) -> Norm:
    return Norm(config.d_model, shift=config.norm == "layer")
