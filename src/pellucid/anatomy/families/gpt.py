"""GPT and the language models of its time, from their `config.json`: each is GPT but for a few choices."""

from typing import Any

from pellucid.anatomy.families.fields import MOST_LAYERS, Fields
from pellucid.anatomy.families.language import language_model
from pellucid.anatomy.tree import Sequence
from pellucid.language import _


def openai_gpt(fields: Fields) -> Sequence:
    """GPT (Radford et al. 2018): norms after each part, none at the end. Its "gelu" is the tanh form."""
    activation = "gelu_tanh" if fields.name("afn") == "gelu" else fields.activation("afn")
    return _openai(fields, order="post", activation=activation, dropout=_dropout(fields))


def gpt2(fields: Fields) -> Sequence:
    """GPT-2 (Radford et al. 2019), GPT-3 (Brown et al. 2020)."""
    activation = fields.activation("activation_function")
    return _openai(fields, d_ff=_inner(fields, "n_inner"), activation=activation, dropout=_dropout(fields))


def gptj(fields: Fields) -> Sequence:
    """GPT-J (Wang and Komatsuzaki 2021), CodeGen: attention and feed-forward side by side behind one norm."""
    return _openai(
        fields,
        d_ff=_inner(fields, "n_inner"),
        order="parallel",
        positions="rotary",
        qkv_bias=False,
        output_bias=False,
        head_bias=True,
        activation=fields.activation("activation_function"),
    )


def gpt_bigcode(fields: Fields) -> Sequence:
    """SantaCoder, StarCoder (Li et al. 2023): GPT-2 whose heads share one key and value."""
    return _openai(
        fields,
        n_kv_heads=1 if fields.flag("multi_query") else fields.size("n_head"),
        d_ff=_inner(fields, "n_inner"),
        activation=fields.activation("activation_function"),
        dropout=_dropout(fields),
    )


def nanogpt(fields: Fields) -> Sequence:
    """nanoGPT's own configuration: GPT-2, where wanted without any bias and shift."""
    return _openai(
        fields,
        context="block_size",
        norm="layer" if fields.flag("bias") else "scale",
        **_biases(fields, "bias", "bias"),
        activation="gelu",
        dropout=fields.rate("dropout"),
    )


def mingpt(fields: Fields) -> Sequence:
    """minGPT's own configuration: GPT-2 whose head has a table of its own."""
    return _openai(fields, context="block_size", activation="gelu_tanh", tied=False)


def gpt_neo(fields: Fields) -> Sequence:
    """GPT-Neo (Black et al. 2021): every other layer sees only so many tokens back."""
    n_layers, window, kinds = fields.layers("num_layers"), fields.size("window_size"), _kinds(fields)
    if len(kinds) != n_layers:
        fields.refuse("attention_types", _("Spell out as many layers as num_layers = {n}.").format(n=n_layers))
    return _gpt(
        fields,
        n_layers="num_layers",
        n_heads="num_heads",
        d_ff=_inner(fields, "intermediate_size"),
        qkv_bias=False,
        activation=fields.activation("activation_function"),
        sliding_windows=tuple(window if kind == "local" else None for kind in kinds),
    )


def _kinds(fields: Fields) -> list[str]:
    """[[["global", "local"], 2]] spelt out: ["global", "local", "global", "local"]."""
    try:
        pairs = fields.content["attention_types"]
        kinds = [kind for pattern, n in pairs for kind in list(pattern) * min(n, MOST_LAYERS)]
    except (TypeError, ValueError):
        kinds = []
    if not kinds or any(kind not in ("global", "local") for kind in kinds):
        fields.refuse("attention_types", _("Give it as {example}.").format(example='[[["global", "local"], 12]]'))
    return kinds


def gpt_neox(fields: Fields) -> Sequence:
    """GPT-NeoX (Black et al. 2022), Pythia: attention and feed-forward side by side, a norm for each."""
    return _gpt(
        fields,
        d_ff=fields.size("intermediate_size"),
        order="parallel" if fields.flag("use_parallel_residual") else "pre",
        parallel_norms=2,
        positions="rotary",
        **_biases(fields, "attention_bias"),
        activation=fields.activation("hidden_act"),
    )


def opt(fields: Fields) -> Sequence:
    """OPT (Zhang et al. 2022): two rows of its position table stand before the first position."""
    return _gpt(
        fields,
        d_ff=fields.size("ffn_dim"),
        norm="layer" if fields.flag("layer_norm_elementwise_affine") else "plain",
        order="pre" if fields.flag("do_layer_norm_before") else "post",
        position_rows=fields.size("max_position_embeddings") + 2,
        embedding_width=fields.size("word_embed_proj_dim", fields.size("hidden_size")),
        **_biases(fields, "enable_bias", "enable_bias"),
        activation=fields.activation("activation_function"),
        dropout=fields.rate("dropout"),
    )


def biogpt(fields: Fields) -> Sequence:
    """BioGPT (Luo et al. 2022): GPT-2 with OPT's two rows before the first position."""
    return _gpt(
        fields,
        d_ff=fields.size("intermediate_size"),
        position_rows=fields.size("max_position_embeddings") + 2,
        activation=fields.activation("hidden_act"),
        dropout=fields.rate("hidden_dropout_prob"),
    )


def xglm(fields: Fields) -> Sequence:
    """XGLM (Lin et al. 2021): GPT-2 with sines for positions."""
    return _gpt(
        fields,
        d_model="d_model",
        n_layers="num_layers",
        n_heads="attention_heads",
        d_ff=fields.size("ffn_dim"),
        positions="sinusoidal",
        activation=fields.activation("activation_function"),
        dropout=fields.rate("dropout"),
    )


def bloom(fields: Fields) -> Sequence:
    """BLOOM (Le Scao et al. 2022): ALiBi, and a norm behind the embedding."""
    content = fields.content
    older = {"n_embed": "hidden_size", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}
    fields = Fields(content | {new: content[old] for old, new in older.items() if old in content}, fields.where)
    return _gpt(
        fields,
        n_layers="n_layer",
        n_heads="n_head",
        context="seq_length",
        embedding_norm=True,
        positions="none",
        activation="gelu_tanh",
    )


def mpt(fields: Fields) -> Sequence:
    """MPT (MosaicML 2023): ALiBi, no bias and no shift anywhere."""
    if not fields.flag("no_bias"):
        fields.refuse("no_bias", _("Only networks without biases are known here."))
    return _gpt(
        fields,
        d_model="d_model",
        n_layers="n_layers",
        n_heads="n_heads",
        context="max_seq_len",
        d_ff=fields.size("expansion_ratio") * fields.size("d_model"),
        norm="scale",
        positions="none",
        qkv_bias=False,
        output_bias=False,
        ff_bias=False,
        activation="gelu",
    )


def falcon(fields: Fields) -> Sequence:
    """Falcon (Almazrouei et al. 2023): one key and value for all heads (7B), or one for each group (40B, 180B)."""
    n_heads, is_new = fields.size("num_attention_heads"), fields.flag("new_decoder_architecture")
    ungrouped = 1 if fields.flag("multi_query") else n_heads
    return _gpt(
        fields,
        n_kv_heads=fields.size("num_kv_heads", n_heads) if is_new else ungrouped,
        d_ff=_inner(fields, "ffn_hidden_size"),
        order="parallel" if fields.flag("parallel_attn") else "pre",
        parallel_norms=fields.size("num_ln_in_parallel_attn", 2 if is_new else 1),
        positions="none" if fields.flag("alibi") else "rotary",
        **_biases(fields, "bias", "bias"),
        activation=fields.activation("activation"),
    )


def palm(fields: Fields) -> Sequence:
    """PaLM (Chowdhery et al. 2022), by the columns of its table 1: one key and value for all heads, no biases."""
    return _gpt(
        fields,
        n_layers="layers",
        n_heads="heads",
        context="sequence_length",
        d_model="d_model",
        n_kv_heads=1,
        head_dim=fields.size("head_dim"),
        norm="scale",
        order="parallel",
        positions="rotary",
        gated=True,
        qkv_bias=False,
        output_bias=False,
        ff_bias=False,
        activation="silu",
    )


def _openai(fields: Fields, context: str = "n_positions", **settings: Any) -> Sequence:
    """OpenAI's names of the sizes."""
    return _gpt(fields, "n_embd", "n_layer", "n_head", context, **settings)


def _gpt(
    fields: Fields,
    d_model: str = "hidden_size",
    n_layers: str = "num_hidden_layers",
    n_heads: str = "num_attention_heads",
    context: str = "max_position_embeddings",
    **settings: Any,
) -> Sequence:
    """GPT with the sizes in these fields; the settings, `DecoderShape`'s, say what is done otherwise."""
    shape = {
        "vocab_size": fields.size("vocab_size"),
        "d_model": fields.size(d_model),
        "n_layers": fields.layers(n_layers),
        "n_heads": fields.size(n_heads),
        "n_kv_heads": fields.size(n_heads),
        "head_dim": fields.share(d_model, n_heads),
        "d_ff": 4 * fields.size(d_model),
        "context": fields.size(context),
        "norm": "layer",
        "positions": "learned",
        "gated": False,
        "qkv_bias": True,
        "output_bias": True,
        "ff_bias": True,
        "tied": fields.flag("tie_word_embeddings", True),
    }
    return language_model(fields, **shape | settings)


def _inner(fields: Fields, name: str) -> int:
    """The width inside a feed-forward layer: four times the model's where the field is missing."""
    d_model = "n_embd" if "n_embd" in fields else "hidden_size"
    return fields.size(name, 4 * fields.size(d_model))


def _biases(fields: Fields, attention: str, feed_forward: str | None = None) -> dict[str, Any]:
    bias = fields.flag(attention)
    return {"qkv_bias": bias, "output_bias": bias} | ({"ff_bias": fields.flag(feed_forward)} if feed_forward else {})


def _dropout(fields: Fields) -> float:
    """The one rate that embedding and residual branches share; 0 where they have two."""
    embedding, residual = fields.rate("embd_pdrop"), fields.rate("resid_pdrop")
    return embedding if embedding == residual else 0.0
