"""The one loop. Every network is trained by it, from a line with two parameters to a GPT.

It yields a `Step` and knows no listener: journal, progress, checkpoints, verdict and doctor only watch what comes out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.tasks.task import Batches, Task
from pellucid.training.finite import first_bad
from pellucid.training.optimisers import Optimiser
from pellucid.training.plan import Plan
from pellucid.training.schedules import factor


@dataclass(frozen=True)
class Step:
    """What one update did."""

    number: int  # from 0
    loss: float  # mean over the targets, before the update; nats a token for a language model
    targets: float  # how many numbers were predicted (by weight, where they have weights)
    gradient_norm: float  # over all parameters, before clipping
    rate: float  # share of the peak learning rate, 0 to 1
    empty: int = 0  # micro-batches without any target


def steps(
    network: nn.Module, task: Task, optimiser: Optimiser, plan: Plan, batches: Batches, start: int = 0
) -> Iterator[Step]:
    """Train ``network``, one update an iteration, until the plan's last step. The plan may be shortened meanwhile."""
    number = start
    while number < plan.steps:
        yield one_step(number, network, task, batches, optimiser, plan)
        number += 1


def one_step(number: int, network: nn.Module, task: Task, batches: Batches, optimiser: Optimiser, plan: Plan) -> Step:
    """One update: the gradient of Σ loss / Σ targets over all micro-batches, checked, clipped, applied.

    Raises:
        PellucidError: when loss or gradient is not finite, or no batch has a target. Nothing has been updated then.
    """
    if not network.training:
        network.train()
    random_state = torch.get_rng_state()
    micro_batches: list[Any] = []
    losses: list[Tensor] = []
    targets: float = 0
    empty = 0
    for _micro in range(plan.accumulation):
        batch = next(batches)
        with autocast(plan):
            loss, count = task.loss(network, batch)
        if count:
            loss.backward()
            losses.append(loss.detach())
        micro_batches.append(batch)
        targets += count
        empty += count == 0
    if not targets:
        raise PellucidError(
            _("No number in this batch is to be predicted: every target is masked."),
            _("step {step}, data position {position}").format(step=number, position=batches.position),
            _("Look at the targets of these examples, or train on longer texts."),
        )
    mean_loss = sum(loss.item() for loss in losses) / targets
    gradients = [p.grad for p in optimiser.names if p.grad is not None]
    norm = math.hypot(*torch.stack(torch._foreach_norm(gradients)).tolist()) / targets
    if not (math.isfinite(mean_loss) and math.isfinite(norm)):
        torch.set_rng_state(random_state)
        raise not_finite(number, network, task, micro_batches, plan, mean_loss, norm)
    shorten = 1.0 if plan.clip is None else min(1.0, plan.clip / (norm + 1e-6))
    torch._foreach_mul_(gradients, shorten / targets)
    rate = factor(plan, number)
    optimiser.step(rate)
    optimiser.zero_grad()
    return Step(number, mean_loss, targets, norm, rate, empty)


def autocast(plan: Plan) -> Any:
    """Matrix products in the plan's precision; weights stay in fp32."""
    return torch.autocast(plan.device, torch.bfloat16) if plan.precision == "bf16" else nullcontext()


def not_finite(
    number: int, network: nn.Module, task: Task, micro_batches: list[Any], plan: Plan, loss: float, norm: float
) -> PellucidError:
    """Run the bad step again, watched, and say where the first number that is not finite came up."""
    network.zero_grad(set_to_none=True)
    index, found = 0, None
    for index, batch in enumerate(micro_batches):  # noqa: B007  (which one it was is told below)

        def run(batch: Any = batch) -> None:
            with autocast(plan):
                task.loss(network, batch)[0].backward()

        found = first_bad(network, run)
        if found:
            break
    network.zero_grad(set_to_none=True)
    where = _("step {step}, micro-batch {batch} of {batches}: {found}").format(
        step=number,
        batch=index + 1,
        batches=len(micro_batches),
        found=found or _("not found again when the step was repeated"),
    )
    rate = factor(plan, number) * plan.learning_rate
    return PellucidError(
        _(
            "Loss or gradient is not a finite number (loss {loss}, gradient norm {norm}); the step was not applied."
        ).format(loss=loss, norm=norm),
        where,
        _(
            "The last good weights are saved. Train again with a lower --learning-rate (it was {rate:g} here){more}."
        ).format(rate=rate, more=_(" or --precision fp32") if plan.precision != "fp32" else ""),
    )
