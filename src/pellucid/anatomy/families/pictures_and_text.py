"""Networks that take pictures and text, from the fields of their `config.json`: CLIP, SigLIP, Gemma 3, Llama 4."""

from dataclasses import replace

from pellucid.anatomy.families.blocks import BlockShape, block, norm_of
from pellucid.anatomy.families.defaults import DEFAULTS
from pellucid.anatomy.families.fields import Fields
from pellucid.anatomy.families.llama import gemma3_text
from pellucid.anatomy.families.mixtures import llama4_text
from pellucid.anatomy.tree import (
    Activation,
    Attention,
    Convolution,
    Embedding,
    Linear,
    Lone,
    Norm,
    Part,
    Pool,
    Repeat,
    Sequence,
)


def clip(fields: Fields) -> Sequence:
    """CLIP (Radford et al. 2021): a tower for text, one for pictures, and both brought to one width."""
    text = fields.under("text_config", DEFAULTS["clip_text_model"])
    vision = fields.under("vision_config", DEFAULTS["clip_vision_model"])
    shape, width = _block(text), fields.size("projection_dim")
    reader = (
        Part("embedding", Embedding(text.size("vocab_size"), shape.d_model), "embedding"),
        Part("positions", Embedding(text.size("max_position_embeddings"), shape.d_model), "embedding"),
        Part("blocks", Repeat(text.layers("num_hidden_layers"), block(shape, causal=True))),
        Part("norm", norm_of(shape), "norm"),
    )
    return Sequence(
        (
            Part("text", Sequence(reader), positions="token"),
            Part("text_projection", Linear(shape.d_model, width, bias=False), "head"),
            Part("vision", _tower(vision, class_token=True)),
            Part("vision_projection", Linear(vision.size("hidden_size"), width, bias=False), "head"),
            Part("scale", Lone(()), "head"),
        )
    )


def siglip(fields: Fields) -> Sequence:
    """SigLIP (Zhai et al. 2023), SigLIP 2 at fixed sizes: text reads both ways; each pair is a yes or a no."""
    text = fields.under("text_config", DEFAULTS["siglip_text_model"])
    vision = fields.under("vision_config", DEFAULTS["siglip_vision_model"])
    shape = _block(text)
    reader = (
        Part("embedding", Embedding(text.size("vocab_size"), shape.d_model), "embedding"),
        Part("positions", Embedding(text.size("max_position_embeddings"), shape.d_model), "embedding"),
        Part("blocks", Repeat(text.layers("num_hidden_layers"), block(shape))),
        Part("norm", norm_of(shape), "norm"),
    )
    width = text.size("projection_size", shape.d_model)
    return Sequence(
        (
            Part("text", Sequence(reader), positions="token"),
            Part("text_projection", Linear(shape.d_model, width), "head"),
            Part("vision", siglip_vision(vision)),
            Part("scale", Lone(()), "head"),
            Part("shift", Lone(()), "head"),
        )
    )


def siglip_vision(fields: Fields) -> Sequence:
    """SigLIP's tower; one learnt query attends to all patches and collects the answer (Zhai et al. 2022)."""
    tower = _tower(fields, class_token=False)
    if not fields.flag("vision_use_head"):
        return tower
    shape = _block(fields)
    width, places = shape.d_model, (fields.size("image_size") // fields.size("patch_size")) ** 2
    attention = (
        Part("query", Linear(width, width)),
        Part("key_value", Linear(width, 2 * width, parts=(("key", width), ("value", width))), positions=places),
        Part("product", Attention(shape.n_heads, shape.n_heads, width // shape.n_heads, keys=places, causal=False)),
        Part("output", Linear(width, width)),
    )
    head = (
        Part("probe", Lone((width,)), "embedding"),
        Part("attention", Sequence(attention), "attention"),
        *block(shape).parts[2:],
    )
    return Sequence((*tower.parts, Part("pooler", Sequence(head), positions=1)))


def gemma3(fields: Fields) -> Sequence:
    """Gemma 3 from 4B (Gemma team 2025): SigLIP's tower looks, 256 of its averages are read as if they were tokens."""
    text = fields.under("text_config", DEFAULTS["gemma3_text"])
    vision = fields.under("vision_config", DEFAULTS["siglip_vision_model"])
    tokens, width = fields.size("mm_tokens_per_image", 256), vision.size("hidden_size")
    projector = (
        Part("pool", Pool("average", width, 1, tokens), "embedding", 1),
        Part("norm", Norm(width, shift=False), "norm"),
        Part("projection", Linear(width, text.size("hidden_size"), bias=False), "embedding"),
    )
    return Sequence(
        (
            Part("vision", siglip_vision(vision)),
            Part("projector", Sequence(projector), positions=tokens),
            Part("language", _below("language", gemma3_text(text))),
        )
    )


def llama4(fields: Fields) -> Sequence:
    """Llama 4 (Meta 2025): four neighbouring patches of a tower like CLIP's become one vector, read as a token."""
    text = fields.under("text_config", DEFAULTS["llama4_text"])
    vision = fields.under("vision_config", DEFAULTS["llama4_vision_model"])
    tower, seen = _tower(vision, class_token=True), vision.size("projector_output_dim")
    squeezed, read = vision.size("projector_input_dim"), vision.size("intermediate_size")
    projector = (
        Part("in", Linear(read, squeezed, bias=False)),
        Part("activation", Activation("gelu", squeezed)),
        Part("out", Linear(squeezed, seen, bias=False)),
        Part("out_activation", Activation("gelu", seen)),
        Part("projection", Linear(vision.size("vision_output_dim"), text.size("hidden_size"), bias=False)),
    )
    tokens = (vision.size("image_size") // vision.size("patch_size") // 2) ** 2
    return Sequence(
        (
            Part("vision", tower),
            Part("projector", Sequence(projector), "embedding", tokens),
            Part("language", _below("language", llama4_text(text))),
        )
    )


def _below(name: str, tree: Sequence) -> Sequence:
    """The tree as it reads under `name`: its head's table is found there."""
    return Sequence(
        tuple(
            part._replace(node=replace(part.node, tied_to=f"{name}.{part.node.tied_to}"))
            if isinstance(part.node, Linear) and part.node.tied_to
            else part
            for part in tree.parts
        )
    )


def _tower(fields: Fields, class_token: bool) -> Sequence:
    """A picture's patches as words: CLIP's with a class token and a norm before the blocks, SigLIP's without."""
    shape, patch = _block(fields), fields.size("patch_size")
    side = fields.size("image_size") // patch
    places = side**2 + class_token
    patches = Convolution(fields.size("num_channels"), shape.d_model, patch, side, side, bias=not class_token)
    token = Part("class_token", Lone((shape.d_model,)), "embedding")
    parts = (
        Part("patches", patches, "embedding", 1),
        *([token] if class_token else []),
        Part("positions", Embedding(places, shape.d_model), "embedding", places),
        *([Part("embedding_norm", norm_of(shape), "norm", places)] if class_token else []),
        Part("blocks", Repeat(fields.layers("num_hidden_layers"), block(shape)), positions=places),
        Part("norm", norm_of(shape), "norm", 1 if class_token else places),
    )
    return Sequence(parts)


def _block(fields: Fields) -> BlockShape:
    fields.share("hidden_size", "num_attention_heads")
    return BlockShape(
        d_model=fields.size("hidden_size"),
        n_heads=fields.size("num_attention_heads"),
        d_ff=fields.size("intermediate_size"),
        activation=fields.activation("hidden_act"),
        norm_first=True,
    )
