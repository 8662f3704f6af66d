"""Forecast of peak memory against the measured peak, over plans drawn by a seed.

Dense networks, convolutional ones and decoders take turns, each in fp32 and bf16, with and without recomputation:
twelve plans are once around. Each trains a few real steps in a fresh process, by the loop that `pellucid train` uses,
opens the model that it saved, as a run does at its end, and reports the largest resident size that the system saw
(`ru_maxrss`). On a GPU it is the most that torch had given out (`torch.cuda.max_memory_allocated`), and the forecast is
without process and holes; that was never run on one yet.

python benchmarks/memory_forecast.py [--plans 12] [--seed 0] [--steps 4] [--plain] [--device cuda]
    --plain: without the allocator settings that the `pellucid` command makes
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, fields
from itertools import cycle, product
from math import prod
from typing import Any

import _measure as measure
from pellucid.anatomy import compute, families
from pellucid.anatomy.memory import peak
from pellucid.anatomy.memory.kept import Run
from pellucid.anatomy.tree import Node
from pellucid.networks.convnet import ConvNet, ConvNetConfig, convnet_config
from pellucid.networks.decoder import Decoder, DecoderConfig, decoder_config
from pellucid.networks.dense import Dense, DenseConfig

LEAST, MOST = 600e6, 4e9  # bytes, by the forecast
MOST_FLOPS = 2e12  # of a step in bf16, and a quarter of it in fp32: a few seconds on two cores
STACK = (
    "conv {0} 3 padding=1, relu, max 2; conv {1} 3 padding=1, batch, relu, max 2; "
    "conv {1} 3 padding=1, gelu; flatten, dense {1}, relu, dense 10"
)


@dataclass(frozen=True)
class Draw:
    """A training. `family` is one of decoders, or "dense" or "convnet"; the shape is what its config is made from."""

    family: str
    shape: dict[str, Any]
    batch: int
    context: int
    precision: str
    optimiser: str
    accumulation: int
    recompute: bool = False

    @property
    def config(self) -> Any:
        if self.family == "dense":
            return DenseConfig(**self.shape)
        if self.family == "convnet":
            layers, picture = self.shape["layers"], self.shape["picture"]
            return (
                ConvNetConfig(*picture, layers.split("; ")) if ";" in layers else convnet_config(layers, *picture, 10)
            )
        return decoder_config(self.family, **self.shape)

    @property
    def tree(self) -> Node:
        made = {DenseConfig: families.dense, ConvNetConfig: families.convnet, DecoderConfig: families.decoder}
        return made[type(self.config)](self.config)

    @property
    def inputs(self) -> int:
        """Numbers in an example; 0 where it is a text."""
        return {"dense": self.shape.get("inputs", 0), "convnet": prod(self.shape.get("picture", ()))}.get(
            self.family, 0
        )

    def forecast(self, device: str = "cpu") -> peak.Memory:
        run = Run(self.batch, self.context, self.inputs, 2 if self.precision == "bf16" else 4, device)
        training = peak.Training(run, self.optimiser, accumulation=self.accumulation, recompute=self.recompute)
        return peak.forecast(self.tree, training, **({} if device == "cpu" else {"process": 0, "held": 0}))

    def __str__(self) -> str:
        shape = self.shape
        if self.family == "dense":
            size = (
                f"{shape['inputs']}-{len(shape['hidden'])}x{shape['hidden'][0]} {shape['activation']} {shape['norm']}"
            )
        elif self.family == "convnet":
            size = f"{shape['layers'].split(',')[0]} {'x'.join(map(str, shape['picture']))}"
        else:
            size = f"{shape['n_layers']}x{shape['d_model']} V={shape['vocab_size']} T={self.context}"
        batch = f"{self.batch}" + (f" x{self.accumulation}" if self.accumulation > 1 else "")
        how = f"{self.precision:<5}{self.optimiser:<6}{'recompute' if self.recompute else '':<10}"
        return f"{self.family:<8}{size:<26}{batch:<9}{how}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--plans", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        train(Draw(**json.loads(options.child)), options.steps, options.device)
        return
    allocator = "as it is" if options.plain else "as the `pellucid` command sets it"
    print(f"{options.device}; allocator {allocator}; seed {options.seed}; {options.steps} steps each; MB")
    print(f"{'plan':<64}{'forecast':>9}{'measured':>9}{'error':>8}  peak at", flush=True)
    errors = []
    for drawn in draws(options.seed, options.plans):
        told = drawn.forecast(options.device)
        measured = resident(drawn, options.steps, options.device, allocator=not options.plain)
        errors.append(told.total / measured - 1)
        figures = f"{told.total / 1e6:>9,.0f}{measured / 1e6:>9,.0f}{errors[-1]:>+8.1%}"
        print(f"{drawn!s:<64}{figures}  {told.moment}", flush=True)
    within = sum(abs(error) <= 0.1 for error in errors)
    print(f"{within} of {len(errors)} within 10 %; the largest error is {max(map(abs, errors)):.1%}")


def draws(seed: int, n: int) -> list[Draw]:
    """Plans whose forecast lies between LEAST and MOST, and whose steps take no longer than a benchmark should."""
    random_ = random.Random(seed)
    found: list[Draw] = []
    for recompute, precision, kind in cycle(product((False, True), ("fp32", "bf16"), (dense, convnet, decoder))):
        if len(found) == n:
            return found
        found.append(next(drawn for drawn in kind(random_, precision, recompute) if _is_fit(drawn)))
    return found


def _is_fit(drawn: Draw) -> bool:
    flops = compute.training_flops(drawn.tree, drawn.context).total
    work = flops * drawn.batch * drawn.context * drawn.accumulation * (4 if drawn.precision == "fp32" else 1)
    return LEAST <= drawn.forecast().total <= MOST and work <= MOST_FLOPS


def dense(random_: random.Random, precision: str, recompute: bool) -> Iterator[Draw]:
    while True:
        shape = {
            "inputs": random_.choice((20, 100, 784)),
            "outputs": 10,
            "hidden": [random_.choice((256, 512, 1024, 2048))] * random_.randint(2, 6),
            "activation": random_.choice(("relu", "gelu", "tanh", "silu")),
            "norm": random_.choice((None, None, "layer", "batch")),
            "dropout": random_.choice((0.0, 0.0, 0.1)),
        }
        batch, optimiser = 2 ** random_.randint(9, 16), random_.choice(("adam", "adamw", "sgd"))
        yield Draw("dense", shape, batch, 1, precision, optimiser, random_.choice((1, 1, 2)), recompute)


def convnet(random_: random.Random, precision: str, recompute: bool) -> Iterator[Draw]:
    while True:
        channels = random_.choice((8, 16, 32, 64))
        side = random_.choice((28, 32, 48, 64))
        layers = random_.choice(("lenet5", "residual", STACK.format(channels, 2 * channels)))
        shape = {"layers": layers, "picture": [1, 28, 28] if layers == "lenet5" else [3, side, side]}
        batch, optimiser = 2 ** random_.randint(6, 12), random_.choice(("adam", "sgd"))
        yield Draw("convnet", shape, batch, 1, precision, optimiser, random_.choice((1, 1, 2)), recompute)


def decoder(random_: random.Random, precision: str, recompute: bool) -> Iterator[Draw]:
    while True:
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
        batch, optimiser = 2 ** random_.randint(0, 6), random_.choice(("adamw", "muon"))
        yield Draw(family, shape, batch, shape["context"], precision, optimiser, random_.choice((1, 1, 2)), recompute)


def resident(drawn: Draw, steps: int, device: str, allocator: bool) -> int:
    """Bytes of memory at most, of a process that trains as drawn."""
    command = [sys.executable, __file__, "--child", json.dumps(vars(drawn)), "--steps", str(steps), "--device", device]
    ran = subprocess.run(command, env=measure.environment(allocator), check=True, stdout=subprocess.PIPE, text=True)
    return int(ran.stdout.split()[-1])


def train(drawn: Draw, steps: int, device: str) -> None:
    """Make the steps, save and open the model, and print the peak in bytes."""
    import torch

    from pellucid.checkpoints.decoder import open_decoder, save_decoder
    from pellucid.checkpoints.plain import open_plain, save_plain
    from pellucid.networks.scaling import Scaled, Scaling
    from pellucid.tasks.pictures import PictureTask
    from pellucid.tasks.table import TableTask
    from pellucid.tasks.text import TextTask
    from pellucid.training import allocator, loop
    from pellucid.training.optimisers import Optimiser
    from pellucid.training.recompute import recompute_blocks

    generator = torch.Generator().manual_seed(0)

    class Batches:
        position = 0

        def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
            if drawn.inputs:
                shape = drawn.shape.get("picture", [drawn.inputs])
                classes = torch.randint(10, (drawn.batch,), generator=generator)
                return torch.randn(drawn.batch, *shape, generator=generator), classes
            shape = (drawn.batch, drawn.context + 1)
            ids = torch.randint(drawn.shape["vocab_size"], shape, generator=generator)
            return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

    allocator.suit(not drawn.inputs, drawn.recompute)
    network: Any
    if drawn.family == "dense":
        kind, network = TableTask, Scaled(Dense(drawn.config), Scaling([0.0] * drawn.inputs, [1.0] * drawn.inputs))
    elif drawn.family == "convnet":
        convnet = ConvNet(drawn.config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        kind, network = PictureTask, Scaled(convnet, Scaling([0.0], [1.0]))
    else:
        kind, network = TextTask, Decoder(drawn.config)
    task: Any = kind.__new__(kind)  # its loss needs nothing of prepared data
    task._weights, task._loss = None, "cross_entropy"
    network.to(device)
    if drawn.recompute:
        recompute_blocks(network)
    plan = plan_of(drawn, steps, device)
    for _step in loop.steps(network, task, Optimiser(network, plan), plan, Batches()):
        pass
    if device != "cpu":
        print(torch.cuda.max_memory_allocated())
        return
    allocator.give_back()
    with tempfile.TemporaryDirectory() as folder:
        if drawn.inputs:
            save_plain(network, folder, {"model_type": f"pellucid-{drawn.family}", **asdict(drawn.config)}, {})
        else:
            save_decoder(network, folder)
        best = open_plain(folder)[0] if drawn.inputs else open_decoder(folder)
        assert len(list(best.parameters())) == len(list(network.parameters()))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def plan_of(drawn: Draw, steps: int, device: str = "cpu") -> Any:
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
        "device": device,
    }
    return Plan(**(blank | known))


if __name__ == "__main__":
    main()
