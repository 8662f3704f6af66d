"""The block of Vaswani et al. 2017, with the choices of those who came after: encoders, translators, what sees."""

from dataclasses import dataclass

from pellucid.anatomy.tree import Activation, Attention, Dropout, Linear, Lone, Norm, Part, Sequence


@dataclass(frozen=True)
class BlockShape:
    """The sizes and choices of one block."""

    d_model: int
    n_heads: int
    d_ff: int
    activation: str
    dropout: float = 0.0
    head_dim: int | None = None  # where heads do not share `d_model` among them (T5-11B)
    norm_first: bool = False  # before each part, and so once more at the end; else after it
    norm: str = "layer"  # or "rms"
    bias: bool = True
    key_bias: bool = True  # Whisper has none where queries and values do
    gated: bool = False
    qkv_bias: bool | None = None  # where it is not as `bias`
    rotated: bool = False  # queries and keys, by their positions
    scores: tuple[
        Part, ...
    ] = ()  # what attention's scores are made of beside queries and keys (DeBERTa), unless to a source
    scaled: bool = False  # by channel, what each part adds (Touvron et al. 2021)
    window: int | None = None  # places see those of their square, of this side; a table scores distances (Swin)


def block(shape: BlockShape, causal: bool = False, source: str | int | None = None) -> Sequence:
    """Attention to itself, where there is a `source` attention to that, and feed-forward; each with its norm."""
    work = [_attention(shape, "attention", causal)]
    if source is not None:
        work.append(_attention(shape, "cross_attention", causal=False, source=source))
    work.append(Part("feed_forward", _feed_forward(shape), "feed-forward"))
    parts: list[Part] = []
    for part in work:
        norm = Part(f"{part.name}_norm", norm_of(shape), "norm")
        parts += [norm, part] if shape.norm_first else [part, norm]
    return Sequence(tuple(parts))


def norm_of(shape: BlockShape) -> Norm:
    return Norm(shape.d_model, shift=shape.norm == "layer")


def _attention(shape: BlockShape, name: str, causal: bool, source: str | int | None = None) -> Part:
    head_dim = shape.head_dim or shape.d_model // shape.n_heads
    width = shape.n_heads * head_dim
    parts = [*_projections(shape, width, source)]
    if shape.window is not None:
        parts.append(Part("distances", Lone(((2 * shape.window - 1) ** 2, shape.n_heads))))
    keys = source if shape.window is None else shape.window**2
    product = Attention(shape.n_heads, shape.n_heads, head_dim, rotated=shape.rotated, keys=keys, causal=causal)
    parts += [*(shape.scores if source is None else ()), Part("product", product)]
    parts.append(Part("output", Linear(width, shape.d_model, shape.bias)))
    parts += _end(shape)
    return Part(name, Sequence(tuple(parts)), "attention")


def _projections(shape: BlockShape, width: int, source: str | int | None) -> list[Part]:
    """Queries of what is written, keys and values of what is read; one matrix where they are the same."""
    d_model, bias = shape.d_model, shape.bias if shape.qkv_bias is None else shape.qkv_bias
    if bias and not shape.key_bias:
        return [
            Part("query", Linear(d_model, width)),
            Part("key", Linear(d_model, width, bias=False), positions=source),
            Part("value", Linear(d_model, width), positions=source),
        ]
    split = tuple((name, width) for name in ("query", "key", "value"))
    if source is None:
        return [Part("qkv", Linear(d_model, 3 * width, bias, parts=split))]
    return [
        Part("query", Linear(d_model, width, bias)),
        Part("key_value", Linear(d_model, 2 * width, bias, parts=split[1:]), positions=source),
    ]


def _feed_forward(shape: BlockShape) -> Sequence:
    d_ff, split = shape.d_ff, (("gate", shape.d_ff), ("up", shape.d_ff))
    up = (
        Linear(shape.d_model, 2 * d_ff, shape.bias, parts=split)
        if shape.gated
        else Linear(shape.d_model, d_ff, shape.bias)
    )
    return Sequence(
        (
            Part("gate_up" if shape.gated else "up", up),
            Part("activation", Activation(shape.activation, d_ff, shape.gated)),
            Part("down", Linear(d_ff, shape.d_model, shape.bias)),
            *_end(shape),
        )
    )


def _end(shape: BlockShape) -> list[Part]:
    """What is done to a part's result before it is added."""
    dropout = Part("dropout", Dropout(shape.d_model, shape.dropout))
    return [dropout, Part("scale", Lone((shape.d_model,)))] if shape.scaled else [dropout]
