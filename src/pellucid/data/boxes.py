"""Pictures with boxes around what is to be found on them, in the form of COCO, and boxes drawn on pictures.

A folder holds pictures and `annotations.json` or `*.coco.json` (Lin et al. 2014, cocodataset.org/#format-data):

    {"images": [{"id": 1, "file_name": "street.jpg"}],
     "categories": [{"id": 1, "name": "bicycle"}],
     "annotations": [{"image_id": 1, "category_id": 1, "bbox": [left, top, width, height]}]}

Pictures lie beside the file or in `images/`. Or the folder has the parts `train/`, `valid/` and `test/`, each such a
folder.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.errors import PellucidError
from pellucid.language import _

if TYPE_CHECKING:
    from PIL import Image, ImageFont

PARTS = {"train": ("train",), "validation": ("valid", "validation", "val"), "test": ("test",)}  # names of their folders
ROUNDING = 1.0  # pixels that a box may stand out of its picture: annotators round; what stands out is cut off
ORIENTATION = 0x0112  # in a picture's EXIF data; above 4, height and width change places
GREY = 114  # of the margin beside a picture that is not square, as YOLO has it
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000", "#000075", "#d01c8b")


@dataclass(frozen=True)
class Boxed:
    """A picture in memory, and what is on it."""

    pixels: np.ndarray  # (height, width, 3) uint8
    boxes: np.ndarray  # (n, 4) float32: left, top, right, bottom in pixels; right and bottom are the first beyond
    classes: np.ndarray  # (n,) int64: indices into the names


@dataclass(frozen=True)
class BoxedFile:
    """A picture on disk, and what is on it: boxes and classes as in `Boxed`."""

    path: Path
    width: int
    height: int
    boxes: np.ndarray
    classes: np.ndarray


@dataclass(frozen=True)
class BoxedFiles:
    """All pictures of one file of annotations."""

    source: Path
    names: tuple[str, ...]  # of the classes
    pictures: tuple[BoxedFile, ...]
    crowds: int  # boxes left out because they stand for a crowd ("iscrowd": 1)


@dataclass(frozen=True)
class Found:
    """One thing found on a picture."""

    box: tuple[float, float, float, float]  # left, top, right, bottom in pixels
    name: str  # of the class
    score: float  # the network's own probability that there is one of this class

    def json(self) -> dict[str, Any]:
        """Its fields, the box to a tenth of a pixel."""
        return {"name": self.name, "score": self.score, "box": [round(side, 1) for side in self.box]}


def annotation_files(folder: Path) -> dict[str, Path]:
    """The files of annotations in a folder: one under "", or one for each of "train", "validation", "test".

    Empty, when this is no folder of pictures with boxes.

    Raises:
        PellucidError: when there are several files of annotations where one is meant.
    """
    if file := _annotations(folder):
        return {"": file}
    found = {part: [f for name in names if (f := _annotations(folder / name))] for part, names in PARTS.items()}
    if "train" not in {part for part, files in found.items() if files}:
        return {}
    return {part: files[0] for part, files in found.items() if files}


def _annotations(folder: Path) -> Path | None:
    found = [*folder.glob("annotations.json"), *sorted(folder.glob("*.coco.json"))]
    if len(found) > 1:
        raise PellucidError(
            _("There are several files of annotations: {files}.").format(files=", ".join(f.name for f in found)),
            str(folder),
            _("Keep one of them, or put each with its pictures into train/, valid/ and test/."),
        )
    return found[0] if found else None


def read_boxes(source: Path) -> BoxedFiles:
    """Read a file of annotations, and the size of each picture from the picture itself.

    Raises:
        PellucidError: when the file is not in COCO's form or has no boxes; when a picture is missing, unreadable or not
            of the size stated; when a box belongs to an unknown picture or category, is not four numbers, has no
            area, or stands out of its picture by more than `ROUNDING`.
    """
    document = _document(source)
    categories = {c["id"]: c["name"] for c in _entries(document, "categories", ("id", "name"), source)}
    class_of = {category: index for index, category in enumerate(categories)}
    images = {image["id"]: image for image in _entries(document, "images", ("id", "file_name"), source)}
    annotations = _entries(document, "annotations", ("image_id", "category_id", "bbox"), source)
    by_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for number, annotation in enumerate(annotations):
        where = f"{source}: annotations[{number}]"
        if annotation["image_id"] not in images:
            raise _mistake(
                _("A box belongs to a picture that is not listed: {id}.").format(id=annotation["image_id"]), where
            )
        if annotation["category_id"] not in class_of:
            what = _("A box has a category that is not listed: {id}.").format(id=annotation["category_id"])
            raise _mistake(what, where, _("The categories are {names}.").format(names=_listed(categories)))
        if not annotation.get("iscrowd"):
            by_image[annotation["image_id"]].append(annotation | {"where": where})
    if not by_image:
        raise _mistake(_("There are no boxes."), str(source), _("Draw some with an annotation tool, and export COCO."))
    pictures = tuple(_picture(image, by_image[key], class_of, source) for key, image in images.items())
    crowds = len(annotations) - sum(map(len, by_image.values()))
    return BoxedFiles(source, tuple(str(name) for name in categories.values()), pictures, crowds)


def _document(source: Path) -> dict[str, Any]:
    try:
        document = json.loads(source.read_bytes())
    except (OSError, ValueError) as error:
        raise _mistake(_("This file of annotations cannot be read: {why}").format(why=error), str(source)) from error
    keys = ("images", "annotations", "categories")
    missing = [key for key in keys if not isinstance(document, dict) or not isinstance(document.get(key), list)]
    if missing:
        what = _("This file is not in the form of COCO: it has no {keys}.").format(keys=", ".join(missing))
        raise _mistake(what, str(source), _("Export the boxes as COCO JSON from your annotation tool."))
    return document


def _entries(document: Mapping[str, Any], key: str, fields: Sequence[str], source: Path) -> list[dict[str, Any]]:
    for number, entry in enumerate(document[key]):
        missing = [field for field in fields if not isinstance(entry, dict) or field not in entry]
        if missing:
            what = _("An entry has no {fields}.").format(fields=", ".join(missing))
            raise _mistake(what, f"{source}: {key}[{number}]")
    seen = set()
    for entry in document[key] if "id" in fields else []:
        if entry["id"] in seen:
            raise _mistake(_("The id {id} stands there twice.").format(id=entry["id"]), f"{source}: {key}")
        seen.add(entry["id"])
    return document[key]


def _picture(
    image: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]], class_of: Mapping[Any, int], source: Path
) -> BoxedFile:
    name = image["file_name"]
    path = next((p for p in (source.parent / name, source.parent / "images" / name) if p.is_file()), None)
    if path is None:
        what = _("A picture is missing: {name}.").format(name=name)
        raise _mistake(what, str(source), _("Pictures lie beside this file, or in {folder}.").format(folder="images/"))
    width, height = _upright_size(path)
    stated = image.get("width", width), image.get("height", height)
    if stated != (width, height):
        what = _("The picture has {size} pixels, the annotations say {stated}.")
        raise _mistake(
            what.format(size=f"{width} × {height}", stated=f"{stated[0]} × {stated[1]}"),
            f"{path}, {source}",
            _("Boxes drawn on a picture of another size lie in the wrong places: export both together."),
        )
    boxes = [_box(annotation["bbox"], width, height, annotation["where"]) for annotation in annotations]
    classes = [class_of[annotation["category_id"]] for annotation in annotations]
    return BoxedFile(path, width, height, np.array(boxes, np.float32).reshape(-1, 4), np.array(classes, np.int64))


def _box(bbox: Any, width: int, height: int, where: str) -> list[float]:
    """COCO's left, top, width, height to left, top, right, bottom, cut at the picture's edge."""
    numbers = bbox if isinstance(bbox, list) else []
    if len(numbers) != 4 or not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
        raise _mistake(_("A box is four numbers [left, top, width, height], not {bbox}.").format(bbox=bbox), where)
    left, top, wide, high = numbers
    if wide <= 0 or high <= 0:
        what = _("A box must be wider and higher than nothing: {bbox} is {width} × {height}.")
        raise _mistake(what.format(bbox=bbox, width=wide, height=high), where)
    right, bottom = left + wide, top + high
    inside = [max(left, 0), max(top, 0), min(right, width), min(bottom, height)]
    out = max(abs(a - b) for a, b in zip(inside, (left, top, right, bottom), strict=True))
    if out > ROUNDING or inside[0] >= inside[2] or inside[1] >= inside[3]:
        what = _("A box stands out of its picture of {size} pixels: {bbox}.")
        raise _mistake(what.format(size=f"{width} × {height}", bbox=bbox), where)
    return inside


def _mistake(what: str, where: str, fix: str = "") -> PellucidError:
    return PellucidError(what, where, fix)


def _listed(categories: Mapping[Any, str]) -> str:
    return ", ".join(f"{key}: {name}" for key, name in categories.items())


def pictures_in(path: Path) -> list[Path]:
    """The one picture, or those in and under a folder, by name.

    Raises:
        PellucidError: when there is none.
    """
    from PIL import Image

    if path.is_file():
        return [path]
    kinds = {kind for kind, name in Image.registered_extensions().items() if name in Image.OPEN}
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in kinds) if path.is_dir() else []
    if not found:
        raise _mistake(_("There are no pictures here."), str(path), _("Name a picture, or a folder with some."))
    return found


def opened(picture: Path | Image.Image) -> Image.Image:
    """The picture in RGB, upright: some cameras only note how they were held.

    Raises:
        PellucidError: when it is no picture, or cut short.
    """
    from PIL import Image, ImageOps

    if isinstance(picture, Image.Image):
        return ImageOps.exif_transpose(picture).convert("RGB")
    with _opening(picture) as file:
        return ImageOps.exif_transpose(file).convert("RGB")


def _upright_size(path: Path) -> tuple[int, int]:
    """Width and height, from the file's first bytes."""
    with _opening(path) as file:
        width, height = file.size
        turned = file.getexif().get(ORIENTATION, 1) > 4
    return (height, width) if turned else (width, height)


@contextmanager
def _opening(path: Path) -> Iterator[Image.Image]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            yield file
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise _mistake(_("This picture cannot be read: {why}").format(why=error), str(path)) from error


def write_boxes(folder: Path, names: Sequence[str], pictures: Iterable[Boxed]) -> int:
    """Write pictures as PNG and their boxes as `annotations.json` into a new folder; returns how many pictures.

    Raises:
        FileExistsError: when there is such a folder.
    """
    from PIL import Image

    folder.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, picture in enumerate(pictures, 1):
        name, (height, width) = f"{number:05}.png", picture.pixels.shape[:2]
        Image.fromarray(picture.pixels).save(folder / name)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for (left, top, right, bottom), kind in zip(picture.boxes.tolist(), picture.classes.tolist(), strict=True):
            bbox = [left, top, right - left, bottom - top]
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": kind + 1, "bbox": bbox})
            annotations[-1] |= {"area": bbox[2] * bbox[3], "iscrowd": 0}
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    document = {"images": images, "categories": categories, "annotations": annotations}
    (folder / "annotations.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return len(images)


def letterbox(picture: Image.Image, size: int) -> tuple[np.ndarray, float]:
    """The picture scaled to fit into a square, at its top left, on grey; and the scale: pixels there for one here.

    Returns:
        uint8 pixels (size, size, 3), and the scale: multiply a box by it, divide to come back.
    """
    from PIL import Image

    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    square = Image.new("RGB", (size, size), (GREY, GREY, GREY))
    square.paste(picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
    return np.asarray(square), scale


def draw(picture: Image.Image, found: Iterable[Found], colours: Mapping[str, str] | None = None) -> Image.Image:
    """A copy of the picture with a box, a name and a score for each thing found, the most certain on top.

    Args:
        colours: for each name; each gets its own of `COLOURS`, by its place in the alphabet, unless given.
    """
    from PIL import ImageDraw

    drawn, found = picture.convert("RGB"), sorted(found, key=lambda one: one.score)
    names = sorted({one.name for one in found})
    colours = colours or {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}
    pen, line = ImageDraw.Draw(drawn), max(1, round(max(drawn.size) / 300))
    font = _font(max(10, round(max(drawn.size) / 40)), "".join(names))
    for one in found:
        label, colour = f"{one.name} {one.score:.2f}", colours[one.name]
        left, top, right, bottom = one.box
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=line)
        width, height = pen.textbbox((0, 0), label, font=font)[2:]
        above = top - height - 2 if top > height + 2 else min(bottom, drawn.height - height - 2)
        x = min(left, max(0, drawn.width - width - 2))
        pen.rectangle((x, above, x + width + 2, above + height + 2), fill=colour)
        pen.text((x + 1, above), label, fill="white", font=font)
    return drawn


def _font(size: int, text: str) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    if not text.isascii():  # Pillow's own font has no Chinese
        for name in ("NotoSansCJK-Regular.ttc", "PingFang.ttc", "msyh.ttc", "wqy-microhei.ttc", "DejaVuSans.ttf"):
            try:
                return ImageFont.truetype(name, size)
            except OSError:
                continue
    return ImageFont.load_default(size)
