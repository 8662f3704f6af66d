"""The trees of decoder, dense network, convolutional network and detector, from the configs in `networks`."""

from __future__ import annotations

from dataclasses import fields
from math import prod
from typing import TYPE_CHECKING

from pellucid.anatomy.families.decoder import DecoderShape, decoder_tree
from pellucid.anatomy.tree import (
    Activation,
    BatchNorm,
    Convolution,
    Dropout,
    Linear,
    Norm,
    Part,
    Pool,
    Reshape,
    Sequence,
)

if TYPE_CHECKING:  # the modules import torch, which counting does without
    from pellucid.networks.convnet_config import ConvNetConfig, Piece
    from pellucid.networks.decoder_config import DecoderConfig
    from pellucid.networks.dense_config import DenseConfig
    from pellucid.networks.detector_config import DetectorConfig


def decoder(config: DecoderConfig) -> Sequence:
    """The tree of a decoder-only transformer; part names are those of `networks.decoder.Decoder`."""
    order = "post" if config.post_norm else "pre"
    shared = {field.name: getattr(config, field.name) for field in fields(DecoderShape) if hasattr(config, field.name)}
    return decoder_tree(DecoderShape(order=order, **shared))


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
            parts.append(Part("activation", Activation(name, outputs, thresholds=is_step and bias)))
        if config.dropout and is_hidden:
            parts.append(Part("dropout", Dropout(outputs, config.dropout)))
        layers.append(Part(str(i), Sequence(tuple(parts)), "dense" if is_hidden else "head"))
    return Sequence((Part("layers", Sequence(tuple(layers))),))


def convnet(config: ConvNetConfig) -> Sequence:
    """The tree of a convolutional network; part names are those of `networks.convnet.ConvNet`."""
    layers = []
    for i, pieces in enumerate(config.pieces):
        parts = [_piece(name, piece) for name, piece in pieces.items()]
        layers.append(Part(str(i), Sequence(tuple(parts)), "dense" if i < len(config.pieces) - 1 else "head"))
    return Sequence((Part("layers", Sequence(tuple(layers))),))


def _piece(name: str, piece: Piece) -> Part:
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
            return Part(name, Reshape(piece.outputs))
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
