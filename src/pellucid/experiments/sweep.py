"""A range of settings, each trained with several seeds: how many layers, how many neurons, which learning rate.

Every training is a run of its own in `FOLDER/SETTING/seed=N`, which any other command opens. What is finished is never
made again: the same call goes on where it was stopped.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from pellucid.checkpoints.files import read_json, write_json
from pellucid.checkpoints.whole_file import write_text
from pellucid.errors import PellucidError, StoppedError
from pellucid.language import _
from pellucid.training.options import TrainOptions

if TYPE_CHECKING:
    from torch import nn

    from pellucid.tasks.task import Task
    from pellucid.training.plan import Plan
    from pellucid.training.progress import Progress

FIXED = ("seed", "plan", "validation", "test", "device", "threads")  # what makes no sense to try a range of
# what changes neither how the data are read nor what is fitted on them
LATER = frozenset(
    {"layers", "activation", "norm", "bias", "init", "width", "depth", "heads", "kv_heads", "feed_forward", "network"}
    | {"batch", "accumulation", "optimiser", "momentum", "nesterov", "l1", "l2", "learning_rate", "embedding_rate"}
    | {"schedule", "warmup", "decay", "weight_decay", "dropout", "clip", "patience", "evaluations", "precision"}
    | {"minutes", "steps", "size", "save_seconds", "compile", "deterministic"}
)
RISE = 0.05  # of the loss before training: so much worse than its own best is overfitted, than others' is underfitted


@dataclass(frozen=True)
class Trained:
    """One training of a sweep; figures are the task's, lower is better."""

    setting: dict[str, Any]
    seed: int
    folder: str  # below the sweep's
    parameters: int = 0
    steps: int = 0
    best_step: int = 0
    seconds: float = 0.0  # of training steps
    first_loss: float = math.nan  # of the first step
    lowest_loss: float = math.nan  # on unseen data, of all evaluations
    training: dict[str, float] | None = None  # on the data it was trained on, at the end
    unseen: dict[str, float] | None = None  # on validation data, at the end
    best: dict[str, float] | None = None  # on validation data, of the state that was kept
    test: dict[str, float] | None = None  # of the state that was kept, on data that decided nothing
    failed: str = ""  # why there are no figures


@dataclass(frozen=True)
class Setting:
    """One setting, over all seeds."""

    values: dict[str, Any]
    runs: tuple[Trained, ...]
    figure: str  # which of the figures is compared

    @property
    def name(self) -> str:
        return named(self.values)

    @property
    def finished(self) -> list[Trained]:
        return [run for run in self.runs if not run.failed]

    @property
    def parameters(self) -> int:
        return self.finished[0].parameters if self.finished else 0

    def each(self, part: str, figure: str | None = None) -> list[float]:
        """A figure of each seed, on the part "training", "unseen", "best" or "test"."""
        return [getattr(run, part)[figure or self.figure] for run in self.finished]

    def mean(self, part: str, figure: str | None = None) -> float:
        return statistics.fmean(self.each(part, figure)) if self.finished else math.inf

    def spread(self, part: str) -> float:
        """The standard deviation over the seeds; 0 of a single one."""
        return statistics.stdev(self.each(part)) if len(self.finished) > 1 else 0.0


@dataclass(frozen=True)
class Sweep:
    """What a sweep found."""

    source: str
    folder: Path
    vary: dict[str, list[Any]]
    runs: tuple[Trained, ...]

    @cached_property
    def figure(self) -> str:
        """The task's first figure that is known of training data too; else the loss."""
        done = [run for run in self.runs if run.unseen and run.training]
        return next((name for name in done[0].unseen or {} if name in (done[0].training or {})), "loss") if done else ""

    @cached_property
    def settings(self) -> list[Setting]:
        """In the order of the values."""
        found = []
        for values in combinations(self.vary):
            runs = tuple(run for run in self.runs if run.setting == values)
            if runs:
                found.append(Setting(values, runs, self.figure))
        return found

    @cached_property
    def best(self) -> Setting | None:
        """The lowest mean figure on validation data, of the states that were kept; of equals the smallest."""
        able = [setting for setting in self.settings if setting.finished]
        return min(able, key=lambda s: (s.mean("best"), s.parameters), default=None)

    @cached_property
    def smallest(self) -> Setting | None:
        """The fewest parameters of those that are not worse than the best by more than its seeds differ."""
        if self.best is None:
            return None
        most = self.best.mean("best") + self.best.spread("best")
        able = [setting for setting in self.settings if setting.mean("best") <= most]
        return min(able, key=lambda s: (s.parameters, s.mean("best")))

    def state(self, setting: Setting) -> Literal["diverged", "overfits", "underfits", ""]:
        """What the losses on training and unseen data say of a setting, beside the others."""
        if not setting.finished:
            return "diverged"
        able = [other for other in self.settings if other.finished]
        first = statistics.fmean(run.first_loss for run in setting.finished)
        lowest = statistics.fmean(run.lowest_loss for run in setting.finished)
        training, unseen = setting.mean("training", "loss"), setting.mean("unseen", "loss")
        if unseen - lowest > max(RISE * first, 0.1 * lowest) and training < 0.8 * unseen:
            return "overfits"
        reached = min(other.mean("best", "loss") for other in able)
        behind = training - min(other.mean("training", "loss") for other in able)
        if (behind > RISE * first and lowest - reached > RISE * first) or training > 0.9 * first:
            return "underfits"
        return ""

    def sentence(self, setting: Setting) -> str:
        """The same in words, with the numbers that it is said from; "" where there is nothing to say."""
        state = self.state(setting)
        if state == "diverged":
            return _("{name} failed: {why}").format(name=setting.name, why=setting.runs[0].failed)
        if not state:
            return ""
        training, unseen = (shown(self.figure, setting.mean(part)) for part in ("training", "unseen"))
        if state == "underfits":
            return _("{name} underfits: {training} on the data it was trained on, {unseen} on unseen data.").format(
                name=setting.name, training=training, unseen=unseen
            )
        return _(
            "{name} overfits: the loss on unseen data fell to {lowest:.3g} and rose to {last:.3g} by the end, "
            "while on training data it fell to {training:.3g}."
        ).format(
            name=setting.name,
            lowest=statistics.fmean(run.lowest_loss for run in setting.finished),
            last=setting.mean("unseen", "loss"),
            training=setting.mean("training", "loss"),
        )

    def json(self) -> dict[str, Any]:
        """Plain data: every run, every setting with means and spreads, the best."""
        parts = ("training", "unseen", "best", "test")
        return {
            "source": self.source,
            "vary": self.vary,
            "figure": self.figure,
            "settings": [
                {"setting": s.values, "name": s.name, "seeds": len(s.finished), "parameters": s.parameters}
                | ({part: {"mean": s.mean(part), "spread": s.spread(part)} for part in parts} if s.finished else {})
                | {"state": self.state(s), "sentence": self.sentence(s)}
                for s in self.settings
            ],
            "best": self.best.name if self.best else None,
            "smallest_as_good": self.smallest.name if self.smallest else None,
            "runs": [{name: _finite(value) for name, value in asdict(run).items()} for run in self.runs],
        }

    def save(self) -> list[Path]:
        """Write results.json, results.csv and the pictures into the sweep's folder; return their paths."""
        write_json(self.folder / "results.json", self.json())
        write_text(self.folder / "results.csv", self._csv())
        paths = [self.folder / "results.json", self.folder / "results.csv"]
        if self.best is not None:
            from pellucid.experiments.sweep_pictures import draw

            paths += draw(self)
        return paths

    def _csv(self) -> str:
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        parts = ("training", "unseen", "best", "test")
        figures = list(dict.fromkeys([self.figure, "loss"]))
        columns = [f"{part}_{figure}" for part in parts for figure in figures]
        writer.writerow([*self.vary, "seed", "parameters", "steps", "best_step", "seconds", *columns, "failed"])
        for run in self.runs:
            numbers = [(getattr(run, part) or {}).get(figure, "") for part in parts for figure in figures]
            own = (run.seed, run.parameters, run.steps, run.best_step, run.seconds)
            writer.writerow([*run.setting.values(), *own, *numbers, run.failed])
        return lines.getvalue()

    def show(self) -> None:
        """Print it as a table, with what it means."""
        from pellucid.experiments.sweep_display import show

        show(self)


def sweep(
    source: str | Path | None,
    out: str | Path,
    vary: Mapping[str, Sequence[Any]] | None = None,
    seeds: int = 3,
    *,
    progress: Progress | None = None,
    made: Callable[[Trained, int, int], None] | None = None,
    **options: Any,
) -> Sweep:
    """Train over a grid of settings with several seeds each, compare, and save table and pictures.

    Args:
        source: As for `train`; None goes on with the sweep in ``out``.
        out: The sweep's folder: new, or of the same sweep, to go on with it or to add values and seeds.
        vary: For each option of `TrainOptions` the values to try, such as ``{"layers": ["0", "8", "8-8"]}``.
        seeds: How many trainings of each setting: with the option's seed (0) and those after it. A seed decides the
            split of the data too, the same for all settings.
        progress: Listens to each training.
        made: Is called after each training with it, its number (from 1) and how many there are.
        options: The other fields of `TrainOptions`, the same for all.

    Raises:
        PellucidError: when an option or value makes no sense, the source cannot be used, or ``out`` is something else.
            Nothing has been trained then.
        StoppedError: after Ctrl-C; the same call goes on.
    """
    folder = Path(out)
    saved = _saved(folder)
    if source is None and not vary and saved:
        source, vary, seeds, options = saved["source"], saved["vary"], saved["seeds"], saved["options"]
    fixed = TrainOptions.of(options)
    grid = {
        _option(name): [value_of(_option(name), value) for value in values] for name, values in (vary or {}).items()
    }
    _refuse_senseless(grid, seeds, fixed)
    data = None if source is None else str(source)
    given = {"source": data, "options": fixed.given()}
    if saved and {name: saved[name] for name in given} != given:
        raise PellucidError(
            _("Another sweep is in this folder: of other data, or with other options."),
            str(folder),
            _("Name a new folder, or go on with that one by --out {folder} alone.").format(folder=folder),
        )
    known = {run.folder: run for run in _results(folder)}
    places = list(itertools.product(combinations(grid), range(fixed.seed, fixed.seed + seeds)))
    if any(_place(setting, seed) not in known for setting, seed in places):
        _check(data, grid, fixed)
    folder.mkdir(parents=True, exist_ok=True)
    old = saved or {"vary": {}, "seeds": 0}
    write_json(folder / "sweep.json", given | {"vary": grid, "seeds": max(seeds, old["seeds"])})
    runs: list[Trained] = []
    for n, (setting, seed) in enumerate(places, 1):
        name = _place(setting, seed)
        try:
            trained = known.get(name) or _train(data, folder, name, setting, seed, fixed, progress)
        except (StoppedError, KeyboardInterrupt):
            raise StoppedError(
                _("Stopped: {n} of {all} trainings are finished.").format(n=n - 1, all=len(places)),
                str(folder),
                _("Go on with: pellucid sweep --out {folder}").format(folder=folder),
            ) from None
        runs.append(trained)
        if name not in known:
            write_json(folder / "results.json", Sweep(data or "", folder, grid, tuple(runs)).json())
            if made:
                made(trained, n, len(places))
    found = Sweep(data or "", folder, grid, tuple(runs))
    found.save()
    return found


def combinations(vary: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every setting of a grid."""
    return [dict(zip(vary, values, strict=True)) for values in itertools.product(*vary.values())]


def named(setting: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in setting.items())


def shown(figure: str, value: float) -> str:
    """A figure as people read it: of an error its percentage."""
    return f"{value:.1%}" if figure == "error" else f"{value:.4g}"


def value_of(name: str, value: Any) -> Any:
    """A value of an option, from text as the command line has it.

    Raises:
        PellucidError: when the option has no such value.
    """
    kinds = _kinds(name)
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    if bool in kinds and isinstance(value, str):
        known: dict[str, Any] = {"true": True, "yes": True, "false": False, "no": False}
        if value.lower() in known:
            return known[value.lower()]
    elif choices:
        if value in choices:
            return value
    elif isinstance(value, str) and str not in kinds:
        for kind in (int, float):
            if kind in kinds:
                try:
                    return kind(value)
                except ValueError:
                    continue
    elif value not in ("", None):
        return str(value) if str in kinds else value
    raise PellucidError(
        _("--{option} cannot be {value!r}.").format(option=name.replace("_", "-"), value=value),
        f"--vary {name}=...",
        _("It is one of {choices}.").format(choices=", ".join(map(str, choices)))
        if choices
        else _("Give values with commas between them, as in: --vary layers=0,8,8-8 --vary learning_rate=0.01,0.1"),
    )


def _kinds(name: str) -> tuple[Any, ...]:
    hint = get_type_hints(TrainOptions)[name]
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _option(name: str) -> str:
    known = [f.name for f in fields(TrainOptions)]
    found = name.strip().removeprefix("--").replace("-", "_")
    found = {"from": "start_from"}.get(found, found)
    if found not in known or found in FIXED:
        raise PellucidError(
            _("A range of {name!r} cannot be tried.").format(name=name),
            "--vary",
            _("Seeds are tried with --seeds.")
            if found == "seed"
            else _("It is one of: {names}.").format(names=", ".join(n for n in known if n not in FIXED)),
        )
    return found


def _refuse_senseless(grid: dict[str, list[Any]], seeds: int, fixed: TrainOptions) -> None:
    if not grid or not all(grid.values()):
        raise PellucidError(
            _("There is nothing to try."), "--vary", _("Name an option and its values: --vary layers=0,2,8,8-8")
        )
    if seeds < 1:
        raise PellucidError(
            _("{option} {value} makes no sense.").format(option="--seeds", value=seeds),
            "--seeds",
            _("It must be more than 0."),
        )
    for name in grid:
        if len(set(grid[name])) < len(grid[name]):
            raise PellucidError(
                _("A value stands twice."), f"--vary {name}={','.join(map(str, grid[name]))}", _("Name it once.")
            )
        if name in fixed.given():
            option = f"--{name.replace('_', '-')}"
            raise PellucidError(
                _("{option} is fixed and tried at once.").format(option=option), option, _("Leave one of them out.")
            )
    if fixed.plan:
        raise PellucidError(_("A plan leaves nothing to try."), "--plan", _("Leave it out."))
    for setting in combinations(grid):
        replace(fixed, **setting)  # which refuses what makes no sense


def _check(source: str | None, grid: dict[str, list[Any]], fixed: TrainOptions) -> None:
    """Refuse what cannot be trained before anything is: the data, as each setting reads them, and every network."""
    from pellucid.tasks import recognise

    prepared: dict[tuple[Any, ...], Task] = {}
    with tempfile.TemporaryDirectory(prefix="pellucid-sweep-") as making:
        for setting in combinations(grid):
            options = replace(fixed, **setting)
            key = tuple(value for name, value in setting.items() if name not in LATER)
            if key not in prepared:
                kind, _why = recognise(source, options)
                prepared[key] = kind.prepare(source, options, Path(making, str(len(prepared))))
            prepared[key].designs(options)


def _train(
    source: str | None,
    folder: Path,
    name: str,
    setting: dict[str, Any],
    seed: int,
    fixed: TrainOptions,
    progress: Progress | None,
) -> Trained:
    """Make one training, or go on with it, and read what came of it from its folder."""
    from pellucid.training import journal
    from pellucid.training import run as running

    out = folder / name
    started = (out / "plan.json").exists()
    done = started and any(True for _event in journal.read(out / "journal.jsonl", "finished"))
    try:
        if not started:
            running.start(source, str(out), replace(fixed, seed=seed, **setting), progress)
        elif not done:
            running.resume(str(out), progress)
    except StoppedError:
        raise
    except PellucidError as error:  # `_check` found no mistake: too high a learning rate, too little memory
        return Trained(setting, seed, name, failed=error.what)
    return _read(out, name, setting, seed)


def _read(out: Path, name: str, setting: dict[str, Any], seed: int) -> Trained:
    """What a finished run says of itself, and the figures on its training data."""
    from pellucid.tasks import task_named
    from pellucid.training import journal
    from pellucid.training.plan import Plan

    plan = Plan.open(out / "plan.json")
    events = list(journal.read(out / "journal.jsonl"))
    steps = [event for event in events if event["event"] == "step"]
    evaluations = [event for event in events if event["event"] == "evaluation"]
    end = next(event for event in reversed(events) if event["event"] == "finished")
    task = task_named(plan.task).restore(out, plan.facts)
    kept = next(event for event in evaluations if event["step"] == end["best_step"])
    return Trained(
        setting,
        seed,
        name,
        parameters=plan.parameters,
        steps=end["step"],
        best_step=end["best_step"],
        seconds=round(sum(event["seconds"] for event in steps), 3),
        first_loss=steps[0]["loss"],
        lowest_loss=min(event["loss"] for event in evaluations),
        training=_training_figures(task, task.open_network(out / "checkpoints" / "last"), plan),
        unseen=_figures(evaluations[-1]),
        best=_figures(kept),
        test=_figures(end),
    )


def _figures(event: dict[str, Any]) -> dict[str, float]:
    own = ("event", "step", "best_step", "verdict", "sentences", "evidence")
    return {name: value for name, value in event.items() if name not in own}


def _training_figures(task: Task, network: nn.Module, plan: Plan) -> dict[str, float]:
    """The task's figures on its training data where it has them; else the loss of as much data as is held out."""
    import torch

    from pellucid.training.loop import autocast

    network.to(plan.device).eval()
    known = getattr(task, "training_metrics", None)
    with torch.inference_mode(), autocast(plan):
        if known is not None:
            return known(network, plan)
        batches, items = task.batches("train", plan), min(task.items, plan.facts["held_out_items"])
        total, targets = 0.0, 0.0
        for _n in range(max(1, math.ceil(items / (plan.batch * plan.items)))):
            loss, count = task.loss(network, next(batches))
            total, targets = total + loss.item(), targets + count
    return {"loss": total / max(targets, 1e-12)}


def _saved(folder: Path) -> dict[str, Any] | None:
    """What the sweep in a folder was asked for; None where the folder is new."""
    if (folder / "sweep.json").exists():
        found = read_json(folder / "sweep.json")
        if {"source", "options", "vary", "seeds"} <= found.keys():
            return found
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PellucidError(
            _("This folder holds no sweep, and something else."), str(folder), _("Name another folder.")
        )
    return None


def _results(folder: Path) -> list[Trained]:
    """The trainings that are written down in a sweep's folder and still there."""
    if not (folder / "results.json").exists():
        return []
    found = []
    for run in read_json(folder / "results.json").get("runs", []):
        unknown = {name: math.nan for name in ("first_loss", "lowest_loss") if run[name] is None}
        found.append(Trained(**(run | unknown)))
    return [run for run in found if (folder / run.folder / "plan.json").exists()]


def _place(setting: Mapping[str, Any], seed: int) -> str:
    """The folder of a training, below the sweep's."""
    name = re.sub(r"[^\w.,=+-]", "_", ",".join(f"{name}={value}" for name, value in setting.items()))
    return f"{name}/seed={seed}"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
