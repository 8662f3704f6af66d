"""Pictures with boxes: COCO's form there and back, what is refused, and boxes drawn."""

import json

import numpy as np
import pytest
from PIL import Image

from pellucid.data.boxes import (
    COLOURS,
    GREY,
    Boxed,
    Found,
    annotation_files,
    draw,
    letterbox,
    opened,
    pictures_in,
    read_boxes,
    write_boxes,
)
from pellucid.errors import PellucidError

NAMES = ("cat", "狗")


def pictures() -> list[Boxed]:
    rng = np.random.default_rng(0)
    boxes = np.array([[1, 2, 30.5, 20], [0, 0, 40, 32]], np.float32)
    some = Boxed(rng.integers(0, 256, (32, 40, 3), dtype=np.uint8), boxes, np.array([1, 0]))
    none = Boxed(np.zeros((16, 16, 3), np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    return [some, none]


@pytest.fixture
def folder(tmp_path):
    write_boxes(tmp_path / "set", NAMES, pictures())
    return tmp_path / "set"


def change(folder, **changes) -> None:
    """Overwrite fields of the first entry of each list named."""
    file = folder / "annotations.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    for key, fields in changes.items():
        document[key][0] |= fields
    file.write_text(json.dumps(document), encoding="utf-8")


def test_what_is_written_is_read(folder):
    read = read_boxes(folder / "annotations.json")
    assert read.names == NAMES
    for ours, file in zip(pictures(), read.pictures, strict=True):
        assert (file.height, file.width) == ours.pixels.shape[:2]
        np.testing.assert_array_equal(np.asarray(Image.open(file.path)), ours.pixels)
        np.testing.assert_array_equal(file.boxes, ours.boxes)
        np.testing.assert_array_equal(file.classes, ours.classes)
        assert (file.boxes.dtype, file.classes.dtype) == (np.float32, np.int64)


def test_pictures_may_lie_in_images(folder):
    (folder / "images").mkdir()
    for picture in folder.glob("*.png"):
        picture.rename(folder / "images" / picture.name)
    assert len(read_boxes(folder / "annotations.json").pictures) == 2


def test_category_ids_need_not_be_in_order_and_a_crowd_is_left_out(folder):
    file = folder / "annotations.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    document["categories"] = [{"id": 90, "name": "toothbrush"}, {"id": 7, "name": "train"}]
    document["annotations"] = [
        {"image_id": 1, "category_id": 7, "bbox": [1, 1, 5, 5]},
        {"image_id": 1, "category_id": 90, "bbox": [2, 2, 5, 5], "iscrowd": 1},
    ]
    file.write_text(json.dumps(document), encoding="utf-8")
    read = read_boxes(file)
    assert (read.names, read.crowds) == (("toothbrush", "train"), 1)
    assert read.pictures[0].classes.tolist() == [1]


def test_a_box_may_stand_out_by_a_rounding_and_is_cut(folder):
    change(folder, annotations={"bbox": [-0.5, 2, 41, 20]})
    assert read_boxes(folder / "annotations.json").pictures[0].boxes[0].tolist() == [0, 2, 40, 22]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": {"file_name": "gone.png"}}, "A picture is missing: gone.png"),
        ({"images": {"width": 80, "height": 64}}, "has 40 × 32 pixels, the annotations say 80 × 64"),
        ({"images": {"id": 2}}, "The id 2 stands there twice"),
        ({"annotations": {"image_id": 9}}, "a picture that is not listed: 9"),
        ({"annotations": {"category_id": 9}}, "a category that is not listed: 9"),
        ({"annotations": {"bbox": [1, 1, -3, 5]}}, "-3 × 5"),
        ({"annotations": {"bbox": [1, 1, 3, 0]}}, "3 × 0"),
        ({"annotations": {"bbox": [30, 1, 20, 5]}}, "stands out of its picture of 40 × 32 pixels"),
        ({"annotations": {"bbox": [40.5, 1, 0.2, 5]}}, "stands out of its picture"),
        ({"annotations": {"bbox": [1, 2, 3]}}, r"four numbers .* not \[1, 2, 3\]"),
        ({"annotations": {"bbox": [1, 2, 3, float("nan")]}}, "four numbers"),
        ({"annotations": {"bbox": "1 2 3 4"}}, "four numbers"),
    ],
)
def test_a_mistake_is_said_and_where_it_stands(folder, changes, message):
    change(folder, **changes)
    with pytest.raises(PellucidError, match=message) as caught:
        read_boxes(folder / "annotations.json")
    assert "annotations" in caught.value.where or "annotations" in caught.value.fix


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "it has no images, annotations, categories"),
        ('{"images": [], "categories": []}', "it has no annotations"),
        ('{"images": [], "categories": [], "annotations": []}', "There are no boxes"),
        ('{"images": [3], "categories": [], "annotations": []}', "An entry has no id, file_name"),
        ('{"images": 3, "categories": [], "annotations": []}', "it has no images"),
    ],
)
def test_a_file_that_is_not_coco_is_refused(tmp_path, text, message):
    (tmp_path / "annotations.json").write_text(text)
    with pytest.raises(PellucidError, match=message):
        read_boxes(tmp_path / "annotations.json")


def test_a_picture_that_is_none_is_refused(folder):
    (folder / "00001.png").write_text("no picture")
    with pytest.raises(PellucidError, match="cannot be read") as caught:
        read_boxes(folder / "annotations.json")
    assert "00001.png" in caught.value.where


def test_parts_are_found_by_their_usual_names(tmp_path):
    for name in ("train", "val", "test"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "_annotations.coco.json").touch()
    assert {part: file.parent.name for part, file in annotation_files(tmp_path).items()} == {
        "train": "train", "validation": "val", "test": "test",
    }  # fmt: skip
    assert annotation_files(tmp_path / "train") == {"": tmp_path / "train" / "_annotations.coco.json"}
    (tmp_path / "empty").mkdir()
    assert annotation_files(tmp_path / "empty") == {}


def test_two_files_of_annotations_are_one_too_many(tmp_path):
    for name in ("annotations.json", "more.coco.json"):
        (tmp_path / name).touch()
    with pytest.raises(PellucidError, match=r"annotations\.json, more\.coco\.json"):
        annotation_files(tmp_path)


def test_letterbox_keeps_the_shape_of_things():
    picture = Image.fromarray(np.full((30, 60, 3), 200, np.uint8))
    pixels, scale = letterbox(picture, 32)
    assert (pixels.shape, pixels.dtype, scale) == ((32, 32, 3), np.uint8, 32 / 60)
    assert (pixels[:16] == 200).all()
    assert (pixels[16:] == GREY).all()
    assert letterbox(Image.new("L", (1, 500)), 32)[0].shape == (32, 32, 3)


def test_boxes_are_drawn_where_they_are():
    picture = Image.new("RGB", (100, 80), "white")
    drawn = draw(picture, [Found((20, 30, 61, 71), "cat", 0.93), Found((0, 0, 100, 80), "狗", 0.5)])
    pixels = np.asarray(drawn)
    assert drawn.size == picture.size
    cat = tuple(bytes.fromhex(COLOURS[0][1:]))
    assert (pixels[70, 20:61] == cat).all()  # the last row and column of the box
    assert (pixels[30:71, 60] == cat).all()
    assert (pixels[45, 25:55] == 255).all()
    assert (np.asarray(picture) == 255).all()  # which stays as it is


def test_a_colour_for_each_name_can_be_given():
    drawn = draw(Image.new("L", (50, 50)), [Found((10, 30, 20, 40), "a", 1.0)], {"a": "#010203"})
    assert np.asarray(drawn)[39, 15].tolist() == [1, 2, 3]


def test_a_picture_lies_as_its_camera_was_held(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :10] = 255
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    document = {
        "images": [{"id": 1, "file_name": "turned.jpg", "width": 20, "height": 40}],
        "categories": [{"id": 1, "name": "white"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 10]}],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(document))
    (picture,) = read_boxes(tmp_path / "annotations.json").pictures
    upright = np.asarray(opened(picture.path))
    assert upright.shape == (40, 20, 3)
    assert upright[:8].min() > 200
    assert upright[12:].max() < 50


def test_pictures_in_and_under_a_folder(folder):
    (folder / "deep").mkdir()
    Image.new("L", (3, 3)).save(folder / "deep" / "more.JPG")
    assert [path.name for path in pictures_in(folder)] == ["00001.png", "00002.png", "more.JPG"]
    assert pictures_in(folder / "00002.png") == [folder / "00002.png"]
    for nothing in (folder / "gone.png", folder.parent / "empty"):
        with pytest.raises(PellucidError, match="no pictures here"):
            pictures_in(nothing)
