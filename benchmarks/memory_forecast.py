"""Forecast of peak memory against the measured peak, over plans drawn by a seed.

Each plan trains a few real steps in a fresh process, by the loop that `pellucid train` uses, opens the model that it
saved, as a run does at its end, and reports the largest resident size that the system saw (`ru_maxrss`).

python benchmarks/memory_forecast.py [--plans 10] [--seed 0] [--steps 4] [--plain]
    --plain: without the allocator settings that the `pellucid` command makes
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
from dataclasses import MISSING, dataclass, fields
from typing import Any

import _measure as measure
from pellucid.anatomy import compute, families, memory
from pellucid.networks.decoder import Decoder, DecoderConfig, decoder_config

LEAST, MOST = 500e6, 4e9  # bytes, by the forecast
MOST_FLOPS = 4e12  # of a step in bf16, and a quarter of it in fp32: a few seconds on two cores


@dataclass(frozen=True)
class Draw:
    family: str
    shape: dict[str, Any]
    batch: int
    context: int
    precision: str
    optimiser: str
    accumulation: int

    @property
    def config(self) -> DecoderConfig:
        return decoder_config(self.family, **self.shape)

    def forecast(self) -> memory.Memory:
        return memory.forecast(self.config, self.batch, self.context, self.precision, self.optimiser, self.accumulation)

    def __str__(self) -> str:
        size = f"{self.shape['n_layers']}x{self.shape['d_model']} V={self.shape['vocab_size']}"
        tokens = f"{self.batch}x{self.context}" + (f" x{self.accumulation}" if self.accumulation > 1 else "")
        dropout = self.shape["dropout"]
        return f"{self.family:<6}{size:<15}{tokens:<11}{self.precision:<5}{self.optimiser:<6}{dropout:<4g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--plans", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        train(Draw(**json.loads(options.child)), options.steps)
        return
    allocator = "as it is" if options.plain else "as the `pellucid` command sets it"
    print(f"allocator {allocator}; seed {options.seed}; {options.steps} steps each; MB")
    print(f"{'plan':<47}{'forecast':>9}{'measured':>9}{'error':>8}  peak at", flush=True)
    errors = []
    for drawn in draws(options.seed, options.plans):
        told = drawn.forecast()
        measured = peak(drawn, options.steps, allocator=not options.plain)
        errors.append(told.total / measured - 1)
        figures = f"{told.total / 1e6:>9,.0f}{measured / 1e6:>9,.0f}{errors[-1]:>+8.1%}"
        print(f"{drawn!s}{figures}  {told.moment}", flush=True)
    within = sum(abs(error) <= 0.1 for error in errors)
    print(f"{within} of {len(errors)} within 10 %; the largest error is {max(map(abs, errors)):.1%}")


def draws(seed: int, n: int) -> list[Draw]:
    """Plans whose forecast lies between LEAST and MOST, and whose steps take no longer than a benchmark should."""
    random_ = random.Random(seed)
    found: list[Draw] = []
    while len(found) < n:
        family = random_.choice(("gpt2", "llama", "qwen3"))
        heads = random_.choice((4, 6, 8, 10, 12, 16))
        groups = 1 if family == "gpt2" else random_.choice((1, 2))
        shape = {
            "vocab_size": random_.choice((512, 1024, 4096, 8192, 16384, 32768, 50257)),
            "d_model": 64 * heads,
            "n_layers": random_.randint(2, 12),
            "n_heads": heads,
            "n_kv_heads": heads // groups,
            "context": random_.choice((128, 256, 512, 1024)),
            "dropout": random_.choice((0.0, 0.1)),
        }
        drawn = Draw(
            family,
            shape,
            batch=2 ** random_.randint(0, 6),
            context=shape["context"],
            precision=random_.choice(("fp32", "bf16")),
            optimiser=random_.choice(("adamw", "muon")),
            accumulation=random_.choice((1, 1, 2)),
        )
        flops = compute.training_flops(families.decoder(drawn.config), drawn.context).total
        work = flops * drawn.batch * drawn.context * drawn.accumulation * (4 if drawn.precision == "fp32" else 1)
        if LEAST <= drawn.forecast().total <= MOST and work <= MOST_FLOPS:
            found.append(drawn)
    return found


def peak(drawn: Draw, steps: int, allocator: bool) -> int:
    """Bytes of resident memory at most, of a process that trains as drawn."""
    command = [sys.executable, __file__, "--child", json.dumps(vars(drawn)), "--steps", str(steps)]
    ran = subprocess.run(command, env=measure.environment(allocator), check=True, stdout=subprocess.PIPE, text=True)
    return int(ran.stdout.split()[-1])


def train(drawn: Draw, steps: int) -> None:
    """Make the steps, save and open the model, and print the peak resident size in bytes."""
    import torch

    from pellucid.checkpoints.decoder import open_decoder, save_decoder
    from pellucid.tasks.text import TextTask
    from pellucid.training import loop
    from pellucid.training.optimisers import Optimiser

    class Batches:
        position = 0
        generator = torch.Generator().manual_seed(0)

        def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
            shape = (drawn.batch, drawn.context + 1)
            ids = torch.randint(drawn.shape["vocab_size"], shape, generator=self.generator)
            return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

    plan = plan_of(drawn, steps)
    network = Decoder(drawn.config)
    optimiser = Optimiser(network, plan)
    task = TextTask.__new__(TextTask)  # its loss needs nothing of a prepared text
    for _step in loop.steps(network, task, optimiser, plan, Batches()):
        pass
    with tempfile.TemporaryDirectory() as folder:
        save_decoder(network, folder)
        best = open_decoder(folder)
        assert best.config == network.config
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def plan_of(drawn: Draw, steps: int) -> Any:
    """The plan of a drawn training; what neither loop nor optimiser reads is zero."""
    from pellucid.training.plan import Plan

    blank = {field.name: 0 for field in fields(Plan) if field.default is MISSING and field.default_factory is MISSING}
    known = {
        "batch": drawn.batch,
        "items": drawn.context,
        "accumulation": drawn.accumulation,
        "planned_steps": steps,
        "optimiser": drawn.optimiser,
        "learning_rate": 1e-3,
        "embedding_rate": 1e-3,
        "schedule": "stable",
        "decay": 0.5,
        "clip": 1.0,
        "precision": drawn.precision,
        "device": "cpu",
    }
    return Plan(**(blank | known))


if __name__ == "__main__":
    main()
