"""The region of a picture that decided: the exact flow to its pixels and to the last maps, beside Grad-CAM."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.tracing.answers import Question
from pellucid.tracing.flow import sweep, view
from pellucid.tracing.pictures.channels import check_channel, evaluating, no_maps, submodule
from pellucid.tracing.rules.operation import inner
from pellucid.tracing.tape import Scope
from pellucid.tracing.trace import Trace, trace


@dataclass(frozen=True)
class Cut:
    """What a picture, or maps made of it, brought to a number: `amounts`, `constants` and `past` add up to `value`."""

    path: str  # whose results these are; ":in" for the picture
    value: float
    amounts: Tensor  # (C, h, w) weight × value, float64
    constants: float  # what entered later and comes from no picture: biases, shifts
    past: float  # what went another way; of a picture, and of maps through which everything must go, only rounding

    @property
    def map(self) -> Tensor:
        """What each place brought, (h, w): the channels added up."""
        return self.amounts.sum(0)

    @property
    def channels(self) -> Tensor:
        """What each channel brought, (C,)."""
        return self.amounts.sum((1, 2))


@dataclass(frozen=True)
class Region:
    """Which places of a picture spoke for a class, by three accounts. The first two add up to `value` exactly."""

    question: str  # the address of the logit, for `why`; for a difference, of both
    value: float
    target: int
    rather_than: int | None
    pixels: Cut  # the picture itself
    maps: Cut  # the last maps, in which most has been decided
    grad_cam: Tensor  # (h, w) of the same maps, not below 0


def region(
    module: nn.Module,
    picture: Tensor | Trace,
    target: int | None = None,
    rather_than: int | None = None,
    *,
    maps: str | None = None,
    convention: str = "values",
) -> Region:
    """Which region of a picture decided.

    The flow takes both sides: what spoke against the class has a negative sign. Its zero is a pixel that is given as 0
    (with the usual scaling, a middling grey). To pixels it is sharp and restless, and much of a deep network's answer
    lies in its constants ("seen enough here to count"); at the last maps it is coarse and plain. Grad-CAM (Selvaraju
    et al. 2017) leaves out what spoke against, and adds up to nothing in particular; it is there to be compared.

    Args:
        module: Gives logits (B, classes) for pictures (B, C, H, W); it runs in evaluation mode.
        picture: (C, H, W), as the module wants it, or a trace of the module with one picture.
        target: The class; None: the one with the highest logit.
        rather_than: Ask for the logit of `target` minus that of this class.
        maps: The part whose maps (B, channels, h, w) to look at; None: the last one that has any.
        convention: As for `Trace.why`.

    Raises:
        PellucidError: when there is no such class or part, or the module gives no logits.
    """
    recorded = picture if isinstance(picture, Trace) else recorded_once(module, picture)
    logits = recorded.value("")
    if logits.dim() != 2:
        raise PellucidError(
            _("This network gives no logits of classes."),
            str(list(logits.shape)),
            _("Its results must have the shape [pictures, classes]."),
        )
    target = int(logits[0].argmax()) if target is None else target
    question = class_question(recorded, target, rather_than)
    path = maps or last_maps(recorded)
    pixels, late = (cut(recorded, question, at, convention) for at in (":in", path))
    cam = grad_cam(module, recorded.value(":in"), path, target, rather_than)
    return Region(question.name, pixels.value, target, rather_than, pixels, late, cam)


def cut(recorded: Trace, question: Question, path: str, convention: str = "values") -> Cut:
    """What the maps at a path brought to a number: the flow, followed back as far as them.

    Raises:
        PellucidError: when there is nothing at that path, or no maps.
    """
    tape, numbers = recorded.tape, recorded.find(path)
    place = numbers.place
    if len(place.shape) != 4:
        raise no_maps(path, place.shape)
    seeds = [(number.place, number.time, weights) for number, weights in question.seeds]
    value = sum(inner(weights, tape.read(seed, time).double()) for seed, time, weights in seeds)
    with torch.no_grad():
        swept = sweep(
            tape, recorded.roles, seeds, since=numbers.time, dtype=torch.float64, convention=convention
        )  # fmt: skip
        values = tape.read(place, numbers.time).double()
        flat = swept.weights.get(place.storage)
        amounts = torch.zeros_like(values) if flat is None else view(flat, place) * values
        ends = sum(inner(w, tape.read(call.outs[k], call.time + 1).double()) for call, k, w, _why in swept.ends)
    constants = sum(swept.constants.values()) + ends
    return Cut(path, value, amounts.sum(0), constants, value - amounts.sum().item() - constants)


def grad_cam(module: nn.Module, pictures: Tensor, path: str, target: int, rather_than: int | None = None) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017, equations 1 and 2): (h, w) of the first of pictures (B, C, H, W).

    max(0, Σ α A) over the channels' maps A, where α is the mean over all places of the logit's gradient there.

    Raises:
        PellucidError: when there is no such part or class, or the part gives no maps.
    """
    seen: list[Tensor] = []

    def keep(_part: nn.Module, _given: object, out: Tensor) -> Tensor:
        # not of the parameters: only what comes after the maps is differentiated
        seen.append(out.detach().requires_grad_())
        return seen[-1].clone()  # what follows may write to it

    handle = submodule(module, path).register_forward_hook(keep)
    try:
        with evaluating(module), torch.enable_grad():
            logits = module(pictures)
    finally:
        handle.remove()
    if not seen or seen[-1].dim() != 4:
        raise no_maps(path, seen[-1].shape if seen else ())
    for label in (target, rather_than):
        if label is not None:
            check_channel("", logits, label)
    score = logits[0, target] - (logits[0, rather_than] if rather_than is not None else 0.0)
    maps = seen[-1]
    (slopes,) = torch.autograd.grad(score, [maps])
    return F.relu((slopes[0].mean((1, 2), keepdim=True) * maps[0]).sum(0)).detach()


def last_maps(recorded: Trace) -> str:
    """The path of the last part whose results are maps of more than one place.

    Raises:
        PellucidError: when there is none.
    """
    parents = {id(scope.parent) for scope in recorded.tape.scopes}
    for scope in sorted(recorded.tape.scopes, key=lambda scope: -scope.end):
        if id(scope) not in parents and has_maps(scope):
            return scope.path
    raise PellucidError(
        _("This network makes no maps."), "", _("Regions and channels can be looked at in convolutional networks.")
    )


def has_maps(scope: Scope) -> bool:
    """Whether a call of a module gave maps (B, channels, h, w) of more than one place."""
    return bool(scope.outputs) and len(scope.outputs[0].shape) == 4 and scope.outputs[0].shape[2:] != (1, 1)


def class_question(recorded: Trace, target: int, rather_than: int | None = None) -> Question:
    """The logit of a class, or how far it is ahead of another's.

    Raises:
        PellucidError: when there is no such class.
    """
    sides = [(target, 1.0)] + ([(rather_than, -1.0)] if rather_than is not None else [])
    for label, _sign in sides:
        check_channel("", recorded.value(""), label)
    addresses = [f":out[0,{label}]" for label, _sign in sides]
    seeds = [
        (recorded.find(address), torch.tensor(sign, dtype=torch.float64))
        for address, (_label, sign) in zip(addresses, sides, strict=True)
    ]
    return Question(" - ".join(addresses), tuple(seeds))


def recorded_once(module: nn.Module, picture: Tensor) -> Trace:
    """A trace of the module, in evaluation mode, with one picture (C, H, W)."""
    with evaluating(module):
        return trace(module, picture[None])
