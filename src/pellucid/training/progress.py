"""What a training shows while it runs. The loop knows nothing of it."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.status import Status
from rich.table import Table
from rich.text import Text

from pellucid.language import _
from pellucid.tasks.task import Task
from pellucid.training.loop import Step
from pellucid.training.plan import Plan
from pellucid.training.verdict import Verdict


class Progress:
    """Listens to a run. This one shows nothing: everything is in the journal."""

    def reading(self, source: str | None) -> None: ...
    def recognised(self, what: str, task: Task) -> None: ...
    def planned(self, plan: Plan, task: Task) -> None: ...
    def started(self, plan: Plan, task: Task, step: int) -> None: ...
    def step(self, step: Step, plan: Plan, seconds: float) -> None: ...
    def evaluated(self, step: int, said: str, verdict: Verdict) -> None: ...
    def finished(
        self, folder: Path, task: Task, seconds: float, best_step: int, said: str, verdict: Verdict
    ) -> None: ...
    def say(self, text: str) -> None: ...
    def close(self) -> None: ...


class Terminal(Progress):
    """The plan as a table, a bar while training, a line for each evaluation, the verdict at the end."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._bar: Bar | None = None
        self._status: Status | None = None
        self._verdict = ""  # the last one that was said: said again only when it changes

    def reading(self, source: str | None) -> None:
        self._status = self.console.status(_("reading"))
        self._status.start()

    def recognised(self, what: str, task: Task) -> None:
        assert self._status is not None
        self._status.update(_("measuring this machine's speed"))
        self.console.print(what, markup=False, style="bold")
        for line in task.summary():
            self.console.print(line, markup=False)
        for note in task.facts()["notes"]:
            self.say(note)

    def planned(self, plan: Plan, task: Task) -> None:
        assert self._status is not None
        self._status.stop()
        table = Table(title=_("Plan"), title_justify="left", box=None, padding=(0, 2, 0, 0), show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(style="dim", overflow="fold")
        for name, value, reason in rows(plan, task):
            table.add_row(name, value, reason)
        self.console.print(table)

    def started(self, plan: Plan, task: Task, step: int) -> None:
        self._unit = task.unit
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}"),
                TextColumn("{task.fields[what]}"),
            )
            self._bar = Bar(*columns, console=self.console, transient=True)
            self._task = self._bar.add_task(_("training"), total=plan.steps, completed=step, what="")
            self._bar.start()
        self._session: list[float] = []
        self._loss: float | None = None  # of the last step; a resumed run may have to evaluate before it makes one
        self._left = (plan.steps - step) * plan.forecast.get("seconds_per_step", 0.0)
        self._rate = 0.0

    def step(self, step: Step, plan: Plan, seconds: float) -> None:
        self._session = [*self._session[-50:], seconds]
        made = len(self._session) - 1
        a_step = (self._session[-1] - self._session[0]) / made if made else plan.forecast.get("seconds_per_step", 0.0)
        self._rate = plan.items_per_step / a_step if a_step else 0.0
        self._left = (plan.steps - step.number - 1) * a_step
        self._loss = step.loss
        if self._bar:
            what = _("loss {loss:.4g} · {rate:,.0f} {unit}/s · {left} left").format(
                loss=step.loss, rate=self._rate, unit=self._unit, left=clock(self._left)
            )
            self._bar.update(self._task, completed=step.number + 1, total=plan.steps, what=what)

    def evaluated(self, step: int, said: str, verdict: Verdict) -> None:
        self.console.print(
            _("step {step:>5}: {loss}held out {said}; {rate:,.0f} {unit}/s, {left} left").format(
                step=step,
                loss="" if self._loss is None else _("loss {loss:.4g}, ").format(loss=self._loss),
                said=said,
                rate=self._rate,
                unit=self._unit,
                left=clock(self._left),
            ),
            markup=False,
            soft_wrap=True,
        )
        if verdict.state != self._verdict and verdict.sentences:
            self.console.print(Padding(Text(verdict.sentences[0], "cyan"), (0, 0, 0, 2)))
        self._verdict = verdict.state

    def finished(self, folder: Path, task: Task, seconds: float, best_step: int, said: str, verdict: Verdict) -> None:
        self.close()
        self.console.print(
            _("Trained in {time}. Best model: step {step}, {said} on {what}.").format(
                time=clock(seconds), step=best_step, said=said, what=task.judged_on
            ),
            style="bold",
            markup=False,
            soft_wrap=True,
        )
        for sentence in verdict.sentences:
            self.console.print(Padding(Text(sentence), (0, 0, 0, 2)))
        self.console.print(_("The model is in {folder}. Try:").format(folder=folder), markup=False)
        self.console.print(task.next_command(shlex.quote(str(folder))), markup=False, style="bold", soft_wrap=True)

    def say(self, text: str) -> None:
        self.console.print(f"• {text}", markup=False, style="yellow")

    def close(self) -> None:
        if self._status:
            self._status.stop()
        if self._bar:
            self._bar.stop()
            self._bar = None


def rows(plan: Plan, task: Task) -> list[tuple[str, str, str]]:
    """The plan, a line a decision: name, value, reason."""
    why, forecast = plan.reasons, plan.forecast
    lines = [
        *task.rows(plan),
        (_("parameters"), f"{plan.parameters:,}", _("all numbers that training sets (docs/figures.md)")),
        (
            _("batch"),
            f"{plan.batch}" if plan.accumulation == 1 else f"{plan.batch} × {plan.accumulation}",
            why.get("batch", ""),
        ),
        (_("steps"), f"{plan.steps:,}", why.get("steps", "")),
        (_("optimiser"), plan.optimiser, why.get("optimiser", "")),
        (_("learning rate"), f"{plan.learning_rate:g}", why.get("learning_rate", "")),
        (_("schedule"), plan.schedule, schedule_in_words(plan)),
        (_("weight decay"), f"{plan.weight_decay:g}", why.get("weight_decay", "")),
        (_("precision"), plan.precision, why.get("precision", "")),
        (
            _("device"),
            _("{device}, threads: {threads}").format(device=plan.device, threads=plan.threads),
            why.get("device", ""),
        ),
        (
            _("evaluation"),
            _("every {n} steps").format(n=plan.evaluate_every),
            (
                _("{n:,} held-out {unit} each time, all of them at the end")
                if plan.evaluate_items < plan.facts["held_out_items"]
                else _("all {n:,} held-out {unit} each time")
            ).format(n=plan.evaluate_items, unit=task.unit),
        ),
    ]
    if forecast:
        lines.append(
            (
                _("time"),
                clock(forecast["training_seconds"]),
                _("and {seconds} for evaluations").format(seconds=clock(forecast["evaluation_seconds"])),
            )
        )
    if "memory_bytes" in forecast:
        held = (
            _("peak of the process; blocks keep their inputs and are computed again")
            if plan.recompute
            else _("peak of the process, activations included")
        )
        lines.append((_("memory"), f"{forecast['memory_bytes'] / 1e6:,.0f} MB", held))
    return lines


def schedule_in_words(plan: Plan) -> str:
    if plan.schedule == "constant":
        return _("the same from the first step to the last")
    if plan.schedule == "cosine":
        return _("rises for {warmup:.0%} of the steps, then half a cosine down to a tenth").format(warmup=plan.warmup)
    return _("rises for {warmup:.0%} of the steps, falls to 0 over the last {decay:.0%}").format(
        warmup=plan.warmup, decay=plan.decay
    )


def clock(seconds: float) -> str:
    """Seconds as 0:07, 3:00 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
