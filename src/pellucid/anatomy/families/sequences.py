"""Networks that read one sequence and write another, from the fields of their `config.json`."""

from dataclasses import replace
from typing import Any

from pellucid.anatomy.families.blocks import BlockShape, block, norm_of
from pellucid.anatomy.families.fields import Fields
from pellucid.anatomy.tree import (
    Activation,
    Buffer,
    Convolution,
    Dropout,
    Embedding,
    Linear,
    Lone,
    Node,
    Norm,
    Part,
    Repeat,
    Sequence,
)
from pellucid.language import _


def transformer(fields: Fields) -> Sequence:
    """The first (Vaswani et al. 2017), by the letters of its table 3: one table for source, target and output."""
    fields.share("d_model", "h")
    d_model, dropout = fields.size("d_model"), fields.content.get("P_drop", 0.1)
    shape = BlockShape(d_model, fields.size("h"), fields.size("d_ff"), "relu", dropout)
    n, table = fields.layers("N"), Embedding(fields.size("vocab_size"), d_model)
    return _network(
        encoder=_stack(shape, n, [Part("embedding", table, "embedding")]),
        decoder=_stack(shape, n, [], source="source"),
        head=Linear(d_model, table.rows, bias=False, tied_to="encoder.embedding"),
    )


def marian(fields: Fields) -> Sequence:
    """Marian's translators (OPUS-MT): positions are sines, which are stored, as is a bias of the logits."""
    if not fields.flag("share_encoder_decoder_embeddings"):
        fields.refuse("share_encoder_decoder_embeddings", _("Only networks with one table are known here."))
    d_model = fields.size("d_model")
    sines = Part("positions", Embedding(fields.size("max_position_embeddings"), d_model, fixed=True), "embedding")
    tied_to = "encoder.embedding" if fields.flag("tie_word_embeddings") else None
    return _one_table(fields, [sines], tied_to=tied_to, logits_bias=True)


def bart(fields: Fields) -> Sequence:
    """BART (Lewis et al. 2019): positions and a norm behind the embedding on both sides."""
    return _one_table(fields, _learned_front(fields), logits_bias=True)


def mbart(fields: Fields) -> Sequence:
    """mBART (Liu et al. 2020): BART with norms before each part, and so once more at the end."""
    _is_tied(fields)
    return _one_table(fields, _learned_front(fields), logits_bias=True, norm_first=True)


def pegasus(fields: Fields) -> Sequence:
    """PEGASUS (Zhang et al. 2019): norms before each part; positions are sines, which are stored."""
    _is_tied(fields)
    sines = Embedding(fields.size("max_position_embeddings"), fields.size("d_model"), fixed=True)
    return _one_table(fields, [Part("positions", sines, "embedding")], logits_bias=True, norm_first=True)


def m2m_100(fields: Fields) -> Sequence:
    """M2M-100 (Fan et al. 2020), NLLB (Costa-jussà et al. 2022): norms before each part; its sines are not stored."""
    _is_tied(fields)
    return _one_table(fields, [], logits_bias=False, norm_first=True)


def _is_tied(fields: Fields) -> None:
    if not fields.flag("tie_word_embeddings"):
        fields.refuse("tie_word_embeddings", _("Only networks with one table are known here."))


def _learned_front(fields: Fields) -> list[Part]:
    """Learnt positions, the first two rows of which are not read, and a norm."""
    rows, d_model = fields.size("max_position_embeddings") + 2, fields.size("d_model")
    norm = Part("embedding_norm", Norm(d_model, shift=True), "norm")
    return [Part("positions", Embedding(rows, d_model), "embedding"), norm]


def _one_table(
    fields: Fields,
    front: list[Part],
    logits_bias: bool,
    tied_to: str | None = "encoder.embedding",
    **settings: Any,
) -> Sequence:
    """BART's fields: one table for both sides, `front` behind it; the settings are `BlockShape`'s."""
    vocab_size, d_model = fields.size("vocab_size"), fields.size("d_model")
    table = Part("embedding", Embedding(vocab_size, d_model), "embedding")
    reader, writer = (_side(fields, side, **settings) for side in ("encoder", "decoder"))
    tree = _network(
        encoder=_stack(reader, fields.layers("encoder_layers"), [table, *front]),
        decoder=_stack(writer, fields.layers("decoder_layers"), front, source="source"),
        head=Linear(d_model, vocab_size, bias=False, tied_to=tied_to),
    )
    bias = [Part("logits_bias", Buffer((vocab_size,)), "head", "token")] if logits_bias else []
    return Sequence((*tree.parts, *bias))


def t5(fields: Fields) -> Sequence:
    """T5 (Raffel et al. 2019): a table says what each distance adds to the scores of all layers; no biases."""
    return _t5(fields, shared=True)


def umt5(fields: Fields) -> Sequence:
    """umT5 (Chung et al. 2023): T5 with a table of distances in each layer."""
    return _t5(fields, shared=False)


def _t5(fields: Fields, shared: bool) -> Sequence:
    form = fields.name("feed_forward_proj").split("-")
    shape = BlockShape(
        d_model=fields.size("d_model"),
        n_heads=fields.size("num_heads"),
        d_ff=fields.size("d_ff"),
        activation="gelu_tanh" if form == ["gated", "gelu"] else form[-1],
        dropout=fields.rate("dropout_rate"),
        head_dim=fields.size("d_kv"),
        norm_first=True,
        norm="rms",
        bias=False,
        gated=form[0] == "gated",
    )
    table = Part("embedding", Embedding(fields.size("vocab_size"), shape.d_model), "embedding")
    distances = Part("distances", Lone((fields.size("relative_attention_num_buckets"), shape.n_heads)), "attention")
    n_layers, front = fields.layers("num_layers"), [distances] if shared else []
    if not shared:
        shape = replace(shape, scores=(distances,))
    encoder = _stack(shape, n_layers, [table, *front])
    if fields.architecture("").endswith("EncoderModel"):
        return Sequence((Part("encoder", encoder, positions="token"),))
    tied_to = "encoder.embedding" if fields.flag("tie_word_embeddings") else None
    return _network(
        encoder=encoder,
        decoder=_stack(shape, fields.size("num_decoder_layers", n_layers), front, source="source"),
        head=Linear(shape.d_model, fields.size("vocab_size"), bias=False, tied_to=tied_to),
    )


def whisper(fields: Fields) -> Sequence:
    """Whisper (Radford et al. 2022): 30 seconds as a picture of 80 pitches, halved in time by two convolutions."""
    d_model, places = fields.size("d_model"), fields.size("max_source_positions")
    shape = {"norm_first": True, "key_bias": False}
    activation = fields.activation("activation_function")
    front = [
        Part("convolution1", Convolution(fields.size("num_mel_bins"), d_model, (1, 3), 1, 2 * places), "embedding", 1),
        Part("activation1", Activation(activation, d_model), "embedding", 2 * places),
        Part("convolution2", Convolution(d_model, d_model, (1, 3), 1, places), "embedding", 1),
        Part("activation2", Activation(activation, d_model), "embedding"),
        Part("positions", Embedding(places, d_model, fixed=True), "embedding"),
    ]
    table = Embedding(fields.size("vocab_size"), d_model)
    positions = Embedding(fields.size("max_target_positions"), d_model)
    text = [Part("embedding", table, "embedding"), Part("positions", positions, "embedding")]
    tied_to = "decoder.embedding" if fields.flag("tie_word_embeddings") else None
    return _network(
        encoder=_stack(_side(fields, "encoder", **shape), fields.layers("encoder_layers"), front),
        decoder=_stack(_side(fields, "decoder", **shape), fields.layers("decoder_layers"), text, source=places),
        head=Linear(d_model, table.rows, bias=False, tied_to=tied_to),
        source=places,
    )


def _side(fields: Fields, side: str, **settings: Any) -> BlockShape:
    """A block of the "encoder" or "decoder", in the names of Marian and Whisper."""
    fields.share("d_model", f"{side}_attention_heads")
    return BlockShape(
        d_model=fields.size("d_model"),
        n_heads=fields.size(f"{side}_attention_heads"),
        d_ff=fields.size(f"{side}_ffn_dim"),
        activation=fields.activation("activation_function"),
        dropout=fields.rate("dropout"),
        **settings,
    )


def _stack(shape: BlockShape, n: int, front: list[Part], source: str | int | None = None) -> Node:
    """`n` blocks behind what stands in front; with a `source` they write, and attend to it too."""
    dropout = Part("dropout", Dropout(shape.d_model, shape.dropout), "embedding")
    blocks = Part("blocks", Repeat(n, block(shape, causal=source is not None, source=source)))
    last = [Part("norm", norm_of(shape), "norm")] if shape.norm_first else []
    return Sequence((*front, dropout, blocks, *last))


def _network(encoder: Node, decoder: Node, head: Linear, source: str | int = "source") -> Sequence:
    """Part names are those of `networks.translator`."""
    return Sequence(
        (
            Part("encoder", encoder, positions=source),
            Part("decoder", decoder, positions="token"),
            Part("head", head, "head", "token"),
        )
    )
