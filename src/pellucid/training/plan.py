"""The plan: everything that decides a training, derived from the data and this machine's measured speed.

What the user said stands; what they left out is derived, each with its reason. The plan fixes the number of steps.
It is saved as plan.json, and training by that file gives the same bytes again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from pellucid.checkpoints.files import write_json
from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.tasks.task import Design, Recipe, Task
from pellucid.training.machine import Machine
from pellucid.training.options import TrainOptions, parameters
from pellucid.training.schedules import factor

ITEMS_PER_PARAMETER = 20  # compute-optimal: Hoffmann et al. 2022, "Chinchilla"
ITEMS_PER_PARAMETER_SHORT = (
    0.45  # what short runs on a small machine want: fitted to three texts, see docs/performance.md
)
FEWEST_STEPS = 100


@dataclass
class Plan:
    """A training, decided. Every field is JSON."""

    task: str
    network: dict[str, Any]
    parameters: int
    batch: int  # examples in a micro-batch
    accumulation: int  # micro-batches in a step
    items: int  # items in an example (tokens in a sequence)
    planned_steps: int
    optimiser: str
    learning_rate: float
    embedding_rate: float
    schedule: str
    warmup: float
    decay: float
    weight_decay: float
    clip: float | None  # None: gradients are used as they are
    precision: str
    device: str
    threads: int
    compile: bool
    deterministic: bool
    seed: int
    evaluate_every: int  # steps
    evaluate_items: int  # held-out items looked at each time; all of them at the end
    patience: int
    save_seconds: float
    budget_seconds: float | None  # of training steps, when the user gave minutes
    start_from: str | None = None
    momentum: float = 0.0
    nesterov: bool = False
    l1: float = 0.0
    l2: float = 0.0
    recompute: bool = False
    facts: dict[str, Any] = field(default_factory=dict)  # of the data
    forecast: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)  # early decays: {"step", "steps", "factor"}

    @property
    def steps(self) -> int:
        """The number of updates, early decay taken into account."""
        return self.events[-1]["steps"] if self.events else self.planned_steps

    @property
    def items_per_step(self) -> int:
        return self.batch * self.accumulation * self.items

    def decay_early(self, step: int, steps: int) -> dict[str, Any]:
        """From ``step`` on, fall to a learning rate of 0 at ``steps``: the clock has fallen behind."""
        event = {"step": step, "steps": steps, "factor": factor(self, step)}
        self.events.append(event)
        return event

    def save(self, path: Path) -> None:
        write_json(path, asdict(self))

    @classmethod
    def open(cls, path: Path) -> Plan:
        """Read a plan.json.

        Raises:
            PellucidError: when the file is missing, is not JSON or is not a plan.
        """
        try:
            content, types = json.loads(path.read_text(encoding="utf-8")), get_type_hints(cls)
            if not isinstance(content, dict) or not types.keys() >= content.keys() >= _required(cls):
                raise TypeError(_("it does not have the fields of a plan"))
            for name, value in content.items():
                if not _is(value, types[name]):
                    raise TypeError(_("{name} cannot be {value!r}").format(name=name, value=value))
            return cls(**content)
        except FileNotFoundError:
            raise PellucidError(_("There is no plan here."), str(path), _("Give the plan.json of a run.")) from None
        except (ValueError, TypeError) as error:
            raise PellucidError(
                _("This is not a plan that can be followed."), f"{path}: {error}", _("Give the plan.json of a run.")
            ) from None


def _required(plan: type[Plan]) -> set[str]:
    return {f.name for f in fields(plan) if f.default is MISSING and f.default_factory is MISSING}


def _is(value: Any, type_: Any) -> bool:
    """Whether a value from JSON is of a field's type; what a list or dictionary holds is not looked at."""
    kinds = get_args(type_) if isinstance(type_, UnionType) else (type_,)
    return any(isinstance(value, (int, float) if kind is float else get_origin(kind) or kind) for kind in kinds)


def derive(task: Task, options: TrainOptions, machine: Machine, seconds_per_step: Callable[[Plan], float]) -> Plan:
    """Decide everything that ``options`` leave open.

    Args:
        task: The data, prepared.
        options: What the user said.
        machine: Device, threads, precision, memory.
        seconds_per_step: Makes a few real training steps by a plan and returns the seconds that one takes.
    """
    minutes = options.minutes or (None if options.steps or options.size else 5.0)
    budget = minutes * 60 if minutes else None
    designs = task.designs(options)
    speed = Speed(lambda design: seconds_per_step(_draft(task, design, options, machine, 2048)))
    if options.size and len(designs) == 1:
        raise PellucidError(
            _("There is only one network to choose here: --size says nothing."),
            "--size",
            _("Say how large it should be by its own options: pellucid train --help"),
        )
    if len(designs) == 1:
        design, why = designs[0], ""
    elif options.size:
        wanted = parameters(options.size)
        design = min(designs, key=lambda d: abs(math.log(d.parameters / wanted)))
        why = _("nearest to the size asked for")
    elif budget:
        design, why = _largest_affordable(designs, speed, budget, task)
    else:
        design, why = _for_steps(designs, options, task)
    reasons = ({"network": why} if why else {"network": _("as given")}) | task.why(design, options)

    recipe = task.recipe(design)
    rate = speed.items_per_second(design) if recipe.batch is None and (budget or not options.steps) else None
    step_items = _items_per_step(options, design, recipe, rate * budget if rate and budget else None, reasons)
    plan = _draft(task, design, options, machine, step_items)
    plan.reasons |= reasons
    plan.planned_steps = _steps(plan, options, task, rate, budget)
    _regularise(plan, task, options)
    seconds = seconds_per_step(plan)
    if budget and not options.steps:  # the measured step decides, not the estimate from a smaller network
        plan.planned_steps = _steps(plan, options, task, plan.items_per_step / seconds, budget)
    plan.budget_seconds = budget
    _evaluation(plan, task, options, seconds)
    return plan


class Speed:
    """Items a second of any design, from the ones that were measured: work and speed are nearly proportional."""

    def __init__(self, seconds_per_step: Callable[[Design], float]) -> None:
        self._seconds_per_step = seconds_per_step
        self._measured: dict[int, float] = {}  # by parameters
        self._flops_per_second = 0.0

    def measure(self, design: Design) -> float:
        items = max(1, round(2048 / design.items)) * design.items
        self._measured[design.parameters] = items / self._seconds_per_step(design)
        self._flops_per_second = self._measured[design.parameters] * design.flops
        return self._measured[design.parameters]

    def knows(self, design: Design) -> bool:
        return design.parameters in self._measured

    def items_per_second(self, design: Design) -> float:
        if not self._flops_per_second:
            return self.measure(design)
        return self._measured.get(design.parameters) or self._flops_per_second / design.flops


def _largest_affordable(designs: list[Design], speed: Speed, budget: float, task: Task) -> tuple[Design, str]:
    """The largest design whose every parameter sees enough items in the time there is."""

    def seen(design: Design) -> float:
        return min(speed.items_per_second(design) * budget, task.recipe(design).passes * task.items)

    def affordable(design: Design) -> bool:
        return seen(design) >= _items_wanted(budget) * design.parameters

    chosen = designs[min(2, len(designs) - 1)]
    while not speed.knows(chosen):  # each measurement tells more of the next guess
        speed.measure(chosen)
        chosen = max((d for d in designs if affordable(d)), key=lambda d: d.parameters, default=designs[0])
    why = (
        _("the largest of {n} whose parameters see at least {ratio:.2g} {unit} each in {minutes:g} minutes: {seen:.3g}")
        if affordable(chosen)
        else _("the smallest of {n}: its parameters see {seen:.3g} {unit} each in {minutes:g} minutes, no more")
    ).format(
        n=len(designs),
        ratio=_items_wanted(budget),
        minutes=budget / 60,
        seen=seen(chosen) / chosen.parameters,
        unit=task.unit,
    )
    return chosen, why


def _items_wanted(seconds: float) -> float:
    """Items for each parameter: from 0.45 in three minutes, where every network is still far from trained out,
    to the compute-optimal 20 in a day, on a straight line in the logarithms between."""
    share = min(1.0, max(0.0, math.log(seconds / 180) / math.log(86_400 / 180)))
    return ITEMS_PER_PARAMETER_SHORT * (ITEMS_PER_PARAMETER / ITEMS_PER_PARAMETER_SHORT) ** share


def _for_steps(designs: list[Design], options: TrainOptions, task: Task) -> tuple[Design, str]:
    assert options.steps is not None
    seen = min(options.steps * 2048, task.recipe(designs[0]).passes * task.items)
    chosen = max(
        (d for d in designs if d.parameters * ITEMS_PER_PARAMETER_SHORT <= seen),
        key=lambda d: d.parameters,
        default=designs[0],
    )
    return chosen, _("the largest whose parameters see at least {ratio:.2g} items each in {steps} steps").format(
        ratio=ITEMS_PER_PARAMETER_SHORT, steps=options.steps
    )


def _items_per_step(
    options: TrainOptions, design: Design, recipe: Recipe, seen: float | None, reasons: dict[str, str]
) -> int:
    """What the recipe says; else about 850 steps of 2,048 items in three minutes; four times the items, twice the
    batch."""
    if options.batch or options.accumulation:
        reasons["batch"] = _("as given")
        return (options.batch or recipe.batch or 16) * (options.accumulation or 1) * design.items
    if recipe.batch:
        reasons["batch"] = recipe.why.get("batch", "")
        return recipe.batch * design.items
    if not seen:
        reasons["batch"] = _("2,048 items a step: a good size for small networks")
        return 2048
    items = 2 ** round(math.log2(2048 * math.sqrt(seen / (850 * 2048))))
    reasons["batch"] = _(
        "{items} items a step: it grows with the square root of the {seen:.3g} items that the time allows"
    ).format(items=min(max(items, 1024), 2**19), seen=seen)
    return min(max(items, 1024), 2**19)


def _draft(task: Task, design: Design, options: TrainOptions, machine: Machine, items_per_step: int) -> Plan:
    """A plan without the number of steps and what follows from it."""
    micro = options.batch or max(1, min(items_per_step, 8192) // design.items)
    accumulation = options.accumulation or max(1, round(items_per_step / (micro * design.items)))
    recipe = task.recipe(design)
    optimiser = options.optimiser or recipe.optimiser
    reasons = {
        name: _("as given") if getattr(options, name) else recipe.why.get(name, "")
        for name in ("optimiser", "learning_rate")
    }
    reasons |= machine.why
    if recipe.precision and not options.precision:
        reasons["precision"] = recipe.why.get("precision", "") or _("a small network gains nothing from less")
    if recipe.threads and not options.threads:
        reasons["threads"] = _("the work of a step is too small to share")
    return Plan(
        task=task.name,
        network=design.network,
        parameters=design.parameters,
        batch=micro,
        accumulation=accumulation,
        items=design.items,
        planned_steps=options.steps or FEWEST_STEPS,
        optimiser=optimiser,
        learning_rate=options.learning_rate or _peak(recipe, optimiser),
        embedding_rate=options.embedding_rate or recipe.embedding_rate,
        schedule=options.schedule or recipe.schedule,
        warmup=recipe.warmup if options.warmup is None else options.warmup,
        decay=recipe.decay if options.decay is None else options.decay,
        weight_decay=options.weight_decay or 0.0,
        clip=recipe.clip if options.clip is None else options.clip or None,
        momentum=options.momentum or 0.0,
        nesterov=options.nesterov,
        l1=options.l1,
        l2=options.l2,
        precision=options.precision or recipe.precision or machine.precision,
        device=machine.device,
        threads=options.threads or recipe.threads or machine.threads,
        recompute=options.recompute,
        compile=options.compile,
        deterministic=options.deterministic,
        seed=options.seed,
        evaluate_every=FEWEST_STEPS,
        evaluate_items=0,
        patience=10 if options.patience is None else options.patience,
        save_seconds=options.save_seconds,
        budget_seconds=None,
        start_from=options.start_from,
        facts=task.facts(),
        reasons=reasons,
    )


def _peak(recipe: Recipe, optimiser: str) -> float:
    """The peak learning rate for an optimiser: the recipe's own, or what is usual for another one."""
    usual = {"muon": 1e-2, "adamw": 3e-3, "adam": 3e-3, "rmsprop": 1e-3, "sgd": 3e-2}
    return recipe.learning_rate * (1.0 if optimiser == recipe.optimiser else usual[optimiser] / usual[recipe.optimiser])


def _steps(plan: Plan, options: TrainOptions, task: Task, rate: float | None, budget: float | None) -> int:
    if options.steps:
        plan.reasons["steps"] = _("as given")
        return options.steps
    recipe = task.recipe(Design(plan.network, plan.parameters, 0, plan.items))
    most = math.ceil(recipe.passes * task.items / plan.items_per_step)
    if budget and rate:
        steps = int(budget * rate / plan.items_per_step)
        plan.reasons["steps"] = _("{minutes:g} minutes at {rate:,.0f} {unit} a second, measured here").format(
            minutes=budget / 60, rate=rate, unit=task.unit
        )
    elif budget:
        steps = most  # until a step has been measured
    else:
        steps = math.ceil(ITEMS_PER_PARAMETER * plan.parameters / plan.items_per_step)
        plan.reasons["steps"] = _("{n} items a parameter (Hoffmann et al. 2022)").format(n=ITEMS_PER_PARAMETER)
    if steps > max(FEWEST_STEPS, most):
        why = recipe.why.get("few", "") if most < FEWEST_STEPS else ""
        plan.reasons["steps"] = (why or recipe.why.get("passes", "")).format(passes=recipe.passes)
    return max(1, min(steps, max(FEWEST_STEPS, most)))


def _regularise(plan: Plan, task: Task, options: TrainOptions) -> None:
    passes = plan.planned_steps * plan.items_per_step / max(1, task.items)
    dropout, weight_decay, why = task.regularisation(passes)
    plan.reasons["dropout"] = why if options.dropout is None else _("as given")
    plan.network = task.regularised(plan.network, dropout if options.dropout is None else options.dropout)
    recipe = task.recipe(Design(plan.network, plan.parameters, 0, plan.items))
    if recipe.weight_decay is not None:
        weight_decay, why = recipe.weight_decay, recipe.why["weight_decay"]
    plan.weight_decay = weight_decay if options.weight_decay is None else options.weight_decay
    plan.reasons["weight_decay"] = why if options.weight_decay is None else _("as given")
    if plan.weight_decay and plan.optimiser not in ("muon", "adamw"):
        if options.weight_decay:
            raise PellucidError(
                _("{optimiser} has no weight decay of its own.").format(optimiser=plan.optimiser),
                "--weight-decay",
                _("Use --optimiser adamw, or --l2, which adds to the gradient."),
            )
        plan.weight_decay, plan.reasons["weight_decay"] = (
            0.0,
            _("{optimiser} has none").format(optimiser=plan.optimiser),
        )


def _evaluation(plan: Plan, task: Task, options: TrainOptions, seconds: float) -> None:
    """Each evaluation costs about a third of a step an item; together they may take 5 % of the training."""
    held_out = task.facts()["held_out_items"]
    plan.evaluate_every = max(1, math.ceil(plan.planned_steps / options.evaluations))
    affordable = 0.05 * plan.planned_steps * plan.items_per_step * 3 / options.evaluations
    recipe = task.recipe(Design(plan.network, plan.parameters, 0, plan.items))
    plan.evaluate_items = held_out if recipe.judge_all else int(min(held_out, max(affordable, 4 * plan.items)))
    per_item = seconds / plan.items_per_step / 3
    training = plan.planned_steps * seconds
    plan.forecast = {
        "seconds_per_step": seconds,
        "training_seconds": training,
        "evaluation_seconds": per_item * (plan.evaluate_items * options.evaluations + held_out),
    }
