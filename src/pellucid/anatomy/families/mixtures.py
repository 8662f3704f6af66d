"""Language models whose feed-forward layers are mixtures of experts, from their `config.json`."""

from typing import Any

from pellucid.anatomy.families.decoder import Experts, Latent
from pellucid.anatomy.families.fields import Fields
from pellucid.anatomy.families.language import biases, llama_like, windows
from pellucid.anatomy.tree import Sequence
from pellucid.language import _


def mixtral(fields: Fields) -> Sequence:
    """Mixtral (Jiang et al. 2024): every feed-forward layer is a mixture."""
    experts = _experts(fields, "num_local_experts", fields.size("intermediate_size"))
    return llama_like(fields, sliding_windows=windows(fields, lambda n: True), experts=experts)


def qwen2_moe(fields: Fields) -> Sequence:
    """Qwen1.5-MoE, Qwen2-MoE: beside the chosen experts one that every token meets, behind a gate."""
    shared = {"shared_d_ff": fields.size("shared_expert_intermediate_size"), "shared_gate": True}
    experts = _experts(fields, "num_experts", fields.size("moe_intermediate_size"), _sparse_layers(fields), **shared)
    last = fields.count("max_window_layers")
    seen = windows(fields, lambda n: n % 2 == 0 and n < last) if fields.flag("use_sliding_window") else None
    return llama_like(fields, qkv_bias=fields.flag("qkv_bias"), sliding_windows=seen, experts=experts)


def qwen3_moe(fields: Fields) -> Sequence:
    """Qwen3-MoE (Qwen team 2025)."""
    experts = _experts(fields, "num_experts", fields.size("moe_intermediate_size"), _sparse_layers(fields))
    seen = windows(fields, lambda n: True) if fields.flag("use_sliding_window") else None
    return llama_like(fields, **biases(fields), qk_norm=True, sliding_windows=seen, experts=experts)


def gpt_oss(fields: Fields) -> Sequence:
    """gpt-oss (OpenAI 2025): biases everywhere, heads that may attend to nothing; every other layer has a window."""
    experts = _experts(fields, "num_local_experts", fields.size("intermediate_size"), biased_router=True)
    seen = windows(fields, lambda n: n % 2 == 0)
    return llama_like(fields, **biases(fields), ff_bias=True, sinks=True, sliding_windows=seen, experts=experts)


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
    seen = tuple(chunk if (n + 1) % every else None for n in range(n_layers))
    d_ff = fields.size("intermediate_size_mlp")
    return llama_like(fields, **biases(fields), d_ff=d_ff, sliding_windows=seen, experts=experts)


def olmoe(fields: Fields) -> Sequence:
    """OLMoE (Muennighoff et al. 2024)."""
    experts = _experts(fields, "num_experts", fields.size("intermediate_size"))
    return llama_like(fields, **biases(fields), qk_norm="full", experts=experts)


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
    return llama_like(fields, **biases(fields), head_dim=head_dim, latent=latent, experts=experts)


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
