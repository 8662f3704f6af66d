"""More parameters, more ability: a few sizes of decoder trained on one text, the curve through their losses, and what
the next size would reach.

Everything is in one folder, `FOLDER/WIDTHxDEPTH/seed=N` being a run that any other command opens. What is finished is
never made again: the same call goes on where it was stopped, with more sizes or seeds too.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.checkpoints.files import read_json, write_json
from pellucid.errors import PellucidError, StoppedError
from pellucid.experiments.course import NOT_SHARED, SHAPES, SIZES, Course, Rung, Size, Trained, shape_of, shapes_of
from pellucid.experiments.scaling import Curve, Interval, fit
from pellucid.language import _
from pellucid.training.options import TrainOptions

if TYPE_CHECKING:
    from rich.console import Group

    from pellucid.training.progress import Progress

MINUTES = 10.0  # for all sizes together, when the user does not say how long
PASSES = 4  # over the text: more teach little (Muennighoff et al. 2023)
LONG_BEFORE = 0.9  # of the steps: a best state before that says that the rest was learning by heart


@dataclass(frozen=True)
class Forecast:
    """What a size should reach on the held-out text when it is trained like the others."""

    parameters: int  # as they are counted on the axis
    loss: float  # nats a token, by the best curve
    interval: Interval | None  # 95 % of the truths lie inside; None: the sizes do not tell
    bits_per_byte: float
    bits_interval: Interval | None
    by_power_law: float  # nats a token, if E is 0

    def holds(self, loss: float) -> bool:
        """Whether a loss lies inside."""
        return self.interval is not None and self.interval[0] <= loss <= self.interval[1]


@dataclass(frozen=True)
class Ladder:
    """What a ladder found.

    Attributes:
        source: The text; "" for the demo text.
        folder: Where everything is.
        rungs: The sizes, by rising number of parameters.
        next: The size that is foretold.
        embeddings: Whether embeddings and head are counted on the axis.
        checked: The next size, once it is trained.
        passes: How often the largest rung has passed over the text.
        notes: What was assumed about the text.
    """

    source: str
    folder: Path
    rungs: tuple[Rung, ...]
    next: Size
    embeddings: bool
    checked: Rung | None
    passes: float
    notes: tuple[str, ...]

    def counted(self, size: Size) -> int:
        """A size's parameters, as they are counted on the axis."""
        return size.parameters if self.embeddings else size.without_embeddings

    @cached_property
    def fit(self) -> Curve:
        """L(N) = E + A / N^alpha."""
        return self._fit(pure=False)

    @cached_property
    def power_law(self) -> Curve:
        """The same with E = 0, for sizes that do not tell E from 0."""
        return self._fit(pure=True)

    def _fit(self, pure: bool) -> Curve:
        losses = [[run.loss for run in rung.runs] for rung in self.rungs]
        return fit([self.counted(rung.size) for rung in self.rungs], losses, pure=pure)

    @property
    def has_floor(self) -> bool:
        """Whether the sizes tell E from 0."""
        found = self.fit.intervals
        return found is not None and found["E"][0] > 0

    @property
    def bits_per_nat(self) -> float:
        """Bits per byte for a nat a token: the same for all sizes, as tokenizer and held-out text are."""
        return self.rungs[0].bits_per_byte / self.rungs[0].loss

    def forecast(self, parameters: float | None = None) -> Forecast:
        """What a network of so many parameters, counted as on the axis, should reach; of `next` when left out.

        It rests on the rungs alone: a checked size takes no part in it.

        Raises:
            PellucidError: when there is no network of so many parameters.
        """
        n = self.counted(self.next) if parameters is None else parameters
        if not 1 <= n < math.inf:
            raise PellucidError(
                _("There is no network of {n} parameters.").format(n=n), "parameters", _("It must be at least 1.")
            )
        loss, interval, bits = self.fit(n), self.fit.interval(n), self.bits_per_nat
        in_bits = (interval[0] * bits, interval[1] * bits) if interval else None
        return Forecast(round(n), loss, interval, loss * bits, in_bits, self.power_law(n))

    def remarks(self) -> list[str]:
        """What one should know before one believes the curve."""
        said = list(self.notes)
        if self.passes > PASSES:
            said.append(
                _(
                    "The largest size has passed over the text {n:.1f} times: more than {most} passes teach little, "
                    "and large networks begin to learn it by heart."
                ).format(n=self.passes, most=PASSES)
            )
        early = [rung for rung in self.rungs if any(run.best_step < LONG_BEFORE * run.steps for run in rung.runs)]
        if early:
            said.append(
                _("Best long before the end of training: {names}. The text is too short for so many steps.").format(
                    names=", ".join(rung.name for rung in early)
                )
            )
        for small, large in pairwise(self.rungs):
            if large.loss >= small.loss:
                said.append(
                    _("{large} is no better than {small}: here more parameters are not more ability.").format(
                        large=large.name, small=small.name
                    )
                )
        if self.fit.noise is None:
            said.append(
                _(
                    "Through three points goes a curve whatever they are: nothing says how sure it is. "
                    "Add a size, or seeds."
                )
            )
        elif not self.has_floor:
            said.append(
                _(
                    "These sizes do not tell E from 0: where the curve levels out is not known. "
                    "The pure power law stands beside it."
                )
            )
        return said

    def json(self) -> dict[str, Any]:
        """Plain data: every training, both curves, the forecast and what came of it."""
        forecast = self.forecast()
        checked = self.checked and _rung_json(self.checked) | {"inside": forecast.holds(self.checked.loss)}
        found = {
            "source": self.source,
            "axis": "parameters" if self.embeddings else "without_embeddings",
            "rungs": [_rung_json(rung) for rung in self.rungs],
            "fit": _curve_json(self.fit),
            "power_law": _curve_json(self.power_law),
            "next": asdict(self.next) | {"name": self.next.name},
            "forecast": asdict(forecast),
            "checked": checked,
            "remarks": self.remarks(),
        }
        return _finite(found)

    def save(self, path: str | Path) -> None:
        """Draw it on logarithmic axes: a picture (.svg, .png, .pdf), or a page with the table as well (.html).

        Raises:
            PellucidError: as `check_path`.
        """
        check_path(path)
        from pellucid.experiments.ladder_pictures import save

        save(self, Path(path))

    def show(self) -> None:
        """Print the table, the curve, the forecast and what they are worth."""
        from rich.console import Console

        Console(highlight=False).print(self)

    def __rich__(self) -> Group:
        from pellucid.experiments.ladder_display import shown

        return shown(self)


def ladder(
    source: str | Path | None = None,
    out: str | Path = "",
    *,
    sizes: int | str | Sequence[str] | None = None,
    seeds: int | None = None,
    tokens: float | None = None,
    tokens_per_parameter: float | None = None,
    next_size: str | None = None,
    check: bool = False,
    embeddings: bool = False,
    progress: Progress | None = None,
    made: Callable[[Size, Trained, int, int, float], None] | None = None,
    **options: Any,
) -> Ladder:
    """Train several sizes of decoder on one text, fit the scaling curve to their losses, and foretell the next size.

    Text, held-out part, tokenizer, context and batch are the same for all. So is the number of tokens that each sees:
    what the time allows (``minutes`` of training steps for all sizes together, 10 when nothing is said), or ``steps``,
    or ``tokens``; unless each has its own, by ``tokens_per_parameter``.

    Args:
        source: A text, as for `train`. None: goes on with the ladder in ``out``; if there is none, the demo text.
        out: The ladder's folder: new, or of the same ladder, to go on with it or to add sizes and seeds.
        sizes: How many of `course.SHAPES`, from the smallest; or widths and depths, as "64x3,96x4,128x6". Else 5.
        seeds: How many trainings of each size: with the option's seed (0) and those after it. Else 1.
        tokens: How many tokens each training sees.
        tokens_per_parameter: How many tokens for each parameter, embeddings included.
        next_size: The width and depth to foretell, as "192x8". Else the next of `course.SHAPES`.
        check: Train that size too, after the forecast was written down.
        embeddings: Count embeddings and head on the axis.
        progress: Listens to each training.
        made: Is called after each training that was not there before, with its number, how many there are, and about
            how many seconds are left.
        options: Fields of `TrainOptions`, the same for all sizes.

    Raises:
        PellucidError: when the text or an option cannot be used, or ``out`` is something else. Nothing is changed then.
        StoppedError: after Ctrl-C; the same call goes on.
    """
    folder = Path(out)
    saved = _saved(folder)
    asked = _asked(source, TrainOptions.of(options), tokens, tokens_per_parameter, saved, folder)
    wanted = shapes_of(SIZES if sizes is None else sizes) if sizes is not None or not saved else saved["shapes"]
    seeds = (saved["seeds"] if saved else 1) if seeds is None else seeds
    _refuse_below_one("--seeds", seeds)
    with tempfile.TemporaryDirectory(prefix="pellucid-ladder-") as making:
        if progress and not saved:
            progress.reading(asked["source"])
        course = Course.open(folder, saved["course"]) if saved else _begin(Path(making), asked, wanted, seeds)
        rungs = sorted(map(course.size, wanted), key=lambda size: size.without_embeddings)
        ahead = course.size(_ahead(rungs, next_size, saved))
        _refuse_equal([*rungs, ahead], embeddings)
        for size in [*rungs, ahead] if check else rungs:
            course.fit_memory(size)
        if not saved:
            shutil.copytree(making, folder, dirs_exist_ok=True)
    if progress:
        progress.close()
    grid = {"shapes": wanted, "next": ahead.name, "seeds": max(seeds, saved["seeds"] if saved else 1)}
    write_json(folder / "ladder.json", {"asked": asked, "course": course.json()} | grid)
    course = Course.open(folder, course.json())  # the text is read from where it lies now

    each = range(course.options.seed, course.options.seed + seeds)

    def climb(sizes: Sequence[Size]) -> tuple[Rung, ...]:
        return _climb(course, sizes, each, progress, made)

    passes = course.steps(rungs[-1]) * course.items_per_step / course.task.items
    notes = tuple(course.task.facts()["notes"])
    found = Ladder(asked["source"] or "", folder, climb(rungs), ahead, embeddings, None, passes, notes)
    write_json(folder / "results.json", found.json())  # the forecast stands before the truth is known
    if check or all(course.has(ahead, seed) for seed in each):
        found = replace(found, checked=climb([ahead])[0])
        write_json(folder / "results.json", found.json())
    return found


def check_path(path: str | Path) -> None:
    """Refuse what a ladder cannot be saved as, before anything is trained.

    Raises:
        PellucidError: when the name does not end in .html, .svg, .png or .pdf, or its folder is not there.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".svg", ".png", ".pdf"):
        raise PellucidError(
            _("A ladder is saved as a page or a picture."), str(path), _("Name it ladder.html, .svg, .png or .pdf.")
        )
    if not path.parent.is_dir():
        raise PellucidError(_("There is no such folder."), str(path.parent), _("Check the path."))


def _climb(
    course: Course,
    sizes: Sequence[Size],
    seeds: Sequence[int],
    progress: Progress | None,
    made: Callable[[Size, Trained, int, int, float], None] | None,
) -> tuple[Rung, ...]:
    """Every size with every seed, trained or, where it is finished, read."""
    found: dict[Size, list[Trained]] = {size: [] for size in sizes}
    places = [(size, seed) for size in sizes for seed in seeds]
    missing = {
        (size, seed): size.parameters * course.steps(size) for size, seed in places if not course.has(size, seed)
    }
    for n, (size, seed) in enumerate(places, 1):
        work = missing.pop((size, seed), None)
        try:
            found[size].append(course.train(size, seed, progress))
        except (StoppedError, KeyboardInterrupt):
            raise StoppedError(
                _("Stopped: {n} of {all} trainings are finished.").format(n=n - 1, all=len(places)),
                str(course.folder),
                _("Go on with: pellucid ladder --out {folder}").format(folder=course.folder),
            ) from None
        if work and made:
            left = found[size][-1].seconds / work * sum(missing.values())  # at the speed of this one
            made(size, found[size][-1], n, len(places), left)
    return tuple(Rung(size, tuple(runs)) for size, runs in found.items())


def _begin(making: Path, asked: dict[str, Any], wanted: Sequence[tuple[int, int]], seeds: int) -> Course:
    """Read the text, and settle how many tokens each training sees."""
    options = TrainOptions.of(asked["options"])
    course = Course.prepare(making, asked["source"], options, wanted)
    if asked["tokens_per_parameter"]:
        return replace(course, tokens_per_parameter=asked["tokens_per_parameter"])
    if asked["tokens"]:
        return replace(course, tokens=int(asked["tokens"]))
    if options.steps:
        return replace(course, tokens=options.steps * course.items_per_step)
    return replace(course, tokens=course.tokens_in(options.minutes or MINUTES, wanted, seeds))


def _asked(
    source: str | Path | None,
    options: TrainOptions,
    tokens: float | None,
    tokens_per_parameter: float | None,
    saved: dict[str, Any] | None,
    folder: Path,
) -> dict[str, Any]:
    """What decides every training; what is left out is as it was in a ladder to go on with."""
    _refuse_below_one("--tokens", tokens)
    _refuse_below_one("--tokens-per-parameter", tokens_per_parameter)
    for name in NOT_SHARED:
        if name in options.given():
            raise PellucidError(
                _("{option} is nothing that all sizes could share.").format(option=options.spelt(name)),
                options.spelt(name),
                _("Say which sizes with --sizes, such as 64x3,96x4,128x6,192x8."),
            )
    lengths = {"--steps": options.steps, "--minutes": options.minutes}
    lengths |= {"--tokens": tokens, "--tokens-per-parameter": tokens_per_parameter}
    given = [name for name, value in lengths.items() if value is not None]
    if len(given) > 1:
        raise PellucidError(_("Each of these says how long to train."), ", ".join(given), _("Give one of them."))
    new = {
        "source": None if source is None else str(source),
        "options": options.given(),
        "tokens": tokens,
        "tokens_per_parameter": tokens_per_parameter,
    }
    if not saved:
        return new
    old = saved["asked"]
    if any(value and value != old[name] for name, value in new.items()):
        raise PellucidError(
            _("Another ladder is in this folder: of another text, or with other options."),
            str(folder),
            _("Name a new folder, or go on with that one by --out {folder} alone.").format(folder=folder),
        )
    return old


def _saved(folder: Path) -> dict[str, Any] | None:
    """What the ladder in a folder was asked for; None where the folder is new."""
    if folder == Path():
        raise PellucidError(_("Where should the trainings go?"), "--out", _("Name a folder: --out ladders/name"))
    if (folder / "ladder.json").exists():
        found = read_json(folder / "ladder.json")
        if {"asked", "course", "shapes", "next", "seeds"} <= found.keys():
            return found | {"shapes": [(width, depth) for width, depth in found["shapes"]]}
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PellucidError(
            _("This folder holds no ladder, and something else."), str(folder), _("Name another folder.")
        )
    return None


def _ahead(rungs: Sequence[Size], next_size: str | None, saved: dict[str, Any] | None) -> tuple[int, int]:
    """The shape to foretell: as said, as said before, or the next of `SHAPES`."""
    if next_size:
        return shape_of(next_size, "--next")
    if saved and saved["next"] not in [size.name for size in rungs]:
        return shape_of(saved["next"], "--next")
    largest = rungs[-1].width ** 2 * rungs[-1].depth
    for width, depth in SHAPES:
        if width**2 * depth > 2 * largest:
            return width, depth
    return 3 * rungs[-1].width // 2, 4 * rungs[-1].depth // 3


def _refuse_equal(sizes: Sequence[Size], embeddings: bool) -> None:
    seen: dict[int, Size] = {}
    for size in sizes:
        n = size.parameters if embeddings else size.without_embeddings
        if n in seen:
            raise PellucidError(
                _("Two sizes have {n:,} parameters each: {one} and {other}.").format(
                    n=n, one=seen[n].name, other=size.name
                ),
                "--sizes, --next",
                _("Name sizes that differ."),
            )
        seen[n] = size


def _refuse_below_one(option: str, value: float | None) -> None:
    if value is not None and not 1 <= value < math.inf:
        raise PellucidError(
            _("{option} {value} makes no sense.").format(option=option, value=value),
            option,
            _("It must be at least {n}.").format(n=1),
        )


def _rung_json(rung: Rung) -> dict[str, Any]:
    means = {name: getattr(rung, name) for name in ("tokens", "loss", "spread", "bits_per_byte", "seconds")}
    return {"name": rung.name} | asdict(rung.size) | means | {"runs": [asdict(run) for run in rung.runs]}


def _curve_json(curve: Curve) -> dict[str, Any]:
    told = {name: getattr(curve, name) for name in ("E", "A", "alpha", "noise", "freedom")}
    return told | {"intervals": curve.intervals}


def _finite(value: Any) -> Any:
    """JSON knows no infinity."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
