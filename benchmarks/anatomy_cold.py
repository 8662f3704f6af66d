"""A published model counted in a new process: seconds and memory by formula, by the command, and once more when warm.

By formula: `pl.anatomy(NAME)`, its parameters, neurons, dimensions and the work of one token, without torch. The
command is `pellucid anatomy NAME` up to the last of its output. Warm: counted again where all is imported.

python benchmarks/anatomy_cold.py [--quick] [--rounds 7] [--all]
"""

import os
import subprocess
import sys
import time
from typing import Any

import _measure as measure
from _measure import PELLUCID, Figures, verdict
from pellucid.anatomy import catalogue

SAMPLE = ("y=ax+b", "lenet-5", "784-128-10", "resnet-50", "vit-b/16", "bert-base", "gpt2", "gpt3", "llama-2-70b",
          "mixtral-8x7b", "t5-11b", "deepseek-v3")  # fmt: skip
FORMULA = """
import sys
import pellucid as pl

network = pl.anatomy(sys.argv[1])
network.parameters, network.neurons, network.dimensions, network.forward(token=1)
assert not {"torch", "numpy"} & sys.modules.keys()
"""


def main() -> None:
    measure.serve(warm=warm)
    asked = measure.options(__doc__, rounds={"type": int, "default": 7}, all={"action": "store_true"})
    measure.header("nothing; each was run once before, so that its files are in the system's cache", asked.quick)
    names = [e.name for e in catalogue.entries() if e.config] if asked.all else list(SAMPLE)
    names, rounds = (names[:3], 2) if asked.quick else (names, asked.rounds)
    found = {name: (Figures(), Figures(), Figures(), Figures()) for name in names}
    for number in range(rounds + 1):
        for name, (formula, memory, command, _again) in found.items():
            one = started([sys.executable, "-c", FORMULA, name])
            two = started([*PELLUCID, "anatomy", name])
            if number:
                formula.add(one["seconds"], one["disturbed"])
                memory.add(one["memory"], False)
                command.add(two["seconds"], two["disturbed"])
        if number:
            for name, window in measure.child("warm", {"names": names}, False).items():
                found[name][3].add(window["seconds"], window["disturbed"])
    print(f"{'':<24}{'by formula, s':<28}{'its memory, MB':<24}{'the command, s':<28}warm, s")
    for name, (formula, memory, command, again) in found.items():
        print(
            f"{name:<24}{formula.show('.2f'):<28}{memory.show('.0f'):<24}{command.show('.2f'):<28}{again.show('.4f')}"
        )
    columns = [slowest(figures) for figures in zip(*found.values(), strict=True)]
    print()
    for what, figure, goal in zip(
        ("by formula, s", "its memory, MB", "the command, s", "warm, s"), columns, (0.4, 500, 2.5, 0.1), strict=True
    ):
        print(f"the slowest {what:<18}{verdict(figure, goal, at_least=False)}")


def started(command: list[str]) -> dict[str, Any]:
    """Seconds until a command ended, and the most memory that it held (MB)."""
    with measure.window() as window:
        began = time.perf_counter()
        process = subprocess.Popen(command, env=measure.environment(False), stdout=subprocess.DEVNULL)
        _pid, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command} ended with exit code {process.returncode}")
    return {"seconds": seconds, "memory": used.ru_maxrss / 1000, "disturbed": window.disturbed}


def warm(names: list[str]) -> dict[str, dict[str, Any]]:
    """The second count of each model in one process."""
    import pellucid as pl

    found = {}
    for name in names * 2:
        with measure.window() as window:
            network = pl.anatomy(name)
            _counts = network.parameters, network.neurons, network.dimensions, network.forward(token=1)
        found[name] = {"seconds": window.seconds, "disturbed": window.disturbed}
    return found


def slowest(figures: tuple[Figures, ...]) -> Figures:
    return max(figures, key=lambda figure: figure.median)


if __name__ == "__main__":
    main()
