"""Forecast of training time against the measured time, over plans drawn by a seed.

Each plan is trained by `pellucid train` in a fresh process, with `--steps`, so that the clock does not shorten it. The
forecast is the plan's, made before the first step; measured are the seconds of the training steps in the journal.

python benchmarks/time_forecast.py [--quick] [--plans 10] [--seed 0]
"""

import json
import random
import subprocess
import tempfile
from pathlib import Path

import _measure as measure
from _measure import PELLUCID
from pellucid.anatomy import compute, families
from pellucid.networks.decoder import decoder_config

LEAST, MOST = 15, 40  # seconds of training


def main() -> None:
    asked = measure.options(__doc__, plans={"type": int, "default": 10}, seed={"type": int, "default": 0})
    measure.header("reading, tokenizing, planning, evaluation, saving", asked.quick)
    random_ = random.Random(asked.seed)
    rate = 1e11  # flops a second, until one has been measured: only to choose the number of steps
    errors: list[tuple[float, bool]] = []
    print(f"{'plan':<56}{'forecast':>9}{'measured':>9}{'error':>8}  others' cores", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "shakespeare.txt"
        source.write_text("\n".join(measure.shakespeare()), "utf-8")
        for number in range(2 if asked.quick else asked.plans):
            shape = draw(random_)
            seconds = random_.uniform(LEAST, MOST) if not asked.quick else 3
            work = flops(shape)
            steps = max(10, round(seconds * rate / work))
            forecast, measured, foreign = train(source, Path(folder) / str(number), shape, steps)
            rate = steps * work / measured
            errors.append((forecast / measured - 1, foreign > measure.MOST_FOREIGN))
            name = ", ".join(f"{key} {value}" for key, value in shape.items())
            mark = "!" if errors[-1][1] else ""
            print(
                f"{name:<56}{forecast:>9.1f}{measured:>9.1f}{errors[-1][0]:>+8.1%}  {foreign:.2f}{mark}",
                flush=True,
            )
    clean = [abs(error) for error, disturbed in errors if not disturbed]
    within = sum(error <= 0.2 for error in clean)
    print(
        f"seconds; goal: within 20 %: {within} of {len(clean)} undisturbed plans; {len(errors) - len(clean)} disturbed"
    )


def draw(random_: random.Random) -> dict[str, int | str]:
    """The options of one plan."""
    width = random_.choice((128, 192, 256, 320, 384))
    return {
        "width": width,
        "depth": random_.randint(2, 6),
        "context": random_.choice((64, 128, 256, 512)),
        "batch": random_.choice((4, 8, 16, 32)),
        "vocab": random_.choice((512, 1024, 2048, 4096)),
        "optimiser": random_.choice(("muon", "adamw")),
    }


def flops(shape: dict[str, int | str]) -> float:
    """Of one step."""
    width, context, batch = int(shape["width"]), int(shape["context"]), int(shape["batch"])
    config = decoder_config(
        "qwen3",
        vocab_size=int(shape["vocab"]),
        d_model=width,
        n_layers=int(shape["depth"]),
        n_heads=max(1, width // 64),
        context=context,
    )
    return compute.training_flops(families.decoder(config), context).total * context * batch


def train(source: Path, out: Path, shape: dict[str, int | str], steps: int) -> tuple[float, float, float]:
    """Forecast and measured seconds of the steps, and the cores that others used."""
    options = [text for key, value in shape.items() for text in (f"--{key}", str(value))]
    command = [*PELLUCID, "train", str(source), "--out", str(out), "--steps", str(steps), *options]
    with measure.window() as window:
        ran = subprocess.run(command, env=measure.environment(True), check=True, capture_output=True, text=True)
    assert ran.returncode == 0
    forecast = json.loads((out / "plan.json").read_text())["forecast"]["training_seconds"]
    events = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    made = [event["seconds"] for event in events if event["event"] == "step"]
    return forecast * len(made) / steps, sum(made), window.foreign


if __name__ == "__main__":
    main()
