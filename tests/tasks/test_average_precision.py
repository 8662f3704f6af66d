"""Average precision against known cases, a slow reference, and the figures of COCO's own program."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.tasks.average_precision import THRESHOLDS, Boxes, BoxReport, average_precision, confusion, iou

SQUARE = [0.0, 0.0, 10.0, 10.0]


def picture(boxes=(), classes=(), scores=()) -> Boxes:
    return Boxes(np.array(boxes, np.float32).reshape(-1, 4), np.array(classes, np.int64), np.array(scores, float))


def drawn(seed: int, pictures: int = 30, n_classes: int = 3) -> tuple[list[Boxes], list[Boxes]]:
    """True boxes; most of them found, moved a little; some of another class, some out of nowhere."""
    rng = np.random.default_rng(seed)
    found, truth = [], []
    for _picture in range(pictures):
        n, extra = rng.integers(0, 5), rng.integers(0, 3)
        corner, side = rng.uniform(0, 80, (n, 2)), rng.uniform(10, 40, (n, 2))
        boxes, classes = np.hstack([corner, corner + side]), rng.integers(0, n_classes, n)
        seen = np.flatnonzero(rng.random(n) < 0.9).repeat(rng.integers(1, 3))
        moved = boxes[seen] + rng.normal(0, 2, (len(seen), 4))
        nowhere = rng.uniform(0, 40, (extra, 4)) + np.array([0, 0, 45, 45])
        said = np.where(rng.random(len(seen)) < 0.9, classes[seen], rng.integers(0, n_classes, len(seen)))
        kinds = np.concatenate([said, rng.integers(0, n_classes, extra)])
        found.append(picture(np.vstack([moved, nowhere]), kinds, rng.random(len(kinds))))
        truth.append(picture(boxes, classes, np.ones(n)))
    return found, truth


def slow(found: list[Boxes], truth: list[Boxes], kind: int, threshold: float) -> float:
    """As the definition reads, number by number."""
    ours = [
        (s, p, b)
        for p, one in enumerate(found)
        for b, c, s in zip(one.boxes, one.classes, one.scores, strict=True)
        if c == kind
    ]
    free = {(p, n): b for p, one in enumerate(truth) for n, b in enumerate(one.boxes) if one.classes[n] == kind}
    n_true, right, points = len(free), 0, []
    if not n_true:
        return np.nan
    for number, (_score, p, box) in enumerate(sorted(ours, key=lambda one: -one[0]), 1):
        shares = {key: iou(box[None], b[None]).item() for key, b in free.items() if key[0] == p}
        if shares and max(shares.values()) >= threshold:
            del free[max(shares, key=shares.__getitem__)]
            right += 1
        points.append((right / n_true, right / number))
    return sum(max((p for r, p in points if r >= recall), default=0.0) for recall in np.linspace(0, 1, 101)) / 101


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (picture([SQUARE], [0], [0.9]), 1.0),
        (picture(), 0.0),
        (picture([SQUARE], [1], [0.9]), 0.0),  # of another class
        (picture([SQUARE, SQUARE], [0, 0], [0.9, 0.8]), 1.0),  # twice: the second is wrong, after all are found
        (picture([[50, 50, 60, 60], SQUARE], [0, 0], [0.9, 0.8]), 0.5),  # what is most certain is wrong
        (picture([[0, 0, 10, 5.1]], [0], [0.9]), 1.0),
        (picture([[0, 0, 10, 4.9]], [0], [0.9]), 0.0),
    ],
)
def test_one_true_box(found, expected):
    result = average_precision([found], [picture([SQUARE], [0], [1])], 2)
    assert result[0, 0] == pytest.approx(expected)
    assert np.isnan(result[:, 1]).all()  # a class without a box does not count


def test_half_found_is_51_of_101_recalls():
    truth = picture([SQUARE, [20, 20, 30, 30]], [0, 0], [1, 1])
    assert average_precision([picture([SQUARE], [0], [0.5])], [truth], 1)[0, 0] == pytest.approx(51 / 101)


def test_a_box_is_right_up_to_the_threshold_it_reaches():
    result = average_precision([picture([[0, 0, 10, 7.6]], [0], [1])], [picture([SQUARE], [0], [1])], 1)
    assert result[:, 0].tolist() == [1.0] * 6 + [0.0] * 4  # 0.5 to 0.75 of 0.76


@pytest.mark.parametrize(
    ("seed", "expected"),
    [
        (0, (0.31429574, 0.55488354, 0.31506786)),
        (1, (0.30613116, 0.53241077, 0.34565672)),
        (2, (0.27640293, 0.55615098, 0.21553912)),
    ],
)
def test_equals_cocos_own_program(seed, expected):
    """AP@[.5:.95], AP@0.5 and AP@0.75 that pycocotools 2.0.11 printed for the same boxes."""
    result = average_precision(*drawn(seed), 3)
    assert [np.nanmean(part) for part in (result, result[0], result[5])] == pytest.approx(expected, abs=1e-8)


@given(st.integers(0, 10**6))
def test_equals_the_definition_read_aloud(seed):
    found, truth = drawn(seed, pictures=4, n_classes=2)
    expected = [[slow(found, truth, kind, t) for kind in range(2)] for t in THRESHOLDS[::3]]
    np.testing.assert_allclose(average_precision(found, truth, 2, THRESHOLDS[::3]), expected, atol=1e-12)


@given(st.integers(0, 10**6), st.floats(0.1, 5))
def test_only_the_order_of_the_scores_counts_and_pictures_may_be_shuffled(seed, power):
    found, truth = drawn(seed, pictures=5)
    result = average_precision(found, truth, 3)
    assert (np.diff(result, axis=0)[:, ~np.isnan(result[0])] <= 1e-12).all()  # a stricter threshold is never better
    other = [Boxes(one.boxes, one.classes, one.scores**power) for one in found]
    np.testing.assert_allclose(average_precision(other[::-1], truth[::-1], 3), result)


def test_who_was_taken_for_whom():
    truth = picture([SQUARE, [20, 20, 30, 30], [50, 50, 60, 60]], [0, 1, 1], [1, 1, 1])
    boxes = [SQUARE, SQUARE, [20, 20, 30, 29], [70, 70, 80, 80], [50, 50, 60, 60]]
    found = picture(boxes, [0, 1, 0, 1, 1], [0.9, 0.8, 0.7, 0.6, 0.1])
    assert confusion([found], [truth], 2, shown_from=0.5).tolist() == [[1, 0, 0], [1, 0, 1], [0, 2, 0]]
    report = BoxReport.of(("a", "b"), [found], [truth], 0.5, 1.0)
    assert [(score.precision, score.recall, score.boxes) for score in report.by_class] == [(0.5, 1.0, 1), (0.0, 0.0, 2)]
    assert report.json()["by_class"][0]["ap50"] == 1.0
