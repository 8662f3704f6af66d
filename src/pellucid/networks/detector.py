"""A one-shot detector: every cell of a grid says what is there and where its box lies.

FCOS (Tian et al. 2019, https://arxiv.org/abs/1904.01355) on one grid, with the pyramid's top-down path (Lin et al.
2016, https://arxiv.org/abs/1612.03144) and the boxes of YOLOv3 (Redmon & Farhadi 2018, https://arxiv.org/abs/1804.02767):
centre and size, which unlike four distances reach a box so thin that it holds no cell's centre.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.networks.detection import cell_centres
from pellucid.networks.detector_config import DetectorConfig
from pellucid.networks.initialisation import initialise

PRIOR = 0.01  # every cell's first probability of each class: most cells hold nothing (Lin et al. 2017, section 3.3)


class Detector(nn.Module):
    """Pictures (batch, 3, height, width) from 0 to 1 → logits (batch, n_classes, rows, columns) and boxes.

    The boxes are (batch, 4, rows, columns): centre x, centre y, width, height, all in pixels.

    Args:
        config: The shape.
        seed: Of the initialisation; None leaves the parameters on the meta device, for who loads them from a file.
    """

    def __init__(self, config: DetectorConfig, seed: int | None = 0) -> None:
        super().__init__()
        self.config = config
        device = torch.get_default_device()
        with torch.device("meta"):  # spares torch's own initialisation, and the global generator
            self.stages = nn.ModuleList(Stage(before, after) for before, after in pairwise((3, *config.channels)))
            self.laterals = nn.ModuleList(nn.Conv2d(n, config.d_head, 1) for n in config.channels[config.grid :])
            self.classes = Head(config.d_head, config.n_classes)
            self.boxes = Head(config.d_head, 4)
        if seed is not None and device.type != "meta":
            self.to_empty(device=device)
            self.initialise(seed)

    def forward(self, pictures_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        x, seen = pictures_B3HW, []
        for stage in self.stages:
            x = stage(x)
            seen.append(x)
        top_BDRC = self.laterals[-1](seen.pop())
        for lateral in reversed(self.laterals[:-1]):
            top_BDRC = F.interpolate(top_BDRC, scale_factor=2.0, mode="nearest") + lateral(seen.pop())
        return self.classes(top_BDRC), self._in_pixels(self.boxes(top_BDRC))

    def _in_pixels(self, raw_B4RC: Tensor) -> Tensor:
        """From offsets from the cell's centre, in cells, and logarithms of width and height in cells."""
        stride, (rows, columns) = self.config.stride, raw_B4RC.shape[-2:]
        offset_B2RC, size_B2RC = raw_B4RC.split(2, dim=1)
        centre_2RC = cell_centres(rows, columns, stride).to(raw_B4RC)
        # at most e⁶ cells wide: one wild step must not overflow
        return torch.cat([centre_2RC + stride * offset_B2RC, stride * size_B2RC.clamp(max=6).exp()], dim=1)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw all parameters anew, from a generator of its own; no cell finds anything at first."""
        generator = torch.Generator(next(self.parameters()).device).manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                initialise(module.weight, module.bias, "default", "relu", generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
        for head in (self.classes, self.boxes):
            head.last.weight.normal_(std=0.01, generator=generator)
        self.classes.last.bias.fill_(-math.log(1 / PRIOR - 1))  # type: ignore[union-attr]


class Stage(nn.Module):
    """Half the height and width, then a residual block (He et al. 2015)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.halve = ConvNorm(before, after, stride=2)
        self.first = ConvNorm(after, after)
        self.second = ConvNorm(after, after)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.halve(x))
        return F.relu(x + self.second(F.relu(self.first(x))))


class Head(nn.Module):
    """A hidden layer of each cell and its neighbours, and what they say."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.hidden = ConvNorm(width, width)
        self.last = nn.Conv2d(width, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.hidden(x)))


class ConvNorm(nn.Sequential):
    """A 3x3 convolution and batch norm (Ioffe & Szegedy 2015), whose shift is the bias."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__(nn.Conv2d(before, after, 3, stride, padding=1, bias=False), nn.BatchNorm2d(after))
