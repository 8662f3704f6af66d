"""The shape of an encoder and of the classifier on top of it. No torch is needed here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EncoderConfig:
    """The shape of an encoder and, where `classes` is not 0, of the classifier on top of it."""

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    d_ff: int  # width of the feed-forward layer
    context: int  # longest sequence, in tokens
    type_vocab_size: int = 2  # kinds of tokens: BERT's first and second sentence
    activation: str = "gelu"  # "gelu", "gelu_tanh", "relu", "silu"
    norm_eps: float = 1e-12
    dropout: float = 0.0  # on the embedding, both residual additions and what the head reads; never inside attention
    pad_id: int = 0  # what fills short sequences up; it means nothing to the network, which is given a mask
    classes: int = 0  # of the classifier; 0: none
    pooling: str = "first"  # "first": tanh of a layer over the first token, as in BERT; "mean": the mean over tokens
