"""Scenes of digits on photographs: exact boxes, and nothing of one part in another."""

from itertools import islice

import numpy as np
import pytest

from pellucid.data.boxes import annotation_files, read_boxes
from pellucid.data.scenes import OVERLAP, SHARES, Material, digit_scenes, part_of, scenes
from pellucid.errors import PellucidError


def material(n: int = 40) -> Material:
    """Solid blobs instead of digits, so that the ink is known; photographs whose every pixel names its place."""
    digits = np.zeros((n, 28, 28), np.uint8)
    for number, digit in enumerate(digits):
        digit[4:24, 8 : 12 + number % 8] = 255
    row, column = np.mgrid[:200, :300]
    wide = np.stack([column % 256, row, column // 256], -1).astype(np.uint8)
    return Material(digits, np.arange(n) % 10, [wide, wide.transpose(1, 0, 2)])


def test_boxes_are_tight_around_the_ink():
    grey = [np.full((64, 64, 3), 128, np.uint8)]  # neither dark nor bright: any ink is seen on it
    for scene in islice(scenes(Material(material().digits, material().labels, grey), 96, per_scene=(1, 1)), 20):
        rows, columns = (np.flatnonzero((scene.pixels != 128).any((axis, 2))) for axis in (1, 0))
        found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(scene.boxes[0], found, atol=1)


def test_boxes_stay_inside_and_hardly_overlap():
    for scene in islice(scenes(material(), 96, seed=3), 50):
        assert scene.pixels.shape == (96, 96, 3)
        assert 1 <= len(scene.boxes) == len(scene.classes) <= 4
        assert (scene.boxes >= 0).all()
        assert (scene.boxes <= 96).all()
        ink = np.zeros((96, 96), int)
        for left, top, right, bottom in scene.boxes.astype(int):
            ink[top:bottom, left:right] += 1
        areas = np.prod(scene.boxes[:, 2:] - scene.boxes[:, :2], axis=1)
        assert (ink > 1).sum() <= OVERLAP * areas.sum()


def test_one_seed_gives_one_set():
    one, again, other = (next(scenes(material(), seed=seed)) for seed in (1, 1, 2))
    assert np.array_equal(one.pixels, again.pixels)
    assert np.array_equal(one.boxes, again.boxes)
    assert not np.array_equal(one.pixels, other.pixels)


def test_no_digit_and_no_place_is_in_two_parts():
    whole = Material(material().digits, np.arange(40), material().photographs)
    parts = [part_of(whole, part) for part in SHARES]
    digits = [set(part.labels.tolist()) for part in parts]
    assert set.union(*digits) == set(range(40))
    assert sum(map(len, digits)) == 40
    for photograph in range(2):
        places = [set(map(tuple, part.photographs[photograph].reshape(-1, 3).tolist())) for part in parts]
        assert sum(map(len, places)) == len(set.union(*places)) == 200 * 300


def test_a_set_is_written_in_three_parts(tmp_path):
    out = tmp_path / "scenes"
    assert digit_scenes(out, material(), {"train": 5, "valid": 2, "test": 3}, size=64) == {
        "train": 5, "valid": 2, "test": 3,
    }  # fmt: skip
    files = annotation_files(out)
    assert {part: len(read_boxes(file).pictures) for part, file in files.items()} == {
        "train": 5, "validation": 2, "test": 3,
    }  # fmt: skip
    assert read_boxes(files["test"]).names == tuple("0123456789")
    with pytest.raises(PellucidError, match="something else"):
        digit_scenes(out, material(), {"train": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]
