"""Llama and the language models after it, from their `config.json`: each is Llama but for a few choices."""

from collections.abc import Callable
from typing import Any

from pellucid.anatomy.families.decoder import Experts, Latent
from pellucid.anatomy.families.fields import Fields
from pellucid.anatomy.families.language import language_model
from pellucid.anatomy.tree import Sequence
from pellucid.language import _


def llama(fields: Fields) -> Sequence:
    """Llama (Touvron et al. 2023), and the many that are it by another name: Yi, SmolLM2, TinyLlama, DeepSeek LLM."""
    return _llama(fields, **_biases(fields), ff_bias=fields.flag("mlp_bias"))


def mistral(fields: Fields) -> Sequence:
    """Mistral (Jiang et al. 2023): where it has a window, every layer has."""
    return _llama(fields, sliding_windows=_windows(fields, lambda n: True))


def mixtral(fields: Fields) -> Sequence:
    """Mixtral (Jiang et al. 2024): every feed-forward layer is a mixture."""
    experts = _experts(fields, "num_local_experts", fields.size("intermediate_size"))
    return _llama(fields, sliding_windows=_windows(fields, lambda n: True), experts=experts)


def qwen2(fields: Fields) -> Sequence:
    """Qwen2, Qwen2.5 (Qwen team 2024): biases in queries, keys and values only."""
    return _llama(fields, qkv_bias=True, sliding_windows=_qwen_windows(fields))


def qwen3(fields: Fields) -> Sequence:
    """Qwen3 (Qwen team 2025): each head's queries and keys are normed."""
    return _llama(fields, **_biases(fields), qk_norm=True, sliding_windows=_qwen_windows(fields))


def qwen2_moe(fields: Fields) -> Sequence:
    """Qwen1.5-MoE, Qwen2-MoE: beside the chosen experts one that every token meets, behind a gate."""
    shared = {"shared_d_ff": fields.size("shared_expert_intermediate_size"), "shared_gate": True}
    experts = _experts(fields, "num_experts", fields.size("moe_intermediate_size"), _sparse_layers(fields), **shared)
    last = fields.count("max_window_layers")
    windows = _windows(fields, lambda n: n % 2 == 0 and n < last) if fields.flag("use_sliding_window") else None
    return _llama(fields, qkv_bias=fields.flag("qkv_bias"), sliding_windows=windows, experts=experts)


def qwen3_moe(fields: Fields) -> Sequence:
    """Qwen3-MoE (Qwen team 2025)."""
    experts = _experts(fields, "num_experts", fields.size("moe_intermediate_size"), _sparse_layers(fields))
    windows = _windows(fields, lambda n: True) if fields.flag("use_sliding_window") else None
    return _llama(fields, **_biases(fields), qk_norm=True, sliding_windows=windows, experts=experts)


def gpt_oss(fields: Fields) -> Sequence:
    """gpt-oss (OpenAI 2025): biases everywhere, heads that may attend to nothing; every other layer has a window."""
    experts = _experts(fields, "num_local_experts", fields.size("intermediate_size"), biased_router=True)
    windows = _windows(fields, lambda n: n % 2 == 0)
    return _llama(fields, **_biases(fields), ff_bias=True, sinks=True, sliding_windows=windows, experts=experts)


def llama4_text(fields: Fields) -> Sequence:
    """Llama 4 (Meta 2025), its language model: one expert is chosen, one meets all; 3 layers of 4 see a chunk."""
    n_layers, step = fields.layers("num_hidden_layers"), fields.size("interleave_moe_layer_step")
    d_ff, every = fields.size("intermediate_size"), fields.size("no_rope_layer_interval")
    mixtures = _listed(fields, "moe_layers") or range(step - 1, n_layers, step)
    experts = _experts(
        fields,
        "num_local_experts",
        d_ff,
        tuple(n in mixtures for n in range(n_layers)),
        shared_d_ff=d_ff,
    )
    chunk = fields.size("attention_chunk_size") if "attention_chunk_size" in fields else None
    windows = tuple(chunk if (n + 1) % every else None for n in range(n_layers))
    d_ff = fields.size("intermediate_size_mlp")
    return _llama(fields, **_biases(fields), d_ff=d_ff, sliding_windows=windows, experts=experts)


def gemma(fields: Fields) -> Sequence:
    """Gemma (Gemma team 2024)."""
    return _llama(fields, **_biases(fields))


def gemma2(fields: Fields) -> Sequence:
    """Gemma 2 (Gemma team 2024): norms before and after each part; every other layer has a window."""
    return _gemma(fields, lambda n: n % 2 == 0)


def gemma3_text(fields: Fields) -> Sequence:
    """Gemma 3 (Gemma team 2025), its language model: every sixth layer sees all, the others have a window."""
    pattern = fields.size("sliding_window_pattern")
    return _gemma(fields, lambda n: (n + 1) % pattern != 0, qk_norm=True)


def _gemma(fields: Fields, slides: Callable[[int], bool], **settings: Any) -> Sequence:
    windows = _windows(fields, slides)
    activation = fields.activation("hidden_activation")
    return _llama(fields, **_biases(fields), order="both", activation=activation, sliding_windows=windows, **settings)


def phi(fields: Fields) -> Sequence:
    """Phi-1.5, Phi-2 (Li et al. 2023): GPT-J's order, with biases everywhere."""
    return _llama(
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
    return _llama(fields, sliding_windows=_windows(fields, lambda n: True))


def olmo(fields: Fields) -> Sequence:
    """OLMo (Groeneveld et al. 2024): its norms have no parameters."""
    return _llama(fields, **_biases(fields), norm="plain")


def olmo2(fields: Fields) -> Sequence:
    """OLMo 2 (Team OLMo 2024): norms after each part, inside the branch; queries and keys are normed whole."""
    return _llama(fields, **_biases(fields), order="after", qk_norm="full")


def olmoe(fields: Fields) -> Sequence:
    """OLMoE (Muennighoff et al. 2024)."""
    experts = _experts(fields, "num_experts", fields.size("intermediate_size"))
    return _llama(fields, **_biases(fields), qk_norm="full", experts=experts)


def cohere(fields: Fields) -> Sequence:
    """Command R (Cohere 2024): side by side behind one norm, which has no shift."""
    norm = fields.flag("use_qk_norm") and "full"
    return _llama(fields, **_biases(fields), norm="scale", order="parallel", qk_norm=norm)


def starcoder2(fields: Fields) -> Sequence:
    """StarCoder2 (Lozhkov et al. 2024): GPT's choices with grouped keys, and rotation for positions."""
    bias = dict.fromkeys(("qkv_bias", "output_bias", "ff_bias"), fields.flag("use_bias"))
    return _llama(fields, norm="layer", gated=False, **bias, sliding_windows=_windows(fields, lambda n: True))


def olmo3(fields: Fields) -> Sequence:
    """OLMo 3 (Team OLMo 2025): every fourth layer sees all, the others have a window."""
    windows = _windows(fields, lambda n: (n + 1) % 4 != 0)
    return _llama(fields, **_biases(fields), order="after", qk_norm="full", sliding_windows=windows)


def glm4(fields: Fields) -> Sequence:
    """GLM-4 (Team GLM 2024): norms before and after each part, biases in queries, keys and values."""
    return _llama(fields, qkv_bias=fields.flag("attention_bias"), order="both")


def nanochat(fields: Fields) -> Sequence:
    """nanochat (Karpathy 2025): norms have no parameters, queries and keys are normed too; squared ReLU, no gate."""
    return _llama(fields, **_biases(fields), norm="plain", qk_norm=True, gated=False)


def stablelm(fields: Fields) -> Sequence:
    """StableLM (Bellagente et al. 2024): Llama with layer norm, in the 12B side by side behind one norm."""
    return _llama(
        fields,
        norm="layer",
        order="parallel" if fields.flag("use_parallel_residual") else "pre",
        qkv_bias=fields.flag("use_qkv_bias"),
        qk_norm=fields.flag("qk_layernorm") and "full",
    )


def deepseek_v2(fields: Fields) -> Sequence:
    """DeepSeek-V2 (DeepSeek-AI 2024): keys and values from one latent vector; some experts meet every token."""
    return _deepseek(fields, router_bias=False)


def deepseek_v3(fields: Fields) -> Sequence:
    """DeepSeek-V3, R1 (DeepSeek-AI 2024): a bias balances experts. The layer for the token after next is left out."""
    return _deepseek(fields, router_bias=True)


def _deepseek(fields: Fields, router_bias: bool) -> Sequence:
    first, n_layers = fields.count("first_k_dense_replace"), fields.layers("num_hidden_layers")
    d_ff = fields.size("moe_intermediate_size")
    experts = _experts(
        fields,
        "n_routed_experts",
        d_ff,
        tuple(n >= first for n in range(n_layers)),
        shared_d_ff=d_ff * fields.count("n_shared_experts"),
        router_bias=router_bias,
    )
    latent = Latent(
        kv_rank=fields.size("kv_lora_rank"),
        query_rank=fields.size("q_lora_rank") if "q_lora_rank" in fields else None,
        rotated_dim=fields.size("qk_rope_head_dim"),
        plain_dim=fields.size("qk_nope_head_dim"),
        value_dim=fields.size("v_head_dim"),
    )
    if fields.flag("mlp_bias", False):
        fields.refuse("mlp_bias", _("Only networks without biases are known here."))
    head_dim = latent.plain_dim + latent.rotated_dim
    return _llama(fields, **_biases(fields), head_dim=head_dim, latent=latent, experts=experts)


def _llama(fields: Fields, **settings: Any) -> Sequence:
    """Llama's fields; the settings, `DecoderShape`'s, say what is done otherwise."""
    n_heads = fields.size("num_attention_heads")
    if "num_key_value_heads" in fields:
        fields.share("num_attention_heads", "num_key_value_heads")
    shape: dict[str, Any] = {
        "vocab_size": fields.size("vocab_size"),
        "d_model": fields.size("hidden_size"),
        "n_layers": fields.layers("num_hidden_layers"),
        "n_heads": n_heads,
        "n_kv_heads": fields.size("num_key_value_heads", n_heads),
        "d_ff": fields.size("intermediate_size"),
        "context": fields.size("max_position_embeddings"),
        "tied": fields.flag("tie_word_embeddings"),
    }
    if "head_dim" not in settings:
        shape["head_dim"] = (
            fields.size("head_dim") if "head_dim" in fields else fields.share("hidden_size", "num_attention_heads")
        )
    if "activation" not in settings:
        shape["activation"] = fields.activation("hidden_act")
    return language_model(fields, **shape | settings)


def _biases(fields: Fields) -> dict[str, bool]:
    bias = fields.flag("attention_bias")
    return {"qkv_bias": bias, "output_bias": bias}


def _experts(
    fields: Fields, n: str, d_ff: int, layers: tuple[bool, ...] | None = None, **settings: Any
) -> Experts | None:
    """The mixture; None where no layer has one."""
    if layers is not None and not any(layers):
        return None
    name = next((name for name in (n, "num_experts", "num_local_experts") if name in fields), n)
    experts, active = fields.size(name), fields.size("num_experts_per_tok")
    if active > experts:
        fields.refuse("num_experts_per_tok", _("Give at most {name} = {n}.").format(name=name, n=experts))
    return Experts(experts, active, d_ff, layers=layers, **settings)


def _sparse_layers(fields: Fields) -> tuple[bool, ...]:
    """Every `decoder_sparse_step`th layer is a mixture, but for those in `mlp_only_layers`."""
    step, dense = fields.size("decoder_sparse_step"), _listed(fields, "mlp_only_layers")
    return tuple((n + 1) % step == 0 and n not in dense for n in range(fields.layers("num_hidden_layers")))


def _listed(fields: Fields, name: str) -> list[int]:
    layers = fields.content.get(name) or []
    return layers if isinstance(layers, list) else fields.refuse(name, _("Give a list of layers."))


def _qwen_windows(fields: Fields) -> tuple[int | None, ...] | None:
    first = fields.count("max_window_layers")
    return _windows(fields, lambda n: n >= first) if fields.flag("use_sliding_window") else None


def _windows(fields: Fields, slides: Callable[[int], bool]) -> tuple[int | None, ...] | None:
    """Each layer's window: of those that `layer_types` names, or else `slides`; None where there is none at all."""
    if "sliding_window" not in fields:
        return None
    window, n_layers = fields.size("sliding_window"), fields.layers("num_hidden_layers")
    kinds = fields.content.get("layer_types")
    if kinds is None:
        kinds = ["sliding_attention" if slides(n) else "full_attention" for n in range(n_layers)]
    known = ("sliding_attention", "full_attention")
    if not isinstance(kinds, list) or len(kinds) != n_layers or any(kind not in known for kind in kinds):
        fields.refuse(
            "layer_types", _("Give {names} for each of {n} layers.").format(names=" / ".join(known), n=n_layers)
        )
    windows = tuple(window if kind == "sliding_attention" else None for kind in kinds)
    return windows if any(windows) else None
