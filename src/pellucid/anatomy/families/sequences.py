"""Networks that read one sequence and write another, from the fields of their `config.json`."""

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
    vocab_size, d_model = fields.size("vocab_size"), fields.size("d_model")
    table = Part("embedding", Embedding(vocab_size, d_model), "embedding")
    sines = Part("positions", Embedding(fields.size("max_position_embeddings"), d_model, fixed=True), "embedding")
    tied_to = "encoder.embedding" if fields.flag("tie_word_embeddings") else None
    tree = _network(
        encoder=_stack(_side(fields, "encoder"), fields.layers("encoder_layers"), [table, sines]),
        decoder=_stack(_side(fields, "decoder"), fields.layers("decoder_layers"), [sines], source="source"),
        head=Linear(d_model, vocab_size, bias=False, tied_to=tied_to),
    )
    return Sequence((*tree.parts, Part("logits_bias", Buffer((vocab_size,)), "head", "token")))


def bart(fields: Fields) -> Sequence:
    """BART (Lewis et al. 2019): positions and a norm behind the embedding on both sides."""
    vocab_size, d_model = fields.size("vocab_size"), fields.size("d_model")
    table = Part("embedding", Embedding(vocab_size, d_model), "embedding")
    positions = Part("positions", Embedding(fields.size("max_position_embeddings") + 2, d_model), "embedding")
    front = [positions, Part("embedding_norm", Norm(d_model, shift=True), "norm")]
    tree = _network(
        encoder=_stack(_side(fields, "encoder"), fields.layers("encoder_layers"), [table, *front]),
        decoder=_stack(_side(fields, "decoder"), fields.layers("decoder_layers"), front, source="source"),
        head=Linear(d_model, vocab_size, bias=False, tied_to="encoder.embedding"),
    )
    return Sequence((*tree.parts, Part("logits_bias", Buffer((vocab_size,)), "head", "token")))


def t5(fields: Fields) -> Sequence:
    """T5 (Raffel et al. 2019): a table says what each distance adds to the scores of all layers; no biases."""
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
    n_layers = fields.layers("num_layers")
    encoder = _stack(shape, n_layers, [table, distances])
    if fields.architecture("").endswith("EncoderModel"):
        return Sequence((Part("encoder", encoder, positions="token"),))
    tied_to = "encoder.embedding" if fields.flag("tie_word_embeddings") else None
    return _network(
        encoder=encoder,
        decoder=_stack(shape, fields.size("num_decoder_layers", n_layers), [distances], source="source"),
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
