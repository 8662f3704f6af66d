"""Language models in which most layers have something cheaper in attention's place, from their `config.json`."""

from collections.abc import Callable

from pellucid.anatomy.families.fields import Fields
from pellucid.anatomy.families.language import biases, llama_like
from pellucid.anatomy.families.mamba import by_heads, selective, step_rank
from pellucid.anatomy.families.mixtures import experts_of, sparse_layers
from pellucid.anatomy.tree import Activation, Convolution, Linear, Node, Norm, Part, Scan, Sequence
from pellucid.language import _

ATTENTION = ("full_attention", "attention")  # their names in `layer_types`, newer and older


def lfm2(fields: Fields) -> Sequence:
    """LFM2 (Liquid AI 2025): short convolutions, gated before and after, and grouped attention in some layers."""
    older = {"tie_embedding": "tie_word_embeddings", "block_ff_dim": "intermediate_size"}
    renamed = {new: fields.content[old] for old, new in older.items() if old in fields}
    fields = Fields(fields.content | renamed, fields.where)
    width, bias, kernel = fields.size("hidden_size"), fields.flag("conv_bias"), fields.size("conv_L_cache")
    mixer: tuple[tuple[str, Node], ...] = (
        ("in", Linear(width, 3 * width, bias, parts=(("gate", width), ("output gate", width), ("stream", width)))),
        ("convolution", Convolution(width, width, (1, kernel), 1, 1, bias, groups=width)),
        ("out", Linear(width, width, bias)),
    )
    d_ff = fields.size("intermediate_size")
    if fields.flag("block_auto_adjust_ff_dim"):
        step = fields.size("block_multiple_of")
        d_ff = -(-int(fields.positive("block_ffn_dim_multiplier") * int(2 * d_ff / 3)) // step) * step
    attending = _listed(fields, "full_attn_idxs")
    layers = _mixer_layers(fields, "conv", lambda n: attending is not None and n not in attending)
    return llama_like(fields, d_ff=d_ff, activation="silu", qk_norm=True, mixer=_mixer(mixer), mixer_layers=layers)


def jamba(fields: Fields) -> Sequence:
    """Jamba (Lieber et al. 2024): Mamba, one layer of attention in eight, and every other layer a mixture."""
    d_model, n_layers = fields.size("hidden_size"), fields.layers("num_hidden_layers")
    mixer = selective(
        d_model,
        width=int(fields.positive("mamba_expand") * d_model),
        states=fields.size("mamba_d_state"),
        rank=step_rank(fields, "mamba_dt_rank"),
        kernel=fields.size("mamba_d_conv"),
        bias=fields.flag("mamba_proj_bias"),
        conv_bias=fields.flag("mamba_conv_bias"),
        normed=True,
    )
    every, offset = fields.size("attn_layer_period"), fields.count("attn_layer_offset")
    step, first = fields.size("expert_layer_period"), fields.count("expert_layer_offset")
    mixed = tuple(n % step == first and fields.size("num_experts") > 1 for n in range(n_layers))
    experts = experts_of(fields, "num_experts", fields.size("intermediate_size"), mixed)
    layers = tuple(n % every != offset for n in range(n_layers))
    return llama_like(fields, positions="none", experts=experts, mixer=mixer, mixer_layers=layers)


def bamba(fields: Fields) -> Sequence:
    """Bamba (IBM 2024): Mamba-2, and attention in a few layers."""
    attending = _listed(fields, "attn_layer_indices") or []
    layers = tuple(n not in attending for n in range(fields.layers("num_hidden_layers")))
    bias = fields.flag("mlp_bias")
    return llama_like(fields, **biases(fields), ff_bias=bias, mixer=_mamba2(fields), mixer_layers=layers)


def granitemoehybrid(fields: Fields) -> Sequence:
    """Granite 4 (IBM 2025): Mamba-2 and a few layers of attention; with experts, or only what every token meets."""
    shared, n_layers = fields.size("shared_intermediate_size"), fields.layers("num_hidden_layers")
    mixed = (fields.count("num_local_experts") > 0,) * n_layers
    experts = experts_of(fields, "num_local_experts", fields.size("intermediate_size"), mixed, shared_d_ff=shared)
    return llama_like(
        fields,
        **biases(fields),
        d_ff=shared,
        positions="rotary" if fields.content.get("position_embedding_type") == "rope" else "none",
        experts=experts,
        mixer=_mamba2(fields),
        mixer_layers=_mixer_layers(fields, "mamba", lambda n: True),
    )


def qwen3_next(fields: Fields) -> Sequence:
    """Qwen3-Next (Qwen team 2025), the text of Qwen3.5: three layers of four are delta nets (Yang et al. 2024)."""
    keys = fields.size("linear_num_key_heads") * fields.size("linear_key_head_dim")
    heads, head_dim = fields.size("linear_num_value_heads"), fields.size("linear_value_head_dim")
    width, values = fields.size("hidden_size"), heads * head_dim
    convolved, kernel = 2 * keys + values, fields.size("linear_conv_kernel_dim")
    parts = (("query", keys), ("key", keys), ("value", values), ("gate", values), ("step", heads), ("decay", heads))
    mixer: tuple[tuple[str, Node], ...] = (
        ("in", Linear(width, convolved + values + 2 * heads, bias=False, parts=parts)),
        ("convolution", Convolution(convolved, convolved, (1, kernel), 1, 1, bias=False, groups=convolved)),
        ("activation", Activation("silu", convolved)),
        ("scan", Scan(values, fields.size("linear_key_head_dim"), heads, delta=True)),
        ("norm", Norm(head_dim, shift=False, heads=heads)),
        ("gate", Activation("silu", values, gated=True)),
        ("out", Linear(values, width, bias=False)),
    )
    experts = None
    if "num_experts" in fields:
        d_ff, shared = fields.size("moe_intermediate_size"), fields.size("shared_expert_intermediate_size")
        layers = sparse_layers(fields)
        experts = experts_of(fields, "num_experts", d_ff, layers, shared_d_ff=shared, shared_gate=True)
    every = fields.size("full_attention_interval")
    return llama_like(
        fields,
        **biases(fields),
        gated_attention=True,
        qk_norm=True,
        experts=experts,
        mixer=_mixer(mixer),
        mixer_layers=_mixer_layers(fields, "linear_attention", lambda n: (n + 1) % every != 0),
    )


def _mamba2(fields: Fields) -> Sequence:
    d_model, heads = fields.size("hidden_size"), fields.size("mamba_n_heads")
    return by_heads(
        d_model,
        width=int(fields.positive("mamba_expand") * d_model),
        states=fields.size("mamba_d_state"),
        heads=heads,
        groups=fields.size("mamba_n_groups"),
        kernel=fields.size("mamba_d_conv"),
        bias=fields.flag("mamba_proj_bias"),
        conv_bias=fields.flag("mamba_conv_bias"),
    )


def _mixer(parts: tuple[tuple[str, Node], ...]) -> Sequence:
    return Sequence(tuple(Part(*part) for part in parts))


def _mixer_layers(fields: Fields, name: str, has: Callable[[int], bool]) -> tuple[bool, ...]:
    """Which layers have the mixer, called `name`: by `layer_types`, or else those that `has` says."""
    n_layers, kinds = fields.layers("num_hidden_layers"), fields.content.get("layer_types")
    if kinds is None:
        return tuple(has(n) for n in range(n_layers))
    known = (name, "linear_attention", *ATTENTION)
    if not isinstance(kinds, list) or len(kinds) != n_layers or any(kind not in known for kind in kinds):
        fields.refuse(
            "layer_types", _("Give {names} for each of {n} layers.").format(names=" / ".join(known), n=n_layers)
        )
    return tuple(kind not in ATTENTION for kind in kinds)


def _listed(fields: Fields, name: str) -> list[int] | None:
    layers = fields.content.get(name)
    return layers if layers is None or isinstance(layers, list) else fields.refuse(name, _("Give a list of layers."))
