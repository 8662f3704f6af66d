"""Trainings that go wrong on purpose, and what the verdict says of each.

python examples/failing.py
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import torch

import pellucid as pl
from pellucid.data import toys
from pellucid.networks.dense import Dense, DenseConfig

folder = Path(tempfile.mkdtemp())
draw = np.random.default_rng(0)


def noisy(name: str, rows: int) -> Path:
    """Twenty columns of which two say something, and not everything."""
    x = draw.normal(0, 1, (rows, 20))
    side = np.where(x[:, 0] + x[:, 1] + draw.normal(0, 0.8, rows) > 0, "up", "down")
    lines = [",".join([*(f"{value:.3f}" for value in row), s]) for row, s in zip(x, side, strict=True)]
    path = folder / f"{name}.csv"
    path.write_text("\n".join([",".join([*(f"x{n}" for n in range(20)), "label"]), *lines]) + "\n")
    return path


def shuffled(path: Path) -> Path:
    """The same rows, each with the label of another: nothing in them says which."""
    head, *lines = path.read_text().splitlines()
    labels = draw.permutation([line.rpartition(",")[2] for line in lines])
    rows = [f"{line.rpartition(',')[0]},{label}" for line, label in zip(lines, labels, strict=True)]
    (folder / "poor.csv").write_text("\n".join([head, *rows]) + "\n")
    return folder / "poor.csv"


spiral, circle, plane = (folder / f"{name}.csv" for name in ("spiral", "circle", "plane"))
for path in (spiral, circle, plane):
    toys.make(path.stem, seed=0).save(path)
few, many = noisy("few", 70), noisy("many", 400)

FAILURES = {
    "overfitting: many neurons, few rows": (few, {"layers": "64-64", "test": str(many), "patience": 0}),
    "underfitting: two neurons for a spiral": (spiral, {"layers": "2"}),
    "all weights zero": (circle, {"layers": "8", "init": "zero"}),
    "learning rate too high": (circle, {"layers": "8", "optimiser": "sgd", "learning_rate": 300.0}),
    "learning rate much too high": (plane, {"layers": "8", "optimiser": "sgd", "learning_rate": 30.0}),
    "learning rate much too low": (circle, {"layers": "8", "optimiser": "sgd", "learning_rate": 1e-5}),
    "data without information": (shuffled(many), {"layers": "32"}),
    "nothing wrong": (circle, {"layers": "8"}),
}

for number, (what, (source, options)) in enumerate(FAILURES.items()):
    print(f"\n{what}")
    run = folder / f"run{number}"
    try:
        target = "value" if source is plane else "label"
        model = pl.train(source, run, target=target, steps=600, **options)
    except pl.PellucidError as error:  # a loss that is not finite stops a training before the step is applied
        print(f"  stopped: {error.what}")
        continue
    finished = json.loads((run / "journal.jsonl").read_text().splitlines()[-1])
    print(f"  {finished['verdict']}: {model.evaluate().accuracy:.0%} right on unseen rows")
    print("  " + "\n  ".join(finished["sentences"]))

# neurons whose weights are all negative never answer to what is always positive
network = Dense(DenseConfig(4, 1, hidden=(32,), bias=False, initialisation="normal"))
(found,) = pl.silent_neurons(network, torch.rand(1000, 4))
print(f"\nneurons without bias: {len(found.neurons)} of {found.of} are silent for ever")
