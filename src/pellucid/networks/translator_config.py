"""The shape of a translator. No torch is needed here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TranslatorConfig:
    """The shape of a translator. Both languages share one vocabulary and, with the head, one table (§3.4)."""

    vocab_size: int
    d_model: int
    encoder_layers: int
    decoder_layers: int
    n_heads: int
    d_ff: int  # width of the feed-forward layers
    context: int  # longest sequence on either side, in tokens
    pad_id: int  # what fills short sequences up; it means nothing to the network, which is given a mask
    start_id: int  # what every target begins with
    end_id: int  # what every source and every translation ends with
    activation: str = "relu"  # "relu", "gelu", "gelu_tanh", "silu"
    norm_eps: float = 1e-5
    dropout: float = 0.0  # on the embeddings and on all residual additions (§5.4); never inside attention
