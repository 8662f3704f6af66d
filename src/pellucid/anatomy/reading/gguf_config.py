"""The `config.json` that a .gguf file would have: its settings by the names of Hugging Face.

Source: llama.cpp, gguf-py/gguf/constants.py (the settings) and convert_hf_to_gguf.py (where they come from).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pellucid.checkpoints.headers import Stored

SIZES = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "sliding_window": "attention.sliding_window",
}
EXPERTS = {
    "num_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
}
OPENAI = {
    "n_embd": "embedding_length",
    "n_layer": "block_count",
    "n_head": "attention.head_count",
    "n_inner": "feed_forward_length",
    "n_positions": "context_length",
}
FAMILIES: dict[str, tuple[str, dict[str, str]]] = {  # by general.architecture: model_type, and its fields
    "gemma": ("gemma", SIZES),
    "gemma2": ("gemma2", SIZES),
    "gemma3": ("gemma3_text", SIZES),
    "gpt2": ("gpt2", OPENAI),
    "gptneox": ("gpt_neox", SIZES),
    "llama": ("llama", SIZES),  # Mistral's name too
    "olmo": ("olmo", SIZES),
    "olmo2": ("olmo2", SIZES),
    "phi2": ("phi", SIZES),
    "phi3": ("phi3", SIZES),
    "qwen2": ("qwen2", SIZES),
    "qwen2moe": ("qwen2_moe", SIZES | EXPERTS),
    "qwen3": ("qwen3", SIZES),
    "qwen3moe": ("qwen3_moe", SIZES | EXPERTS),
    "stablelm": ("stablelm", SIZES),
}
FLAGS = {  # by the tensor that is there only if they are set
    "attention_bias": "blk.0.attn_q.bias",
    "use_qkv_bias": "blk.0.attn_q.bias",
    "mlp_bias": "blk.0.ffn_up.bias",
    "qk_layernorm": "blk.0.attn_q_norm.weight",
}


def config_of(settings: Mapping[str, Any], tensors: Mapping[str, Stored]) -> dict[str, Any] | None:
    """The configuration that the settings of a file mean; None for architectures that are not in `FAMILIES`.

    Whether it is right, its tensors tell: see `tensors.fit`.
    """
    architecture = str(settings.get("general.architecture"))
    if architecture not in FAMILIES or "token_embd.weight" not in tensors:
        return None
    kind, names = FAMILIES[architecture]
    found = {field: settings.get(f"{architecture}.{name}") for field, name in names.items()}
    if architecture == "llama" and settings.get("llama.expert_count"):
        kind, experts = "mixtral", {"num_local_experts": "expert_count", "num_experts_per_tok": "expert_used_count"}
        found |= {field: settings[f"llama.{name}"] for field, name in experts.items() if f"llama.{name}" in settings}
    found = {field: value for field, value in found.items() if value is not None}
    if kind != "gpt2":
        # Hugging Face's classes name all of these; a family reads those that are its own
        found |= {flag: name in tensors for flag, name in FLAGS.items()}
    if kind == "gpt_neox":
        found["attention_bias"] = "blk.0.attn_qkv.bias" in tensors
    return {
        "model_type": kind,
        "vocab_size": tensors["token_embd.weight"].shape[0],
        "tie_word_embeddings": "output.weight" not in tensors,
        **found,
    }
