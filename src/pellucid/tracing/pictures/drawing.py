"""Numbers as pictures: pixels, maps, what spoke for and against, filters, and sheets of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

FOR, AGAINST = (0.12, 0.44, 0.92), (0.85, 0.45, 0.05)  # the colours of the pages
RAMP = ((0.02, 0.02, 0.08), (0.35, 0.07, 0.43), (0.87, 0.32, 0.23), (0.99, 0.65, 0.04), (0.99, 1.0, 0.64))
PAPER = 0.985


def photograph(pixels: Tensor) -> Image.Image:
    """Pixels from 0 to 1, (3, H, W) or (1, H, W)."""
    levels = (pixels.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    if len(levels) == 1:
        return Image.fromarray(levels[0].numpy(), "L").convert("RGB")
    return Image.fromarray(levels[:3].permute(1, 2, 0).contiguous().numpy(), "RGB")


def heat(map_hw: Tensor) -> Image.Image:
    """A map (h, w), from its smallest number (dark) to its largest (bright)."""
    low, high = map_hw.min(), map_hw.max()
    return photograph(_ramp((map_hw - low) / (high - low).clamp(min=1e-30)))


def sides(map_hw: Tensor, pixels: Tensor | None = None, contrast: float = 1.0) -> Image.Image:
    """What spoke for (blue) and against (orange), on paper; the strongest has the full colour.

    Args:
        map_hw: (h, w).
        pixels: The picture (C, H, W) to draw it on, faintly; None: on plain paper, in its own size.
        contrast: Below 1, what is weak is seen better: shades go by amounts to this power.
    """
    size = (pixels.shape[-2], pixels.shape[-1]) if pixels is not None else None
    strength = _share(map_hw, size) ** contrast
    paper: Tensor | float = PAPER
    if pixels is not None:
        strength, paper = 0.85 * strength, PAPER * (0.25 + 0.75 * pixels.mean(0, keepdim=True))
    colour = torch.where(
        (_resized(map_hw, size) > 0)[None], torch.tensor(FOR)[:, None, None], torch.tensor(AGAINST)[:, None, None]
    )
    return photograph(paper * (1 - strength) + colour * strength)


def over(pixels: Tensor, map_hw: Tensor) -> Image.Image:
    """A picture (C, H, W), brought forward where a map (h, w) without negative numbers is large."""
    light = _share(map_hw.clamp(min=0), (pixels.shape[-2], pixels.shape[-1]))
    dark = 0.04 + 0.22 * pixels.mean(0, keepdim=True)
    return photograph(pixels * light + dark * (1 - light))


def filter_picture(weights: Tensor) -> Image.Image:
    """A filter (given channels, height, width): in colour where it is given three, else the mean of its channels."""
    shown = weights if len(weights) == 3 else weights.mean(0, keepdim=True)
    return photograph(0.5 + 0.5 * shown / shown.abs().max().clamp(min=1e-30))


def sheet(pictures: Sequence[Image.Image], columns: int, side: int = 112, gap: int = 6) -> Image.Image:
    """Pictures in rows of `columns`, each as large as fits into `side` × `side` pixels."""
    rows = -(-len(pictures) // columns)
    step = side + gap
    paper = Image.new("RGB", (columns * step + gap, rows * step + gap), (252, 251, 248))
    for n, picture in enumerate(pictures):
        fitted = fit(picture, side)
        left, top = gap + n % columns * step, gap + n // columns * step
        paper.paste(fitted, (left + (side - fitted.width) // 2, top + (side - fitted.height) // 2))
    return paper


def fit(picture: Image.Image, side: int) -> Image.Image:
    """As large as fits into a square; small ones keep their pixels visible."""
    factor = side / max(picture.size)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.resize(size, Image.Resampling.NEAREST if factor > 1.5 else Image.Resampling.LANCZOS)


def data_uri(picture: Image.Image, lossy: bool = False) -> str:
    """For a page that is to hold the picture itself."""
    file = io.BytesIO()
    kind = "jpeg" if lossy else "png"
    picture.save(file, kind, **({"quality": 88} if lossy else {"optimize": True}))
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _ramp(shares_hw: Tensor) -> Tensor:
    """(3, h, w) between the colours of `RAMP`."""
    colours = torch.tensor(RAMP)
    at = shares_hw.detach().float().cpu().clamp(0, 1) * (len(colours) - 1)
    below = at.floor().clamp(max=len(colours) - 2).long()
    part = (at - below)[..., None]
    return (colours[below] * (1 - part) + colours[below + 1] * part).permute(2, 0, 1)


def _share(map_hw: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Sizes as shares of the largest."""
    amounts = _resized(map_hw, size).abs()
    return amounts / amounts.max().clamp(min=1e-30)


def _resized(map_hw: Tensor, size: tuple[int, int] | None) -> Tensor:
    shown = map_hw.detach().float().cpu()
    if size is None:
        return shown
    return F.interpolate(shown[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
