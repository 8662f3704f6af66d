"""What the channels of a network hold: weights as pictures, maps, and the patches that they answer to most."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.tracing.pictures.fields import Box, receptive_field
from pellucid.tracing.trace import Trace, trace


@dataclass(frozen=True)
class Patch:
    """One place of a picture that a channel answers to."""

    picture: int  # which of the pictures
    channel: int
    row: int  # in the channel's map
    column: int
    value: float  # of the channel there
    box: Box  # the pixels that it can have seen: its receptive field, as far as it lies on the picture
    pixels: Tensor  # (C, height, width): those of the box, as the network was given them
    address: str  # of the value, for `why` in a trace of that picture


def filters(module: nn.Module, path: str) -> Tensor:
    """The weights of a convolution as pictures: (channels, given channels / groups, height, width).

    Those of a first layer can be looked at as they are: a channel answers most to patches that look like its filter.

    Raises:
        PellucidError: when there is no convolution at that path.
    """
    found = submodule(module, path)
    weight = getattr(found, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 4:
        near = [name for name, part in module.named_modules() if getattr(part, "kernel_size", None) is not None]
        raise PellucidError(
            _("{path} is no convolution.").format(path=path),
            type(found).__name__,
            _("There are {names}.").format(names=", ".join(near[:5]) or "-"),
        )
    return weight.detach().clone()


def feature_maps(trace: Trace, path: str) -> Tensor:
    """What each channel of a module answered, and where: (channels, h, w) of the first picture.

    One number of it has the address `path[0,channel,row,column]`.

    Raises:
        PellucidError: when there is nothing at that path, or no maps.
    """
    maps = trace.value(path)
    if maps.dim() != 4:
        raise no_maps(path, maps.shape)
    return maps[0]


def top_pictures(module: nn.Module, pictures: Sequence[Tensor], path: str, channel: int, k: int = 9) -> list[Patch]:
    """The patches of the pictures that a channel answers to most, strongest first.

    Args:
        module: Takes pictures (B, C, H, W); it runs in evaluation mode.
        pictures: Each (C, H, W), as the module wants them; they may differ in size if it allows that.
        path: Of the part of the module.
        channel: Of its results (B, channels, h, w) or (B, channels).
        k: At most how many. Places of one picture that see mostly the same count once.

    Raises:
        PellucidError: when there is no such part or channel, or no picture.
    """
    return strongest_patches(module, pictures, {path: [channel]}, k)[path, channel]


def strongest_patches(
    module: nn.Module, pictures: Sequence[Tensor], wanted: Mapping[str, Collection[int]], k: int
) -> dict[tuple[str, int], list[Patch]]:
    """As `top_pictures`, for many channels at once: by path and channel."""
    if not len(pictures):
        raise PellucidError(_("There is no picture here."), "pictures", _("Give at least one."))
    found: dict[tuple[str, int], list[tuple[float, int, int, int]]] = {
        (path, channel): [] for path, channels in wanted.items() for channel in channels
    }
    traces: dict[torch.Size, Trace] = {}
    with evaluating(module), watching(module, wanted) as seen:
        for n, picture in enumerate(pictures):
            if picture.shape not in traces:
                traces[picture.shape] = trace(module, picture[None])
            with torch.no_grad():
                module(picture[None])
            for path, channels in wanted.items():
                apart = _apart(traces[picture.shape], path)
                for channel in channels:
                    check_channel(path, seen[path], channel)
                    places = _strongest_places(seen[path][0, channel], k, apart)
                    found[path, channel] += [(value, n, row, column) for value, row, column in places]
    result = {}
    for (path, channel), candidates in found.items():
        best = sorted(candidates, key=lambda place: (-place[0], *place[1:]))[:k]
        result[path, channel] = [
            _patch(traces[pictures[n].shape], pictures[n], path, channel, n, row, column, value)
            for value, n, row, column in best
        ]
    return result


def _strongest_places(map_hw: Tensor, k: int, apart: tuple[int, int]) -> Iterator[tuple[float, int, int]]:
    """The largest numbers of a map, none nearer to a larger one than `apart` in both directions."""
    left = map_hw.reshape(1, 1) if map_hw.dim() == 0 else map_hw.clone()
    for _n in range(k):
        row, column = divmod(int(left.argmax()), left.shape[1])
        value = left[row, column].item()
        if value == float("-inf"):
            return
        yield value, row, column
        rows, columns = (slice(max(0, at - by + 1), at + by) for at, by in zip((row, column), apart, strict=True))
        left[rows, columns] = float("-inf")


def _apart(trace: Trace, path: str) -> tuple[int, int]:
    """Half a receptive field, in places of the map."""
    shape, picture = trace.find(path).place.shape, trace.find(":in").place.shape
    if len(shape) != 4:
        return 1, 1
    box = receptive_field(trace, path, shape[2] // 2, shape[3] // 2)
    return (
        max(1, round(box.height / 2 * shape[2] / picture[2])),
        max(1, round(box.width / 2 * shape[3] / picture[3])),
    )


def _patch(
    trace: Trace, picture: Tensor, path: str, channel: int, n: int, row: int, column: int, value: float
) -> Patch:
    box = receptive_field(trace, path, row, column)
    maps = len(trace.find(path).place.shape) == 4
    address = f"{path}[0,{channel},{row},{column}]" if maps else f"{path}[0,{channel}]"
    pixels = picture[:, box.top : box.bottom, box.left : box.right].clone()
    return Patch(n, channel, row, column, value, box, pixels, address)


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """In evaluation mode; afterwards each part is as it was."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextlib.contextmanager
def watching(module: nn.Module, paths: Collection[str]) -> Iterator[dict[str, Tensor]]:
    """What the parts at these paths gave in their last call.

    Raises:
        PellucidError: when there is no such part.
    """
    seen: dict[str, Tensor] = {}

    def watch(path: str) -> torch.utils.hooks.RemovableHandle:
        def keep(_part: nn.Module, _given: object, out: Tensor) -> None:
            seen[path] = out

        return submodule(module, path).register_forward_hook(keep)

    handles = []
    try:
        for path in paths:
            handles.append(watch(path))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def submodule(module: nn.Module, path: str) -> nn.Module:
    """The part of a module at a path.

    Raises:
        PellucidError: when there is none; it names what is near.
    """
    parts = dict(module.named_modules())
    if path not in parts:
        near = difflib.get_close_matches(path, parts, 3, 0.4) or [name for name in parts if name][:3]
        raise PellucidError(
            _("There is no part {path}.").format(path=repr(path)),
            type(module).__name__,
            _("There are {names}.").format(names=", ".join(near)),
        )
    return parts[path]


def check_channel(path: str, results: Tensor, channel: int) -> None:
    """Refuse a channel that is not there.

    Raises:
        PellucidError: which says how many there are.
    """
    if results.dim() < 2 or not 0 <= channel < results.shape[1]:
        raise PellucidError(
            _("There is no channel {channel}.").format(channel=channel),
            path,
            _("Its results have the shape {shape}; channels are counted from 0.").format(shape=list(results.shape)),
        )


def no_maps(path: str, shape: Sequence[int]) -> PellucidError:
    """What to say of a part whose results are no maps."""
    return PellucidError(
        _("{path} gives no maps.").format(path=path),
        str(list(shape)),
        _("Name a part whose results have the shape [pictures, channels, height, width]."),
    )
