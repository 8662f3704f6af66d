"""This machine: device, threads, the precision that is fastest here, the memory that is left."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pellucid.anatomy.cost.devices import available_memory, product_seconds
from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.networks.device import device as find_device
from pellucid.training.options import TrainOptions

if TYPE_CHECKING:
    from pellucid.tasks.task import Task
    from pellucid.training.plan import Plan


@dataclass(frozen=True)
class Machine:
    """What the plan must know of the machine."""

    device: str
    threads: int
    precision: str
    why: dict[str, str]


def machine_of(options: TrainOptions) -> Machine:
    """Choose device, threads and precision; the precision by timing a matrix product in each."""
    why: dict[str, str] = {}
    device = find_device(options.device)
    why["device"] = _("as given") if options.device else _("the fastest that torch finds")
    threads = options.threads or torch.get_num_threads()
    why["threads"] = _("as given") if options.threads else _("all physical cores")
    if options.threads:
        torch.set_num_threads(threads)
    precision: str | None = options.precision
    if precision:
        why["precision"] = _("as given")
    elif device == "mps":
        precision, why["precision"] = "fp32", _("the surest on this device")
    else:
        ratio = product_seconds("fp32", device) / product_seconds("bf16", device)
        precision = "bf16" if ratio > 1.2 else "fp32"
        why["precision"] = _("a matrix product in bf16 takes 1/{ratio:.1f} of the time in fp32, measured here").format(
            ratio=ratio
        )
    return Machine(device, threads, precision, why)


def taken() -> int:
    """Bytes of memory that this process has had at most until now; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def fit_memory(task: Task, plan: Plan) -> None:
    """Forecast the peak memory, and halve the micro-batch (doubling their number) until it fits into what is available.

    Raises:
        PellucidError: when not even one sequence at a time fits.
    """
    available = available_memory() if plan.device == "cpu" else None
    while True:
        need = task.memory(plan)
        if available is None or need <= 0.9 * available:
            break
        if plan.batch == 1:
            raise PellucidError(
                _("This training needs about {need:,.0f} MB of memory; {have:,.0f} MB are available.").format(
                    need=need / 1e6, have=available / 1e6
                ),
                _("{parameters:,} parameters, one example of {items:,} {unit} at a time").format(
                    parameters=plan.parameters, items=plan.items, unit=task.unit
                ),
                _("Choose a smaller network (or --context, or --picture-size), or close other programs.")
                if plan.recompute
                else _("Say --recompute, choose a smaller network (--context, --picture-size), or close programs."),
            )
        sequences = plan.batch * plan.accumulation
        plan.batch //= 2
        plan.accumulation = math.ceil(sequences / plan.batch)
        plan.reasons["batch"] = _("as many at once as fit into {have:,.0f} MB").format(have=available / 1e6)
    plan.forecast["memory_bytes"] = max(need, taken())


@torch.inference_mode()
def check_device(task: Task, network: nn.Module, batch: Any, device: str) -> float:
    """Compute one batch's loss in fp32 on the CPU and on ``device``; return the relative difference.

    Some devices compute wrong numbers without a word (matrix products on MPS have, for certain shapes), and a training
    there looks like bad data. The network ends on ``device``.

    Raises:
        PellucidError: when the losses differ by more than a thousandth: rounding explains less than a ten-thousandth.
    """
    network.eval()
    losses = []
    for place in ("cpu", device):
        loss, count = task.loss(network.to(place), batch)
        losses.append(loss.item() / max(1, count))
    difference = abs(losses[1] - losses[0]) / max(abs(losses[0]), 1e-12)
    if not difference <= 1e-3:
        raise PellucidError(
            _("This device computes something else than the CPU: loss {there:.5f} there, {here:.5f} here.").format(
                there=losses[1], here=losses[0]
            ),
            f"--device {device}",
            _("Train with --device cpu, or with another version of PyTorch or of the driver."),
        )
    return difference
