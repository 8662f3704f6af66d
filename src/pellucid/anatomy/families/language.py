"""Language models that write, from the fields of their `config.json`: each is a `DecoderShape`, but for Mamba."""

from collections.abc import Callable
from typing import Any

from pellucid.anatomy.families.decoder import DecoderShape, Experts, Latent, decoder_tree
from pellucid.anatomy.families.fields import Fields
from pellucid.anatomy.tree import (
    Activation,
    Convolution,
    Embedding,
    Linear,
    Node,
    Norm,
    Part,
    Repeat,
    Scan,
    Sequence,
)
from pellucid.checkpoints.fields import ACTIVATIONS
from pellucid.language import _

# OpenAI's, and those who kept its fields


def openai_gpt(fields: Fields) -> Sequence:
    """GPT (Radford et al. 2018): norms after each part, none at the end. Its "gelu" is the tanh form."""
    activation = "gelu_tanh" if fields.name("afn") == "gelu" else activation_of(fields, "afn")
    return _gpt(fields, order="post", activation=activation, dropout=_dropout(fields))


def gpt2(fields: Fields) -> Sequence:
    """GPT-2 (Radford et al. 2019), GPT-3 (Brown et al. 2020)."""
    return _gpt(fields, d_ff=fields.size("n_inner", 4 * fields.size("n_embd")), dropout=_dropout(fields))


def gptj(fields: Fields) -> Sequence:
    """GPT-J (Wang and Komatsuzaki 2021): attention and feed-forward side by side behind one norm."""
    d_ff = fields.size("n_inner", 4 * fields.size("n_embd"))
    return _gpt(
        fields, d_ff=d_ff, order="parallel", positions="rotary", qkv_bias=False, output_bias=False, head_bias=True
    )


def nanogpt(fields: Fields) -> Sequence:
    """nanoGPT's configuration: GPT-2, where wanted without any bias and shift."""
    bias = fields.flag("bias")
    biases = {"qkv_bias": bias, "output_bias": bias, "ff_bias": bias}
    return _gpt(
        fields, norm="layer" if bias else "scale", context=fields.size("block_size"), activation="gelu", **biases
    )


def mingpt(fields: Fields) -> Sequence:
    """minGPT's configuration: GPT-2 whose head has a table of its own."""
    return _gpt(fields, context=fields.size("block_size"), activation="gelu_tanh", tied=False)


def _gpt(fields: Fields, **settings: Any) -> Sequence:
    d_model, n_heads = fields.size("n_embd"), fields.size("n_head")
    shape = {
        "vocab_size": fields.size("vocab_size"),
        "d_model": d_model,
        "n_layers": fields.size("n_layer"),
        "n_heads": n_heads,
        "n_kv_heads": n_heads,
        "head_dim": divided(fields, "n_embd", "n_head"),
        "d_ff": 4 * d_model,
    }
    if "context" not in settings:
        shape["context"] = fields.size("n_positions")
    if "activation" not in settings:
        shape["activation"] = activation_of(fields, "activation_function")
    if "tied" not in settings:
        shape["tied"] = fields.flag("tie_word_embeddings", True)
    return _decoder(fields, CLASSIC | shape | settings)


CLASSIC = {  # of GPT and those who followed it closely
    "norm": "layer",
    "positions": "learned",
    "gated": False,
    "qkv_bias": True,
    "output_bias": True,
    "ff_bias": True,
}


def _dropout(fields: Fields) -> float:
    """The one rate that embedding and residual branches share; our own folders note it apart."""
    rates = {fields.content.get("embd_pdrop"), fields.content.get("resid_pdrop")}
    return _own_dropout(fields, rates.pop() if len(rates) == 1 else 0.0)


def _own_dropout(fields: Fields, default: float) -> float:
    return (fields.content.get("pellucid") or {}).get("dropout", default)


# EleutherAI, Meta's OPT, BLOOM, MPT, Falcon: GPT-3's time


def gpt_neo(fields: Fields) -> Sequence:
    """GPT-Neo (Black et al. 2021): every other layer sees only so many tokens back."""
    n_layers, d_model = fields.size("num_layers"), fields.size("hidden_size")
    kinds = _spelt_out(fields, "attention_types")
    if len(kinds) != n_layers:
        fields.refuse("attention_types", _("Spell out num_layers = {n} layers.").format(n=n_layers))
    window = fields.size("window_size")
    return _classic(
        fields,
        n_layers=n_layers,
        n_heads="num_heads",
        d_ff=fields.size("intermediate_size", 4 * d_model),
        qkv_bias=False,
        activation=activation_of(fields, "activation_function"),
        sliding_windows=tuple(window if kind == "local" else None for kind in kinds),
    )


def _spelt_out(fields: Fields, name: str) -> list[str]:
    """[[["global", "local"], 2]] as ["global", "local", "global", "local"]."""
    try:
        kinds = [kind for pattern, n in fields.content[name] for kind in list(pattern) * n]
    except (TypeError, ValueError):
        kinds = []
    if not kinds or not set(kinds) <= {"global", "local"}:
        fields.refuse(name, _("Give it as {example}.").format(example='[[["global", "local"], 12]]'))
    return kinds


def gpt_neox(fields: Fields) -> Sequence:
    """GPT-NeoX (Black et al. 2022), Pythia: attention and feed-forward side by side, a norm for each."""
    bias = fields.flag("attention_bias")
    return _classic(
        fields,
        positions="rotary",
        order="parallel" if fields.flag("use_parallel_residual") else "pre",
        parallel_norms=2,
        d_ff=fields.size("intermediate_size"),
        qkv_bias=bias,
        output_bias=bias,
        activation=activation_of(fields, "hidden_act"),
    )


def opt(fields: Fields) -> Sequence:
    """OPT (Zhang et al. 2022): the first two rows of its position table are never read."""
    bias = fields.flag("enable_bias")
    width = fields.size("word_embed_proj_dim", fields.size("hidden_size"))
    return _classic(
        fields,
        norm="layer" if fields.flag("layer_norm_elementwise_affine") else "plain",
        order="pre" if fields.flag("do_layer_norm_before") else "post",
        position_rows=fields.size("max_position_embeddings") + 2,
        embedding_width=width,
        d_ff=fields.size("ffn_dim"),
        qkv_bias=bias,
        output_bias=bias,
        ff_bias=bias,
        activation=activation_of(fields, "activation_function"),
        dropout=fields.content.get("dropout") or 0.0,
    )


def bloom(fields: Fields) -> Sequence:
    """BLOOM (Le Scao et al. 2022): ALiBi, and a norm behind the embedding."""
    content = fields.content
    old = {"n_embed": "hidden_size", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}
    fields = Fields(content | {new: content[name] for name, new in old.items() if name in content}, fields.where)
    return _classic(
        fields,
        n_layers=fields.size("n_layer"),
        n_heads="n_head",
        context=fields.size("seq_length", 2048),
        positions="none",
        embedding_norm=True,
        d_ff=4 * fields.size("hidden_size"),
        activation="gelu_tanh",
    )


def mpt(fields: Fields) -> Sequence:
    """MPT (MosaicML 2023): ALiBi, no bias and no shift anywhere."""
    if not fields.flag("no_bias"):
        fields.refuse("no_bias", _("Only networks without biases are known here."))
    d_model = fields.size("d_model")
    return _classic(
        fields,
        d_model="d_model",
        n_layers=fields.size("n_layers"),
        n_heads="n_heads",
        context=fields.size("max_seq_len"),
        norm="scale",
        positions="none",
        d_ff=fields.size("expansion_ratio") * d_model,
        qkv_bias=False,
        output_bias=False,
        ff_bias=False,
        activation="gelu",
    )


def falcon(fields: Fields) -> Sequence:
    """Falcon (Almazrouei et al. 2023): one key and value for all heads (7B), or one for each group (40B, 180B)."""
    d_model, n_heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    new, bias = fields.flag("new_decoder_architecture"), fields.flag("bias")
    grouped = fields.size("num_kv_heads", n_heads) if new or not fields.flag("multi_query") else 1
    return _classic(
        fields,
        n_kv_heads=grouped if new or grouped == 1 else n_heads,
        positions="none" if fields.flag("alibi") else "rotary",
        order="parallel" if fields.flag("parallel_attn") else "pre",
        parallel_norms=fields.size("num_ln_in_parallel_attn", 2 if new else 1),
        d_ff=fields.size("ffn_hidden_size", 4 * d_model),
        qkv_bias=bias,
        output_bias=bias,
        ff_bias=bias,
        activation=activation_of(fields, "activation"),
    )


def _classic(
    fields: Fields, d_model: str = "hidden_size", n_heads: str = "num_attention_heads", **settings: Any
) -> Sequence:
    """GPT's choices under other names: `d_model` and `n_heads` are the fields', the settings are `DecoderShape`'s."""
    shape = {
        "vocab_size": fields.size("vocab_size"),
        "d_model": fields.size(d_model),
        "n_layers": settings.get("n_layers") or fields.size("num_hidden_layers"),
        "n_heads": fields.size(n_heads),
        "n_kv_heads": fields.size(n_heads),
        "head_dim": divided(fields, d_model, n_heads),
        "context": settings.get("context") or fields.size("max_position_embeddings"),
        "tied": fields.flag("tie_word_embeddings"),
    }
    return _decoder(fields, CLASSIC | shape | settings)


# Llama, and those who kept its fields


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
    last = _count(fields, "max_window_layers")
    windows = _windows(fields, lambda n: n % 2 == 0 and n < last) if fields.flag("use_sliding_window") else None
    return _llama(fields, qkv_bias=fields.flag("qkv_bias"), sliding_windows=windows, experts=experts)


def qwen3_moe(fields: Fields) -> Sequence:
    """Qwen3-MoE (Qwen team 2025)."""
    experts = _experts(fields, "num_experts", fields.size("moe_intermediate_size"), _sparse_layers(fields))
    windows = _windows(fields, lambda n: True) if fields.flag("use_sliding_window") else None
    return _llama(fields, **_biases(fields), qk_norm=True, sliding_windows=windows, experts=experts)


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
    activation = activation_of(fields, "hidden_activation")
    return _llama(fields, **_biases(fields), order="both", activation=activation, sliding_windows=windows, **settings)


def phi(fields: Fields) -> Sequence:
    """Phi-1.5, Phi-2 (Li et al. 2023): GPT-J's order, with biases everywhere."""
    norm = fields.flag("qk_layernorm")
    return _llama(fields, **CLASSIC | {"positions": "rotary"}, order="parallel", head_bias=True, qk_norm=norm)


def phi3(fields: Fields) -> Sequence:
    """Phi-3, Phi-4 (Abdin et al. 2024)."""
    return _llama(fields, sliding_windows=_windows(fields, lambda n: True))


def olmo(fields: Fields) -> Sequence:
    """OLMo (Groeneveld et al. 2024): its norms have no parameters."""
    return _llama(fields, **_biases(fields), norm="plain")


def olmo2(fields: Fields) -> Sequence:
    """OLMo 2 (Team OLMo 2024): norms after each part, inside the branch; queries and keys are normed whole."""
    return _llama(fields, **_biases(fields), order="after", qk_norm="full")


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
    first, n_layers = _count(fields, "first_k_dense_replace"), fields.size("num_hidden_layers")
    d_ff = fields.size("moe_intermediate_size")
    experts = _experts(
        fields,
        "n_routed_experts",
        d_ff,
        tuple(n >= first for n in range(n_layers)),
        shared_d_ff=d_ff * _count(fields, "n_shared_experts"),
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
    n_kv_heads = fields.size("num_key_value_heads", n_heads)
    if n_heads % n_kv_heads:
        fields.refuse(
            "num_key_value_heads",
            _("Give a number that divides {name} = {n}.").format(name="num_attention_heads", n=n_heads),
        )
    shape = {
        "vocab_size": fields.size("vocab_size"),
        "d_model": fields.size("hidden_size"),
        "n_layers": fields.size("num_hidden_layers"),
        "n_heads": n_heads,
        "n_kv_heads": n_kv_heads,
        "d_ff": fields.size("intermediate_size"),
        "context": fields.size("max_position_embeddings"),
        "tied": fields.flag("tie_word_embeddings"),
        "dropout": _own_dropout(fields, 0.0),
    }
    if "head_dim" not in settings:
        shape["head_dim"] = (
            fields.size("head_dim") if "head_dim" in fields else divided(fields, "hidden_size", "num_attention_heads")
        )
    if "activation" not in settings:
        shape["activation"] = activation_of(fields, "hidden_act")
    return _decoder(fields, shape | settings)


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
    step, dense = fields.size("decoder_sparse_step"), fields.content.get("mlp_only_layers") or ()
    return tuple((n + 1) % step == 0 and n not in dense for n in range(fields.size("num_hidden_layers")))


def _qwen_windows(fields: Fields) -> tuple[int | None, ...] | None:
    first = _count(fields, "max_window_layers")
    return _windows(fields, lambda n: n >= first) if fields.flag("use_sliding_window") else None


def _windows(fields: Fields, slides: Callable[[int], bool]) -> tuple[int | None, ...] | None:
    """Each layer's window: of those that `layer_types` names, or else `slides`; None where there is none at all."""
    if "sliding_window" not in fields:
        return None
    window, n_layers = fields.size("sliding_window"), fields.size("num_hidden_layers")
    kinds = fields.content.get("layer_types")
    if kinds is None:
        kinds = ["sliding_attention" if slides(n) else "full_attention" for n in range(n_layers)]
    if len(kinds) != n_layers or not set(kinds) <= {"sliding_attention", "full_attention"}:
        fields.refuse(
            "layer_types",
            _('Give "sliding_attention" or "full_attention" for each of {n} layers.').format(n=n_layers),
        )
    windows = tuple(window if kind == "sliding_attention" else None for kind in kinds)
    return windows if any(windows) else None


# Our own, and what all share


def pellucid(fields: Fields) -> Sequence:
    """A decoder of Pellucid's own kind: its whole configuration stands under "decoder"."""
    own = Fields(fields.content.get("decoder") or {}, fields.where)
    settings = {name: value for name, value in own.content.items() if name in DecoderShape.__dataclass_fields__}
    for name in ("vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "d_ff", "context"):
        own.size(name)
    windows = settings.get("sliding_windows")
    settings["sliding_windows"] = tuple(windows) if windows is not None else None
    return decoder_tree(DecoderShape(**settings, order="post" if own.flag("post_norm", False) else "pre"))


def _decoder(fields: Fields, settings: dict[str, Any]) -> Sequence:
    """The tree, without the head where `architectures` names the bare model."""
    tree = decoder_tree(DecoderShape(**settings))
    named = (fields.content.get("architectures") or ["ForCausalLM"])[0]
    if named.endswith(("LMHeadModel", "ForCausalLM")):
        return tree
    if named.endswith("Model") and "DoubleHeads" not in named:
        return Sequence(tuple(part for part in tree.parts if part.kind != "head"))
    return fields.refuse("architectures", _("Name the language model, …ForCausalLM, or the bare …Model."))


def divided(fields: Fields, width: str, heads: str) -> int:
    """The width of a head, where heads share the model's."""
    d_model, n_heads = fields.size(width), fields.size(heads)
    if d_model % n_heads:
        fields.refuse(heads, _("Give a number that divides {name} = {n}.").format(name=width, n=d_model))
    return d_model // n_heads


def activation_of(fields: Fields, name: str) -> str:
    """Our name of an activation; one that we do not have keeps its own."""
    return ACTIVATIONS.get(fields.name(name), fields.name(name))


def _count(fields: Fields, name: str) -> int:
    """A whole number, 0 too; missing it is 0."""
    return fields.size(name) if fields.content.get(name) else 0


# A state space in place of attention


def mamba(fields: Fields) -> Sequence:
    """Mamba (Gu and Dao 2023, figure 3): no attention and no positions."""
    d_model, states = fields.size("hidden_size"), fields.size("state_size")
    width = int(fields.positive("expand") * d_model)
    rank = fields.content.get("time_step_rank")
    rank = -(-d_model // 16) if rank == "auto" else fields.size("time_step_rank")
    bias, window = fields.flag("use_bias"), (1, fields.size("conv_kernel"))
    mixer: tuple[tuple[str, Node], ...] = (
        ("in", Linear(d_model, 2 * width, bias, parts=(("stream", width), ("gate", width)))),
        ("convolution", Convolution(width, width, window, 1, 1, fields.flag("use_conv_bias"), groups=width)),
        ("activation", Activation("silu", width)),
        ("select", Linear(width, rank + 2 * states, bias=False, parts=(("step", rank), ("B", states), ("C", states)))),
        ("step", Linear(rank, width)),
        ("scan", Scan(width, states)),
        ("gate", Activation("silu", width, gated=True)),
        ("out", Linear(width, d_model, bias)),
    )
    norm = Part("norm", Norm(d_model, shift=False), "norm")
    block = Sequence((norm, Part("mixer", Sequence(tuple(Part(*part) for part in mixer)), "mixer")))
    tied_to = "embedding" if fields.flag("tie_word_embeddings") else None
    vocab_size = fields.size("vocab_size")
    parts = (
        Part("embedding", Embedding(vocab_size, d_model), "embedding"),
        Part("blocks", Repeat(fields.size("num_hidden_layers"), block)),
        norm,
        Part("head", Linear(d_model, vocab_size, bias=False, tied_to=tied_to), "head"),
    )
    return Sequence(tuple(part._replace(positions="token") for part in parts))
