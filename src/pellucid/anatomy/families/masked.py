"""Encoders that were trained to fill gaps: BERT and its kin, from the fields of their `config.json`."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from pellucid.anatomy.families.blocks import BlockShape, block
from pellucid.anatomy.families.decoder import DecoderShape, decoder_tree
from pellucid.anatomy.families.fields import Fields
from pellucid.anatomy.families.language import biases, llama_settings, windows
from pellucid.anatomy.tree import (
    Activation,
    Convolution,
    Dropout,
    Embedding,
    Linear,
    Lone,
    Norm,
    Part,
    Product,
    Repeat,
    Sequence,
)
from pellucid.language import _


def bert(fields: Fields) -> Sequence:
    """BERT (Devlin et al. 2018): the bare model has a pooler."""
    return _encoder(fields, _block(fields), pooled=True)


def roberta(fields: Fields) -> Sequence:
    """RoBERTa (Liu et al. 2019), XLM-R (Conneau et al. 2019): the first two rows of the position table are not read."""
    return _encoder(fields, _block(fields), pooled=True)


def mpnet(fields: Fields) -> Sequence:
    """MPNet (Song et al. 2020): no token types, and a table that says what each distance adds to all scores."""
    shape = _block(fields)
    distances = Part("distances", Lone((fields.size("relative_attention_num_buckets"), shape.n_heads)), "attention")
    return _encoder(fields, shape, extra=[distances], pooled=True)


def electra(fields: Fields) -> Sequence:
    """ELECTRA (Clark et al. 2020), the discriminator's body."""
    return _encoder(fields, _block(fields), width=fields.size("embedding_size"))


def albert(fields: Fields) -> Sequence:
    """ALBERT (Lan et al. 2019): narrow embeddings, and layers that share their parameters."""
    if fields.size("inner_group_num") != 1:
        fields.refuse("inner_group_num", _("Only groups of one layer are known here."))
    each = fields.share("num_hidden_layers", "num_hidden_groups")
    layers = Repeat(fields.size("num_hidden_groups"), Repeat(each, block(_block(fields)), shared=True))
    width, blocks = fields.size("embedding_size"), [Part("blocks", layers)]
    return _encoder(fields, _block(fields), blocks, width, always_projected=True, pooled=True)


def distilbert(fields: Fields) -> Sequence:
    """DistilBERT (Sanh et al. 2019): BERT without token types and pooler, half as deep."""
    content = fields.content | {
        "hidden_size": fields.size("dim"),
        "num_hidden_layers": fields.size("n_layers"),
        "num_attention_heads": fields.size("n_heads"),
        "intermediate_size": fields.size("hidden_dim"),
        "hidden_act": fields.name("activation"),
        "hidden_dropout_prob": fields.content.get("dropout"),
    }
    fields.share("dim", "n_heads")
    fields = Fields(content, fields.where)
    return _encoder(fields, _block(fields))


def nomic_bert(fields: Fields) -> Sequence:
    """Nomic Embed (Nussbaum et al. 2024): BERT with rotation for positions, gates, and no biases."""
    head_dim = fields.size("head_dim") if "head_dim" in fields else None
    shape = replace(_block(fields), head_dim=head_dim, rotated=True, gated=True, bias=False)
    return _encoder(fields, shape, positions=False)


def xlm_roberta_xl(fields: Fields) -> Sequence:
    """XLM-R XL, XXL (Goyal et al. 2021): norms before each part, and so once more at the end; none at the embedding."""
    return _encoder(fields, replace(_block(fields), norm_first=True), embedding_norm=False, pooled=True)


def deberta(fields: Fields) -> Sequence:
    """DeBERTa (He et al. 2020): scores are made of distances, too.

    The work is that on a text as long as the table of distances reaches; the class cuts the table for shorter ones.
    """
    if fields.flag("talking_head", False):
        fields.refuse("talking_head", _("Only heads that do not mix are known here."))
    return _deberta(fields, replace(_block(fields), key_bias=False), key_bias=False)


def deberta_v2(fields: Fields) -> Sequence:
    """DeBERTa V2 and V3 (He et al. 2021): distances fall into buckets, and may share the projections of words."""
    extra: list[Part] = []
    after_first: list[Part] = []
    d_model, kernel = fields.size("hidden_size"), fields.count("conv_kernel_size")
    if "layer_norm" in fields.name("norm_rel_ebd", default="none"):
        extra.append(Part("distances_norm", Norm(d_model, shift=True), "norm", _distances(fields)))
    if kernel:
        convolution = Convolution(d_model, d_model, (1, kernel), 1, 1, groups=fields.size("conv_groups", 1))
        after_first = [
            Part("convolution", convolution, "convolution"),
            Part("convolution_activation", Activation(fields.name("conv_act", default="tanh"), d_model), "convolution"),
            Part("convolution_norm", Norm(d_model, shift=True), "norm"),
        ]
    return _deberta(fields, _block(fields), True, fields.flag("share_att_key", False), extra, after_first)


def _deberta(
    fields: Fields,
    shape: BlockShape,
    key_bias: bool,
    shared: bool = False,
    extra: Iterable[Part] = (),
    after_first: Iterable[Part] = (),
) -> Sequence:
    """BERT with a table of distances, `extra` done to it, and what stands `after_first`, the first layer."""
    n_layers, rows = fields.layers("num_hidden_layers"), _distances(fields)
    if fields.size("embedding_size", shape.d_model) != shape.d_model:
        fields.refuse("embedding_size", _("Only embeddings as wide as the layers are known here."))
    table = []
    if fields.flag("relative_attention"):
        table = [Part("distances", Embedding(rows, shape.d_model), "embedding", rows)]
        shape = replace(shape, scores=_by_distance(fields, rows, key_bias, shared))
    blocks = [Part("blocks", Repeat(n_layers, block(shape)))]
    if after_first:
        rest = Repeat(n_layers - 1, block(shape))
        blocks = [Part("blocks[0:1]", Repeat(1, block(shape))), *after_first, Part(f"blocks[1:{n_layers}]", rest)]
    positions = fields.flag("position_biased_input")
    return _encoder(fields, shape, blocks, positions=positions, extra=[*table, *extra])


def _distances(fields: Fields) -> int:
    """Rows of the table of distances: one for each, or where there are buckets for each of these, both ways."""
    for name in ("position_buckets", "max_relative_positions"):
        if name in fields and fields.content[name] != -1:
            return 2 * fields.size(name)
    return 2 * fields.size("max_position_embeddings")


def _by_distance(fields: Fields, rows: int, key_bias: bool, shared: bool) -> tuple[Part, ...]:
    """What distances add to the scores (He et al. 2020, equation 4): words by distances, and distances by words."""
    named = fields.content.get("pos_att_type") or []
    kinds = [kind.strip() for kind in named.lower().split("|")] if isinstance(named, str) else named
    if not isinstance(kinds, list) or any(kind not in ("c2p", "p2c") for kind in kinds):
        fields.refuse("pos_att_type", _("Give a list of {names}.").format(names="c2p, p2c"))
    width = fields.size("hidden_size")
    parts = []
    for kind, name, bias in (("c2p", "distance_key", key_bias), ("p2c", "distance_query", True)):
        if shared:
            words = Linear(width, width, bias=False, tied_to="blocks.*.attention.qkv")
            parts.append(Part(name, words, positions=rows))
        elif kind in kinds:
            parts.append(Part(name, Linear(width, width, bias), positions=rows))
        if kind in kinds:
            parts.append(Part(f"{name}_product", Product((width, rows))))
    return tuple(parts)


def modernbert(fields: Fields) -> Sequence:
    """ModernBERT (Warner et al. 2024): Llama's choices, both ways; every third layer sees all, the others a window."""
    every, bias = fields.size("global_attn_every_n_layers"), fields.flag("norm_bias")
    window = {"sliding_window": 2 * (fields.size("local_attention") // 2) + 1}
    seen = windows(Fields(fields.content | window, fields.where), lambda n: n % every != 0)
    settings = llama_settings(
        fields,
        **biases(fields),
        ff_bias=fields.flag("mlp_bias"),
        norm="layer" if bias else "scale",
        first_norm=False,
        embedding_norm=True,
        activation=fields.activation("hidden_activation"),
        sliding_windows=seen,
    )
    width, named = settings["d_model"], fields.architecture("Model")
    positions: int | str = "token"
    head = [
        Part("transform", Linear(width, width, fields.flag("classifier_bias")), "head"),
        Part("transform_activation", Activation(fields.activation("classifier_activation"), width), "head"),
        Part("transform_norm", Norm(width, shift=bias), "norm"),
    ]
    if named.endswith("ForMaskedLM"):
        tied_to = "embedding" if settings["tied"] else None
        head.append(Part("head", Linear(width, settings["vocab_size"], fields.flag("decoder_bias"), tied_to), "head"))
    elif named.endswith(("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")):
        head.append(Part("head", Linear(width, fields.classes()), "head"))
        positions = 1 if named.endswith("ForSequenceClassification") else "token"
    else:
        head = _bare(fields, named)
    return _both_ways(settings, [part._replace(positions=positions) for part in head])


def eurobert(fields: Fields) -> Sequence:
    """EuroBERT (Boizard et al. 2025): Llama both ways."""
    settings = llama_settings(fields, **biases(fields), ff_bias=fields.flag("mlp_bias"))
    width, named = settings["d_model"], fields.architecture("Model")
    if named.endswith("ForMaskedLM"):
        tied_to = "embedding" if settings["tied"] else None
        head = [Part("head", Linear(width, settings["vocab_size"], settings["ff_bias"], tied_to), "head", "token")]
    elif named.endswith("ForSequenceClassification"):
        at = "token" if fields.name("classifier_pooling", "bos", "mean", "late") == "late" else 1
        head = [
            Part("dense", Linear(width, width), "head", at),
            Part("activation", Activation("gelu", width), "head", at),
            Part("head", Linear(width, fields.classes()), "head", at),
        ]
    elif named.endswith("ForTokenClassification"):
        head = [Part("head", Linear(width, fields.classes()), "head", "token")]
    else:
        head = _bare(fields, named)
    return _both_ways(settings, head)


def _both_ways(settings: dict[str, Any], head: list[Part]) -> Sequence:
    """A decoder's body without its mask, and this on it."""
    body = decoder_tree(DecoderShape(**settings, causal=False)).parts[:-1]
    return Sequence((*body, *head))


def _bare(fields: Fields, named: str) -> list[Part]:
    """Nothing stands on a bare model; any other name is refused."""
    if named.endswith("Model"):
        return []
    return fields.refuse("architectures", _("Name …Model, …ForMaskedLM or …ForSequenceClassification."))


def _block(fields: Fields) -> BlockShape:
    fields.share("hidden_size", "num_attention_heads")
    return BlockShape(
        d_model=fields.size("hidden_size"),
        n_heads=fields.size("num_attention_heads"),
        d_ff=fields.size("intermediate_size"),
        activation=fields.activation("hidden_act"),
        dropout=fields.rate("hidden_dropout_prob"),
    )


def _encoder(
    fields: Fields,
    shape: BlockShape,
    blocks: Iterable[Part] = (),
    width: int | None = None,
    always_projected: bool = False,
    pooled: bool = False,
    positions: bool = True,
    embedding_norm: bool = True,
    extra: Iterable[Part] = (),
) -> Sequence:
    """Part names are those of `networks.encoder`; `width` is the embeddings', where it is not the blocks'."""
    width = width or shape.d_model
    dropout = Part("dropout", Dropout(shape.d_model, shape.dropout), "embedding")
    parts = [Part("embedding", Embedding(fields.size("vocab_size"), width), "embedding")]
    if positions:
        parts.append(Part("positions", Embedding(fields.size("max_position_embeddings"), width), "embedding"))
    if types := fields.count("type_vocab_size"):
        parts.append(Part("types", Embedding(types, width), "embedding"))
    if embedding_norm:
        parts.append(Part("embedding_norm", Norm(width, shift=True), "norm"))
    if always_projected or width != shape.d_model:
        parts.append(Part("embedding_in", Linear(width, shape.d_model), "embedding"))
    parts += [dropout, *extra]
    parts += blocks or [Part("blocks", Repeat(fields.layers("num_hidden_layers"), block(shape)))]
    if shape.norm_first:
        parts.append(Part("norm", Norm(shape.d_model, shift=True), "norm"))
    body = [part._replace(positions=part.positions or "token") for part in parts]
    return Sequence((*body, *_head(fields, shape, width, pooled)))


def _head(fields: Fields, shape: BlockShape, width: int, pooled: bool) -> list[Part]:
    """What `architectures` puts on the body; on the bare model a pooler, where the family has one."""
    named = fields.architecture("Model")
    pooler = [
        Part("pooler", Linear(shape.d_model, shape.d_model), "head"),
        Part("activation", Activation(fields.content.get("pooler_hidden_act", "tanh"), shape.d_model), "head"),
    ]
    if named.endswith("ForMaskedLM"):
        parts = [
            Part("transform", Linear(shape.d_model, width), "head"),
            Part("transform_activation", Activation(shape.activation, width), "head"),
            Part("transform_norm", Norm(width, shift=True), "norm"),
            Part("head", Linear(width, fields.size("vocab_size"), tied_to="embedding"), "head"),
        ]
        return [part._replace(positions="token") for part in parts]
    if named == "ElectraForPreTraining":  # was each token replaced?
        parts = [*pooler, Part("head", Linear(shape.d_model, 1), "head")]
        return [part._replace(positions="token") for part in parts]
    if named.endswith("ForSequenceClassification"):
        return [*pooler, Part("head", Linear(shape.d_model, fields.classes()), "head")]
    if named.endswith(("ForTokenClassification", "ForQuestionAnswering")):
        return [Part("head", Linear(shape.d_model, fields.classes()), "head", "token")]
    if named.endswith("Model"):
        return pooler if pooled else []
    return fields.refuse("architectures", _("Name …Model, …ForMaskedLM or …ForSequenceClassification."))
