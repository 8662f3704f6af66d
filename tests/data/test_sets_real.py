"""The real sets, as `tests/fetch.py` left them in cache/: how many there are of each, and that nothing stands twice."""

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.torch import load_file

from conftest import CACHE
from pellucid.data import sets

pytestmark = pytest.mark.slow


def _path(name: str) -> Path:
    """The set's place; `get` fetches nothing that is there, but finds what was changed."""
    if not (CACHE / f".{sets.SETS[name].file}.json").exists():
        pytest.skip("run `python tests/fetch.py` first, as `make test-all` does")
    return sets.get(name, CACHE)


def _lines(name: str) -> list[dict[str, str]]:
    with _path(name).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize("name", sets.SETS)
def test_the_size_is_as_listed(name):
    path = _path(name)
    size = sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())
    assert size == pytest.approx(sets.SETS[name].size, rel=0.05)  # packed by other versions, a little more or less


def test_mnist():
    known = {"train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]}
    known["test"] = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    for part, counts in known.items():
        table = pq.read_table(_path("mnist") / f"{part}.parquet")
        assert np.bincount(table["label"].to_numpy()).tolist() == counts
        first = Image.open(io.BytesIO(table["image"][0]["bytes"].as_py()))
        assert (first.size, first.mode) == ((28, 28), "L")


def test_digits_5000_are_not_among_the_test_digits():
    few, test = pq.read_table(_path("digits-5000")), pq.read_table(_path("mnist") / "test.parquet")
    assert Counter(few["label"].to_pylist()) == dict.fromkeys(range(10), 500)
    digits, unseen = ({_pixels(cell) for cell in table["image"].to_pylist()} for table in (few, test))
    assert not digits & unseen


def test_texts_with_a_category_stand_once():
    for name, counts in (
        ("spam", {"ham": 4110, "spam": 1702}),
        ("chinese-reviews", {"positive": 8330, "negative": 9031}),
    ):
        rows = _lines(name)
        assert Counter(row["label"] for row in rows) == counts
        assert len({"".join(row["text"].split()) for row in rows}) == len(rows)


def test_mails_have_no_headers():
    with_headers = [row for row in _lines("spam") if "\nReceived: from" in row["text"][:200]]
    assert len(with_headers) == 1  # a spam that was made of another


def test_pairs():
    verses, paragraphs = _lines("verses-en-es"), _lines("paragraphs-en-zh")
    assert (len(verses), len(paragraphs)) == (31_084, 4_297)
    assert verses[0] == {
        "en": "In the beginning God created the heaven and the earth.",
        "es": "EN el principio crió Dios los cielos y la tierra.",
    }
    assert verses[-1]["en"].startswith("The grace of our Lord Jesus Christ be with you all")
    assert verses[-1]["es"].startswith("La gracia de nuestro Señor Jesucristo sea con todos vosotros")
    assert {"en": 'codeset, always set to "UTF-8"', "zh": "编码，总是设置为“UTF-8”"} in paragraphs


def test_texts():
    assert len(list(_path("shakespeare").glob("*.txt"))) == 42
    assert len(_lines("tang")) == 41_465


def test_pictures_in_folders():
    photographs, textures, faces = (_path(name) for name in ("photographs", "textures", "faces"))
    assert {Image.open(file).format for file in photographs.iterdir()} == {"PNG", "JPEG"}
    assert len(list(photographs.iterdir())) == 8
    for part, count in ("train", 192), ("test", 64):
        folders = list((textures / part).iterdir())
        assert {folder.name: len(list(folder.iterdir())) for folder in folders} == dict.fromkeys(
            ("brick", "grass", "gravel"), count
        )
    assert {folder.name: len(list(folder.iterdir())) for folder in faces.iterdir()} == {"face": 100, "other": 100}


def test_efficientnet_lite0():
    folder = _path("efficientnet-lite0")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    tensors = load_file(folder / "model.safetensors")
    assert len(config["labels"]) == 1000
    assert config["labels"][281:286] == ["tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"]
    assert len(tensors) == 296
    assert tensors["_fc.weight"].shape == (1000, 1280)


def _pixels(cell: dict) -> bytes:
    return Image.open(io.BytesIO(cell["bytes"])).tobytes()
