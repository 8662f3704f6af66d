import io
import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from pellucid.data.pictures import Pictures, is_folder_of_classes, picture, read, read_unlabelled
from pellucid.errors import PellucidError


def drawn(seed, size=(6, 8), channels=3):
    """(H, W) or (H, W, 3) uint8."""
    shape = size if channels == 1 else (*size, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def saved(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def png(pixels):
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def animals(tmp_path):
    """Three cats and two dogs, 6 high and 8 wide."""
    for i, name in enumerate(["cats/1.png", "cats/2.png", "cats/more/3.png", "dogs/1.png", "dogs/2.png"]):
        saved(tmp_path / "animals" / name, drawn(i))
    return tmp_path / "animals"


def test_a_folder_of_class_folders(animals):
    found = read(animals)
    assert is_folder_of_classes(animals)
    assert found.pixels.shape == (5, 3, 6, 8)
    assert found.pixels.dtype == np.uint8
    np.testing.assert_array_equal(found.pixels[3], drawn(3).transpose(2, 0, 1))
    assert (found.classes, found.labels.tolist()) == (["cats", "dogs"], [0, 0, 0, 1, 1])
    assert found.names[2] == "cats/more/3.png"
    assert found.parts is None
    assert found.notes == []


def test_what_is_no_picture_is_counted(animals):
    (animals / "readme.txt").write_text("x")
    (animals / "cats" / "list.csv").write_text("x")
    (animals / "cats" / ".hidden.png").write_text("x")
    (animals / "birds").mkdir()
    saved(animals / "loose.png", drawn(9))
    found = read(animals)
    assert len(found.pixels) == 5
    assert found.notes == [
        "2 files that are not pictures were left out.",
        "1 pictures that stand in no class folder were left out.",
        "Folders without pictures: birds.",
    ]


def test_grey_pictures_have_one_channel(tmp_path):
    for i in range(4):
        saved(tmp_path / f"grey/c{i % 2}/{i}.png", drawn(i, channels=1))
        saved(tmp_path / f"saved_as_colour/c{i % 2}/{i}.png", np.repeat(drawn(i, channels=1)[..., None], 3, 2))
    grey = read(tmp_path / "grey")
    assert grey.pixels.shape == (4, 1, 6, 8)
    colour = read(tmp_path / "saved_as_colour")
    np.testing.assert_array_equal(colour.pixels, grey.pixels)
    assert colour.notes == ["All pictures are grey: they are read with one channel."]
    assert read(tmp_path / "grey", channels=3).pixels.shape == (4, 3, 6, 8)


def test_mixed_sizes_are_refused_until_one_is_chosen(animals):
    saved(animals / "dogs" / "3.png", np.full((50, 100, 3), 200, np.uint8))
    with pytest.raises(PellucidError, match=r"2 different sizes: 8×6 \(5\), 100×50 \(1\)") as error:
        read(animals)
    assert "--picture-size 32" in error.value.fix
    found = read(animals, size=(6, 8))
    assert found.pixels.shape == (6, 3, 6, 8)
    np.testing.assert_array_equal(found.pixels[0], drawn(0).transpose(2, 0, 1))
    assert (found.pixels[5] == 200).all()
    assert "scaled and cropped to 8×6; they had 2 sizes, the commonest 8×6" in found.notes[0]


def test_cropping_keeps_the_middle_and_does_not_stretch():
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 255
    assert (picture(Image.fromarray(wide), (10, 10), 1) == 255).all()


def test_pictures_are_turned_as_their_camera_says(tmp_path):
    pixels = np.zeros((20, 40), np.uint8)
    pixels[:, :20] = 255  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise: the left becomes the top
    for i in range(4):
        saved(tmp_path / f"c{i % 2}/{i}.png", pixels, exif=exif)
    found = read(tmp_path)
    assert found.pixels.shape == (4, 1, 40, 20)
    assert (found.pixels[0, 0, :20] == 255).all()
    assert (found.pixels[0, 0, 20:] == 0).all()


def test_transparency_is_white_and_deep_greys_are_kept():
    transparent = np.zeros((4, 4, 4), np.uint8)
    transparent[:2, :, 3] = 255
    assert picture(png(transparent), (4, 4), 1)[0, :, 0].tolist() == [0, 0, 255, 255]
    deep = np.full((4, 4), 257 * 100, np.uint16)
    assert (picture(png(deep), (4, 4), 1) == 100).all()
    palette = Image.fromarray(drawn(0)).quantize(4)
    assert picture(palette, (6, 8), 3).shape == (3, 6, 8)


@pytest.mark.parametrize("broken", [b"", b"no picture", "cut"])
def test_an_unreadable_picture_is_named(animals, broken):
    data = (animals / "cats" / "1.png").read_bytes()
    (animals / "cats" / "1.png").write_bytes(data[: len(data) // 2] if broken == "cut" else broken)
    with pytest.raises(PellucidError, match="cannot be read") as error:
        read(animals)
    assert error.value.where == "cats/1.png"
    with pytest.raises(PellucidError, match="cannot be read"):
        picture(animals / "cats" / "1.png", (6, 8), 3)


@pytest.mark.parametrize("side", [20_000, 11_000])  # Pillow itself refuses the first
def test_a_picture_meant_to_fill_the_memory(animals, side):
    (animals / "cats" / "1.png").write_bytes(f"P4 {side} {side}\n".encode())
    with pytest.raises(PellucidError, match="more than 100 million pixels"):
        read(animals, size=(6, 8))


def test_pictures_that_do_not_fit_into_memory(animals):
    with pytest.raises(PellucidError, match=r"take 6\.0 GB"):
        read(animals, size=(20_000, 20_000))


def test_too_few_classes_or_pictures(animals, tmp_path):
    with pytest.raises(PellucidError, match="All pictures are of one class: more"):
        read(animals / "cats")
    with pytest.raises(PellucidError, match="no class folders"):
        read(animals / "dogs")
    with pytest.raises(PellucidError, match="no such file"):
        read(tmp_path / "nowhere")
    (animals / "dogs" / "2.png").unlink()
    with pytest.raises(PellucidError, match="Only one picture of: dogs") as error:
        read(animals)
    assert error.value.where == "dogs/1.png"


def test_folders_that_name_the_parts(tmp_path):
    seed = 0
    for part, n in (("train", 40), ("test", 5)):
        for label in ("a", "b"):
            for i in range(n):
                seed += 1
                saved(tmp_path / part / label / f"{i}.png", drawn(seed, channels=1))
    found = read(tmp_path)
    assert found.classes == ["a", "b"]
    assert np.bincount(found.parts).tolist() == [80, 0, 10]
    assert found.notes == ["The folders name the parts: test, train."]
    split = found.split(seed=1)
    assert sorted(split.test) == np.flatnonzero(found.parts == 2).tolist()
    assert len(split.validation) == 14  # 0.15 of 0.85
    assert sorted([*split.train, *split.validation]) == np.flatnonzero(found.parts == 0).tolist()
    saved(tmp_path / "test" / "c" / "1.png", drawn(1000))
    saved(tmp_path / "test" / "c" / "2.png", drawn(1001))
    with pytest.raises(PellucidError, match="training part has no picture of: c"):
        read(tmp_path)


def test_training_pictures_that_are_in_the_test_part_too():
    pixels = np.stack([drawn(i % 50, channels=1)[None] for i in range(60)])
    parts = np.array([0] * 40 + [1] * 10 + [2] * 10)
    split = Pictures(pixels, np.arange(60) % 2, ["a", "b"], [""] * 60, parts).split()
    assert split.train.tolist() == list(range(10, 40))
    assert split.notes == ["10 training pictures that are also in the validation or test part were left out."]


def test_equal_pictures_stay_in_one_part():
    pixels = np.stack([drawn(i % 100, channels=1)[None] for i in range(200)])
    split = Pictures(pixels, np.arange(200) % 2, ["a", "b"], [""] * 200).split()
    for part in (split.train, split.validation, split.test):
        assert sorted(part % 100) == sorted([*set(part % 100)] * 2)


@pytest.mark.parametrize("column", ["structs", "bytes", "paths"])
def test_a_table_of_pictures(tmp_path, column):
    data = [png(drawn(i)) for i in range(6)]
    for i in range(6):
        (tmp_path / f"{i}.png").write_bytes(data[i])
    values = {
        "structs": [{"bytes": one, "path": f"{i}.png"} for i, one in enumerate(data)],
        "bytes": data,
        "paths": [f"{i}.png" for i in range(6)],
    }[column]
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    raw = pa.table({"image": values, "label": [0, 1, 0, 1, 0, None]})
    raw = raw.replace_schema_metadata({b"huggingface": json.dumps({"info": {"features": features}}).encode()})
    parquet.write_table(raw, tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet", "label")
    np.testing.assert_array_equal(found.pixels, np.stack([drawn(i).transpose(2, 0, 1) for i in range(5)]))
    assert (found.classes, found.labels.tolist()) == (["cat", "dog"], [0, 1, 0, 1, 0])
    assert found.notes == ["1 rows without a picture or a class were left out."]
    with pytest.raises(PellucidError, match="Which column is to be predicted") as error:
        read(tmp_path / "a.parquet")
    assert "image, label" in error.value.fix
    with pytest.raises(PellucidError, match="no column kind"):
        read(tmp_path / "a.parquet", "kind")


def test_tables_that_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("image,label\nnowhere.png,a\nnowhere2.png,b\n")
    with pytest.raises(PellucidError, match="cannot be read: No such file") as error:
        read(tmp_path / "a.csv", "label", size=(4, 4), classes=["a", "b"])
    assert error.value.where == "a.csv:1 (nowhere.png)"
    (tmp_path / "a.csv").write_text("x,label\n1,a\n2,b\n3,a\n")
    with pytest.raises(PellucidError, match="No column holds pictures"):
        read(tmp_path / "a.csv", "label")


def test_a_data_set_with_named_parts(tmp_path):
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    for part, n in (("train", 4), ("test", 2)):
        (tmp_path / part).mkdir()
        (tmp_path / part / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
        raw = pa.table(
            {"image": [{"bytes": png(drawn(i)), "path": None} for i in range(n)], "y": ["a", "b"] * (n // 2)}
        )
        with pa.OSFile(str(tmp_path / part / "data.arrow"), "wb") as sink, pa.ipc.new_stream(sink, raw.schema) as out:
            out.write_table(raw)
    found = read(tmp_path, "y")
    assert found.parts.tolist() == [0, 0, 0, 0, 2, 2]
    assert found.notes == ["The data set names the parts: train, test."]


def test_pictures_to_predict(animals):
    names, pixels = read_unlabelled(animals, (6, 8), 1)
    assert names == ["cats/1.png", "cats/2.png", "cats/more/3.png", "dogs/1.png", "dogs/2.png"]
    assert pixels.shape == (5, 1, 6, 8)
    names, pixels = read_unlabelled(animals / "cats" / "2.png", (6, 8), 3)
    np.testing.assert_array_equal(pixels[0], drawn(1).transpose(2, 0, 1))
    np.testing.assert_array_equal(pixels[0], picture(animals / "cats" / "2.png", (6, 8), 3))
    for source in (animals / "nowhere.png", animals.parent / "empty"):
        (animals.parent / "empty").mkdir(exist_ok=True)
        with pytest.raises(PellucidError, match=r"no such file|no pictures"):
            read_unlabelled(source, (6, 8), 3)


def test_classes_of_a_trained_network(animals):
    assert read(animals, classes=["dogs", "cats", "birds"]).labels.tolist() == [1, 1, 1, 0, 0]
    with pytest.raises(PellucidError, match="dogs is none of the classes"):
        read(animals, classes=["cats", "birds"])
