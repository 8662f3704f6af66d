"""The trees of encoder, classifier and translator; part names are those of `networks.encoder` and `.translator`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pellucid.anatomy.families.blocks import BlockShape, block
from pellucid.anatomy.tree import Activation, Dropout, Embedding, Linear, Norm, Part, Repeat, Sequence

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
        Part("embedding_norm", Norm(config.d_model, shift=True), "norm"),
        Part("dropout", _dropout(config), "embedding"),
        Part("blocks", Repeat(config.n_layers, block(_shape(config)))),
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
    read = Part("blocks", Repeat(config.encoder_layers, block(_shape(config))))
    write = Part("blocks", Repeat(config.decoder_layers, block(_shape(config), causal=True, source="source")))
    head = Linear(config.d_model, config.vocab_size, tied_to="encoder.embedding")
    return Sequence(
        (
            Part("encoder", Sequence((table, dropout, read)), positions="source"),
            Part("decoder", Sequence((dropout, write)), positions="token"),
            Part("head", head, "head", "token"),
        )
    )


def _shape(config: BlockConfig) -> BlockShape:
    return BlockShape(config.d_model, config.n_heads, config.d_ff, config.activation, config.dropout)


def _dropout(config: BlockConfig) -> Dropout:
    return Dropout(config.d_model, config.dropout)
