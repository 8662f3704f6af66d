"""scikit-learn's own sets, which come with it: nothing is fetched."""

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pellucid.data.sets.pictures import DIGITS, write_parquet

_TARGETS = {"iris": "species", "wine": "cultivar", "breast_cancer": "diagnosis", "diabetes": "progression"}


def table(name: str) -> Callable[[list[Path], Path], None]:
    """What writes the set `load_NAME` as a CSV file: the features, the target last, in the units of the source."""
    return partial(_write, name)


def digits(_packages: list[Path], out: Path) -> None:
    """1,797 digits of 8 × 8 pixels; the 17 grey levels 0 … 16 spread over 0 … 255."""
    import numpy as np
    from sklearn.datasets import load_digits

    found = load_digits()
    write_parquet(out, (found.images * (255 / 16)).round().astype(np.uint8), found.target.tolist(), DIGITS)


def _write(name: str, _packages: list[Path], out: Path) -> None:
    from sklearn import datasets

    found = getattr(datasets, f"load_{name}")(**({"scaled": False} if name == "diabetes" else {}))
    if name == "linnerud":  # three measures of the body from three exercises: each a number
        columns, targets = [*found.feature_names, *found.target_names], found.target.tolist()
    else:
        columns = [*found.feature_names, _TARGETS[name]]
        classes = found.get("target_names")
        targets = [[value if classes is None else classes[value]] for value in found.target]
    with out.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(columns)
        rows.writerows([*map(float, row), *target] for row, target in zip(found.data, targets, strict=True))
