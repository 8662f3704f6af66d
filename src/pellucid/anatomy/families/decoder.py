"""The tree of a decoder-only transformer: what the families differ in are settings of one `DecoderShape`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby, pairwise

from pellucid.anatomy.tree import (
    Activation,
    Attention,
    Buffer,
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


@dataclass(frozen=True)
class Experts:
    """A mixture in place of one feed-forward layer: a router sends each token through `active` of `n` experts."""

    n: int
    active: int
    d_ff: int  # of each expert
    bias: bool | None = None  # in each expert; None: as where there is no mixture
    shared_d_ff: int = 0  # of the experts that every token goes through, side by side
    shared_gate: bool = False  # Qwen2-MoE: one more neuron says how much of the shared expert is added
    router_bias: bool = False  # DeepSeek-V3: balances the load; moved by a rule, not by gradients
    fixed_bias: bool = False  # the same, saved as a parameter that is not trained (ERNIE 4.5)
    biased_router: bool = False  # its choice is a dense layer with bias (gpt-oss)
    layers: tuple[bool, ...] | None = None  # which layers are mixtures; None: all


@dataclass(frozen=True)
class Latent:
    """Multi-head latent attention: keys and values are made from one short vector a token (DeepSeek-V2, 2.1)."""

    kv_rank: int  # the vector's width, all that the cache keeps beside the rotated key
    query_rank: int | None  # None: queries are made directly
    rotated_dim: int  # of a head's queries and keys, what positions turn; its key is one for all heads
    plain_dim: int  # and what they do not
    value_dim: int


@dataclass(frozen=True)
class DecoderShape:
    """The sizes and choices that fix a decoder's tree; the fields of `networks.decoder.DecoderConfig` among them."""

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    context: int
    norm: str = "rms"  # "rms", "layer" (with shift), "scale" (layer norm without shift), "plain" (without parameters)
    first_norm: bool = True  # before the first attention (ModernBERT has none: the embedding's is enough)
    order: str = "pre"  # of norms: "pre", "post", "after" (in the branch: OLMo 2), "both" (Gemma 2), "parallel" (GPT-J)
    parallel_norms: int = 1  # where attention and feed-forward run side by side: one norm for both, or one each
    embedding_norm: bool = False
    positions: str = "rotary"  # "rotary", "learned", "sinusoidal" or "none" (ALiBi adds to the scores only)
    position_rows: int | None = None  # of the learned table, where it is not `context`
    activation: str = "silu"
    gated: bool = True
    qkv_bias: bool = False
    output_bias: bool = False
    ff_bias: bool = False
    head_bias: bool = False
    qk_norm: bool | str = False  # RMS norms of each head's queries and keys, or "layer"; "full": heads have their own
    gated_attention: bool = False  # queries come with a gate of what attention answers (Qwen3-Next)
    sinks: bool = False  # each head may attend to nothing: one learnt score (gpt-oss)
    tied: bool = True
    sliding_windows: tuple[int | None, ...] | None = None  # per layer; None: every layer sees the whole context
    causal: bool = True  # else every position sees all; `sliding_windows` then count both sides
    dropout: float = 0.0
    experts: Experts | None = None
    latent: Latent | None = None
    mixer: Sequence | None = None  # what stands in attention's place in `mixer_layers`: a state space, a convolution
    mixer_layers: tuple[bool, ...] | None = None
    embedding_width: int | None = None  # OPT-350M: a narrower embedding, projected in and out


def decoder_tree(shape: DecoderShape) -> Sequence:
    """The tree of a decoder; part names are those of `networks.decoder.Decoder`."""
    width = shape.embedding_width or shape.d_model
    parts = [Part("embedding", Embedding(shape.vocab_size, width), "embedding")]
    if width != shape.d_model:
        parts.append(Part("embedding_in", Linear(width, shape.d_model, bias=False), "embedding"))
    if shape.positions == "learned":
        rows = shape.position_rows or shape.context
        parts.append(Part("positions", Embedding(rows, shape.d_model), "embedding"))
    if shape.embedding_norm:
        parts.append(Part("embedding_norm", _norm(shape), "norm"))
    parts.append(Part("dropout", Dropout(shape.d_model, shape.dropout), "embedding"))
    parts += _blocks(shape)
    if shape.order != "post":
        parts.append(Part("norm", _norm(shape), "norm"))
    if width != shape.d_model:
        parts.append(Part("embedding_out", Linear(shape.d_model, width, bias=False), "head"))
    tied_to = "embedding" if shape.tied else None
    parts.append(Part("head", Linear(width, shape.vocab_size, shape.head_bias, tied_to), "head"))
    return Sequence(tuple(part._replace(positions="token") for part in parts))


def _blocks(shape: DecoderShape) -> list[Part]:
    """One `Repeat` for all layers, or one for each kind of layer: they may see unequally far, or have no experts."""
    windows = shape.sliding_windows or (None,) * shape.n_layers
    mixed = (shape.experts.layers if shape.experts else None) or (shape.experts is not None,) * shape.n_layers
    bare = (not shape.first_norm, *[False] * (shape.n_layers - 1))
    mixers = shape.mixer_layers or (False,) * shape.n_layers
    kinds = list(zip(windows, mixed, bare, mixers, strict=True))
    if len(set(kinds)) == 1:
        return [Part("blocks", Repeat(shape.n_layers, _block(shape, *kinds[0])))]
    return [
        Part(f"blocks[{_indices(layers)}]", Repeat(len(layers), _block(shape, *kind)))
        for kind in dict.fromkeys(kinds)
        if (layers := [n for n, other in enumerate(kinds) if other == kind])
    ]


def _indices(layers: list[int]) -> str:
    """Layers as Python's slices: [0, 1, 2] is 0:3, [0, 2, 4] is 0:5:2, and what has no such form is several."""
    steps = {b - a for a, b in pairwise(layers)}
    if len(steps) == 1 and steps != {1}:
        return f"{layers[0]}:{layers[-1] + 1}:{steps.pop()}"
    runs = [[n for _, n in run] for _, run in groupby(enumerate(layers), key=lambda pair: pair[1] - pair[0])]
    return ",".join(f"{run[0]}:{run[-1] + 1}" for run in runs)


def _block(shape: DecoderShape, window: int | None, mixed: bool, bare: bool, has_mixer: bool) -> Sequence:
    attention = Part("attention", _attention(shape, window), "attention")
    if has_mixer and shape.mixer is not None:
        attention = Part("mixer", shape.mixer, "mixer")
    feed_forward = Part("feed_forward", _experts(shape) if mixed else _feed_forward(shape, shape.d_ff), "feed-forward")
    if shape.order == "parallel":
        norms = [_norm_part(shape, name) for name in ("attention_norm", "feed_forward_norm")[: shape.parallel_norms]]
        return Sequence((*norms, attention, feed_forward))
    parts: list[Part] = []
    for work in (attention, feed_forward):
        before = [_norm_part(shape, f"{work.name}_norm")] if shape.order in ("pre", "both") else []
        after = {"both": f"{work.name}_post_norm"}.get(shape.order, f"{work.name}_norm")
        parts += [*before, work, *([] if shape.order == "pre" else [_norm_part(shape, after)])]
    return Sequence(tuple(parts[1:] if bare else parts))


def _attention(shape: DecoderShape, window: int | None) -> Sequence:
    rotated = shape.positions == "rotary"
    if shape.latent is not None:
        parts = _latent(shape, shape.latent)
        value_dim = shape.latent.value_dim
    else:
        queries, keys = shape.n_heads * shape.head_dim, shape.n_kv_heads * shape.head_dim
        split: tuple[tuple[str, int], ...] = (("query", queries), ("key", keys), ("value", keys))
        if shape.gated_attention:
            split = (("query", queries), ("gate", queries), *split[1:])
        parts = [Part("qkv", Linear(shape.d_model, sum(n for _, n in split), shape.qkv_bias, parts=split))]
        if shape.qk_norm == "full":
            parts.append(Part("query_norm", Norm(queries, shift=False), "norm"))
            parts.append(Part("key_norm", Norm(keys, shift=False), "norm"))
        elif shape.qk_norm:
            for name, heads in (("query_norm", shape.n_heads), ("key_norm", shape.n_kv_heads)):
                norm = Norm(shape.head_dim, shape.qk_norm == "layer", heads, plain=shape.norm == "plain")
                parts.append(Part(name, norm, "norm"))
        product = Attention(
            shape.n_heads,
            shape.n_kv_heads,
            shape.head_dim,
            window,
            rotated,
            normed=bool(shape.qk_norm),
            causal=shape.causal,
        )
        if shape.sinks:
            parts.append(Part("sinks", Lone((shape.n_heads,))))
        parts.append(Part("product", product))
        if shape.gated_attention:
            parts.append(Part("gate", Activation("sigmoid", queries, gated=True)))
        value_dim = shape.head_dim
    parts.append(Part("output", Linear(shape.n_heads * value_dim, shape.d_model, shape.output_bias)))
    parts.append(Part("dropout", Dropout(shape.d_model, shape.dropout)))
    return Sequence(tuple(parts))


def _latent(shape: DecoderShape, latent: Latent) -> list[Part]:
    """Queries, and from the latent vector keys and values for every head; biases only where `qkv_bias`."""
    d_model, heads, bias = shape.d_model, shape.n_heads, shape.qkv_bias
    head_dim = latent.plain_dim + latent.rotated_dim
    if latent.query_rank is None:
        parts = [Part("query", Linear(d_model, heads * head_dim, bias=False))]
    else:
        parts = [
            Part("query_down", Linear(d_model, latent.query_rank, bias)),
            Part("query_norm", _norm(shape, latent.query_rank), "norm"),
            Part("query_up", Linear(latent.query_rank, heads * head_dim, bias=False)),
        ]
    down = (("latent", latent.kv_rank), ("rotated key", latent.rotated_dim))
    up = (("keys", heads * latent.plain_dim), ("values", heads * latent.value_dim))
    return [
        *parts,
        Part("latent_down", Linear(d_model, latent.kv_rank + latent.rotated_dim, bias, parts=down)),
        Part("latent_norm", _norm(shape, latent.kv_rank), "norm"),
        Part("latent_up", Linear(latent.kv_rank, sum(n for _, n in up), bias=False, parts=up)),
        Part(
            "product",
            Attention(
                heads,
                heads,
                head_dim,
                rotated=True,
                value_dim=latent.value_dim,
                latent=latent.kv_rank + latent.rotated_dim,
            ),
        ),
    ]


def _feed_forward(shape: DecoderShape, d_ff: int) -> Sequence:
    split = (("gate", d_ff), ("up", d_ff)) if shape.gated else ()
    name, width = ("gate_up", 2 * d_ff) if shape.gated else ("up", d_ff)
    up = Part(name, Linear(shape.d_model, width, shape.ff_bias, parts=split))
    activation = Part("activation", Activation(shape.activation, d_ff, shape.gated))
    down = Part("down", Linear(d_ff, shape.d_model, shape.ff_bias))
    return Sequence((up, activation, down, Part("dropout", Dropout(shape.d_model, shape.dropout))))


def _experts(shape: DecoderShape) -> Sequence:
    """The router, the experts that it chooses from, and those that every token meets."""
    experts = shape.experts
    assert experts is not None
    parts: list[Part] = [Part("router", Linear(shape.d_model, experts.n, experts.biased_router))]
    if experts.router_bias:
        parts.append(Part("router_bias", Buffer((experts.n,))))
    if experts.fixed_bias:
        parts.append(Part("router_bias", Lone((experts.n,), fixed=True)))
    bias = shape.ff_bias if experts.bias is None else experts.bias
    child: Node = _feed_forward(replace(shape, ff_bias=bias), experts.d_ff)
    parts.append(Part("experts", Repeat(experts.n, child, active=experts.active)))
    if experts.shared_d_ff:
        parts.append(Part("shared", _feed_forward(shape, experts.shared_d_ff)))
    if experts.shared_gate:
        parts.append(Part("shared_gate", Linear(shape.d_model, 1, bias=False)))
    return Sequence(tuple(parts))


def _norm_part(shape: DecoderShape, name: str) -> Part:
    return Part(name, _norm(shape), "norm")


def _norm(shape: DecoderShape, width: int | None = None) -> Norm:
    return Norm(width or shape.d_model, shape.norm == "layer", plain=shape.norm == "plain")
