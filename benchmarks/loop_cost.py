"""What the one loop costs: `one_step` against the loop that a PyTorch user writes, of the same network.

Both train LeNet-5 and a dense network of 784-128-10 on drawn bytes of MNIST's shape, in batches of 128, by fused Adam,
on one thread. Ours takes its batches from the task, checks loss and gradients for numbers that are not finite, measures
the gradient's norm and follows a schedule; journal and evaluations are listeners and not counted. The plain loop has
its pixels scaled in memory, draws a permutation each pass, and looks at no loss. LeNet is in `channels_last`, which
PyTorch's guide for CPUs advises, on both sides, and once more as a plain loop has it by default. Each side is a process
of its own with the allocator settings that the `pellucid` command makes, and once more the plain one without; rounds
alternate.

python benchmarks/loop_cost.py [--quick] [--rounds 7]
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import _measure as measure
from _measure import Figures, verdict

PICTURES, BATCH, RATE = 20_000, 128, 1e-3
NETWORKS = {"LeNet-5": ("lenet5", 40), "784-128-10": ("flatten, dense 128, relu; dense 10", 400)}  # steps in a window
# name: (work, settings, with our allocator)
RUNS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "ours": ("ours", {}, True),
    "plain": ("plain", {}, True),
    "plain, usual allocator": ("plain", {}, False),
    "plain, usual layout": ("plain", {"channels_last": False}, True),
}


def main() -> None:
    asked = measure.options(__doc__, rounds={"type": int, "default": 7})
    measure.header("imports, drawing the pictures, building the network, the first steps", asked.quick)
    for name, (network, steps) in NETWORKS.items():
        compare(name, network, steps // 10 if asked.quick else steps, 1 if asked.quick else asked.rounds)


def compare(name: str, network: str, steps: int, rounds: int) -> None:
    """Print one network's table."""
    rates: defaultdict[str, Figures] = defaultdict(Figures)
    for _ in range(rounds):
        for run, (work, settings, allocator) in RUNS.items():
            rates[run].add_rate(steps, measure.child(work, {"network": network, "steps": steps, **settings}, allocator))
    print(f"{name}, {BATCH} pictures a step, fp32")
    for run, rate in rates.items():
        print(f"  {run:<32}{rate.show()} steps/s")
    for run in list(RUNS)[1:]:
        ratio = rates["ours"].over(rates[run])
        print(f"  {'ours / ' + run:<32}{verdict(ratio, 1.0) if run == 'plain' else ratio.show('.2f')}")
    print(flush=True)


def ours(network: str, steps: int) -> list[dict[str, float]]:
    """Windows of our steps."""
    from pellucid.training.loop import one_step
    from pellucid.training.optimisers import Optimiser

    task, plan = _task_and_plan(network)
    module = task.network(plan)
    optimiser, batches = Optimiser(module, plan), task.batches("train", plan)
    return windows(lambda: one_step(0, module, task, batches, optimiser, plan), steps)


def plain(network: str, steps: int, channels_last: bool = True) -> list[dict[str, float]]:
    """Windows of a plain loop's steps."""
    import torch
    from torch.nn.functional import cross_entropy

    task, plan = _task_and_plan(network)
    module = task.network(plan).network.train()
    if not channels_last:
        module = module.to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.Adam(module.parameters(), RATE, fused=True)
    pixels, labels = _drawn()
    inputs = (pixels.float() - pixels.float().mean()) / pixels.float().std()

    def batches() -> Any:
        while True:
            order = torch.randperm(PICTURES)
            for start in range(0, PICTURES - BATCH + 1, BATCH):
                rows = order[start : start + BATCH]
                yield inputs[rows], labels[rows]

    drawn = batches()

    def step() -> None:
        x, y = next(drawn)
        loss = cross_entropy(module(x), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return windows(step, steps)


def windows(step: Callable[[], object], steps: int) -> list[dict[str, float]]:
    """Three windows of so many steps; the first steps pay for memory and kernels."""
    for _ in range(max(3, steps // 5)):
        step()
    return [asdict(window) for window in measure.repeated(lambda: [step() for _ in range(steps)], 3)]


def _drawn() -> tuple[Any, Any]:
    import torch

    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (PICTURES, 1, 28, 28), dtype=torch.uint8, generator=generator)
    return pixels, torch.randint(10, (PICTURES,), generator=generator)


def _task_and_plan(network: str) -> tuple[Any, Any]:
    """The task with drawn pictures, and a plan for one thread."""
    import torch

    from pellucid.tasks.pictures import PictureTask
    from pellucid.training.machine import Machine
    from pellucid.training.options import TrainOptions
    from pellucid.training.plan import derive

    torch.set_num_threads(1)
    pixels, labels = _drawn()
    part = {"x": pixels, "y": labels}
    facts = {"classes": [str(n) for n in range(10)], "picture": [1, 28, 28], "mean": [127.5], "std": [74.0]}
    facts |= {"shift": 0, "held_out_items": PICTURES}
    task = PictureTask(facts, {"train": part, "validation": part, "test": part})
    options = TrainOptions(network=network, batch=BATCH, steps=1_000_000, learning_rate=RATE, optimiser="adam")
    return task, derive(task, options, Machine("cpu", 1, "fp32", {}), lambda plan: 1e-3)


if __name__ == "__main__":
    measure.serve(ours=ours, plain=plain)
    main()
