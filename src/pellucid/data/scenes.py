"""Real handwritten digits on pieces of real photographs, with exact boxes: a set for detection that anyone can make.

As no set of photographs with boxes ships in a package, this one is put together, from digits and photographs that do.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType

import numpy as np

from pellucid.data.boxes import Boxed, write_boxes
from pellucid.errors import PellucidError
from pellucid.language import _

COUNTS = MappingProxyType({"train": 3000, "valid": 400, "test": 400})  # scenes
SHARES = MappingProxyType(
    {"train": (0.0, 0.5), "valid": (0.5, 0.75), "test": (0.75, 1.0)}
)  # of digits, of each photograph
INK = 48  # of 255: what is fainter does not belong to the digit
OVERLAP = 0.05  # of the smaller of two boxes
TRIES = 50  # places for one digit, before the scene goes without it


@dataclass(frozen=True)
class Material:
    """What scenes are made of."""

    digits: np.ndarray  # (n, 28, 28) uint8, 0 paper, 255 ink
    labels: np.ndarray  # (n,) 0 to 9
    photographs: Sequence[np.ndarray]  # uint8 (height, width, 3) each


def digit_scenes(
    out: Path, material: Material, counts: Mapping[str, int] = COUNTS, size: int = 128, seed: int = 0
) -> dict[str, int]:
    """Write scenes into a new folder with the parts train, valid and test, each in the form of COCO.

    No digit and no region of a photograph is in two parts.

    Returns:
        How many scenes each part has.

    Raises:
        PellucidError: when there is something in this place. Nothing is left behind.
    """
    if out.exists():
        raise PellucidError(
            _("There is something else in this place."), str(out), _("Move it away, or name another folder.")
        )
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    names = [str(digit) for digit in range(10)]
    try:
        written = {}
        for number, (part, count) in enumerate(counts.items()):  # a seed each: no two parts have the same places
            made = scenes(part_of(material, part, seed), size, seed=seed + number)
            written[part] = write_boxes(partial / part, names, islice(made, count))
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return written


def part_of(material: Material, part: str, seed: int = 0) -> Material:
    """The digits and the regions of the photographs (bands across their longer side) that belong to one part."""
    start, end = SHARES[part]
    order = np.random.default_rng(seed).permutation(len(material.digits))
    own = order[round(start * len(order)) : round(end * len(order))]
    bands = [_band(photograph, start, end) for photograph in material.photographs]
    return Material(material.digits[own], material.labels[own], bands)


def _band(photograph: np.ndarray, start: float, end: float) -> np.ndarray:
    height, width = photograph.shape[:2]
    if width >= height:
        return photograph[:, round(start * width) : round(end * width)]
    return photograph[round(start * height) : round(end * height)]


def scenes(
    material: Material,
    size: int = 128,
    per_scene: tuple[int, int] = (1, 4),
    scale: tuple[float, float] = (0.8, 1.6),
    seed: int = 0,
) -> Iterator[Boxed]:
    """Endless scenes: a piece of a photograph with `per_scene` digits (from, to), each enlarged by `scale` (from, to).

    Each box is tight around the ink; two boxes share at most `OVERLAP` of the smaller. The ink is bright on a dark
    place and dark on a bright one.
    """
    rng = np.random.default_rng(seed)
    while True:
        photograph = material.photographs[int(rng.integers(len(material.photographs)))]
        pixels_HW3 = _piece(photograph, size, rng)
        boxes: list[tuple[int, int, int, int]] = []
        classes: list[int] = []
        for _number in range(rng.integers(per_scene[0], per_scene[1] + 1)):
            which = rng.integers(len(material.digits))
            ink_hw = _ink(material.digits[which], rng.uniform(*scale))
            if box := _free_place(ink_hw.shape, boxes, size, rng):
                _write(pixels_HW3, ink_hw, box, rng)
                boxes.append(box)
                classes.append(int(material.labels[which]))
        yield Boxed(
            pixels_HW3.round().astype(np.uint8), np.array(boxes, np.float32).reshape(-1, 4), np.array(classes, np.int64)
        )


def _piece(photograph: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A square of the photograph, half to all of its shorter side, at the scenes' size; float32."""
    from PIL import Image

    height, width = photograph.shape[:2]
    side = round(min(height, width) * rng.uniform(0.5, 1))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    piece = Image.fromarray(photograph[top : top + side, left : left + side]).convert("RGB")
    return np.asarray(piece.resize((size, size), Image.Resampling.BILINEAR), np.float32)


def _ink(digit_28x28: np.ndarray, scale: float) -> np.ndarray:
    """The enlarged digit cut at its ink, 0 to 1."""
    from PIL import Image

    side = round(28 * scale)
    ink = np.asarray(Image.fromarray(digit_28x28).resize((side, side), Image.Resampling.BILINEAR))
    rows, columns = (np.flatnonzero((ink >= INK).any(axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32) / 255


def _free_place(
    shape: tuple[int, ...], boxes: Sequence[tuple[int, int, int, int]], size: int, rng: np.random.Generator
) -> tuple[int, int, int, int] | None:
    height, width = shape
    for _try in range(TRIES):
        left, top = int(rng.integers(size - width + 1)), int(rng.integers(size - height + 1))
        box = left, top, left + width, top + height
        if all(_shared(box, other) <= OVERLAP for other in boxes):
            return box
    return None


def _shared(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """The area that two boxes share, as a part of the smaller."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return max(0, width) * max(0, height) / smaller


def _write(
    pixels_HW3: np.ndarray, ink_hw: np.ndarray, box: tuple[int, int, int, int], rng: np.random.Generator
) -> None:
    left, top, right, bottom = box
    place_hw3 = pixels_HW3[top:bottom, left:right]
    bright = place_hw3.mean() < 128
    colour_3 = rng.uniform(180, 255, 3) if bright else rng.uniform(0, 75, 3)
    place_hw3 += ink_hw[..., None] * (colour_3 - place_hw3)
