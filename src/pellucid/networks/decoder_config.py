"""The shape of a decoder-only transformer, and what the families differ in. No torch is needed here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of a decoder-only transformer. Every family of `FAMILIES` is a setting of these fields.

    Sources: GPT-1 (Radford et al. 2018), GPT-2 (Radford et al. 2019), GPT-3 (Brown et al. 2020), Llama (Touvron et
    al. 2023), Mistral (Jiang et al. 2023), Qwen2 (Yang et al. 2024), Qwen3 (Yang et al. 2025).
    """

    family: str  # "gpt1", "gpt2", "llama", "mistral", "qwen2", "qwen3", "sinusoidal"
    vocab_size: int
    d_model: int  # width of the residual stream
    n_layers: int
    n_heads: int  # query heads
    n_kv_heads: int  # key and value heads; n_heads must be a multiple of it
    head_dim: int  # n_heads * head_dim need not be d_model
    d_ff: int  # width of the feed-forward layer
    context: int  # longest sequence, in tokens
    norm: str = "rms"  # "rms" or "layer"
    norm_eps: float = 1e-6
    post_norm: bool = False  # GPT-1: the norm follows the addition, and there is no last norm
    positions: str = "rotary"  # "rotary", "learned" or "sinusoidal"
    rotary_base: float = 10_000.0
    rotary_scaling: dict | None = None  # {"type": "linear" | "llama3" | ..., "factor": ..., ...}; None: no scaling
    activation: str = "silu"  # "silu", "gelu", "gelu_tanh", "relu"
    gated: bool = True  # SwiGLU: down(silu(gate(x)) * up(x)); otherwise down(activation(up(x)))
    qkv_bias: bool = False
    output_bias: bool = False  # the attention's output projection
    ff_bias: bool = False
    qk_norm: bool = False  # Qwen3: an RMS norm over head_dim on queries and keys, before the rotation
    tied: bool = True  # the head's weight is the embedding's
    sliding_windows: tuple[int | None, ...] | None = None  # per layer; None: every layer sees the whole context
    dropout: float = 0.0  # on the embedding and on both residual additions; never inside attention


_GPT = {
    "norm": "layer",
    "norm_eps": 1e-5,
    "positions": "learned",
    "activation": "gelu_tanh",
    "gated": False,
    "qkv_bias": True,
    "output_bias": True,
    "ff_bias": True,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt1": {**_GPT, "post_norm": True},
    "gpt2": _GPT,
    "sinusoidal": {**_GPT, "positions": "sinusoidal"},
    "llama": {},
    "mistral": {},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": True},
}


def decoder_config(family: str, **shape: Any) -> DecoderConfig:
    """The configuration of `family` with the fields in `shape`; what is left out of the shape is derived.

    `n_kv_heads` defaults to `n_heads`, `head_dim` to `d_model / n_heads`, `d_ff` to 4 `d_model`, or 8/3 of it rounded
    up to a multiple of 64 where the feed-forward layer is gated (the same number of parameters).

    Raises:
        KeyError: when there is no such family.
    """
    settings = FAMILIES[family] | shape
    d_model, n_heads = settings["d_model"], settings["n_heads"]
    gated = settings.get("gated", True)
    derived = {
        "n_kv_heads": n_heads,
        "head_dim": d_model // n_heads,
        "d_ff": math.ceil(d_model * 8 / 3 / 64) * 64 if gated else 4 * d_model,
    }
    return DecoderConfig(family=family, **(derived | settings))
