"""Pictures with boxes in three parts, brought to one size and kept in files that are read as they are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pellucid.data import splits
from pellucid.data.boxes import BoxedFile, BoxedFiles, letterbox, opened
from pellucid.errors import PellucidError
from pellucid.language import _

PARTS = ("train", "validation", "test")
SHARES = (0.7, 0.15, 0.15)
LARGEST = 256  # pixels: pictures are brought to at most this, unless the user says more
Truth = tuple[Tensor, Tensor]  # the boxes on one picture, (n, 4) float32, and their classes, (n,) int64
Batch = tuple[Tensor, list[Truth]]  # pixels (batch, size, size, 3) uint8


@dataclass(frozen=True)
class Part:
    """Pictures of one size, their boxes in pixels of that size."""

    pixels: np.ndarray  # (n, size, size, 3) uint8, perhaps memory-mapped
    truth: list[Truth]

    @property
    def n_boxes(self) -> int:
        return sum(len(classes_M) for _boxes, classes_M in self.truth)

    def some(self, n: int) -> np.ndarray:
        """The indices of n pictures, evenly spread; of all, where they are no more or nothing is on those."""
        last = len(self.truth) - 1
        chosen = np.unique(np.linspace(0, last, max(1, min(n, last + 1))).round().astype(int))
        return chosen if any(len(self.truth[i][1]) for i in chosen) else np.arange(last + 1)

    def batch(self, indices: np.ndarray) -> Batch:
        return torch.from_numpy(np.ascontiguousarray(self.pixels[indices])), [self.truth[i] for i in indices]


def shared_out(read: dict[str, BoxedFiles], seed: int) -> tuple[dict[str, list[BoxedFile]], str, list[str]]:
    """The pictures of each part: as the folders say; a part that they do not name is split off from training."""
    names = (read.get("") or read["train"]).names
    given = {part or "train": renumbered(files, names) for part, files in read.items()}
    parts = {part: given.get(part, []) for part in PARTS}
    notes = []
    held_out = {_sha256(picture.path) for part in PARTS[1:] for picture in parts[part]}
    fresh = [picture for picture in parts["train"] if _sha256(picture.path) not in held_out]
    if len(fresh) < len(parts["train"]):
        notes.append(
            _("{n} training pictures that are also in the validation or test part were left out.").format(
                n=f"{len(parts['train']) - len(fresh):,}"
            )
        )
    shares = [share if part == "train" or part not in given else 0.0 for part, share in zip(PARTS, SHARES, strict=True)]
    first = [int(picture.classes[0]) if len(picture.classes) else len(names) for picture in fresh]
    found = splits.split(
        len(fresh),
        first,
        [_sha256(picture.path) for picture in fresh],
        tuple(share / sum(shares) for share in shares),  # type: ignore[arg-type]
        seed,
        lambda kind: [*names, _("pictures without a box")][kind],
    )
    for part in PARTS:
        if part == "train" or part not in given:
            parts[part] = [fresh[i] for i in getattr(found, part)]
    how = (
        found.how
        if len(given) == 1
        else _("As the folders say: {train} to train on, {validation} for validation, {test} for the test.").format(
            **{part: len(pictures) for part, pictures in parts.items()}
        )
    )
    return parts, how, notes + found.notes


def renumbered(read: BoxedFiles, names: Sequence[str]) -> list[BoxedFile]:
    """The pictures, their classes being indices into ``names``."""
    unknown = [name for name in read.names if name not in names]
    if unknown:
        raise PellucidError(
            _("There are categories here that training does not know: {names}.").format(names=", ".join(unknown)),
            str(read.source),
            _("They must be among: {names}.").format(names=", ".join(names)),
        )
    index_K = np.array([names.index(name) for name in read.names])
    return [replace(picture, classes=index_K[picture.classes]) for picture in read.pictures]


def common_size(pictures: Sequence[BoxedFile], wanted: int | None, multiple: int) -> int:
    """Height and width of the pictures that the network is given."""
    if wanted is None:
        longest = max(max(picture.width, picture.height) for picture in pictures)
        return -(-min(longest, LARGEST) // multiple) * multiple
    if wanted % multiple:
        below = wanted // multiple * multiple
        raise PellucidError(
            _("The picture size must be a multiple of {n}, and {size} is not.").format(n=multiple, size=wanted),
            "--picture-size",
            _("Use {below} or {above}.").format(below=below or multiple, above=below + multiple),
        )
    return wanted


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_part(folder: Path, part: str, pictures: Sequence[BoxedFile], size: int) -> None:
    """PART.npy with the pixels, PART.npz with boxes in pixels of that size, classes, and how many each picture has."""
    np.save(folder / f"{part}.npy", np.empty((0, size, size, 3), np.uint8))
    if pictures:
        pixels = np.lib.format.open_memmap(folder / f"{part}.npy", "w+", np.uint8, (len(pictures), size, size, 3))
        for number, picture in enumerate(pictures):
            pixels[number] = letterbox(opened(picture.path), size)[0]
        pixels.flush()
    truth = [truth_of(picture, size) for picture in pictures]
    np.savez(
        folder / f"{part}.npz",
        boxes=np.concatenate([np.zeros((0, 4), np.float32), *(boxes_N4.numpy() for boxes_N4, _classes in truth)]),
        classes=np.concatenate([np.zeros(0, np.int64), *(classes_N.numpy() for _boxes, classes_N in truth)]),
        counts=np.array([len(classes_N) for _boxes, classes_N in truth], np.int64),
    )


def truth_of(picture: BoxedFile, size: int) -> Truth:
    scale = size / max(picture.width, picture.height)
    return torch.from_numpy(picture.boxes * np.float32(scale)), torch.from_numpy(picture.classes)


def read_part(folder: Path, part: str) -> Part:
    pixels = np.load(folder / f"{part}.npy", mmap_mode="r")
    with np.load(folder / f"{part}.npz") as saved:
        counts = saved["counts"].tolist()
        boxes, classes = (torch.from_numpy(saved[name]).split(counts) for name in ("boxes", "classes"))
    return Part(pixels, list(zip(boxes, classes, strict=True)))
