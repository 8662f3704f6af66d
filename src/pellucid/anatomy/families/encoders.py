"""The trees of encoder, classifier and translator; part names are those of `networks.encoder` and `.translator`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pellucid.anatomy.tree import Activation, Attention, Dropout, Embedding, Linear, Norm, Part, Repeat, Sequence

if TYPE_CHECKING:  # the modules import torch, which counting does without
    from pellucid.networks.encoder_config import EncoderConfig
    from pellucid.networks.transformer import BlockConfig
    from pellucid.networks.translator_config import TranslatorConfig


def encoder(config: EncoderConfig) -> Sequence:
    """The tree of an encoder, or where there are classes of the classifier on top of it."""
    parts = (
        Part("embedding", Embedding(config.vocab_size, config.d_model), "embedding"),
        Part("positions", Embedding(config.context, config.d_model), "embedding"),
        Part("types", Embedding(config.type_vocab_size, config.d_model), "embedding"),
        Part("embedding_norm", _norm(config), "norm"),
        Part("dropout", _dropout(config), "embedding"),
        Part("blocks", Repeat(config.n_layers, _encoder_block(config))),
    )
    if not config.classes:
        return Sequence(tuple(part._replace(positions="token") for part in parts))
    head = [Part("dropout", _dropout(config), "head"), Part("head", Linear(config.d_model, config.classes), "head")]
    if config.pooling == "first":
        head.insert(0, Part("pooler", Linear(config.d_model, config.d_model), "head"))
        head.insert(1, Part("activation", Activation("tanh", config.d_model), "head"))
    return Sequence((Part("encoder", Sequence(parts), positions="token"), *head))


def translator(config: TranslatorConfig) -> Sequence:
    """The tree of a translator: the parts "encoder", through which the source goes, "decoder" and "head".

    The decoder's embedding and the head read the encoder's table, which is counted there.
    """
    table = Part("embedding", Embedding(config.vocab_size, config.d_model), "embedding")
    dropout = Part("dropout", _dropout(config), "embedding")
    read = Part("blocks", Repeat(config.encoder_layers, _encoder_block(config)))
    write = Part("blocks", Repeat(config.decoder_layers, _decoder_block(config)))
    head = Linear(config.d_model, config.vocab_size, tied_to="encoder.embedding")
    return Sequence(
        (
            Part("encoder", Sequence((table, dropout, read)), positions="source"),
            Part("decoder", Sequence((dropout, write)), positions="token"),
            Part("head", head, "head", "token"),
        )
    )


def _encoder_block(config: BlockConfig) -> Sequence:
    return Sequence((*_self_attention(config, causal=False), *_feed_forward(config)))


def _decoder_block(config: BlockConfig) -> Sequence:
    width = config.d_model
    cross = (
        Part("query", Linear(width, width)),
        Part("key_value", Linear(width, 2 * width, parts=(("key", width), ("value", width))), positions="source"),
        *_product(config, keys="source", causal=False),
    )
    return Sequence(
        (
            *_self_attention(config, causal=True),
            Part("cross_attention", Sequence(cross), "attention"),
            Part("cross_attention_norm", _norm(config), "norm"),
            *_feed_forward(config),
        )
    )


def _self_attention(config: BlockConfig, causal: bool) -> tuple[Part, Part]:
    split = tuple((name, config.d_model) for name in ("query", "key", "value"))
    qkv = Part("qkv", Linear(config.d_model, 3 * config.d_model, parts=split))
    attention = Part("attention", Sequence((qkv, *_product(config, causal=causal))), "attention")
    return attention, Part("attention_norm", _norm(config), "norm")


def _product(config: BlockConfig, causal: bool, keys: str | None = None) -> tuple[Part, ...]:
    heads = config.n_heads
    product = Attention(heads, heads, config.d_model // heads, keys=keys, causal=causal)
    output = Linear(config.d_model, config.d_model)
    return Part("product", product), Part("output", output), Part("dropout", _dropout(config))


def _feed_forward(config: BlockConfig) -> tuple[Part, Part]:
    layers = (
        Part("up", Linear(config.d_model, config.d_ff)),
        Part("activation", Activation(config.activation, config.d_ff)),
        Part("down", Linear(config.d_ff, config.d_model)),
        Part("dropout", _dropout(config)),
    )
    return Part("feed_forward", Sequence(layers), "feed-forward"), Part("feed_forward_norm", _norm(config), "norm")


def _norm(config: BlockConfig) -> Norm:
    return Norm(config.d_model, shift=True)


def _dropout(config: BlockConfig) -> Dropout:
    return Dropout(config.d_model, config.dropout)
