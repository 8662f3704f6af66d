"""Everything that there is to see in a network that looks at one picture, gathered."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.tracing.answers import Question
from pellucid.tracing.display import percent, signed
from pellucid.tracing.pictures.channels import Patch, check_channel, evaluating, no_maps, strongest_patches
from pellucid.tracing.pictures.dreams import dream
from pellucid.tracing.pictures.fields import Box, receptive_field
from pellucid.tracing.pictures.regions import Cut, Region, class_question, cut, has_maps, recorded_once, region
from pellucid.tracing.pictures.scale import Scale
from pellucid.tracing.tape import Scope
from pellucid.tracing.trace import Trace

DREAM_STEPS = 128
DREAM_FIELDS, DREAM_SIDE = 6, 64  # a dream is so many receptive fields wide, and at least so many pixels


@dataclass(frozen=True)
class Guess:
    """One class and what the network makes of it."""

    label: str
    probability: float  # softmax of the logits
    logit: float
    address: str  # of the logit, for `why`


@dataclass(frozen=True)
class Channel:
    """One channel of a part, and what it answers to."""

    channel: int
    map: Tensor  # (h, w) its answers to the picture
    contribution: float  # what it brought to the class's logit
    address: str  # of its largest answer, for `why`
    field: Box  # the pixels of the picture behind that
    patches: tuple[Patch, ...]  # of the other pictures, those it answers to most; none without pictures
    dream: Tensor | None  # (C, H, W) pixels from 0 to 1: a picture made up for it


@dataclass(frozen=True)
class Level:
    """A few channels of one part of the network."""

    path: str
    shape: tuple[int, int, int]  # channels, h, w
    field: Box  # the pixels that the place in the middle can see
    channels: tuple[Channel, ...]


@dataclass(frozen=True)
class Look:
    """What a network sees in a picture: prints as a summary, and saves as a page of HTML or a sheet of pictures."""

    picture: Tensor  # (C, H, W) pixels from 0 to 1
    name: str
    model: str
    guesses: tuple[Guess, ...]  # most probable first
    region: Region
    target: str  # the class that was asked about
    rather_than: str | None
    filters: Tensor | None  # (channels, C, h, w) of the first convolution
    levels: tuple[Level, ...]  # early to late
    names: tuple[str, ...]  # of the pictures that the patches are from
    scale: Scale

    def __str__(self) -> str:
        guesses = ", ".join(f"{guess.label} {percent(guess.probability)}" for guess in self.guesses)
        lines = [
            f"{self.name}: {guesses}",
            adds_up(self, self.region.pixels),
            adds_up(self, self.region.maps),
        ]
        for level in self.levels:
            channels = ", ".join(f"{one.channel} ({signed(one.contribution)})" for one in level.channels)
            said = _("{path}: sees {height} × {width} pixels; channels and what they brought: {channels}")
            box = level.field
            lines.append(said.format(path=level.path, height=box.height, width=box.width, channels=channels))
        return "\n".join(lines)

    def save(self, path: str | Path) -> None:
        """Write one page that needs nothing else (.html), or a sheet of pictures (.png).

        Raises:
            PellucidError: when the name ends otherwise, something else is there, or it cannot be written.
        """
        from pellucid.tracing.pictures.page import save

        save(self, Path(path))


def adds_up(look: Look, part: Cut) -> str:
    """The sum of a cut, as a line."""
    asked = look.target
    if look.rather_than is not None:
        asked = _("{target} rather than {other}").format(target=look.target, other=look.rather_than)
    return _("{asked}: {value} = {amount} (from {where}) {constants} (constants) {rest} (rounding)").format(
        asked=asked,
        value=signed(part.value),
        amount=signed(part.amounts.sum().item()),
        where=_("the pixels") if part.path == ":in" else part.path,
        constants=signed(part.constants),
        rest=f"{part.past:+.1g}",
    )


def look(
    module: nn.Module,
    picture: Tensor,
    labels: Sequence[str] | None = None,
    *,
    scale: Scale | None = None,
    target: int | None = None,
    rather_than: int | None = None,
    layers: Sequence[str] | None = None,
    channels: int | Sequence[int] = 2,
    pictures: Mapping[str, Tensor] | Sequence[Tensor] = (),
    patches: int = 4,
    dreams: bool = True,
    steps: int = DREAM_STEPS,
    seed: int = 0,
    name: str = "",
    model: str = "",
    progress: Callable[[str], None] | None = None,
) -> Look:
    """Look at everything that a convolutional network does with one picture.

    Args:
        module: Gives logits (B, classes) for pictures (B, C, H, W); it runs in evaluation mode and is not changed.
        picture: (C, H, W), as the module wants it.
        labels: The names of the classes; None: their numbers.
        scale: What the module was trained on, for drawing; None: pixels from 0 to 1.
        target: The class to ask about; None: the most probable.
        rather_than: Ask about `target` minus this class.
        layers: Paths of the parts to look at; None: an early one, two between and a late one.
        channels: How many of each part, those that spoke most clearly for the target; or which.
        pictures: Others, by name if there are any, in which to look for patches.
        patches: How many for each channel.
        dreams: Make up a picture for each channel, in `steps` steps: most of the time goes into these.
        steps: Of each dream.
        seed: Of the dreams.
        name: Of the picture.
        model: Of the network.
        progress: Told what is being done, and how far.

    Raises:
        PellucidError: when there is no such class, part or channel, or the module gives no maps or no logits.
    """
    scale = scale or Scale()
    tell = progress or (lambda _said: None)
    recorded = recorded_once(module, picture)
    found = region(module, recorded, target, rather_than)
    logits = recorded.value("")[0].double()
    names = [str(label) for label in labels] if labels else [str(n) for n in range(len(logits))]
    paths = list(layers) if layers else telling_layers(recorded)
    question = class_question(recorded, found.target, rather_than)
    tell(_("following the answer back"))
    chosen = {path: _chosen(recorded, question, path, channels) for path in paths}
    others = list(pictures.values()) if isinstance(pictures, Mapping) else list(pictures)
    best: dict[tuple[str, int], list[Patch]] = {}
    if others:
        tell(_("looking for patches in {n:,} pictures").format(n=len(others)))
        best = strongest_patches(module, others, {path: list(amounts) for path, amounts in chosen.items()}, patches)
    count, done = sum(map(len, chosen.values())), 0
    shapes = {path: _dream_shape(module, recorded, path) for path in paths} if dreams else {}
    levels = []
    for path, amounts in chosen.items():
        seen = []
        for channel, amount in amounts.items():
            done += 1
            dreamt = None
            if dreams:
                tell(_("dreaming: channel {n} of {all}").format(n=done, all=count))
                dreamt = dream(module, path, channel, steps, seed, shape=shapes[path], scale=scale)
            seen.append(_channel(recorded, path, channel, amount, tuple(best.get((path, channel), ())), dreamt))
        levels.append(_level(recorded, path, tuple(seen)))
    first = next((scope.path for scope in _convolutions(recorded)), None)
    weights = module.get_submodule(first).weight if first is not None else None
    return Look(
        picture=scale.pixels(picture),
        name=name,
        model=model or type(module).__name__,
        guesses=guesses(logits, names),
        region=found,
        target=names[found.target],
        rather_than=names[rather_than] if rather_than is not None else None,
        filters=weights.detach().clone() if isinstance(weights, Tensor) else None,
        levels=tuple(levels),
        names=tuple(pictures) if isinstance(pictures, Mapping) else tuple(map(str, range(len(others)))),
        scale=scale,
    )


def _dream_shape(module: nn.Module, recorded: Trace, path: str) -> tuple[int, int, int]:
    """The picture's, or for a channel that sees little of it a smaller one, if the module takes such."""
    colours, height, width = recorded.find(":in").place.shape[1:]
    shape = recorded.find(path).place.shape
    box = receptive_field(recorded, path, shape[2] // 2, shape[3] // 2)
    side = max(DREAM_SIDE, DREAM_FIELDS * max(box.height, box.width))
    if side >= min(height, width):
        return colours, height, width
    try:
        with evaluating(module), torch.no_grad():
            module(torch.zeros(1, colours, side, side, dtype=recorded.value(":in").dtype))
    except RuntimeError:  # its last layers want one size
        return colours, height, width
    return colours, side, side


def guesses(logits: Tensor, names: Sequence[str], top: int = 5) -> tuple[Guess, ...]:
    """The most probable classes."""
    probabilities = logits.softmax(0)
    return tuple(
        Guess(names[n], probabilities[n].item(), logits[n].item(), f":out[0,{n}]")
        for n in probabilities.topk(min(top, len(logits))).indices.tolist()
    )


def telling_layers(recorded: Trace, count: int = 4) -> list[str]:
    """Paths of parts from early to late: convolutions, or the norms that follow them at once.

    They are the first, the last, and those between whose receptive fields grow by about even factors: what a channel
    can stand for, an edge, a texture, a part or an object, goes by how much it sees.

    Raises:
        PellucidError: when there is no convolution.
    """
    fields: dict[str, float] = {}
    for scope in _convolutions(recorded):
        if has_maps(scope):
            path, shape = _normed(recorded, scope), scope.outputs[0].shape
            box = receptive_field(recorded, path, shape[2] // 2, shape[3] // 2)
            fields.setdefault(path, math.log(max(box.height, box.width)))
    if not fields:
        raise PellucidError(
            _("This network makes no maps."), "", _("Regions and channels can be looked at in convolutional networks.")
        )
    first, last = next(iter(fields)), next(reversed(fields))
    wanted = [fields[first] + (fields[last] - fields[first]) * n / (count - 1) for n in range(1, count - 1)]
    between = [min(fields, key=lambda path: abs(fields[path] - field)) for field in wanted]
    return list(dict.fromkeys([first, *between, last]))


def _convolutions(recorded: Trace) -> list[Scope]:
    """The calls of modules that ran a convolution themselves, in order."""
    ran = {id(call.scope) for call in recorded.tape.calls if call.name == "convolution"}
    return [scope for scope in recorded.tape.scopes if id(scope) in ran and scope.path]


def _normed(recorded: Trace, scope: Scope) -> str:
    """The norm that reads a convolution's results at once: its sign is that of what goes on; else the convolution."""
    place = scope.outputs[0]
    for later in recorded.tape.scopes:
        if later.start == scope.end and "Norm" in later.kind and later.inputs and later.inputs[0] == place:
            return later.path
    return scope.path


def _chosen(recorded: Trace, question: Question, path: str, channels: int | Sequence[int]) -> dict[int, float]:
    """Channels, and what each brought to the question.

    Those are chosen that spoke most for it where they stand out from their own mean: some channels bring much by being
    alike everywhere in any picture.
    """
    found = cut(recorded, question, path)
    if isinstance(channels, int):
        maps = recorded.value(path)[0].double()
        weights = torch.where(maps == 0, 0.0, found.amounts / maps)
        standing_out = (weights * (maps - maps.mean((1, 2), keepdim=True))).clamp(min=0).sum((1, 2))
        wanted = standing_out.topk(min(channels, len(maps))).indices.tolist()
    else:
        wanted = list(channels)
        for channel in wanted:
            check_channel(path, recorded.value(path), channel)
    return {channel: found.channels[channel].item() for channel in wanted}


def _channel(
    recorded: Trace, path: str, channel: int, amount: float, patches: tuple[Patch, ...], dreamt: Tensor | None
) -> Channel:
    map_hw = recorded.value(path)[0, channel]
    row, column = divmod(int(map_hw.argmax()), map_hw.shape[1])
    field = receptive_field(recorded, path, row, column)
    return Channel(channel, map_hw, amount, f"{path}[0,{channel},{row},{column}]", field, patches, dreamt)


def _level(recorded: Trace, path: str, channels: tuple[Channel, ...]) -> Level:
    shape = recorded.find(path).place.shape
    if len(shape) != 4:
        raise no_maps(path, shape)
    field = receptive_field(recorded, path, shape[2] // 2, shape[3] // 2)
    return Level(path, (shape[1], shape[2], shape[3]), field, channels)
