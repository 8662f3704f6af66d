"""Pictures made up so that a channel answers to them: feature visualisation (Olah, Mordvintsev and Schubert 2017)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.tracing.pictures.channels import check_channel, evaluating, watching
from pellucid.tracing.pictures.fields import receptive_field
from pellucid.tracing.pictures.scale import Scale
from pellucid.tracing.trace import Trace, trace

# The colours of photographs lie mostly along these axes: light, red against blue, green against magenta. How far they
# spread along each, relative to the first, as measured on five photographs.
AXES = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (-1.0, 2.0, -1.0))
SPREAD = (1.0, 0.45, 0.11)
# Answers are squared, and what is below zero counts less: over all places those of an edge detector add up to nothing.
BELOW_ZERO = 0.5
FIELDS = 4  # waves longer than so many receptive fields are all treated alike


def dream(
    module: nn.Module,
    path: str,
    channel: int,
    steps: int = 256,
    seed: int = 0,
    *,
    shape: Sequence[int] = (3, 224, 224),
    scale: Scale | None = None,
    learning_rate: float = 0.1,
    jitter: float = 12.0,
    rotate: float = 8.0,
    zoom: float = 0.1,
    decay: float = 1.0,
) -> Tensor:
    """A picture (C, H, W), pixels from 0 to 1, that makes a channel as active as it can: activation maximisation.

    Left to itself, that gives noise which only this network sees. What people can read comes of three restraints: the
    picture is a sum of waves whose steps are the smaller the higher their frequency, its colours vary along the axes
    along which those of photographs do, and at each step it is shifted, turned and zoomed a little, so that only what
    survives this is worth drawing. The same arguments give the same picture on one machine.

    Args:
        module: Takes pictures (B, C, H, W); it runs in evaluation mode and is not changed.
        path: Of the part whose results (B, channels, h, w) or (B, channels) are looked at; better before an activation
            than after it, where nothing leads out of zero.
        channel: Whose answers, squared, are driven up at all places.
        steps: Of Adam.
        seed: Of the first picture and of all shifts.
        shape: Of the picture: channels, height, width.
        scale: What the module was trained on; None: pixels from 0 to 1.
        learning_rate: Of Adam: about how far a step moves a pixel, before the sigmoid that keeps it from 0 to 1.
        jitter: Pixels by which it is shifted, at most, in each direction; never more than a receptive field.
        rotate: Degrees by which it is turned, at most.
        zoom: By how much it is made larger or smaller, at most, as a share.
        decay: Waves of frequency f get steps of 1 / f to this power: the frequency penalty. Waves that are far longer
            than the channel's receptive field, of which it sees nothing, get no larger ones than those near it.

    Raises:
        PellucidError: when there is no such part or channel.
    """
    scale = scale or Scale()
    like = next(module.parameters())
    generator = torch.Generator().manual_seed(seed)
    colours, height, width = shape
    waves = (0.01 * torch.randn(colours, height, width // 2 + 1, 2, generator=generator)).to(like.device)
    waves.requires_grad_()
    optimiser = torch.optim.Adam([waves], lr=learning_rate, eps=1e-16)  # gradients may be as small as 1e-8
    with evaluating(module), watching(module, [path]) as seen:
        recorded = trace(module, torch.zeros(1, *shape, dtype=like.dtype, device=like.device))
        field = _field(recorded, path)
        jitter = min(jitter, field)
        amplitudes = _amplitudes(height, width, min(FIELDS * field, max(height, width)), decay).to(like.device)
        for _step in range(steps):
            with torch.enable_grad():
                picture = _drawn(waves, amplitudes, height, width)
                moved = _moved(picture, generator, jitter, rotate, zoom)
                module(scale.scaled(moved[None]).to(like.dtype))
                check_channel(path, seen[path], channel)
                answers = F.leaky_relu(seen[path][0, channel], BELOW_ZERO)
                loss = -(answers * answers.abs()).mean()
            (waves.grad,) = torch.autograd.grad(loss, [waves])
            optimiser.step()
    with torch.no_grad():
        return _drawn(waves, amplitudes, height, width)


def _field(recorded: Trace, path: str) -> float:
    """The longer side of what a place in the middle can see, in pixels."""
    shape = recorded.find(path).place.shape
    box = receptive_field(recorded, path, *(size // 2 for size in shape[2:])) if len(shape) == 4 else None
    return float(max(box[1] - box[0], box[3] - box[2]) if box else max(recorded.find(":in").place.shape[2:]))


def _amplitudes(height: int, width: int, longest: float, decay: float) -> Tensor:
    """Of each wave, (height, width // 2 + 1, 1): 1 / f to the power of `decay`, those over `longest` pixels alike.

    Together they change a pixel by 1 when each of them changes by 1.
    """
    vertical, horizontal = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    frequency = (vertical.square() + horizontal.square()).sqrt()
    amplitudes = frequency.clamp(min=1 / longest) ** -decay
    both = 2.0 * amplitudes.square().sum()  # real and imaginary parts
    return (amplitudes * height * width / (2 * both).sqrt())[..., None]  # half of the waves are not written down


def _drawn(waves: Tensor, amplitudes: Tensor, height: int, width: int) -> Tensor:
    """The picture that waves add up to: (C, H, W) from 0 to 1."""
    spectrum = torch.view_as_complex((waves * amplitudes).contiguous())
    levels = torch.fft.irfft2(spectrum, s=(height, width))
    if len(levels) == 3:
        axes = F.normalize(torch.tensor(AXES, device=waves.device), dim=1) * torch.tensor(
            SPREAD, device=waves.device
        ).unsqueeze(1)
        levels = torch.einsum("ahw,ac->chw", levels, axes)
    return levels.sigmoid()


def _moved(picture: Tensor, generator: torch.Generator, jitter: float, rotate: float, zoom: float) -> Tensor:
    """Shifted, turned and made larger or smaller, by amounts drawn anew; what comes in is mirrored."""
    height, width = picture.shape[1:]
    down, right, turned, larger = (2 * torch.rand(4, generator=generator) - 1).tolist()
    angle, size = math.radians(rotate * turned), 1 + zoom * larger
    cosine, sine = math.cos(angle) / size, math.sin(angle) / size
    shift = (2 * jitter * right / width, 2 * jitter * down / height)
    aspect = height / width
    # where in the picture each place of the result is taken from, both from -1 to 1
    matrix = torch.tensor(
        [[cosine, -sine * aspect, shift[0]], [sine / aspect, cosine, shift[1]]], device=picture.device
    )
    grid = F.affine_grid(matrix[None], [1, *picture.shape], align_corners=False)
    return F.grid_sample(picture[None], grid, padding_mode="reflection", align_corners=False)[0]
