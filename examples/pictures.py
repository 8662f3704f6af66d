"""Classes of pictures: a folder in, a network out, what it says of a picture, and which pixels decided.

    python examples/pictures.py [FOLDER [PICTURE]]

FOLDER holds a folder of pictures for each class; without one, lines across and lines down are drawn.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import pellucid as pl

place = Path(tempfile.mkdtemp())
if len(sys.argv) > 1:
    folder, options = Path(sys.argv[1]), {}
else:
    folder, random = place / "lines", np.random.default_rng(0)
    for kind in ("across", "down"):
        (folder / kind).mkdir(parents=True)
        for n in range(60):
            pixels = random.integers(0, 60, (12, 12)).astype(np.uint8)
            pixels[random.integers(2, 10)] = 220
            Image.fromarray(pixels if kind == "across" else pixels.T).save(folder / kind / f"{n}.png")
    small = "conv 4 3 padding=1, relu, max 2; conv 8 3, relu, average all; dense 2"
    options = {"network": small, "steps": 200, "evaluations": 4}
picture = Path(sys.argv[2]) if len(sys.argv) > 2 else min(folder.rglob("*.png"))

model = pl.train(folder, place / "run", **options)
report = model.evaluate()
print(f"{report.accuracy:.1%} of {report.examples} pictures that decided nothing are right")
print(f"{picture.name}:", ", ".join(f"{name} {p:.1%}" for name, p in model.predict(picture)[0].probabilities.items()))

why = model.why(picture)
print(f"{why.asked}: {why.value:+.3f}, the sum of {len(why.parts)} regions and the constants")
for part in sorted(why.parts, key=lambda part: -abs(part.amount))[:5]:
    print(f"  {part.amount:+.3f}  {part.name}")
assert why.maps is not None
print("pixel by pixel the same:", f"{why.maps['contributions'].sum() + sum(why.constants.values()):+.3f}")
