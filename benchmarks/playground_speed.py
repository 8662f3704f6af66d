"""How fast the playground's engine learns, with both losses after every epoch, beside the same loop in PyTorch.

The network is the browser playground's own start: 2-4-2-1, tanh, batches of 10 of 250 points, plain gradient descent.
Its page is not measured here: its engine, compiled and run by Node without drawing, made 72,000 steps a second with
both losses after every epoch on 2 cores of the kind that the goal was set on.

python benchmarks/playground_speed.py [--quick] [--parts speed look start] [--rounds 5]
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import _measure as measure
from _measure import Figures, verdict

BROWSER = 72_000  # steps a second, not measured here
GOAL = 1.5
NETS = {
    "2-4-2-1": {},
    "2-4-2-1, mixed anew each epoch": {"shuffle": "epoch"},
    "2-4-2-1, mixed anew, Adam": {"shuffle": "epoch", "optimiser": "adam"},
    "2-8-8-1": {"layers": "8-8"},
    "7-8-8-1": {"layers": "8-8", "features": "all"},
    "2-8-8-8-8-8-8-1": {"layers": "8-8-8-8-8-8"},
}
START = {"optimiser": "sgd", "init": "uniform", "shuffle": "once"}


def main() -> None:
    parts = ["speed", "look", "start"]
    asked = measure.options(
        __doc__,
        parts={"nargs": "+", "choices": parts, "default": parts},
        rounds={"type": int, "default": 5},
    )
    measure.header("imports, compiling, drawing the points, the first two runs", asked.quick)
    rounds = 1 if asked.quick else asked.rounds
    if "speed" in asked.parts:
        speed(100 if asked.quick else 1000, rounds)
    if "look" in asked.parts:
        look(rounds)
    if "start" in asked.parts:
        start(rounds)


def speed(epochs: int, rounds: int) -> None:
    """Print steps a second with losses after every epoch."""
    rates: defaultdict[str, Figures] = defaultdict(Figures)
    for _ in range(rounds):
        for name, settings in NETS.items():
            found = measure.child("ours", {"settings": START | settings, "epochs": epochs}, allocator=False)
            rates[name].add_rate(found["updates"], found["windows"])
        found = measure.child("torchs", {"epochs": max(1, epochs // 20)}, allocator=False)
        rates["PyTorch"].add_rate(found["updates"], found["windows"])
    print("Steps a second, with the loss on training and on test points after every epoch")
    for name in NETS:
        print(f"  {name:<32}{rates[name].show()}")
    print(f"  {'2-4-2-1 in PyTorch, float64':<32}{rates['PyTorch'].show()}")
    print(f"  the browser's engine             {BROWSER:,} (see above; not measured in this run)")
    plain = rates["2-4-2-1"]
    beside = Figures([rate / BROWSER for rate in plain.values], plain.disturbed)
    print(f"  2-4-2-1 / the browser's engine   {verdict(beside, GOAL)}\n", flush=True)


def look(rounds: int) -> None:
    """Print what it takes to draw every neuron's heat-map."""
    found: defaultdict[str, Figures] = defaultdict(Figures)
    for _ in range(rounds):
        for name, settings in NETS.items():
            if "mixed" not in name:
                windows = measure.child("surfaces", {"settings": START | settings}, allocator=False)
                found[name].add_rate(1, windows)
    print("Heat-maps of 100 x 100 of all neurons at once, milliseconds")
    for name, rates in found.items():
        print(f"  {name:<32}{Figures([1e3 / rate for rate in rates.values], rates.disturbed).show('.2f')}")
    print(flush=True)


def start(rounds: int) -> None:
    """Print how long a process waits for its first epoch with losses: compiled now, and found compiled."""
    waits: defaultdict[str, Figures] = defaultdict(Figures)
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            for name in ("compiled now", "found compiled"):
                found = measure.child("first_epoch", {"cache": cache}, allocator=False)
                for what, seconds in found["seconds"].items():
                    waits[f"{what}, {name}"].add(seconds, found["disturbed"])
    print("Seconds in a fresh process")
    for name, figure in waits.items():
        print(f"  {name:<32}{figure.show('.2f')}")


# in a process of their own


def ours(settings: dict[str, Any], epochs: int) -> dict[str, Any]:
    from pellucid.experiments.playground import Playground, Settings

    board = Playground(Settings(**settings))
    windows = _windows(lambda: board.epochs(epochs))

    return {"windows": windows, "updates": epochs * 25}


def torchs(epochs: int) -> dict[str, Any]:
    """The same network, points and recipe as a plain loop."""
    import torch

    from pellucid.experiments.playground import Playground, Settings
    from pellucid.networks.losses import squared_error

    torch.set_num_threads(1)
    board = Playground(Settings(**START))
    network = board.network()
    optimiser = torch.optim.SGD(network.parameters(), board.settings.rate)
    x_NF, y_N = (torch.from_numpy(part) for part in (board.x_FN.T.copy(), board.y_N))
    test_NF, test_N = (torch.from_numpy(part) for part in (board.test_FN.T.copy(), board.test_N))

    def train() -> None:
        for _ in range(epochs):
            for x_BF, y_B in zip(x_NF.split(10), y_N.split(10), strict=True):
                optimiser.zero_grad()
                (squared_error(network(x_BF), y_B) / len(y_B)).backward()
                optimiser.step()
            with torch.no_grad():
                (squared_error(network(x_NF), y_N) / len(y_N)).item()
                (squared_error(network(test_NF), test_N) / len(test_N)).item()

    return {"windows": _windows(train), "updates": epochs * 25}


def surfaces(settings: dict[str, Any]) -> list[dict[str, float]]:
    from pellucid.experiments.playground import Playground, Settings

    board = Playground(Settings(**settings))
    return _windows(board.surfaces, times=20)


def first_epoch(cache: str) -> dict[str, Any]:
    """From nothing imported to the first losses."""
    import os

    os.environ["NUMBA_CACHE_DIR"] = cache
    with measure.window() as window:
        started = time.perf_counter()
        from pellucid.experiments.playground import Playground, Settings

        imported = time.perf_counter()
        Playground(Settings()).epochs()
        ended = time.perf_counter()
    return {"seconds": {"imports": imported - started, "first epoch": ended - imported}, "disturbed": window.disturbed}


def _windows(work: Callable[[], object], times: int = 5) -> list[dict[str, float]]:
    work()
    work()
    return [asdict(window) for window in measure.repeated(work, times)]


if __name__ == "__main__":
    measure.serve(ours=ours, torchs=torchs, surfaces=surfaces, first_epoch=first_epoch)
    main()
