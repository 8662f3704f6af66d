"""Encoders that were trained to fill gaps: BERT and its kin, from the fields of their `config.json`."""

from pellucid.anatomy.families.blocks import BlockShape, block
from pellucid.anatomy.families.fields import Fields
from pellucid.anatomy.tree import Activation, Dropout, Embedding, Linear, Lone, Norm, Part, Repeat, Sequence
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
    return _encoder(fields, _block(fields), layers, fields.size("embedding_size"), always_projected=True, pooled=True)


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
    layers: Repeat | None = None,
    width: int | None = None,
    always_projected: bool = False,
    pooled: bool = False,
    extra: list[Part] | None = None,
) -> Sequence:
    """Part names are those of `networks.encoder`; `width` is the embeddings', where it is not the blocks'."""
    width = width or shape.d_model
    dropout = Part("dropout", Dropout(shape.d_model, shape.dropout), "embedding")
    parts = [
        Part("embedding", Embedding(fields.size("vocab_size"), width), "embedding"),
        Part("positions", Embedding(fields.size("max_position_embeddings"), width), "embedding"),
    ]
    if "type_vocab_size" in fields:
        parts.append(Part("types", Embedding(fields.size("type_vocab_size"), width), "embedding"))
    parts.append(Part("embedding_norm", Norm(width, shift=True), "norm"))
    if always_projected or width != shape.d_model:
        parts.append(Part("embedding_in", Linear(width, shape.d_model), "embedding"))
    parts += [dropout, *(extra or [])]
    parts.append(Part("blocks", layers or Repeat(fields.layers("num_hidden_layers"), block(shape))))
    body = [part._replace(positions="token") for part in parts]
    return Sequence((*body, *_head(fields, shape, width, pooled)))


def _head(fields: Fields, shape: BlockShape, width: int, pooled: bool) -> list[Part]:
    """What `architectures` puts on the body; on the bare model a pooler, where the family has one."""
    named = fields.architecture("Model")
    pooler = [
        Part("pooler", Linear(shape.d_model, shape.d_model), "head"),
        Part("activation", Activation("tanh", shape.d_model), "head"),
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
