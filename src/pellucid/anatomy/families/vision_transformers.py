"""Transformers that see: ViT, DeiT, DINOv2, DINOv3 and Swin, in Hugging Face's fields."""

from dataclasses import replace
from math import ceil

from pellucid.anatomy.families.blocks import BlockShape, block
from pellucid.anatomy.families.fields import Fields
from pellucid.anatomy.families.flow import Flow, labels, picture
from pellucid.anatomy.tree import Activation, Embedding, Linear, Lone, Norm, Repeat, Sequence
from pellucid.language import _


def vit(fields: Fields) -> Sequence:
    """ViT (Dosovitskiy et al. 2020, figure 1): a picture's patches are its words; a class token collects the answer.

    DeiT (Touvron et al. 2020) has a token more, which learns from a teacher's answers.
    """
    is_deit = fields.name("model_type") == "deit"
    flow, tokens = _tokens(fields, "class_token", *["distillation_token"] * is_deit)
    width = flow.channels
    shape = _block(fields, width, fields.size("num_attention_heads"), fields.size("intermediate_size"))
    flow.add("blocks", Repeat(fields.size("num_hidden_layers"), block(shape)), positions=tokens)
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


def dinov2(fields: Fields) -> Sequence:
    """DINOv2 (Oquab et al. 2023): a ViT whose branches are scaled.

    A mask token stands for patches that are hidden in training. Classes are read from the class token and the patches'
    mean side by side.
    """
    flow, tokens = _tokens(fields, "class_token", *["mask_token"] * fields.flag("use_mask_token"))
    tokens += _registers(fields, flow)
    width, gated = flow.channels, fields.flag("use_swiglu_ffn")
    d_ff = int(width * fields.positive("mlp_ratio"))
    if gated:
        d_ff = ceil(int(d_ff * 2 / 3) / 8) * 8
    shape = _block(fields, width, fields.size("num_attention_heads"), d_ff)
    shape = replace(shape, scaled=True, gated=gated, activation="silu" if gated else shape.activation)
    flow.add("blocks", Repeat(fields.size("num_hidden_layers"), block(shape)), positions=tokens)
    flow.add("norm", Norm(width, shift=True), "norm", tokens)
    classes = labels(fields)
    if classes is not None:
        flow.add("head", Linear(2 * width, classes), "head")
    return flow.tree


def dinov3(fields: Fields) -> Sequence:
    """DINOv3 (Siméoni et al. 2025): queries and keys of patches are turned by their places; no bias in keys."""
    for names in (("query_bias", "value_bias"), ("proj_bias", "mlp_bias")):
        if fields.flag(names[0]) != fields.flag(names[1]):
            fields.refuse(names[0], _("Only networks where {name} is the same are known here.").format(name=names[1]))
    named = fields.architecture("Model")
    if not named.endswith("Model"):
        fields.refuse("architectures", _("Name the bare …Model."))
    flow, tokens = _tokens(fields, "class_token", "mask_token", placed=False)
    tokens += _registers(fields, flow)
    shape = replace(
        _block(fields, flow.channels, fields.size("num_attention_heads"), fields.size("intermediate_size")),
        qkv_bias=fields.flag("query_bias"),
        key_bias=fields.flag("key_bias"),
        bias=fields.flag("mlp_bias"),
        gated=fields.flag("use_gated_mlp"),
        rotated=True,
        scaled=True,
    )
    flow.add("blocks", Repeat(fields.layers("num_hidden_layers"), block(shape)), positions=tokens)
    flow.add("norm", Norm(flow.channels, shift=True), "norm", tokens)
    return flow.tree


def _registers(fields: Fields, flow: Flow) -> int:
    """How many registers there are, which are added."""
    registers = fields.count("num_register_tokens")
    if registers:
        flow.add("registers", Lone((registers, flow.channels)), "embedding")
    return registers


def _tokens(fields: Fields, *extra: str, placed: bool = True) -> tuple[Flow, int]:
    """A picture as patches, tokens of its own, where `placed` their positions; and how many vectors that makes."""
    width, patch = fields.size("hidden_size"), fields.size("patch_size")
    flow = picture(fields)
    flow.convolution("patches", width, patch, patch, padding=0, kind="embedding")
    for name in extra:
        flow.add(name, Lone((width,)), "embedding")
    tokens = flow.height * flow.width + sum(name != "mask_token" for name in extra)
    if placed:
        flow.add("positions", Embedding(tokens, width), "embedding", tokens)
    return flow, tokens


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
        shape = replace(_block(fields, width, n_heads, int(ratio * width)), window=window)
        padded = ceil(flow.height / window) * ceil(flow.width / window) * window**2  # to whole windows
        parts = [p._replace(positions=padded) if p.name == "attention" else p for p in block(shape).parts]
        flow.add(f"stage{n}", Repeat(depth, Sequence(tuple(parts))), positions=places)
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


def _block(fields: Fields, width: int, heads: int, d_ff: int) -> BlockShape:
    if width % heads:
        named = "hidden_size" if "hidden_size" in fields else "embed_dim"
        fields.refuse(named, _("Give a multiple of the number of heads."))
    return BlockShape(
        d_model=width,
        n_heads=heads,
        d_ff=d_ff,
        activation=fields.activation("hidden_act"),
        dropout=fields.rate("hidden_dropout_prob"),
        norm_first=True,
        qkv_bias=fields.flag("qkv_bias"),
    )
