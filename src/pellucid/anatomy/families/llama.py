"""Llama and the language models after it, from their `config.json`: each is Llama but for a few choices."""

from collections.abc import Callable
from typing import Any

from pellucid.anatomy.families.fields import Fields
from pellucid.anatomy.families.language import biases, llama_like, windows
from pellucid.anatomy.tree import Sequence


def llama(fields: Fields) -> Sequence:
    """Llama (Touvron et al. 2023), and the many that are it by another name: Yi, SmolLM2, TinyLlama, DeepSeek LLM."""
    return llama_like(fields, **biases(fields), ff_bias=fields.flag("mlp_bias"))


def mistral(fields: Fields) -> Sequence:
    """Mistral (Jiang et al. 2023), Ministral 3: where it has a window, every layer has."""
    return llama_like(fields, sliding_windows=windows(fields, lambda n: True))


def qwen2(fields: Fields) -> Sequence:
    """Qwen2, Qwen2.5 (Qwen team 2024): biases in queries, keys and values only."""
    return llama_like(fields, qkv_bias=True, sliding_windows=_qwen_windows(fields))


def qwen3(fields: Fields) -> Sequence:
    """Qwen3 (Qwen team 2025): each head's queries and keys are normed."""
    return llama_like(fields, **biases(fields), qk_norm=True, sliding_windows=_qwen_windows(fields))


def gemma(fields: Fields) -> Sequence:
    """Gemma (Gemma team 2024)."""
    return llama_like(fields, **biases(fields))


def gemma2(fields: Fields) -> Sequence:
    """Gemma 2 (Gemma team 2024): norms before and after each part; every other layer has a window."""
    return _gemma(fields, lambda n: n % 2 == 0)


def vaultgemma(fields: Fields) -> Sequence:
    """VaultGemma (Sinha et al. 2025): Gemma 2 without the norms after each part."""
    return _gemma(fields, lambda n: n % 2 == 0, order="pre")


def gemma3_text(fields: Fields) -> Sequence:
    """Gemma 3 (Gemma team 2025), its language model: every sixth layer sees all, the others have a window."""
    pattern = fields.size("sliding_window_pattern")
    return _gemma(fields, lambda n: (n + 1) % pattern != 0, qk_norm=True)


def _gemma(fields: Fields, slides: Callable[[int], bool], **settings: Any) -> Sequence:
    seen = windows(fields, slides)
    activation = fields.activation("hidden_activation")
    shape = {"order": "both", "activation": activation, "sliding_windows": seen} | settings
    return llama_like(fields, **biases(fields), **shape)


def phi(fields: Fields) -> Sequence:
    """Phi-1.5, Phi-2 (Li et al. 2023): GPT-J's order, with biases everywhere."""
    return llama_like(
        fields,
        norm="layer",
        order="parallel",
        gated=False,
        qkv_bias=True,
        output_bias=True,
        ff_bias=True,
        head_bias=True,
        qk_norm=fields.flag("qk_layernorm") and "layer",
    )


def phi3(fields: Fields) -> Sequence:
    """Phi-3, Phi-4 (Abdin et al. 2024)."""
    return llama_like(fields, sliding_windows=windows(fields, lambda n: True))


def olmo(fields: Fields) -> Sequence:
    """OLMo (Groeneveld et al. 2024): its norms have no parameters."""
    return llama_like(fields, **biases(fields), norm="plain")


def olmo2(fields: Fields) -> Sequence:
    """OLMo 2 (Team OLMo 2024): norms after each part, inside the branch; queries and keys are normed whole."""
    return llama_like(fields, **biases(fields), order="after", qk_norm="full")


def cohere(fields: Fields) -> Sequence:
    """Command R (Cohere 2024): side by side behind one norm, which has no shift."""
    norm = fields.flag("use_qk_norm") and "full"
    return llama_like(fields, **biases(fields), norm="scale", order="parallel", qk_norm=norm)


def cohere2(fields: Fields) -> Sequence:
    """Command R7B, Command A (Cohere 2024): every fourth layer sees all, the others have a window."""
    seen = windows(fields, lambda n: (n + 1) % fields.size("sliding_window_pattern") != 0)
    return llama_like(fields, **biases(fields), norm="scale", order="parallel", sliding_windows=seen)


def starcoder2(fields: Fields) -> Sequence:
    """StarCoder2 (Lozhkov et al. 2024): GPT's choices with grouped keys, and rotation for positions."""
    bias = dict.fromkeys(("qkv_bias", "output_bias", "ff_bias"), fields.flag("use_bias"))
    return llama_like(fields, norm="layer", gated=False, **bias, sliding_windows=windows(fields, lambda n: True))


def olmo3(fields: Fields) -> Sequence:
    """OLMo 3 (Team OLMo 2025): every fourth layer sees all, the others have a window."""
    seen = windows(fields, lambda n: (n + 1) % 4 != 0)
    return llama_like(fields, **biases(fields), order="after", qk_norm="full", sliding_windows=seen)


def glm4(fields: Fields) -> Sequence:
    """GLM-4 (Team GLM 2024): norms before and after each part, biases in queries, keys and values."""
    return llama_like(fields, qkv_bias=fields.flag("attention_bias"), order="both")


def glm(fields: Fields) -> Sequence:
    """GLM-4-9B of 2024: Llama with biases in queries, keys and values."""
    return llama_like(fields, qkv_bias=fields.flag("attention_bias"))


def ernie4_5(fields: Fields) -> Sequence:
    """ERNIE 4.5 (Baidu 2025), the dense one."""
    bias = dict.fromkeys(("qkv_bias", "output_bias", "ff_bias"), fields.flag("use_bias"))
    return llama_like(fields, **bias)


def hunyuan(fields: Fields) -> Sequence:
    """Hunyuan (Tencent 2025), the dense ones: each head's queries and keys are normed."""
    return llama_like(fields, **biases(fields), qk_norm=True)


def exaone4(fields: Fields) -> Sequence:
    """EXAONE 4.0 (LG AI Research 2025): norms after each part, inside the branch; each head's queries and keys, too."""
    seen = windows(fields, lambda n: (n + 1) % fields.size("sliding_window_pattern") != 0)
    return llama_like(fields, order="after", qk_norm=True, sliding_windows=seen)


def seed_oss(fields: Fields) -> Sequence:
    """Seed-OSS (ByteDance 2025): attention's biases are set apart."""
    qkv, output = fields.flag("attention_bias"), fields.flag("attention_out_bias")
    return llama_like(fields, qkv_bias=qkv, output_bias=output, ff_bias=fields.flag("mlp_bias"))


def arcee(fields: Fields) -> Sequence:
    """Arcee's AFM-4.5B (2025): Llama with squared ReLU and no gate."""
    return llama_like(fields, **biases(fields), ff_bias=fields.flag("mlp_bias"), gated=False)


def nemotron(fields: Fields) -> Sequence:
    """Nemotron-4, Minitron (Nvidia 2024): layer norm, squared ReLU and no gate."""
    return llama_like(fields, **biases(fields), ff_bias=fields.flag("mlp_bias"), norm="layer", gated=False)


def persimmon(fields: Fields) -> Sequence:
    """Persimmon (Adept 2023): GPT's choices, squared ReLU, and norms of each head's queries and keys."""
    bias = dict.fromkeys(("qkv_bias", "output_bias", "ff_bias"), True)
    return llama_like(fields, norm="layer", gated=False, **bias, qk_norm=fields.flag("qk_layernorm") and "layer")


def nanochat(fields: Fields) -> Sequence:
    """nanochat (Karpathy 2025): norms have no parameters, queries and keys are normed too; squared ReLU, no gate."""
    return llama_like(fields, **biases(fields), norm="plain", qk_norm=True, gated=False)


def stablelm(fields: Fields) -> Sequence:
    """StableLM (Bellagente et al. 2024): Llama with layer norm, in the 12B side by side behind one norm."""
    return llama_like(
        fields,
        norm="layer",
        order="parallel" if fields.flag("use_parallel_residual") else "pre",
        qkv_bias=fields.flag("use_qkv_bias"),
        qk_norm=fields.flag("qk_layernorm") and "full",
    )


def _qwen_windows(fields: Fields) -> tuple[int | None, ...] | None:
    first = fields.count("max_window_layers")
    return windows(fields, lambda n: n >= first) if fields.flag("use_sliding_window") else None
