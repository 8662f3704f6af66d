"""Pictures with their classes: a folder of class folders, or a table with a column of pictures."""

import io
import json
import os
import struct
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.data import splits, tables
from pellucid.errors import PellucidError
from pellucid.language import _

if TYPE_CHECKING:
    from PIL.Image import Image

_PARTS = {
    "train": 0, "training": 0,
    "val": 1, "valid": 1, "validation": 1, "dev": 1,
    "test": 2, "testing": 2,
}  # fmt: skip
_MOST_PIXELS = 100_000_000  # of one picture: more is a mistake, or meant to fill the memory
_MOST_BYTES = 4 << 30  # of all of them together, decoded
_TURNED = (5, 6, 7, 8)  # EXIF orientations in which height and width change places
_ORIENTATION = 0x0112
_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error)  # what Pillow raises on broken pictures


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures of one size, decoded.

    Attributes:
        pixels: (n, C, H, W) uint8; C is 1 for greyscale and 3 for red, green, blue.
        labels: (n,) int64 indices of classes.
        classes: Their names.
        names: Where each picture comes from, for messages.
        parts: (n,) int64: 0 train, 1 validation, 2 test, where the source says so; else None.
        notes: What was left out, resized or assumed.
    """

    pixels: np.ndarray
    labels: np.ndarray
    classes: list[str]
    names: list[str]
    parts: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)

    def split(self, shares: tuple[float, float, float] = (0.7, 0.15, 0.15), seed: int = 0) -> splits.Split:
        """Three parts, equal pictures on one side; parts that the source names stay as they are.

        A part that the source does not name is split off from its training part, in the same proportion. Training
        pictures that stand in a named validation or test part as well are left out.
        """
        groups = splits.groups_of(self.pixels)
        name_of = self.classes.__getitem__
        if self.parts is None:
            return splits.split(len(self.pixels), self.labels, groups, shares, seed, name_of)
        train, validation, test = (np.flatnonzero(self.parts == part) for part in range(3))
        fresh = ~np.isin(groups[train], groups[np.concatenate([validation, test])])
        notes = []
        if not fresh.all():
            notes.append(
                _("{n} training pictures that are also in the validation or test part were left out.").format(
                    n=f"{(~fresh).sum():,}"
                )
            )
            train = train[fresh]
        if not len(train):
            raise PellucidError(_("Every training picture is also in the validation or test part."))
        wanted = (shares[0], 0 if len(validation) else shares[1], 0 if len(test) else shares[2])
        if sum(wanted) > wanted[0]:
            a, b, c = (share / sum(wanted) for share in wanted)
            rest = splits.split(len(train), self.labels[train], groups[train], (a, b, c), seed, name_of)
            notes += rest.notes
            train, validation, test = (
                train[rest.train],
                validation if len(validation) else train[rest.validation],
                test if len(test) else train[rest.test],
            )
        how = _(
            "The parts that have names stay: {train} to train on, {validation} for validation, {test} for the test."
        )
        how = how.format(train=len(train), validation=len(validation), test=len(test))
        return splits.Split(train, validation, test, how, notes)


@dataclass(frozen=True)
class _Source:
    """One picture that is not decoded yet: a file, or bytes and the name they go by."""

    name: str
    data: bytes | Path
    label: str = ""
    part: int | None = None


def read(
    source: str | Path,
    target: str | None = None,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    classes: Sequence[str] | None = None,
) -> Pictures:
    """Read pictures with their classes, all brought to one size.

    Args:
        source: A folder with a folder of pictures for each class, perhaps inside folders train, validation and test;
            or a table or data set on disk with a column of pictures (their bytes, or paths from the table's folder).
        target: The column of the classes, for a table.
        size: (height, width) to scale and crop to, about the middle; needed when the pictures differ in size.
        channels: 1 or 3; else 1 when every picture is grey.
        classes: Of a trained network, to evaluate it; else those that are found.

    Raises:
        PellucidError: when there are no pictures, one cannot be read, their sizes differ and none is given, they do
            not fit into memory, or there are fewer than two classes or a class with one picture.
    """
    path = Path(source)
    notes: list[str] = []
    if is_folder_of_classes(path):
        sources = _in_folders(path, notes)
    elif tables.is_table(path):
        sources = _in_table(path, target, notes)
    else:
        if not path.exists():
            raise PellucidError(_("There is no such file or folder."), str(path), _("Check the path."))
        raise PellucidError(
            _("There are no class folders with pictures here."),
            str(path),
            _("Make a folder of pictures for each class, such as cats/1.jpg and dogs/1.jpg."),
        )
    if classes is None:
        classes = sorted({found.label for found in sources})
        _refuse_few(classes, sources, path)
    index = {label: i for i, label in enumerate(classes)}
    for found in sources:
        if found.label not in index:
            raise PellucidError(
                _("{label} is none of the classes.").format(label=found.label),
                found.name,
                _("The classes are: {classes}.").format(classes=tables.listed(list(classes), 30)),
            )
    pixels = _decoded(sources, size, channels, notes)
    labels = np.array([index[found.label] for found in sources], np.int64)
    parts = [found.part for found in sources]
    given = None if None in parts else np.array(parts, np.int64)
    return Pictures(pixels, labels, list(classes), [found.name for found in sources], given, notes)


def read_unlabelled(
    source: str | Path, size: tuple[int, int], channels: int, notes: list[str] | None = None
) -> tuple[list[str], np.ndarray]:
    """Pictures to predict: the names and (n, C, H, W) uint8 of one file, of all those in and under a folder, or of a
    table's column.

    Raises:
        PellucidError: when there is none, or one cannot be read.
    """
    notes = [] if notes is None else notes
    path = Path(source)
    if tables.is_table(path):
        column = _only_column(tables.read(path), None, path)
        sources = [found for row, value in enumerate(column.values) if (found := _source(path, row, value))]
    elif path.is_file():
        sources = [_Source(str(path), path)]
    elif path.is_dir():
        files = [file for file in _walk(path) if file.suffix.lower() in tables.PICTURES]
        sources = [_Source(file.relative_to(path).as_posix(), file) for file in files]
    else:
        raise PellucidError(_("There is no such file or folder."), str(path), _("Check the path."))
    if not sources:
        raise PellucidError(_("There are no pictures in this folder."), str(path), _("Name a picture or a folder."))
    return [found.name for found in sources], _decoded(sources, size, channels, notes)


def picture(data: "bytes | Path | Image", size: tuple[int, int], channels: int) -> np.ndarray:
    """One picture, (C, H, W) uint8: turned as its EXIF data say, on white where it is transparent, scaled and cropped.

    Raises:
        PellucidError: when it cannot be read.
    """
    if not isinstance(data, bytes | Path):
        return _pixels(data, _("the picture"), size, channels)
    name = str(data) if isinstance(data, Path) else _("the picture")
    return _pixels(_open(_Source(name, data)), name, size, channels)


def is_folder_of_classes(path: str | Path) -> bool:
    """Whether pictures stand in folders below this one."""
    path = Path(path)
    if not path.is_dir() or tables.is_table(path):
        return False
    return any(file.suffix.lower() in tables.PICTURES and file.parent != path for file in _walk(path))


def columns_of(table: tables.Table, target: str | None = None) -> list[tables.Column]:
    """A table's columns of pictures."""
    return [column for column in table.columns if column.kind == "picture" and column.name != target]


# finding


def _walk(folder: Path) -> Iterator[Path]:
    """The files in and under a folder, in the order of their names, hidden ones left out."""
    for root, directories, files in os.walk(folder):
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        yield from (Path(root, name) for name in sorted(files) if not name.startswith("."))


def _in_folders(folder: Path, notes: list[str]) -> list[_Source]:
    top = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
    named = {name for name in top if name.lower() in _PARTS}
    by_part = top == named and any(_PARTS[name.lower()] == 0 for name in named)
    depth = 2 if by_part else 1
    sources, loose, other = [], 0, 0
    for file in _walk(folder):
        inside = file.relative_to(folder).parts
        if file.suffix.lower() not in tables.PICTURES:
            other += 1
        elif len(inside) <= depth:
            loose += 1
        else:
            part = _PARTS[inside[0].lower()] if by_part else None
            sources.append(_Source(file.relative_to(folder).as_posix(), file, inside[depth - 1], part))
    if other:
        notes.append(_("{n} files that are not pictures were left out.").format(n=f"{other:,}"))
    if loose:
        notes.append(_("{n} pictures that stand in no class folder were left out.").format(n=f"{loose:,}"))
    if by_part:
        notes.append(_("The folders name the parts: {parts}.").format(parts=", ".join(sorted(named))))
    if not sources:
        raise PellucidError(
            _("There are no class folders with pictures here."),
            str(folder),
            _("Make a folder of pictures for each class, such as cats/1.jpg and dogs/1.jpg."),
        )
    empty = top - named - {found.label for found in sources} if not by_part else set()
    if empty:
        notes.append(_("Folders without pictures: {folders}.").format(folders=tables.listed(sorted(empty))))
    return sources


def _in_table(path: Path, target: str | None, notes: list[str]) -> list[_Source]:
    parts: list[tuple[Path, int | None]] = [(path, None)]
    if (path / "dataset_dict.json").is_file():
        named = json.loads((path / "dataset_dict.json").read_text("utf-8")).get("splits", [])
        if "train" in named and all(name.lower() in _PARTS for name in named):
            parts = [(path / name, _PARTS[name.lower()]) for name in named]
            notes.append(_("The data set names the parts: {parts}.").format(parts=", ".join(named)))
    return [found for file, part in parts for found in _rows(file, part, target, notes)]


def _rows(path: Path, part: int | None, target: str | None, notes: list[str]) -> list[_Source]:
    table = tables.read(path)
    if target is None:
        raise PellucidError(
            _("Which column is to be predicted?"),
            str(path),
            _("Choose one with --target: {columns}.").format(columns=tables.listed(table.names, 30)),
        )
    table.column(target)
    column = _only_column(table, target, path)
    labels = tables.strings(table, target)
    sources = [
        found
        for row, (value, label) in enumerate(zip(column.values, labels, strict=True))
        if label is not None and (found := _source(path, row, value, str(label), part))
    ]
    without = len(table) - len(sources)
    if without:
        notes.append(_("{n} rows without a picture or a class were left out.").format(n=f"{without:,}"))
    return sources


def _only_column(table: tables.Table, target: str | None, path: Path) -> tables.Column:
    found = columns_of(table, target)
    if len(found) != 1:
        what = _("Several columns hold pictures.") if found else _("No column holds pictures.")
        raise PellucidError(what, str(path), _("Leave one column of pictures in the table, and the target."))
    return found[0]


def _source(path: Path, row: int, value: Any, label: str = "", part: int | None = None) -> _Source | None:
    """The picture in a table's cell: its bytes, or its path from the table's folder; None where there is none."""
    name = f"{path.name}:{row + 1}"
    if isinstance(value, Mapping):
        name = f"{name} ({value['path']})" if value["path"] else name
        value = value["bytes"] if value["bytes"] is not None else value["path"]
    if isinstance(value, str):
        name, value = f"{path.name}:{row + 1} ({value})", path.parent / value
    return None if value is None else _Source(name, value, label, part)


def _refuse_few(classes: Sequence[str], sources: list[_Source], path: Path) -> None:
    if len(classes) < 2:
        raise PellucidError(
            _("All pictures are of one class: {label}.").format(label=classes[0] if classes else "—"),
            str(path),
            _("Give pictures of at least two classes, each in its own folder."),
        )
    counts = Counter(found.label for found in sources)
    single = [label for label in classes if counts[label] == 1]
    if single:
        raise PellucidError(
            _("Only one picture of: {classes}.").format(classes=tables.listed(single)),
            next(found.name for found in sources if found.label == single[0]),
            _("Add pictures, put them into another class, or remove the folder."),
        )
    trained = {found.label for found in sources if found.part in (None, 0)}
    unseen = [label for label in classes if label not in trained]
    if unseen:
        raise PellucidError(
            _("The training part has no picture of: {classes}.").format(classes=tables.listed(unseen)),
            str(path),
            _("Add pictures to train on, or remove these."),
        )


# decoding


def _decoded(
    sources: list[_Source], size: tuple[int, int] | None, channels: int | None, notes: list[str]
) -> np.ndarray:
    """(n, C, H, W) uint8; headers are read first, so that a wrong size costs no decoding."""
    sizes, grey = Counter[tuple[int, int]](), True
    for found in sources:
        with _open(found) as opened:
            sizes[_height_and_width(opened, found.name)] += 1
            grey = grey and (opened.mode in ("1", "L", "LA", "I", "F") or opened.mode.startswith("I;16"))
    if size is None:
        if len(sizes) > 1:
            commonest = [f"{width}×{height} ({count:,})" for (height, width), count in sizes.most_common()]
            raise PellucidError(
                _("The pictures have {n} different sizes: {sizes}.").format(
                    n=f"{len(sizes):,}", sizes=tables.listed(commonest, 3)
                ),
                "",
                _("Choose one, such as --picture-size {size}: they are scaled and cropped to it.").format(
                    size=_suggested(sizes)
                ),
            )
        size = next(iter(sizes))
    elif set(sizes) != {size}:
        notes.append(
            _(
                "The pictures were scaled and cropped to {width}×{height}; they had {n} sizes, the commonest {old}."
            ).format(
                width=size[1], height=size[0], n=f"{len(sizes):,}", old="{1}×{0}".format(*sizes.most_common(1)[0][0])
            )
        )
    wanted = channels or (1 if grey else 3)
    n_bytes = len(sources) * wanted * size[0] * size[1]
    if n_bytes > _MOST_BYTES:
        raise PellucidError(
            _("{n} pictures of {width}×{height} take {gigabytes:.1f} GB.").format(
                n=f"{len(sources):,}", width=size[1], height=size[0], gigabytes=n_bytes / 1e9
            ),
            "",
            _("Choose a smaller size, such as --picture-size {size}.").format(size=64),
        )
    pixels_NCHW = np.empty((len(sources), wanted, *size), np.uint8)
    for index, found in enumerate(sources):
        pixels_NCHW[index] = _pixels(_open(found), found.name, size, wanted)
    if channels is None and wanted == 3 and (pixels_NCHW == pixels_NCHW[:, :1]).all():
        notes.append(_("All pictures are grey: they are read with one channel."))
        pixels_NCHW = pixels_NCHW[:, :1].copy()
    return pixels_NCHW


def _suggested(sizes: Counter[tuple[int, int]]) -> int:
    """A side that half of the pictures have, between 32 and 128, a multiple of 32."""
    sides = sorted(min(size) for size in sizes.elements())
    return int(min(max(sides[len(sides) // 2] // 32 * 32, 32), 128))


def _open(found: _Source) -> "Image":
    """The picture with its header read.

    Raises:
        PellucidError: when it is no picture, or so large that it must be a mistake.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(found.data if isinstance(found.data, Path) else io.BytesIO(found.data))
    except Image.DecompressionBombError as error:
        raise _too_large(found.name) from error
    except UnidentifiedImageError as error:
        raise _unreadable(found.name, _("no known picture format")) from error
    except _ERRORS as error:
        raise _unreadable(found.name, str(getattr(error, "strerror", None) or error)) from error
    if opened.width * opened.height > _MOST_PIXELS:
        raise _too_large(found.name)
    return opened


def _height_and_width(opened: "Image", name: str) -> tuple[int, int]:
    """As it will be once it is turned the way its camera says."""
    if opened.format == "PNG" and "exif" not in opened.info:  # Pillow would decode all of it to look behind the pixels
        return opened.height, opened.width
    try:
        turned = opened.getexif().get(_ORIENTATION) in _TURNED
    except _ERRORS as error:
        raise _unreadable(name, str(error)) from error
    return (opened.width, opened.height) if turned else (opened.height, opened.width)


def _pixels(opened: "Image", name: str, size: tuple[int, int], channels: int) -> np.ndarray:
    """(C, H, W) uint8."""
    from PIL import Image, ImageOps

    height, width = size
    try:
        with opened:
            turned = ImageOps.exif_transpose(opened)
            flat = _flat(turned).convert("L" if channels == 1 else "RGB")
    except _ERRORS as error:
        raise _unreadable(name, str(error)) from error
    if flat.size != (width, height):
        flat = ImageOps.fit(flat, (width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(flat)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _flat(opened: "Image") -> "Image":
    """Without transparency, on white, and with 8 bits a channel."""
    from PIL import Image

    if opened.mode.startswith("I") or opened.mode == "F":
        values = np.asarray(opened, np.float64)
        deep = opened.mode.startswith("I;16") or values.max(initial=0) > 255
        return Image.fromarray((values / 257 if deep else values).clip(0, 255).round().astype(np.uint8))
    if opened.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in opened.info:
        above = opened.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", above.size, "white"), above)
    return opened


def _unreadable(name: str, why: str) -> PellucidError:
    return PellucidError(
        _("This picture cannot be read: {why}.").format(why=why.rstrip(".")), name, _("Replace or remove it.")
    )


def _too_large(name: str) -> PellucidError:
    return PellucidError(
        _("This picture has more than {n} million pixels.").format(n=_MOST_PIXELS // 1_000_000),
        name,
        _("Make it smaller, or remove it."),
    )
