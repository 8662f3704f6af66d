"""Pixels as people see them, and as a network wants them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pellucid.data.pictures import read_unlabelled


@dataclass(frozen=True)
class Scale:
    """What a network was trained on: (pixel - mean) / std, for pixels from 0 to 1.

    Args:
        mean: One number for each colour channel, or one for all.
        std: Likewise.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def scaled(self, pixels: Tensor) -> Tensor:
        """What the network is given for pixels (..., C, H, W) from 0 to 1."""
        return (pixels - _column(self.mean, pixels)) / _column(self.std, pixels)

    def pixels(self, x: Tensor) -> Tensor:
        """Pixels from 0 to 1 of what a network is given (..., C, H, W)."""
        return (x * _column(self.std, x) + _column(self.mean, x)).clamp(0, 1)


def _column(numbers: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(numbers, dtype=like.dtype, device=like.device)[:, None, None]


def read_pictures(source: str | Path, size: tuple[int, int], scale: Scale, colours: int = 3) -> dict[str, Tensor]:
    """One picture, or all in and under a folder, by name; each (colours, height, width) as a network wants it.

    Args:
        source: A file or a folder.
        size: Height and width in pixels: they are scaled and cropped to it, about the middle.
        scale: Of the network.
        colours: 3, or 1 for grey.

    Raises:
        PellucidError: when there is none, or one cannot be read.
    """
    names, pixels = read_unlabelled(source, size, colours)
    return {name: scale.scaled(torch.tensor(one) / 255) for name, one in zip(names, pixels, strict=True)}
