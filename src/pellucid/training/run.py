"""A run: from a source to a trained model in a folder, with everything that listens to the loop."""

from __future__ import annotations

import json
import math
import shutil
import signal
import statistics
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pellucid.checkpoints.files import replace_folder
from pellucid.errors import PellucidError, StoppedError
from pellucid.language import _
from pellucid.tasks import recognise, restored
from pellucid.tasks.task import Batches, Task
from pellucid.training import allocator, checkpoint, journal, machine
from pellucid.training.loop import Step, autocast, steps
from pellucid.training.optimisers import Optimiser
from pellucid.training.options import TrainOptions
from pellucid.training.plan import Plan, derive
from pellucid.training.progress import Progress
from pellucid.training.recompute import recompute_blocks
from pellucid.training.verdict import History, judge

BEHIND = 1.2  # the clock may run this much over the plan before the decay starts early


def start(
    source: str | None, out: str, options: TrainOptions, progress: Progress | None = None, dry_run: bool = False
) -> Plan:
    """Train a new network on ``source`` into the new folder ``out``; with ``dry_run`` only plan.

    Raises:
        PellucidError: when ``out`` exists, or the source or an option cannot be used. Nothing is left behind.
    """
    progress = progress or Progress()
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PellucidError(
            _("There is something here already; it is not overwritten."),
            str(folder),
            _("Go on with it by --resume {out}, or name another folder.").format(out=out),
        )
    making_in = Path(tempfile.gettempdir(), "pellucid-plan") if dry_run else folder
    try:
        with _room_for(making_in) as making:
            progress.reading(source)
            kind, why = recognise(source, options)
            task = kind.prepare(source, options, making)
            progress.recognised(why, task)
            plan = _plan(task, options)
            progress.planned(plan, task)
            if dry_run:
                return plan
            plan.save(making / "plan.json")
            (making / "journal.jsonl").touch()
            making.chmod(0o755)
            if folder.exists():
                folder.rmdir()
            replace_folder(making, folder)
    finally:
        progress.close()
    _run(folder, plan, kind.restore(folder, plan.facts), progress)
    return plan


def resume(out: str, progress: Progress | None = None) -> Plan:
    """Go on with the run in ``out``, bit for bit as if it had never stopped.

    Raises:
        PellucidError: when there is no run here or a file of it is damaged. Nothing has been changed then.
    """
    folder = Path(out)
    if not (folder / "plan.json").exists():
        raise PellucidError(_("There is no run here."), out, _("Name the folder that `pellucid train --out` made."))
    plan = Plan.open(folder / "plan.json")
    _run(folder, plan, restored(plan.task, folder, plan.facts), progress or Progress())
    return plan


@contextmanager
def _room_for(folder: Path) -> Iterator[Path]:
    """A hidden folder beside ``folder`` in which it is made; unless it is renamed, nothing of it is left behind.

    Raises:
        PellucidError: when it cannot be made or written.
    """
    missing = [parent for parent in folder.parents if not parent.exists()]
    making = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        yield making
    except OSError as error:
        raise PellucidError(
            _("The run's folder cannot be written: {why}.").format(why=error.strerror or error),
            str(error.filename or folder),
            _("Free some disk space, or name a folder that you may write to."),
        ) from error
    finally:
        if making:
            shutil.rmtree(making, ignore_errors=True)
        if not folder.exists():
            for parent in missing:
                if parent.exists() and not any(parent.iterdir()):
                    parent.rmdir()


def _plan(task: Task, options: TrainOptions) -> Plan:
    if options.plan:
        plan = Plan.open(Path(options.plan))
        here = json.loads(json.dumps(task.facts()))  # as it would come back from the file
        if {k: v for k, v in plan.facts.items() if k != "notes"} != {k: v for k, v in here.items() if k != "notes"}:
            raise PellucidError(
                _("The plan was made for other data."),
                options.plan,
                _("Train on the same source with the same options, or without --plan."),
            )
        plan.budget_seconds = None  # it is followed to the letter, however long that takes
        task.network(plan)  # what cannot be built is refused before the run's folder is there
        return plan

    def measured(plan: Plan) -> float:
        machine.fit_memory(task, plan)  # before the first step: the system would end a process that takes too much
        return seconds_per_step(task, plan)

    plan = derive(task, options, machine.machine_of(options), measured)
    machine.fit_memory(task, plan)
    return plan


def seconds_per_step(task: Task, plan: Plan, least: float = 1.5) -> float:
    """Make a few real training steps by ``plan`` on a throw-away network; the median of the seconds that one takes."""
    network, optimiser, batches = ready(task, plan)
    times: list[float] = []
    started = time.perf_counter()
    for _step in steps(network, task, optimiser, plan, batches):
        now = time.perf_counter()
        times.append(now - started)
        started = now
        if (
            (len(times) > 3 and sum(times[1:]) > least)
            or (len(times) > 1 and sum(times) > 8 * least)
            or len(times) > 99
        ):
            break
    times = sorted(times[1:] or times)
    return times[len(times) // 2]


def ready(task: Task, plan: Plan) -> tuple[nn.Module, Optimiser, Batches]:
    """Network, optimiser and data at step 0 of the plan."""
    allocator.suit(plan.items > 1, plan.recompute)
    torch.manual_seed(plan.seed)
    torch.set_num_threads(plan.threads)
    if plan.deterministic:
        torch.use_deterministic_algorithms(True)
    network, batches = task.network(plan), task.batches("train", plan)
    if plan.device != "cpu":
        machine.check_device(task, network, next(batches), plan.device)
        batches = task.batches("train", plan)
    if plan.recompute:
        recompute_blocks(network)
    if plan.compile:
        network.compile()
    return network, Optimiser(network, plan), batches


@dataclass
class State:
    """Where a run stands: what a checkpoint keeps beside weights, optimiser and random state."""

    step: int = 0  # updates made
    position: dict[str, Any] = field(default_factory=dict)  # of the data
    journal: int = 0  # offset in bytes
    seconds: float = 0.0  # spent on training steps
    best: float = math.inf  # lowest loss on held-out data
    best_figure: float | None = None  # the task's first figure then
    best_step: int = 0
    evaluations_since_best: int = 0
    due: bool = False  # saved before an evaluation that is not in the journal yet
    done: bool = False

    @classmethod
    def of(cls, saved: dict[str, Any], folder: Path) -> State:
        if saved.keys() != {f.name for f in fields(cls)}:
            raise PellucidError(
                _("{name} is damaged: {why}.").format(name="state.json", why=_("it is not the state of a training")),
                str(folder / "checkpoints" / "last" / "state.json"),
                _("Copy or download it again."),
            )
        return cls(**saved)


def _run(folder: Path, plan: Plan, task: Task, progress: Progress) -> None:
    network, optimiser, batches = ready(task, plan)
    saved = checkpoint.load(folder / "checkpoints" / "last", network, task, optimiser)
    state = State.of(saved, folder) if saved is not None else State()
    if state.position:
        batches.position = state.position
    if state.done:
        raise PellucidError(
            _("This run is finished: {steps} steps were planned and made.").format(steps=plan.steps),
            str(folder),
            _("Go on from its model with: pellucid train SOURCE --from {folder} --out NEW").format(folder=folder)
            if "start_from" in task.options
            else _("For a longer training make a new run, with --steps or --minutes."),
        )
    run = Run(
        folder,
        plan,
        task,
        network,
        optimiser,
        batches,
        state,
        journal.Journal(folder / "journal.jsonl", state.journal),
        progress,
    )
    try:
        run.train()
    finally:
        run.journal.close()
        progress.close()


@dataclass
class Run:
    """The listeners of one run: journal, progress, checkpoints, evaluation, the clock."""

    folder: Path
    plan: Plan
    task: Task
    network: nn.Module
    optimiser: Optimiser
    batches: Batches
    state: State
    journal: journal.Journal
    progress: Progress

    def train(self) -> None:
        path = self.folder / "journal.jsonl"
        self.training = [(event["step"], event["loss"]) for event in journal.read(path, "step")]
        self.validation = [(event["step"], event["loss"]) for event in journal.read(path, "evaluation")]
        self.reference = self.task.baselines()
        self._last_save = time.monotonic()
        self._recent: deque[float] = deque(maxlen=200)  # seconds of the last steps
        self.progress.started(self.plan, self.task, self.state.step)
        if self.state.due:
            self.evaluate()
        with interruptible(self.progress) as interrupted:
            try:
                self._train(interrupted)
            except StoppedError:
                raise
            except PellucidError:
                self.save()  # not finite: the bad step was not applied, so what is saved is good
                raise
        if self._enough() and self.state.step < self.plan.steps:
            self.journal.write("stopped early", step=self.state.step, best_step=self.state.best_step)
        self.finish()

    def _train(self, interrupted: threading.Event) -> None:
        if self._enough():  # resumed between its last evaluation and its end
            return
        started = time.perf_counter()
        for step in steps(self.network, self.task, self.optimiser, self.plan, self.batches, self.state.step):
            self._made(step, time.perf_counter() - started)
            last = self.state.step >= self.plan.steps
            if last or self.state.step % self.plan.evaluate_every == 0:
                self.state.due = True
                self.save()
                self.evaluate()
            elif time.monotonic() - self._last_save > self.plan.save_seconds:
                self.save()
            if interrupted.is_set() and not last:
                self._stop_here()
            if self._enough():
                return
            started = time.perf_counter()

    def _made(self, step: Step, seconds: float) -> None:
        """A step was made: write it down, show it, look at the clock."""
        self.state.step = step.number + 1
        self.state.position = self.batches.position
        self.state.seconds += seconds
        self.training.append((step.number, step.loss))
        self.journal.write(
            "step",
            step=step.number,
            loss=step.loss,
            gradient_norm=step.gradient_norm,
            rate=step.rate,
            targets=step.targets,
            seconds=round(seconds, 4),
        )
        if step.empty:
            self.journal.write("empty", step=step.number, micro_batches=step.empty)
            self.progress.say(
                _("step {step}: {n} micro-batches had no target and taught nothing").format(
                    step=step.number, n=step.empty
                )
            )
        self.progress.step(step, self.plan, self.state.seconds)
        self._look_at_clock(seconds)

    def _look_at_clock(self, seconds: float) -> None:
        """Let the learning rate fall to 0 in the time that is left, when the plan would take much longer."""
        budget, left_to_do = self.plan.budget_seconds, self.plan.steps - self.state.step
        self._recent.append(seconds)
        if budget is None or sum(self._recent) < 0.05 * budget or len(self._recent) < 10:
            return
        a_step = statistics.median(self._recent)  # one long step is no trend
        if self.state.seconds + left_to_do * a_step <= BEHIND * budget:
            return
        left = max(budget - self.state.seconds, 0.1 * budget)
        new_steps = self.state.step + max(1, int(left / a_step))
        if self.plan.steps - new_steps < 0.05 * self.plan.steps:
            return  # not worth a change of plan
        event = self.plan.decay_early(self.state.step, new_steps)
        self.plan.save(self.folder / "plan.json")
        self.journal.write("early decay", **event)
        self.progress.say(
            _(
                "The clock is more than {behind:.0%} behind the plan: "
                "the learning rate falls from now on, and training ends at step {steps}."
            ).format(behind=BEHIND - 1, steps=event["steps"])
        )

    def save(self) -> None:
        """Save a checkpoint, whole or not at all."""
        self.state.journal = self.journal.sync()
        checkpoint.save(self.folder / "checkpoints" / "last", self.network, self.task, self.optimiser, vars(self.state))
        self._last_save = time.monotonic()

    def evaluate(self) -> None:
        """Measure on held-out data; keep the model if it is the best so far; say what the loss means."""
        metrics = self._metrics(self.network, whole=False)
        if metrics["loss"] < self.state.best:
            self.state.best, self.state.best_step, self.state.evaluations_since_best = (
                metrics["loss"],
                self.state.step,
                0,
            )
            self.state.best_figure = next(iter(metrics.values()))
            self.task.save_network(self.network, self.folder)
        else:
            self.state.evaluations_since_best += 1
        self.state.due = False
        self.validation.append((self.state.step, metrics["loss"]))
        verdict = judge(self.reference, self._history(), finished=False)
        self.journal.write("evaluation", step=self.state.step, **metrics, verdict=verdict.state)
        self.progress.evaluated(self.state.step, self.task.say(metrics), verdict)

    def finish(self) -> None:
        """Measure the best model on all held-out data and pronounce the verdict."""
        allocator.give_back()  # what steps needed: the best model takes its place
        best = self.task.open_network(self.folder).to(self.plan.device)
        metrics = self._metrics(best, whole=True)
        self.reference = self.task.baselines(thorough=True)
        history = replace(self._history(), best=next(iter(metrics.values())))
        verdict = judge(self.reference, history, finished=True)
        self.journal.write(
            "finished",
            step=self.state.step,
            best_step=self.state.best_step,
            **metrics,
            verdict=verdict.state,
            sentences=verdict.sentences,
            evidence=verdict.evidence,
        )
        self.state.done = True
        self.save()
        self.progress.finished(
            self.folder, self.task, self.state.seconds, self.state.best_step, self.task.say(metrics), verdict
        )

    def _metrics(self, network: nn.Module, whole: bool) -> dict[str, float]:
        network.eval()
        with torch.inference_mode(), autocast(self.plan):
            return self.task.metrics(network, self.plan, whole)

    def _enough(self) -> bool:
        return bool(self.plan.patience) and self.state.evaluations_since_best >= self.plan.patience

    def _history(self) -> History:
        level = {"stable": 1 - self.plan.decay, "cosine": 0.5, "constant": 1.0}[self.plan.schedule]
        falls: int | None = int(self.plan.steps * level) if level < 1 else None
        if self.plan.events:
            falls = min(falls or self.plan.steps, self.plan.events[0]["step"])
        return History(self.training, self.validation, self.plan.steps, falls, self.state.best_figure)

    def _stop_here(self) -> None:
        self.save()
        if not (self.folder / "model.safetensors").exists():
            self.task.save_network(self.network, self.folder)
        raise StoppedError(
            _("Stopped at step {step} of {steps}; everything is saved.").format(
                step=self.state.step, steps=self.plan.steps
            ),
            str(self.folder),
            _("Go on with: pellucid train --resume {folder}").format(folder=self.folder),
        )


@contextmanager
def interruptible(progress: Progress) -> Iterator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM into a flag that the loop reads between steps; the second one ends as usual."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def on_interrupt(number: int, frame: Any) -> None:
        flag.set()
        restore()
        progress.say(_("Stopping after this step; again to stop at once and go back to the last checkpoint."))

    for number in before:
        signal.signal(number, on_interrupt)
    try:
        yield flag
    finally:
        restore()
