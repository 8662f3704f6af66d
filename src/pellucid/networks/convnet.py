"""Convolutional networks from a list of layers: LeNet-5, small residual networks and their like."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.networks.activations import activation
from pellucid.networks.convnet_config import PRESETS, ConvNetConfig, Piece, convnet_config
from pellucid.networks.dropout import Dropout
from pellucid.networks.initialisation import initialise
from pellucid.networks.names import check_initialisation

__all__ = ["PRESETS", "ConvNet", "ConvNetConfig", "convnet_config"]


class ConvNet(nn.Module):
    """Pictures in, a logit for each class out.

    Args:
        config: Its layers.
        seed: Of the initialisation; None leaves the parameters on the meta device, for who loads them from a file.

    Raises:
        PellucidError: when there is no such initialisation.
    """

    def __init__(self, config: ConvNetConfig, seed: int | None = 0) -> None:
        super().__init__()
        check_initialisation(config.initialisation)
        self.config = config
        device = torch.get_default_device()
        with torch.device("meta"):  # spares torch's own initialisation, and the global generator
            self.layers = nn.ModuleList(
                nn.Sequential(OrderedDict((name, _module(piece)) for name, piece in layer.items()))
                for layer in config.pieces
            )
        if seed is not None and device.type != "meta":
            self.to_empty(device=device)
            self.initialise(seed)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, channels, height, width) to (B, classes)."""
        for layer in self.layers:
            x_BCHW = layer(x_BCHW)
        return x_BCHW

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw all parameters anew, from a generator of its own; norms begin at one, their shifts at zero."""
        generator = torch.Generator(next(self.parameters()).device).manual_seed(seed)
        for layer, pieces in zip(self.layers, self.config.pieces, strict=True):
            for name, piece in pieces.items():
                for module in layer.get_submodule(name).modules():
                    if isinstance(module, nn.Conv2d | nn.Linear):
                        initialise(module.weight, module.bias, self.config.initialisation, piece.followed_by, generator)
                    elif isinstance(module, nn.BatchNorm2d):
                        module.reset_parameters()


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut past them: relu(f(x) + x) (He et al. 2015, figure 2).

    Where the shape changes, the shortcut is a convolution of 1 x 1 (their option B).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.shortcut_norm = None if same else nn.BatchNorm2d(outputs)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = F.relu(self.first_norm(self.first(x_BCHW)))
        y_BCHW = self.second_norm(self.second(y_BCHW))
        if self.shortcut is not None and self.shortcut_norm is not None:
            x_BCHW = self.shortcut_norm(self.shortcut(x_BCHW))
        return F.relu(y_BCHW + x_BCHW)


class GlobalAverage(nn.Module):
    """One number a channel, its mean over the picture (Lin et al. 2013)."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW.mean((2, 3))


def _module(piece: Piece) -> nn.Module:
    inputs, outputs = piece.inputs[0], piece.outputs[0]
    match piece.kind:
        case "conv":
            return nn.Conv2d(inputs, outputs, piece.size, piece.stride, piece.padding, bias=piece.bias)
        case "residual":
            return ResidualBlock(inputs, outputs, piece.stride)
        case "batch":
            return nn.BatchNorm2d(inputs)
        case "max":
            return nn.MaxPool2d(piece.size, piece.stride, piece.padding)
        case "average":
            return nn.AvgPool2d(piece.size, piece.stride, piece.padding) if piece.size else GlobalAverage()
        case "flatten":
            return nn.Flatten()
        case "dense":
            return nn.Linear(inputs, outputs, piece.bias)
        case "dropout":
            return Dropout(piece.p)
    return activation(piece.kind)
