"""One training step, taken by the loop's own `one_step` and recorded: what `pellucid step` shows."""

from __future__ import annotations

import contextlib
import copy
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from pellucid.checkpoints.files import read_json, whole_folder
from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.tasks import restored
from pellucid.tasks.task import Batches, Task
from pellucid.tracing.addresses import Numbers
from pellucid.tracing.trace import Trace, record
from pellucid.training import checkpoint
from pellucid.training.loop import Step, autocast, one_step
from pellucid.training.optimisers import Optimiser
from pellucid.training.plan import Plan
from pellucid.training.run import ready

if TYPE_CHECKING:
    from pellucid.language_model import LanguageModel
    from pellucid.model import Model
    from pellucid.tracing.answers import Answer, Question

SMALL = 100  # parameters, up to which every number is shown
FEW = 32  # examples, up to which every number is shown
BLOCKS = 60  # modules, up to which each is shown by itself
Weights = Literal["last", "best", "start"]


def step(
    source: str | Path | Model | LanguageModel,
    *,
    at: Weights = "last",
    skip: int = 0,
    batch: int | None = None,
    seed: int | None = None,
    learning_rate: float | None = None,
    budget: float | None = None,
) -> StepShown:
    """Make one training step of a run and show all of it. Nothing in the run's folder is changed.

    Args:
        source: A run's folder, or a model that was opened from one.
        at: Where the step is taken: after the "last" checkpoint, exactly as the run itself would go on; from the
            "best" model, with an optimiser that remembers nothing; or from the "start", the network as it was drawn.
        skip: Make so many steps before, without recording them.
        batch: Examples in the step, instead of the plan's; they are then drawn from the beginning.
        seed: Of the order of the data (and of the network, at the "start"), instead of the plan's.
        learning_rate: Instead of what the plan's schedule says.
        budget: Bytes that the recording may take; None: half of the free memory.

    Raises:
        PellucidError: when there is no run, an option makes no sense, or the recording takes more than the budget.
    """
    walk = Walk.begin(source, at=at, batch=batch, seed=seed, learning_rate=learning_rate, budget=budget)
    if skip < 0:
        raise _refused("skip", skip, _("It must not be negative."))
    walk.skip(skip)
    return walk.step()


@dataclass
class Walk:
    """A training that goes on step by step, when asked."""

    network: nn.Module
    task: Task
    optimiser: Optimiser
    plan: Plan
    batches: Batches
    number: int  # of the next step
    random: Tensor  # the generator's state before it
    budget: float | None = None
    notes: list[str] = field(default_factory=list)

    @classmethod
    def begin(
        cls,
        source: str | Path | Model | LanguageModel,
        *,
        at: Weights,
        batch: int | None = None,
        seed: int | None = None,
        learning_rate: float | None = None,
        budget: float | None = None,
    ) -> Walk:
        """Stand before a step of a run: the arguments are those of `step`."""
        folder = _run_of(source)
        plan = Plan.open(folder / "plan.json")
        plan.compile, plan.recompute, plan.device = False, False, "cpu"  # a recording keeps everything
        if batch is not None:
            if batch < 1:
                raise _refused("batch", batch, _("It must be more than 0."))
            plan.batch, plan.accumulation = batch, 1
        if seed is not None:
            if not 0 <= seed < 2**63:
                raise _refused("seed", seed, _("It must not be negative."))
            plan.seed = seed
        if learning_rate is not None:
            if not 0 < learning_rate < math.inf:
                raise _refused("learning-rate", learning_rate, _("It must be more than 0."))
            _keep_to(plan, learning_rate)
        saved = whole_folder(folder / "checkpoints" / "last")
        state = read_json(saved / "state.json") if saved else {}
        notes = []
        if at == "last" and not saved:
            at = "start"
            notes.append(_("No step was made yet: this is the first one."))
        if at == "best" and not (folder / "model.safetensors").exists():
            raise PellucidError(
                _("There is no model yet."), str(folder), _("Step from the last checkpoint: --at last.")
            )
        task = restored(plan.task, folder, plan.facts)
        with _apart():
            network, optimiser, batches = ready(task, plan)
            number = 0
            if at == "last":
                state = checkpoint.load(folder / "checkpoints" / "last", network, task, optimiser) or {}
                number = state["step"]
                if batch is None and seed is None:
                    batches.position = state["position"]
            elif at == "best":
                checkpoint.copy_weights(task.open_network(folder), network)
                number = state.get("best_step", 0)
                notes.append(_("The best model's optimiser was not kept: it begins anew."))
            return cls(network, task, optimiser, plan, batches, number, torch.get_rng_state(), budget, notes)

    def skip(self, steps: int) -> None:
        """Make steps without recording them."""
        with self._going_on():
            for _n in range(steps):
                self._go_past_the_end()
                one_step(self.number, self.network, self.task, self.batches, self.optimiser, self.plan)
                self.number += 1

    def step(self) -> StepShown:
        """Make one step, recorded."""
        self._go_past_the_end()
        before = {name: p.detach().clone() for name, p in self.network.named_parameters()}
        watched: Any = Watched(self.task)
        with self._going_on():
            copied = copy.deepcopy(self.network)  # its statistics of batches stay as they were before the step
            random = torch.get_rng_state()
            with record(self.network, budget=self.budget) as trace:
                made = one_step(self.number, self.network, watched, self.batches, self.optimiser, self.plan)
            going_on = torch.get_rng_state()
            torch.set_rng_state(random)  # the same dropout, or the losses could not be compared
            _set_parameters(copied, self.network)
            loss_after = _loss(copied, self.task, watched, self.plan)
            torch.set_rng_state(going_on)
        if (tokenizer := getattr(self.task, "tokenizer", None)) is not None:
            trace.tokenizer = tokenizer  # type: ignore[attr-defined]  # so that terms of a gradient name their tokens
        self.number += 1
        return _shown(self, trace, made, watched, before, loss_after)

    def _go_past_the_end(self) -> None:
        if self.number >= self.plan.steps and self.plan.schedule != "constant":
            self.notes.append(_("The training is over: it goes on at the peak of its learning rate."))
            _keep_to(self.plan, self.plan.learning_rate)

    @contextlib.contextmanager
    def _going_on(self) -> Iterator[None]:
        """With the random numbers and threads of this training, not of the process."""
        with _apart():
            torch.set_num_threads(self.plan.threads)
            torch.set_rng_state(self.random)
            yield
            self.random = torch.get_rng_state()


@dataclass(frozen=True)
class Layer:
    """What one module gave in the forward pass."""

    address: str
    kind: str
    values: Tensor

    def summary(self) -> dict[str, Any]:
        return _summary(self.values)


@dataclass(frozen=True)
class Update:
    """One parameter, as a tensor, and what the step made of it."""

    name: str
    before: Tensor
    gradient: Tensor  # of the mean loss, as the optimiser was given it: clipped, where the plan clips
    after: Tensor

    @property
    def change(self) -> Tensor:
        return self.after - self.before

    @property
    def ratio(self) -> float:
        """|Δw| / |w|; about a thousandth is usual, much more is restless, much less is stuck."""
        size = self.before.norm().item()
        return self.change.norm().item() / size if size else math.inf if self.change.any() else 0.0

    def largest(self, n: int) -> list[tuple[str, float]]:
        """The addresses and values of the n largest gradients."""
        flat = self.gradient.flatten()
        found = flat.abs().topk(min(n, len(flat))).indices.tolist()
        return [(f"{self.name}:grad{_index(i, self.gradient.shape)}", flat[i].item()) for i in found]


@dataclass(frozen=True)
class StepShown:
    """One training step: the batch, the forward values, the loss, the gradients, the update, the new weights.

    ``trace`` holds the whole recording: any number of it can be asked why, as long as no further step is made.
    """

    trace: Trace
    number: int  # from 0, as in the journal
    loss: float  # C, the mean over the targets, before the step
    loss_after: float  # on the same batch, after it
    targets: float
    gradient_norm: float  # |∇C|, before clipping
    learning_rate: float  # η, of the step: the peak times the schedule's factor
    optimiser: str
    first_order: float  # ∇C · Δw: what a step this small would change, were C a plane
    descent: float | None  # −η |∇C|², of plain gradient descent; None of any other optimiser
    examples: tuple[dict[str, Any], ...]  # the batch in the user's words and units; shapes where the task cannot say
    layers: tuple[Layer, ...]
    updates: tuple[Update, ...]
    loss_addresses: tuple[str, ...]  # of the sums over each micro-batch's targets
    notes: tuple[str, ...]
    walk: Walk = field(repr=False)

    @property
    def change(self) -> float:
        """ΔC: by how much the step changed the loss of its own batch."""
        return self.loss_after - self.loss

    @property
    def parameters(self) -> int:
        return sum(update.before.numel() for update in self.updates)

    @property
    def small(self) -> bool:
        """Whether every number can be shown."""
        return self.parameters <= SMALL and len(self.examples) <= FEW

    def why(self, question: str | Question, **how: Any) -> Answer:
        """The terms of a number of this step: of a gradient by example, of a new weight by the optimiser's arithmetic.

        Args:
            question: An address, such as "fc.weight:grad[0,1]", or a short form: 'updated("fc.weight[0,1]")'.
            how: As for `Trace.why`.
        """
        return self.trace.why(question, **how)

    def next(self) -> StepShown:
        """The step after this one. This one's trace cannot be asked any more then: its weights have moved on."""
        return self.walk.step()

    def json(self, top: int = 8) -> dict[str, Any]:
        """Plain data: every number of a small network, else a summary by parameter and module."""
        gradients = [found for update in self.updates for found in update.largest(top)]
        return {
            "step": self.number,
            "loss": self.loss,
            "loss_after": self.loss_after,
            "change": self.change,
            "first_order": self.first_order,
            "descent": self.descent,
            "targets": self.targets,
            "gradient_norm": self.gradient_norm,
            "learning_rate": self.learning_rate,
            "optimiser": self.optimiser,
            "loss_addresses": list(self.loss_addresses),
            "examples": list(self.examples[: None if self.small else top]),
            "layers": [
                {"address": layer.address, "kind": layer.kind, "shape": list(layer.values.shape)}
                | ({"values": layer.values.tolist()} if self.small else layer.summary())
                for layer in self.layers
            ],
            "parameters": [self._plain(update) for update in self.updates],
            "largest_gradients": [
                {"address": address, "value": value}
                for address, value in sorted(gradients, key=lambda found: -abs(found[1]))[:top]
            ],
            "notes": list(self.notes),
        }

    def _plain(self, update: Update) -> dict[str, Any]:
        parts = {"before": update.before, "gradient": update.gradient, "change": update.change, "after": update.after}
        addresses = {"before": update.name, "gradient": f"{update.name}:grad", "after": f"{update.name}:updated"}
        shown = {what: x.tolist() if self.small else _summary(x) for what, x in parts.items()}
        return {
            "name": update.name,
            "shape": list(update.before.shape),
            "addresses": addresses,
            "ratio": update.ratio if math.isfinite(update.ratio) else None,
            **shown,
        }

    def show(self, top: int = 8) -> None:
        """Print it."""
        from pellucid.training.step_display import show

        show(self, top)


@dataclass
class Watched:
    """A task whose batches and losses are kept while the loop makes a step."""

    task: Task
    seen: list[tuple[Any, Tensor, float]] = field(default_factory=list)

    def loss(self, network: nn.Module, batch: Any) -> tuple[Tensor, float]:
        loss, count = self.task.loss(network, batch)
        self.seen.append((batch, loss.detach(), count))
        return loss, count


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """Leave the process's generator and threads as they were."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _run_of(source: Any) -> Path:
    folder = source if isinstance(source, str | Path) else source.folder
    if folder is None or not (Path(folder) / "plan.json").exists():
        raise PellucidError(
            _("There is no run here."),
            str(folder or ""),
            _("Name the folder that `pellucid train --out` made: a step needs its data and its plan."),
        )
    return Path(folder)


def _keep_to(plan: Plan, learning_rate: float) -> None:
    """Leave the schedule: the same learning rate from now on; that of embedding and head in proportion."""
    plan.embedding_rate *= learning_rate / plan.learning_rate
    plan.learning_rate, plan.schedule, plan.events = learning_rate, "constant", []


@torch.no_grad()
def _set_parameters(network: nn.Module, like: nn.Module) -> None:
    for here, there in zip(network.parameters(), like.parameters(), strict=True):
        here.copy_(there)


@torch.no_grad()
def _loss(network: nn.Module, task: Task, watched: Watched, plan: Plan) -> float:
    """The mean loss over the targets of the batches that were seen."""
    network.train()
    total, targets = 0.0, 0.0
    for batch, _loss_before, _count in watched.seen:
        with autocast(plan):
            loss, count = task.loss(network, batch)
        total, targets = total + loss.item() * bool(count), targets + count
    return total / targets


def _shown(
    walk: Walk, trace: Trace, made: Step, watched: Watched, before: dict[str, Tensor], loss_after: float
) -> StepShown:
    plan, tape = walk.plan, trace.tape
    updates = []
    for name, parameter in walk.network.named_parameters():
        if tape.place(parameter).storage in tape.gradients:
            gradient = trace.value(f"{name}:grad").reshape(parameter.shape)
            updates.append(Update(name, before[name], gradient, parameter.detach().clone()))
    clipped = 1.0 if plan.clip is None else min(1.0, plan.clip / (made.gradient_norm + 1e-6))
    first_order = sum((u.gradient.double() * u.change.double()).sum().item() for u in updates) / clipped
    rate = made.rate * plan.learning_rate
    plain = plan.optimiser == "sgd" and not (plan.momentum or plan.l1 or plan.l2)
    notes = list(walk.notes)
    if clipped < 1:
        notes.append(_("The gradient was clipped: shortened to {share:.1%} of its length.").format(share=clipped))
    rounding = 8 * torch.finfo(torch.float32).eps * abs(made.loss)
    if abs(loss_after - made.loss) < 10 * rounding:
        notes.append(
            _("The loss changed by about as much as it is rounded ({rounding:.1e}): ΔC says little here.").format(
                rounding=rounding
            )
        )
    return StepShown(
        trace=trace,
        number=made.number,
        loss=made.loss,
        loss_after=loss_after,
        targets=made.targets,
        gradient_norm=made.gradient_norm,
        learning_rate=rate,
        optimiser=plan.optimiser,
        first_order=first_order,
        descent=-rate * clipped * made.gradient_norm**2 if plain else None,
        examples=tuple(example for batch, _l, _n in watched.seen for example in _examples(walk.task, batch)),
        layers=tuple(_layers(trace, len(watched.seen) if sum(map(Tensor.numel, before.values())) > SMALL else 1)),
        updates=tuple(updates),
        loss_addresses=tuple(
            trace.addresses.name(Numbers(tape.place(loss), len(tape.calls))) for _b, loss, _n in watched.seen
        ),
        notes=tuple(notes),
        walk=walk,
    )


def _examples(task: Task, batch: Any) -> list[dict[str, Any]]:
    """A batch in the user's words, where its task has `examples`; else the shapes of its tensors."""
    describe = getattr(task, "examples", None)
    if describe is not None:
        return describe(batch)
    parts = (
        batch.items() if isinstance(batch, dict) else enumerate(batch if isinstance(batch, tuple | list) else [batch])
    )
    return [{str(name): list(x.shape) if isinstance(x, Tensor) else str(x) for name, x in parts}]


def _layers(trace: Trace, micro_batches: int) -> list[Layer]:
    """What each module gave: the innermost ones, or where there are many, those of a depth at which they are few.

    Of several micro-batches, only for the last one.
    """
    tape = trace.tape
    calls = Counter(scope.path for scope in tape.scopes)
    begin = {path: n - n // micro_batches for path, n in calls.items()}
    scopes = [s for s in tape.scopes if s.outputs and s.call >= begin[s.path]]
    outer = {id(scope.parent) for scope in scopes}
    depth = {id(scope): scope.path.count(".") for scope in scopes}
    chosen = [scope for scope in scopes if id(scope) not in outer]
    for most in range(max(depth.values(), default=0), -1, -1):
        if len(chosen) <= BLOCKS:
            break
        chosen = [s for s in scopes if depth[id(s)] == most or (id(s) not in outer and depth[id(s)] < most)]
    found: list[Layer] = []
    if chosen and chosen[0].inputs and chosen[0].inputs[0].dtype.is_floating_point:
        place, first = chosen[0].inputs[0], chosen[0]
        address = f"{first.path}{f'#{first.call}' if calls[first.path] > 1 else ''}:in"
        found.append(Layer(address, _("input"), tape.read(place, first.start).clone()))
    for scope in chosen:
        path = scope.path if scope.call == calls[scope.path] - 1 else f"{scope.path}#{scope.call}"
        for item, place in enumerate(scope.outputs):
            if place.dtype.is_floating_point:
                address = f"{path}{f':out.{item}' if item else '' if scope.path else ':out'}"
                found.append(Layer(address, scope.kind, tape.read(place, scope.end).clone()))
    return found


def _summary(x: Tensor) -> dict[str, Any]:
    x = x.double()
    return {
        "norm": x.norm().item(),
        "mean": x.mean().item(),
        "min": x.min().item(),
        "max": x.max().item(),
        "zeros": (x == 0).double().mean().item(),
    }


def _index(flat: int, shape: torch.Size) -> str:
    return "[" + ",".join(str(int(i)) for i in torch.unravel_index(torch.tensor(flat), shape)) + "]"


def _refused(name: str, value: Any, fix: str) -> PellucidError:
    return PellucidError(
        _("{option} {value} makes no sense.").format(option=f"--{name}", value=value), f"--{name}", fix
    )
