"""From a network's config to its tree of shapes. The one place that says what a family is made of, in numbers."""

from __future__ import annotations

from itertools import groupby
from math import prod
from typing import TYPE_CHECKING

from pellucid.anatomy.tree import (
    Activation,
    Attention,
    BatchNorm,
    Convolution,
    Dropout,
    Embedding,
    Linear,
    Norm,
    Part,
    Pool,
    Repeat,
    Sequence,
)

if TYPE_CHECKING:  # the modules import torch, which counting does without
    from pellucid.networks.convnet_config import ConvNetConfig, Piece
    from pellucid.networks.decoder import DecoderConfig
    from pellucid.networks.dense import DenseConfig
    from pellucid.networks.detector import DetectorConfig


def decoder(config: DecoderConfig) -> Sequence:
    """The tree of a decoder-only transformer; part names are those of `networks.decoder.Decoder`."""
    parts = [Part("embedding", Embedding(config.vocab_size, config.d_model), "embedding")]
    if config.positions == "learned":
        parts.append(Part("positions", Embedding(config.context, config.d_model), "embedding"))
    parts.append(Part("dropout", Dropout(config.d_model, config.dropout), "embedding"))
    parts += _blocks(config)
    if not config.post_norm:
        parts.append(Part("norm", _norm(config), "norm"))
    tied_to = "embedding" if config.tied else None
    parts.append(Part("head", Linear(config.d_model, config.vocab_size, bias=False, tied_to=tied_to), "head"))
    return Sequence(tuple(parts))


def _blocks(config: DecoderConfig) -> list[Part]:
    """One `Repeat`, or one for each run of layers that see equally far."""
    windows = config.sliding_windows or (None,) * config.n_layers
    runs = [(window, len(list(layers))) for window, layers in groupby(windows)]
    if len(runs) == 1:
        return [Part("blocks", Repeat(config.n_layers, _block(config, runs[0][0])))]
    starts = [sum(n for _, n in runs[:i]) for i in range(len(runs))]
    return [
        Part(f"blocks[{start}:{start + n}]", Repeat(n, _block(config, window)))
        for start, (window, n) in zip(starts, runs, strict=True)
    ]


def _block(config: DecoderConfig, window: int | None) -> Sequence:
    norms = (Part("attention_norm", _norm(config), "norm"), Part("feed_forward_norm", _norm(config), "norm"))
    work = (
        Part("attention", _attention(config, window), "attention"),
        Part("feed_forward", _feed_forward(config), "feed-forward"),
    )
    first, second = ((work[i], norms[i]) if config.post_norm else (norms[i], work[i]) for i in (0, 1))
    return Sequence((*first, *second))


def _attention(config: DecoderConfig, window: int | None) -> Sequence:
    heads, kv_heads, head_dim = config.n_heads, config.n_kv_heads, config.head_dim
    parts = [Part("qkv", Linear(config.d_model, (heads + 2 * kv_heads) * head_dim, config.qkv_bias))]
    if config.qk_norm:
        parts.append(Part("query_norm", Norm(head_dim, shift=False, heads=heads), "norm"))
        parts.append(Part("key_norm", Norm(head_dim, shift=False, heads=kv_heads), "norm"))
    product = Attention(heads, kv_heads, head_dim, window, rotated=config.positions == "rotary", normed=config.qk_norm)
    parts.append(Part("product", product))
    parts.append(Part("output", Linear(heads * head_dim, config.d_model, config.output_bias)))
    parts.append(Part("dropout", Dropout(config.d_model, config.dropout)))
    return Sequence(tuple(parts))


def _feed_forward(config: DecoderConfig) -> Sequence:
    name, width = ("gate_up", 2 * config.d_ff) if config.gated else ("up", config.d_ff)
    up = Part(name, Linear(config.d_model, width, config.ff_bias))
    activation = Part("activation", Activation(config.activation, config.d_ff, config.gated))
    down = Part("down", Linear(config.d_ff, config.d_model, config.ff_bias))
    return Sequence((up, activation, down, Part("dropout", Dropout(config.d_model, config.dropout))))


def _norm(config: DecoderConfig) -> Norm:
    return Norm(config.d_model, shift=config.norm == "layer")


def dense(config: DenseConfig) -> Sequence:
    """The tree of a dense network; part names are those of `networks.dense.Dense`."""
    layers = []
    for i, (name, bias) in enumerate(zip(config.activations, config.biases, strict=True)):
        inputs, outputs = config.widths[i : i + 2]
        is_hidden = i < len(config.hidden)
        is_step = name == "step"
        parts = [Part("linear", Linear(inputs, outputs, bias and not is_step))]
        if config.norm is not None and is_hidden:
            norm = BatchNorm(outputs) if config.norm == "batch" else Norm(outputs, shift=config.norm == "layer")
            parts.append(Part("norm", norm, "norm"))
        if name != "linear":
            parts.append(Part("activation", Activation(name, outputs, parameters=outputs if is_step and bias else 0)))
        if config.dropout and is_hidden:
            parts.append(Part("dropout", Dropout(outputs, config.dropout)))
        layers.append(Part(str(i), Sequence(tuple(parts)), "dense" if is_hidden else "head"))
    return Sequence((Part("layers", Sequence(tuple(layers))),))


def convnet(config: ConvNetConfig) -> Sequence:
    """The tree of a convolutional network; part names are those of `networks.convnet.ConvNet`."""
    layers = []
    for i, pieces in enumerate(config.pieces):
        parts = [part for name, piece in pieces.items() if (part := _piece(name, piece)) is not None]
        layers.append(Part(str(i), Sequence(tuple(parts)), "dense" if i < len(config.pieces) - 1 else "head"))
    return Sequence((Part("layers", Sequence(tuple(layers))),))


def _piece(name: str, piece: Piece) -> Part | None:
    """One piece of a layer; None for one that only reshapes."""
    inputs, outputs = piece.inputs[0], piece.outputs[0]
    match piece.kind:
        case "conv":
            return Part(name, _convolution(inputs, piece, piece.size, piece.bias), "convolution")
        case "residual":
            return Part(name, _residual(piece), "convolution")
        case "batch":
            return Part(name, BatchNorm(inputs), "norm")
        case "max" | "average":
            height, width = piece.outputs[1:] or (1, 1)
            return Part(name, Pool(piece.kind, outputs, height, width))
        case "flatten":
            return None
        case "dense":
            return Part(name, Linear(inputs, outputs, piece.bias))
        case "dropout":
            return Part(name, Dropout(prod(piece.outputs), piece.p))
    return Part(name, Activation(piece.kind, prod(piece.outputs)))


def _residual(piece: Piece) -> Sequence:
    outputs, entries = piece.outputs[0], prod(piece.outputs)
    parts = [
        Part("first", _convolution(piece.inputs[0], piece, 3, bias=False)),
        Part("first_norm", BatchNorm(outputs), "norm"),
        Part("first_activation", Activation("relu", entries)),
        Part("second", _convolution(outputs, piece, 3, bias=False)),
        Part("second_norm", BatchNorm(outputs), "norm"),
    ]
    if piece.inputs[0] != outputs or piece.stride != 1:
        parts.append(Part("shortcut", _convolution(piece.inputs[0], piece, 1, bias=False)))
        parts.append(Part("shortcut_norm", BatchNorm(outputs), "norm"))
    return Sequence((*parts, Part("activation", Activation("relu", entries))))


def _convolution(inputs: int, piece: Piece, size: int, bias: bool) -> Convolution:
    outputs, height, width = piece.outputs
    return Convolution(inputs, outputs, size, height, width, bias)


def detector(config: DetectorConfig, height: int, width: int) -> Sequence:
    """The tree of a detector for pictures of this size; part names are those of `networks.detector.Detector`."""
    stages, laterals = [], []
    inputs = 3
    for i, channels in enumerate(config.channels):
        size = height // 2 ** (i + 1), width // 2 ** (i + 1)
        parts = [
            _conv_norm("halve", inputs, channels, *size),
            Part("activation", Activation("relu", channels * prod(size))),
        ]
        for name in ("first", "second"):
            parts.append(_conv_norm(name, channels, channels, *size))
            parts.append(Part(f"{name}_activation", Activation("relu", channels * prod(size))))
        stages.append(Part(str(i), Sequence(tuple(parts))))
        if i >= config.grid:
            laterals.append(Part(str(i - config.grid), Convolution(channels, config.d_head, 1, *size)))
        inputs = channels
    cells = height // config.stride, width // config.stride
    heads = []
    for name, outputs in (("classes", config.n_classes), ("boxes", 4)):
        hidden = _conv_norm("hidden", config.d_head, config.d_head, *cells)
        activation = Part("activation", Activation("relu", config.d_head * prod(cells)))
        last = Part("last", Convolution(config.d_head, outputs, 3, *cells))
        heads.append(Part(name, Sequence((hidden, activation, last)), "head"))
    top_down = Part("laterals", Sequence(tuple(reversed(laterals))), "convolution")
    return Sequence((Part("stages", Sequence(tuple(stages)), "convolution"), top_down, *heads))


def _conv_norm(name: str, inputs: int, outputs: int, height: int, width: int) -> Part:
    convolution = Part("0", Convolution(inputs, outputs, 3, height, width, bias=False))
    return Part(name, Sequence((convolution, Part("1", BatchNorm(outputs), "norm"))))
