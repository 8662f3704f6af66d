"""Learning-rate schedules: a factor between 0 and 1 for each step, times the peak learning rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pellucid.training.plan import Plan


def factor(plan: Plan, step: int) -> float:
    """The share of the peak learning rate that update number ``step`` (from 0) uses.

    An early decay (the clock fell behind, see `Plan.decay_early`) overrides the schedule from its step on: a straight
    line from the factor reached there down to 0 at the new last step.
    """
    for event in reversed(plan.events):
        if step >= event["step"]:
            left = (event["steps"] - step) / (event["steps"] - event["step"])
            return event["factor"] * min(1.0, max(0.0, left))
    return SCHEDULES[plan.schedule](step, plan.planned_steps, plan.warmup, plan.decay)


def stable(step: int, steps: int, warmup: float, decay: float) -> float:
    """Warm-up, stable, decay: linear rise, level, linear fall to 0 (Hu et al. 2024, MiniCPM, section 4)."""
    rise, fall = warmup * steps, decay * steps
    if step + 1 < rise:
        return (step + 1) / rise
    return min(1.0, (steps - step) / fall) if fall else 1.0


def cosine(step: int, steps: int, warmup: float, decay: float) -> float:
    """Linear rise, then half a cosine down to a tenth (Loshchilov and Hutter 2017; the floor is GPT-3's)."""
    rise = warmup * steps
    if step + 1 < rise:
        return (step + 1) / rise
    progress = (step - rise) / max(1.0, steps - rise)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, progress)))


def constant(step: int, steps: int, warmup: float, decay: float) -> float:
    """The peak throughout, as the textbooks' gradient descent has it."""
    return 1.0


SCHEDULES = {"stable": stable, "cosine": cosine, "constant": constant}
