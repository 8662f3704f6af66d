"""Language models whose feed-forward layers are mixtures of experts, from their `config.json`."""

from typing import Any

from pellucid.anatomy.families.decoder import Experts, Latent
from pellucid.anatomy.families.fields import Fields
from pellucid.anatomy.families.language import biases, llama_like, windows
from pellucid.anatomy.tree import Sequence
from pellucid.errors import PellucidError
from pellucid.language import _


def mixtral(fields: Fields) -> Sequence:
    """Mixtral (Jiang et al. 2024): every feed-forward layer is a mixture."""
    experts = experts_of(fields, "num_local_experts", fields.size("intermediate_size"))
    return llama_like(fields, sliding_windows=windows(fields, lambda n: True), experts=experts)


def qwen2_moe(fields: Fields) -> Sequence:
    """Qwen1.5-MoE, Qwen2-MoE: beside the chosen experts one that every token meets, behind a gate."""
    shared, d_ff = fields.size("shared_expert_intermediate_size"), fields.size("moe_intermediate_size")
    layers = sparse_layers(fields)
    experts = experts_of(fields, "num_experts", d_ff, layers, shared_d_ff=shared, shared_gate=True)
    last = fields.count("max_window_layers")
    seen = windows(fields, lambda n: n % 2 == 0 and n < last) if fields.flag("use_sliding_window") else None
    return llama_like(fields, qkv_bias=fields.flag("qkv_bias"), sliding_windows=seen, experts=experts)


def qwen3_moe(fields: Fields) -> Sequence:
    """Qwen3-MoE (Qwen team 2025)."""
    experts = experts_of(fields, "num_experts", fields.size("moe_intermediate_size"), sparse_layers(fields))
    seen = windows(fields, lambda n: True) if fields.flag("use_sliding_window") else None
    return llama_like(fields, **biases(fields), qk_norm=True, sliding_windows=seen, experts=experts)


def gpt_oss(fields: Fields) -> Sequence:
    """gpt-oss (OpenAI 2025): biases everywhere, heads that may attend to nothing; every other layer has a window."""
    experts = experts_of(fields, "num_local_experts", fields.size("intermediate_size"), biased_router=True)
    seen = windows(fields, lambda n: n % 2 == 0)
    return llama_like(fields, **biases(fields), ff_bias=True, sinks=True, sliding_windows=seen, experts=experts)


def llama4_text(fields: Fields) -> Sequence:
    """Llama 4 (Meta 2025), its language model: one expert is chosen, one meets all; 3 layers of 4 see a chunk."""
    n_layers, step = fields.layers("num_hidden_layers"), fields.size("interleave_moe_layer_step")
    d_ff, every = fields.size("intermediate_size"), fields.size("no_rope_layer_interval")
    mixtures = _listed(fields, "moe_layers") or range(step - 1, n_layers, step)
    experts = experts_of(
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
    experts = experts_of(fields, "num_experts", fields.size("intermediate_size"))
    return llama_like(fields, **biases(fields), qk_norm="full", experts=experts)


def flex_olmo(fields: Fields) -> Sequence:
    """FlexOlmo (Shi et al. 2025): OLMo 2's norms, and experts that were trained apart."""
    experts = experts_of(fields, "num_experts", fields.size("intermediate_size"))
    return llama_like(fields, **biases(fields), order="after", qk_norm="full", experts=experts)


def granitemoe(fields: Fields) -> Sequence:
    """Granite 3's mixtures (IBM 2024), some with an expert that every token meets."""
    shared = fields.count("shared_intermediate_size")
    experts = experts_of(fields, "num_local_experts", fields.size("intermediate_size"), shared_d_ff=shared)
    return llama_like(fields, **biases(fields), experts=experts)


def phimoe(fields: Fields) -> Sequence:
    """Phi-3.5-MoE (Abdin et al. 2024): layer norm. Its class always chooses two experts."""
    experts = experts_of(fields, "num_local_experts", fields.size("intermediate_size"))
    head_bias, seen = fields.flag("lm_head_bias"), windows(fields, lambda n: True)
    return llama_like(
        fields, **biases(fields), norm="layer", head_bias=head_bias, sliding_windows=seen, experts=experts
    )


def hunyuan_moe(fields: Fields) -> Sequence:
    """Hunyuan-A13B (Tencent 2025): beside the chosen experts one as wide that every token meets."""
    d_ff = fields.size("intermediate_size")
    experts = experts_of(fields, "num_experts", d_ff, active="moe_topk", shared_d_ff=d_ff)
    return llama_like(fields, **biases(fields), qk_norm=True, experts=experts)


def ernie4_5_moe(fields: Fields) -> Sequence:
    """ERNIE 4.5 (Baidu 2025): a run of layers has mixtures, balanced by a bias that is saved as a fixed parameter."""
    n_layers, d_ff = fields.layers("num_hidden_layers"), fields.size("moe_intermediate_size")
    first, every = fields.count("moe_layer_start_index"), fields.size("moe_layer_interval")
    is_last = fields.content["moe_layer_end_index"] == -1
    last = n_layers - 1 if is_last else fields.count("moe_layer_end_index")
    experts = experts_of(
        fields,
        "moe_num_experts",
        d_ff,
        tuple((n + 1) % every == 0 and first <= n <= last for n in range(n_layers)),
        active="moe_k",
        shared_d_ff=d_ff * fields.count("moe_num_shared_experts"),
        bias=False,
        fixed_bias=True,
    )
    bias = dict.fromkeys(("qkv_bias", "output_bias", "ff_bias", "head_bias"), fields.flag("use_bias"))
    return llama_like(fields, **bias, experts=experts)


def minimax_m2(fields: Fields) -> Sequence:
    """MiniMax-M2 (MiniMax 2025): queries and keys are normed whole; a bias balances experts."""
    experts = experts_of(fields, "num_local_experts", fields.size("intermediate_size"), router_bias=True)
    return llama_like(fields, qk_norm="full", experts=experts)


def glm4_moe(fields: Fields) -> Sequence:
    """GLM-4.5 (Zhipu AI 2025): plain attention, DeepSeek's mixtures, and as there no layer for the token after next."""
    qk_norm, experts = fields.flag("use_qk_norm"), _deepseek_experts(fields, router_bias=True)
    head_dim = fields.size("head_dim", fields.size("hidden_size") // fields.size("num_attention_heads"))  # rounded down
    bias = fields.flag("attention_bias")
    return llama_like(fields, head_dim=head_dim, qkv_bias=bias, qk_norm=qk_norm, experts=experts)


def dots1(fields: Fields) -> Sequence:
    """dots.llm1 (Rednote 2025): DeepSeek's mixtures, Qwen3's attention."""
    first = fields.count("max_window_layers")
    seen, experts = windows(fields, lambda n: n >= first), _deepseek_experts(fields, router_bias=True)
    return llama_like(fields, **biases(fields), qk_norm=True, sliding_windows=seen, experts=experts)


def deepseek_v2(fields: Fields) -> Sequence:
    """DeepSeek-V2 (DeepSeek-AI 2024): keys and values from one latent vector; some experts meet every token."""
    return _deepseek(fields, router_bias=False)


def deepseek_v3(fields: Fields) -> Sequence:
    """DeepSeek-V3, R1 (DeepSeek-AI 2024): a bias balances experts. The layer for the token after next is left out."""
    return _deepseek(fields, router_bias=True)


def _deepseek(fields: Fields, router_bias: bool) -> Sequence:
    latent = Latent(
        kv_rank=fields.size("kv_lora_rank"),
        query_rank=fields.size("q_lora_rank") if "q_lora_rank" in fields else None,
        rotated_dim=fields.size("qk_rope_head_dim"),
        plain_dim=fields.size("qk_nope_head_dim"),
        value_dim=fields.size("v_head_dim"),
    )
    if fields.flag("mlp_bias", False):
        fields.refuse("mlp_bias", _("Only networks without biases are known here."))
    experts = _deepseek_experts(fields, router_bias)
    head_dim = latent.plain_dim + latent.rotated_dim
    return llama_like(fields, **biases(fields), head_dim=head_dim, latent=latent, experts=experts)


def _deepseek_experts(fields: Fields, router_bias: bool) -> Experts | None:
    """Layers but the first few are mixtures; some experts meet every token."""
    first, d_ff = fields.count("first_k_dense_replace"), fields.size("moe_intermediate_size")
    return experts_of(
        fields,
        "n_routed_experts",
        d_ff,
        tuple(n >= first for n in range(fields.layers("num_hidden_layers"))),
        shared_d_ff=d_ff * fields.count("n_shared_experts"),
        router_bias=router_bias,
    )


def experts_of(
    fields: Fields,
    n: str,
    d_ff: int,
    layers: tuple[bool, ...] | None = None,
    active: str = "num_experts_per_tok",
    **settings: Any,
) -> Experts | None:
    """The mixture; None where no layer has one."""
    if layers is not None and not any(layers):
        return None
    name = next((name for name in (n, "num_experts", "num_local_experts") if name in fields), n)
    experts = fields.size(name)
    if active not in fields:  # DeepSeek-V2's class has no default: it can be built so, and does not run
        raise PellucidError(
            _("The configuration has {n} experts, and does not say {name}: how many of them a token meets.").format(
                n=experts, name=active
            ),
            fields.where,
            _("Add {name}: the network does not run without.").format(name=active),
        )
    chosen = fields.size(active)
    if chosen > experts:
        fields.refuse(active, _("Give at most {name} = {n}.").format(name=name, n=experts))
    return Experts(experts, chosen, d_ff, layers=layers, **settings)


def sparse_layers(fields: Fields) -> tuple[bool, ...]:
    """Every `decoder_sparse_step`th layer is a mixture, but for those in `mlp_only_layers`."""
    step, dense = fields.size("decoder_sparse_step"), _listed(fields, "mlp_only_layers")
    return tuple((n + 1) % step == 0 and n not in dense for n in range(fields.layers("num_hidden_layers")))


def _listed(fields: Fields, name: str) -> list[int]:
    layers = fields.content.get(name) or []
    return layers if isinstance(layers, list) else fields.refuse(name, _("Give a list of layers."))
