"""The verdict: a loss put into words, against things that can be computed.

A loss of 3.1 says nothing by itself. Beside ln(vocabulary), the loss of token frequencies, gzip and xz, the training
loss and its own past it says whether the network has learned anything, whether it learns by heart, whether to go on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from pellucid.language import _
from pellucid.tasks.task import Reference

State = Literal[
    "starting",
    "learned nothing yet",
    "normal so far",
    "memorising",
    "still falling",
    "flat",
    "learned",
    "diverging",
    "cannot tell",
]
Point = tuple[int, float]  # step, loss


class Threshold(NamedTuple):
    value: float
    reason: str


THRESHOLDS = {
    # before anything is judged
    "start": Threshold(0.02, "of the planned steps: the warm-up of the default schedule, which tells little"),
    "start_points": Threshold(10, "training losses: fewer make no two windows to compare"),
    "uniform": Threshold(0.1, "of ln(vocabulary): small first weights guess nearly evenly, bad ones are far off"),
    # what counts as a change
    "change": Threshold(0.005, "of the loss: two seeds of one training were seen to end 0.5 % apart"),
    "scatter": Threshold(3, "times the moves against the trend: pure noise ends about two above its lowest"),
    "single": Threshold(3, "times as large a change is asked of one evaluation as of two in a row"),
    "window": Threshold(0.1, "of the training losses make a window: its median forgives a spike of a few steps"),
    "window_points": Threshold(5, "training losses at least: single batches differ too much"),
    # what the change means
    "learned": Threshold(0.02, "of the unigram loss below it: whoever only knows frequencies comes that close"),
    "diverged": Threshold(0.1, "of the loss, or of what was gained if that is more: windows scatter less"),
    "certain": Threshold(4, "standard errors of a window's median: the lowest of ten lies two below by chance alone"),
    "gap": Threshold(0.25, "of the validation loss: 0.05 to 0.11 was seen after one pass over a text, 0.8 after 12"),
    # what doubling the steps might give
    "level_from": Threshold(
        0.5, "of the level phase: its last doubling, in which loss over log(steps) is nearly a line"
    ),
    "level_points": Threshold(3, "evaluations at a level learning rate: a line through two fits anything"),
    "worth": Threshold(0.01, "of the loss in a doubling of the steps: less is hardly more than another seed gives"),
    "solved": Threshold(0.001, "of the loss of the simplest guess: of rows and pictures nothing is left to learn then"),
    "least": Threshold(0.5, "of a doubling's fall is expected of the next at least: gains shrink, as a power law's"),
    "cooled": Threshold(3, "evaluations from the start of the decay on: fewer do not tell whether it helped"),
}


def _threshold(name: str) -> float:
    return THRESHOLDS[name].value


@dataclass(frozen=True)
class History:
    """What was measured so far."""

    training: Sequence[Point]  # mean over the batch, before the step's update
    validation: Sequence[Point]  # on held-out data, after that many steps
    planned_steps: int
    decay_start: int | None = None  # first step with a falling learning rate (cosine: half the plan), if it ever falls
    best: float | None = None  # the task's first figure for the best model, once it has been measured


@dataclass(frozen=True)
class Verdict:
    """A state, the sentences that say why (in the user's language), and the numbers that they rest on."""

    state: State
    sentences: list[str]
    evidence: dict[str, float] = field(default_factory=dict)


def judge(reference: Reference, history: History, finished: bool) -> Verdict:
    """Put a training into words. Never raises: where the evidence is too thin, the state is "cannot tell".

    Args:
        reference: What to compare with.
        history: The losses so far, in any order.
        finished: Whether the training is over (all steps made, stopped early, or interrupted for good).
    """
    seen = _Seen(reference, history)
    state = _state(seen, finished)
    sentences = _headline(state, seen, finished)
    if state != "starting":
        sentences += [*_comparison(seen), *_gap(seen)]
    return Verdict(state, sentences, seen.evidence())


def _state(seen: _Seen, finished: bool) -> State:
    """The first that applies, the most urgent first."""
    if seen.not_finite or _diverging(seen):
        return "diverging"
    if finished and seen.solved:
        return "learned"
    if not finished and seen.last_step <= _threshold("start") * seen.planned_steps:
        return "starting"
    if not seen.solved and _memorising(seen):
        return "memorising"
    if not seen.losses:
        return "cannot tell" if finished else "starting"
    if min(seen.losses) > (1 - _threshold("learned")) * seen.reference.simple:
        return "learned nothing yet"
    if not finished:
        return "normal so far"
    fall = seen.fall_per_doubling
    if fall is None:
        return "cannot tell"
    if fall >= _threshold("worth") * seen.validation_loss and not _decay_was_in_vain(seen):
        return "still falling"
    return "flat"


def _diverging(seen: _Seen) -> bool:
    """Whether the newest training losses are well above an earlier level."""
    if len(seen.training) < _threshold("start_points"):
        return False
    gained = seen.windows[0] - seen.lowest_training
    rise = seen.recent_training - seen.lowest_training
    certain = rise > _threshold("certain") * seen.window_scatter
    return certain and rise > _threshold("diverged") * max(seen.lowest_training, gained)


def _memorising(seen: _Seen) -> bool:
    """Whether held-out text became harder after the best evaluation while the training text became easier."""
    after = [loss for step, loss in seen.validation if step > seen.best_step]
    if not after or len(seen.training) < _threshold("start_points"):
        return False
    needed = seen.change if len(after) > 1 else _threshold("single") * seen.change
    rise = min(after[-2:]) - seen.best_loss
    fall = seen.training_at_best - seen.recent_training
    return rise > needed and fall > _threshold("change") * seen.training_at_best


def _decay_was_in_vain(seen: _Seen) -> bool:
    """Whether the decay, which nearly always helps, did not: the slope before it then promises nothing."""
    start = seen.decay_start
    cooled = [loss for step, loss in seen.validation if start is not None and step >= start]
    return len(cooled) >= _threshold("cooled") and cooled[0] - cooled[-1] < seen.change


def _headline(state: State, seen: _Seen, finished: bool) -> list[str]:
    """What the state is, on which numbers, and what to do about it."""
    match state:
        case "starting":
            return [_start(seen)]
        case "diverging":
            return [_diverged(seen)]
        case "learned nothing yet":
            return _learned_nothing(seen, finished)
        case "memorising":
            return _by_heart(seen)
        case "still falling":
            return [_("Still falling: train longer."), _promise(seen)]
        case "flat":
            return [_("Flat: more steps alone will hardly help."), _after_flat(seen)]
        case "learned":
            return [_learned(seen)]
        case "normal so far":
            return [_("Normal so far.")]
        case "cannot tell":
            return [_too_thin(seen)]


def _start(seen: _Seen) -> str:
    """The first loss against that of guessing evenly."""
    reference, first = seen.reference, seen.training[0][1] if seen.training else math.nan
    if reference.even is None:
        return _("Starting: knowing only {simple} costs {loss:.3g} {unit}.").format(
            simple=reference.simple_said, loss=reference.simple, unit=reference.unit
        )
    tolerance = _threshold("uniform") * reference.even
    if first > reference.even + tolerance:
        said = _(
            "Starting far above where it should: the first loss is {first:.2f} {unit}, guessing evenly among "
            "{among} costs {formula} = {even:.2f}. The first weights are too large, or this model was "
            "trained on something else."
        )
    elif first < reference.even - tolerance:
        said = _(
            "Starting with knowledge: the first loss is {first:.2f} {unit}, guessing evenly among {among} "
            "costs {formula} = {even:.2f}. That is right for a model trained before, and only for one."
        )
    elif seen.training:
        said = _(
            "Starting as it should: the first loss is {first:.2f} {unit}, guessing evenly among {among} "
            "costs {formula} = {even:.2f}."
        )
    else:
        said = _("Starting: guessing evenly among {among} costs {formula} = {even:.2f} {unit}.")
    return said.format(
        first=first, among=reference.even_among, formula=reference.even_said, even=reference.even, unit=reference.unit
    )


def _diverged(seen: _Seen) -> str:
    if seen.not_finite:
        return _("Diverging: a loss is not a finite number. Train again with a lower learning rate.")
    return _(
        "Diverging: the training loss is {now:.4g} {unit} and was {lowest:.4g} earlier. "
        "Stop, and train again with a lower learning rate, say a third of this one."
    ).format(now=seen.recent_training, lowest=seen.lowest_training, unit=seen.reference.unit)


def _learned(seen: _Seen) -> str:
    return _("Learned: {loss:.2g} {unit} on {data}, where knowing only {simple} costs {without:.3g}.").format(
        data=seen.data,
        loss=seen.best_loss,
        unit=seen.reference.unit,
        simple=seen.reference.simple_said,
        without=seen.reference.simple,
    )


def _learned_nothing(seen: _Seen, finished: bool) -> list[str]:
    said = _(
        "Learned nothing yet: {loss:.2f} {unit} is no better than knowing only {simple}, which costs {without:.2f}."
    ).format(
        loss=min(seen.losses),
        unit=seen.reference.unit,
        simple=seen.reference.simple_said,
        without=seen.reference.simple,
    )
    if not finished:
        return [said, _("Early in a training that is normal.")]
    return [said, _("Train for more steps; if the loss stood still, try a learning rate three times higher or lower.")]


def _by_heart(seen: _Seen) -> list[str]:
    said = _(
        "Memorising: on unseen data the loss was best at step {step}, {best:.3f} {unit}, and is now {now:.3f}, "
        "while the training loss went on falling."
    ).format(step=seen.best_step, best=seen.best_loss, now=seen.validation_loss, unit=seen.reference.unit)
    cure = _("Stop at step {step}, whose model is kept, or add data, or use more dropout.")
    return [said, cure.format(step=seen.best_step)]


def _promise(seen: _Seen) -> str:
    """What doubling the steps might give: at most what the last doubling at a level learning rate gave."""
    reference, fall = seen.reference, seen.fall_per_doubling or 0
    ratio, show = reference.figure_per_loss, reference.show
    if ratio is None:
        ratio, show = 1.0, lambda loss: f"{loss:.2g} {reference.unit}"
    said = _("Twice the steps might give another {least} to {most}: a guess from the last slope.")
    if seen.decay_start is not None:
        said = _(
            "Twice the steps might give another {least} to {most}: a guess from the slope while "
            "the learning rate was level. The last fall came from its decay and promises nothing."
        )
    return said.format(least=show(_threshold("least") * fall * ratio), most=show(fall * ratio))


def _after_flat(seen: _Seen) -> str:
    if seen.relative_gap is None:
        return _("Try a larger network or more data.")
    if seen.relative_gap > _threshold("gap"):
        return _("The training data are known far better than unseen data: add data or use more dropout.")
    return _("Training data and unseen data are known about equally well: try a larger network.")


def _too_thin(seen: _Seen) -> str:
    return _(
        "Cannot tell whether more steps would help: while the learning rate was level, {count} evaluations were made, "
        "and {needed} are needed."
    ).format(count=len(seen.level), needed=int(_threshold("level_points")))


def _comparison(seen: _Seen) -> list[str]:
    """The first figure of the best model on unseen data against what others make of the same data."""
    reference, best = seen.reference, seen.best
    if best is None:
        return []
    said = [_("{best} on {data} (step {step}).").format(best=reference.show(best), data=seen.data, step=seen.best_step)]
    if reference.rivals:
        rivals = _(", ").join(f"{rival.name} {reference.show(rival.value)}" for rival in reference.rivals)
        said = [
            _("{best} on {data} (step {step}); there: {rivals}.").format(
                best=reference.show(best), data=seen.data, step=seen.best_step, rivals=rivals
            )
        ]
    said += reference.notes
    if seen.solved:
        return said
    ahead = [rival.name for rival in reference.rivals if rival.value < best]
    equal = [rival.name for rival in reference.rivals if rival.value == best]
    if ahead:
        said.append(_("Still ahead of it: {names}.").format(names=_(", ").join(ahead)))
    if equal:
        said.append(_("Just as good: {names}.").format(names=_(", ").join(equal)))
    return [*said, _("That is better than all of these.")] if reference.rivals and not ahead + equal else said


def _gap(seen: _Seen) -> list[str]:
    if seen.relative_gap is None:
        return []
    numbers = {"validation": seen.validation_loss, "training": seen.recent_training, "gap": seen.relative_gap}
    said = _("Unseen data {validation:.3g}, training data {training:.3g} {unit}.")
    if seen.relative_gap > _threshold("gap"):
        said = _(
            "Unseen data {validation:.3g}, training data {training:.3g} {unit}: a gap of {gap:.0%}, much of the "
            "training data is known by heart."
        )
    return [said.format(**numbers, unit=seen.reference.unit)]


class _Seen:
    """The history, sorted, without what is not finite, and the few figures that every judgement rests on."""

    def __init__(self, reference: Reference, history: History) -> None:
        self.reference = reference
        self.planned_steps = history.planned_steps
        self.decay_start = history.decay_start
        self.training = _finite(history.training)
        self.validation = _finite(history.validation)
        self.not_finite = not all(
            math.isfinite(loss) for _step, loss in _newest(history.training) + _newest(history.validation)
        )
        self.last_step = max((step for step, _loss in [*history.training, *history.validation]), default=0)
        losses = [loss for _step, loss in self.training]
        width = max(int(_threshold("window_points")), math.ceil(_threshold("window") * len(losses)))
        ends = range(len(losses), width - 1, -width)  # what is left at the beginning is no window
        self.windows = [float(np.median(losses[end - width : end])) for end in ends][::-1]
        spreads = [float(np.std(losses[end - width : end])) for end in ends][::-1]
        calm = spreads[int(np.argmin(self.windows))] if self.windows else 0.0
        self.window_scatter = math.sqrt(math.pi / 2) * calm / math.sqrt(width)  # of the lowest window's median

        # With evaluations as good as each other, the first is the best: the later ones brought nothing.
        self.best_step, self.best_loss = min(self.validation, key=lambda point: point[1], default=(0, math.inf))
        self.data = reference.data or _("unseen data")
        self.best = history.best
        if self.best is None and self.validation and reference.figure_per_loss:
            self.best = self.best_loss * reference.figure_per_loss
        self.solved = reference.decisive and self.best_loss < _threshold("solved") * reference.simple
        self.validation_loss = self.validation[-1][1] if self.validation else math.inf
        self.recent_training = self.windows[-1] if self.windows else math.inf
        self.lowest_training = min(self.windows, default=math.inf)
        self.training_at_best = self._training_before(self.best_step, width)

        # Unseen text decides; training losses stand in until the first evaluation.
        self.losses = [loss for _step, loss in self.validation] or self.windows or losses
        self.level = self._level()
        self.change = self._change()
        self.fall_per_doubling = self._fall_per_doubling()
        self.relative_gap = self._relative_gap()

    def _training_before(self, step: int, width: int) -> float:
        before = [loss for at, loss in self.training if at <= step]
        return float(np.median(before[-width:])) if before else -math.inf

    def _level(self) -> list[Point]:
        """Evaluations in the last doubling of the phase in which the learning rate neither rises nor falls."""
        end = self.last_step if self.decay_start is None else min(self.decay_start, self.last_step)
        return [(step, loss) for step, loss in self.validation if 0 < _threshold("level_from") * end <= step <= end]

    def _change(self) -> float:
        """How much validation losses must differ to be said to differ."""
        least = _threshold("change") * abs(self.best_loss) if self.validation else math.inf
        falling = [(a, b) for (step, a), (_next, b) in pairwise(self.validation) if step < self.best_step]
        rising = [(a, b) for (step, a), (_next, b) in pairwise(self.validation) if step >= self.best_step]
        against = sum(max(0.0, b - a) for a, b in falling) + sum(max(0.0, a - b) for a, b in rising)
        moves = max(1, len(self.validation) - 1)
        # Of noise without a trend every other move goes against it: twice the mean is the size of one such move.
        return max(least, _threshold("scatter") * 2 * against / moves)

    def _fall_per_doubling(self) -> float | None:
        """By how much the level phase lowers the validation loss when its steps double (least squares)."""
        if len({step for step, _loss in self.level}) < _threshold("level_points"):
            return None
        steps, losses = np.array(self.level).T
        doublings = np.log2(steps) - np.log2(steps).mean()
        return -float(doublings @ losses / (doublings @ doublings))

    def _relative_gap(self) -> float | None:
        if not self.validation or not self.windows or self.validation_loss <= 0 or self.solved:
            return None
        if self.reference.data:  # the same data twice
            return None
        return (self.validation_loss - self.recent_training) / self.validation_loss

    def evidence(self) -> dict[str, float]:
        """The numbers behind the sentences; what cannot be computed is left out."""
        reference = self.reference
        numbers: dict[str, float | None] = {
            "step": self.last_step,
            "planned_steps": self.planned_steps,
            "even_loss": reference.even,
            "simple_loss": reference.simple,
            "first_training_loss": self.training[0][1] if self.training else None,
            "training_loss": self.recent_training,
            "lowest_training_loss": self.lowest_training,
            "validation_loss": self.validation_loss,
            "best_validation_loss": self.best_loss,
            "best_step": self.best_step if self.validation else None,
            reference.figure: self.best,
            **{rival.key: rival.value for rival in reference.rivals},
            "gap": self.relative_gap,
            "change": self.change,
            "fall_per_doubling": self.fall_per_doubling,
        }
        return {name: value for name, value in numbers.items() if value is not None and math.isfinite(value)}


def _finite(points: Iterable[Point]) -> list[Point]:
    return [(step, loss) for step, loss in sorted(points) if math.isfinite(loss)]


def _newest(points: Sequence[Point]) -> list[Point]:
    return [max(points, key=lambda point: point[0])] if points else []
