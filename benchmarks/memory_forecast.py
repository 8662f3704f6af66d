"""Forecast of peak memory against the measured peak, over plans drawn by a seed.

Each plan trains a few real steps in a fresh process, by the loop that `pellucid train` uses, and reports the largest
resident size that the system saw (`ru_maxrss`). Run: python benchmarks/memory_forecast.py [--plans 10] [--seed 0]
[--plain] (--plain: without the allocator settings that the `pellucid` command makes).
"""

import argparse
import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from pellucid.anatomy import compute, families, memory

ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "68719476736",
    "MALLOC_TOP_PAD_": "268435456",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
LEAST, MOST = 500e6, 4e9  # bytes, by the forecast
MOST_FLOPS = 6e12  # of a step: about 10 s in bf16 and 20 s in fp32 on two cores


@dataclass(frozen=True)
class Draw:
    family: str
    shape: dict[str, Any]
    batch: int
    context: int
    precision: str
    optimiser: str
    accumulation: int

    def forecast(self) -> memory.Memory:
        return memory.forecast(
            self.config(), self.batch, self.context, self.precision, self.optimiser, self.accumulation
        )

    def config(self) -> Any:
        from pellucid.networks.decoder import decoder_config

        return decoder_config(self.family, **self.shape)

    def __str__(self) -> str:
        s = self.shape
        size = f"{s['n_layers']}x{s['d_model']} V={s['vocab_size']}"
        tokens = f"{self.batch}x{self.context}" + (f" x{self.accumulation}" if self.accumulation > 1 else "")
        return f"{self.family:<6}{size:<15}{tokens:<11}{self.precision:<5}{self.optimiser:<6}{s['dropout']:<4g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--plans", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        train(Draw(**json.loads(options.child)), options.steps)
        return
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)} | ({} if options.plain else ALLOCATOR)
    print(
        f"allocator: {'as it is' if options.plain else 'keeps memory'}; seed {options.seed}; {options.steps} steps each"
    )
    print(f"{'plan':<47}{'forecast':>9}{'measured':>9}{'error':>8}  peak at", flush=True)
    errors = []
    for drawn in draws(options.seed, options.plans):
        forecast = drawn.forecast()
        command = [sys.executable, __file__, "--child", json.dumps(vars(drawn)), "--steps", str(options.steps)]
        ran = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        measured = int(ran.stdout.split()[-1])
        errors.append(forecast.total / measured - 1)
        print(
            f"{drawn!s}{forecast.total / 1e6:>9,.0f}{measured / 1e6:>9,.0f}{errors[-1]:>+8.1%}  {forecast.moment}",
            flush=True,
        )
    print(
        f"largest error {max(map(abs, errors)):.1%}; MB; {sum(abs(e) <= 0.1 for e in errors)} of {len(errors)} within 10 %"
    )


def draws(seed: int, n: int) -> list[Draw]:
    """Plans whose forecast lies between LEAST and MOST, and whose steps take no longer than a benchmark should."""
    random_ = random.Random(seed)
    found: list[Draw] = []
    while len(found) < n:
        family = random_.choice(("gpt2", "llama", "qwen3"))
        width = random_.choice((256, 384, 512, 640, 768, 1024))
        heads = width // 64
        shape = {
            "vocab_size": random_.choice((512, 1024, 4096, 8192, 16384, 32768, 50257)),
            "d_model": width,
            "n_layers": random_.randint(2, 12),
            "n_heads": heads,
            "n_kv_heads": heads if family == "gpt2" else random_.choice((heads, heads // 2 if heads % 2 == 0 else 1)),
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
        flops = compute.training_flops(families.decoder(drawn.config()), drawn.context).total
        seconds_alike = (
            flops * drawn.batch * drawn.context * drawn.accumulation * (4 if drawn.precision == "fp32" else 1)
        )
        if LEAST <= drawn.forecast().total <= MOST and seconds_alike <= MOST_FLOPS:
            found.append(drawn)
    return found


def train(drawn: Draw, steps: int) -> None:
    """Make the steps, and print the peak resident size in bytes."""
    import resource

    import torch

    from pellucid.networks.decoder import Decoder
    from pellucid.tasks.text import TextTask
    from pellucid.training import loop
    from pellucid.training.optimisers import Optimiser

    plan = plan_of(drawn, steps)
    network = Decoder(drawn.config())
    generator = torch.Generator().manual_seed(0)
    vocab_size = drawn.shape["vocab_size"]

    class Batches:
        position = 0

        def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
            ids = torch.randint(vocab_size, (drawn.batch, drawn.context + 1), generator=generator)
            return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

    task = TextTask.__new__(TextTask)  # its loss needs nothing of a prepared text
    for _step in loop.steps(network, task, Optimiser(network, plan), plan, Batches()):
        pass
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def plan_of(drawn: Draw, steps: int) -> Any:
    from dataclasses import MISSING, fields

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
        "threads": 2,
    }
    return Plan(**(blank | known))


if __name__ == "__main__":
    main()
