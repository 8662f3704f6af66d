"""Transformers that see: ViT, DeiT and Swin, in Hugging Face's fields."""

from math import ceil

from pellucid.anatomy.families.fields import Fields
from pellucid.anatomy.families.flow import Flow, labels, picture
from pellucid.anatomy.tree import Activation, Attention, Dropout, Embedding, Linear, Lone, Norm, Part, Repeat, Sequence
from pellucid.language import _


def vit(fields: Fields) -> Sequence:
    """ViT (Dosovitskiy et al. 2020, figure 1): a picture's patches are its words; a class token collects the answer.

    DeiT (Touvron et al. 2020) has a token more, which learns from a teacher's answers.
    """
    width, patch = fields.size("hidden_size"), fields.size("patch_size")
    extra = ["class_token", "distillation_token"][: 2 if fields.content.get("model_type") == "deit" else 1]
    flow = picture(fields)
    flow.convolution("patches", width, patch, patch, padding=0, kind="embedding")
    for name in extra:
        flow.add(name, Lone((width,)), "embedding")
    tokens = flow.height * flow.width + len(extra)
    flow.add("positions", Embedding(tokens, width), "embedding", tokens)
    block = _block(fields, width, fields.size("num_attention_heads"), fields.size("intermediate_size"))
    flow.add("blocks", Repeat(fields.size("num_hidden_layers"), block), positions=tokens)
    flow.add("norm", Norm(width, shift=True), "norm", tokens)
    classes, architecture = labels(fields), fields.architecture("ForImageClassification")
    if classes is not None:
        flow.add("head", Linear(width, classes), "head")
    if classes is not None and architecture.endswith("WithTeacher"):
        flow.add("distillation_head", Linear(width, classes), "head")
    if architecture.endswith("Model"):
        pooled = fields.size("pooler_output_size", width)
        flow.add("pooler", Linear(width, pooled), "head")
        flow.add("pooler_activation", Activation(fields.activation("pooler_act"), pooled), "head")
    return flow.tree


def swin(fields: Fields) -> Sequence:
    """Swin (Liu et al. 2021, figure 3): attention within windows, pictures halved and channels doubled by the stage."""
    depths, heads = fields.sizes("depths"), fields.sizes("num_heads")
    window, ratio = fields.size("window_size"), fields.positive("mlp_ratio")
    patch = fields.size("patch_size")
    if len(heads) != len(depths):
        fields.refuse("num_heads", _("Give as many numbers as depths has."))
    flow = picture(fields)
    flow.convolution("patches", fields.size("embed_dim"), patch, patch, padding=0, kind="embedding")
    flow.layer_norm("patches_norm")
    if fields.flag("use_absolute_embeddings"):
        places = flow.height * flow.width
        flow.add("positions", Embedding(places, flow.channels), "embedding", places)
    for n, (depth, n_heads) in enumerate(zip(depths, heads, strict=True), 1):
        if n > 1:
            _merge(flow, f"merge{n}")
        width, places = flow.channels, flow.height * flow.width
        padded = ceil(flow.height / window) * ceil(flow.width / window) * window**2
        block = _block(fields, width, n_heads, int(ratio * width), window, padded)
        flow.add(f"stage{n}", Repeat(depth, block), positions=places)
    flow.layer_norm("norm")
    flow.pool_to("pool", 1)
    classes = labels(fields)
    if classes is not None:
        flow.dense("head", classes, "head")
    return flow.tree


def _merge(flow: Flow, name: str) -> None:
    """Four neighbours become one, of twice the width."""
    flow.height, flow.width = ceil(flow.height / 2), ceil(flow.width / 2)
    places, width = flow.height * flow.width, flow.channels
    flow.add(f"{name}_norm", Norm(4 * width, shift=True), "norm", places)
    flow.add(name, Linear(4 * width, 2 * width, bias=False), "embedding", places)
    flow.channels = 2 * width


def _block(
    fields: Fields, width: int, heads: int, d_ff: int, window: int | None = None, padded: int | None = None
) -> Sequence:
    """A transformer's block that normalises first.

    With a `window` each place sees the window² around it, a table says what each distance adds to the scores, and there
    are so many places once the picture is `padded` to whole windows.
    """
    if width % heads:
        fields.refuse("hidden_size" if window is None else "embed_dim", _("Give a multiple of the number of heads."))
    dropout = fields.rate("hidden_dropout_prob")
    split = (("query", width), ("key", width), ("value", width))
    attention = [Part("qkv", Linear(width, 3 * width, fields.flag("qkv_bias"), parts=split))]
    if window is not None:
        attention.append(Part("distances", Lone(((2 * window - 1) ** 2, heads))))
    keys = None if window is None else window**2
    attention.append(Part("product", Attention(heads, heads, width // heads, keys=keys, causal=False)))
    attention.append(Part("output", Linear(width, width)))
    feed_forward = [
        Part("up", Linear(width, d_ff)),
        Part("activation", Activation(fields.activation("hidden_act"), d_ff)),
        Part("down", Linear(d_ff, width)),
    ]
    if dropout:
        attention.append(Part("dropout", Dropout(width, dropout)))
        feed_forward.append(Part("dropout", Dropout(width, dropout)))
    return Sequence(
        (
            Part("attention_norm", Norm(width, shift=True), "norm"),
            Part("attention", Sequence(tuple(attention)), "attention", padded),
            Part("feed_forward_norm", Norm(width, shift=True), "norm"),
            Part("feed_forward", Sequence(tuple(feed_forward)), "feed-forward"),
        )
    )
