"""Average precision: how good a detector's boxes are, as COCO counts it (Lin et al. 2014; its own `COCOeval`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pellucid.language import _

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of intersection over union, from which on a box is right
RECALLS = np.linspace(0, 1, 101)  # at which precision is read
MOST_CLASSES = 12  # in a confusion matrix that a terminal can show


@dataclass(frozen=True)
class Boxes:
    """The boxes of one picture, found or true ones; the scores of true ones do not matter."""

    boxes: np.ndarray  # (n, 4) left, top, right, bottom
    classes: np.ndarray  # (n,)
    scores: np.ndarray  # (n,)


@dataclass(frozen=True)
class BoxScore:
    """How well the boxes of one class are found."""

    name: str
    ap: float  # AP@[.5:.95]; NaN where there is no box
    ap50: float  # AP@0.5
    precision: float  # of the boxes shown, those that are right; NaN where none is shown
    recall: float  # of the true boxes, those that are shown
    boxes: int  # true ones


@dataclass(frozen=True)
class BoxReport:
    """What was found on pictures, against what is there."""

    classes: tuple[str, ...]
    pictures: int
    ap: float
    ap50: float
    loss: float  # a cell that answers for a box
    shown_from: float  # the score from which on a box counts in precision, recall and confusion
    by_class: tuple[BoxScore, ...]
    confusion: tuple[
        tuple[int, ...], ...
    ]  # a row a true class, a column a class said; last: nothing there, nothing said

    @staticmethod
    def of(
        classes: Sequence[str], found: Sequence[Boxes], truth: Sequence[Boxes], shown_from: float, loss: float
    ) -> BoxReport:
        precision_TK = average_precision(found, truth, len(classes))
        counts_KK = confusion(found, truth, len(classes), shown_from)
        right_K, true_K, said_K = counts_KK.diagonal()[:-1], counts_KK.sum(1)[:-1], counts_KK.sum(0)[:-1]
        by_class = tuple(
            BoxScore(
                name,
                float(precision_TK[:, k].mean()),
                float(precision_TK[0, k]),
                float(right_K[k] / said_K[k]) if said_K[k] else float("nan"),
                float(right_K[k] / true_K[k]) if true_K[k] else float("nan"),
                int(true_K[k]),
            )
            for k, name in enumerate(classes)
        )
        ap, ap50 = float(np.nanmean(precision_TK)), float(np.nanmean(precision_TK[0]))
        table = tuple(tuple(map(int, row)) for row in counts_KK)
        return BoxReport(tuple(classes), len(truth), ap, ap50, loss, shown_from, by_class, table)

    def __rich__(self) -> Any:
        """As a terminal shows it."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        said = _(
            "{n:,} pictures with {boxes:,} boxes: average precision {ap:.3f} (AP@[.5:.95]), {ap50:.3f} at an overlap "
            "of one half (AP@0.5), loss {loss:.4g}"
        )
        boxes = sum(score.boxes for score in self.by_class)
        head = Text(said.format(n=self.pictures, boxes=boxes, ap=self.ap, ap50=self.ap50, loss=self.loss))
        below = _("precision and recall of boxes that score {score:g}").format(score=self.shown_from)
        classes = Table(box=None, padding=(0, 2, 0, 0), caption=below, caption_justify="left")
        for name in (_("class"), "AP", "AP@0.5", _("precision"), _("recall"), _("boxes")):
            classes.add_column(name, justify="left" if name == _("class") else "right")
        for score in self.by_class:
            figures = (f"{value:.3f}" for value in (score.ap, score.ap50, score.precision, score.recall))
            classes.add_row(Text(score.name), *figures, f"{score.boxes:,}")
        if len(self.classes) > MOST_CLASSES:
            return Group(head, classes)
        names = (*self.classes, _("nothing"))
        taken = Table(box=None, padding=(0, 1, 0, 0), title=_("true class below, said class across"))
        for name in ("", *names):
            taken.add_column(Text(name), justify="right")
        for i, (name, counts) in enumerate(zip(names, self.confusion, strict=True)):
            taken.add_row(Text(name), *(Text(f"{n:,}", "bold" if i == j else "") for j, n in enumerate(counts)))
        return Group(head, classes, taken)

    def json(self) -> dict[str, Any]:
        scores = [{k: None if v != v else v for k, v in vars(score).items()} for score in self.by_class]
        return vars(self) | {"by_class": scores}


def average_precision(
    found: Sequence[Boxes], truth: Sequence[Boxes], n_classes: int, thresholds: np.ndarray = THRESHOLDS
) -> np.ndarray:
    """The average precision of each class at each threshold, (thresholds, classes); NaN for a class that has no box.

    The boxes found of a class, the most certain first, each take the free true box of their picture that they share
    most with, where intersection over union reaches the threshold; those that get none are wrong. Precision at a recall
    is the best at that recall or more, read at 101 recalls from 0 to 1 and averaged.

    AP@0.5 is ``np.nanmean(result[0])``, AP@[.5:.95] ``np.nanmean(result)``.
    """
    return np.stack([_of_class(found, truth, kind, thresholds) for kind in range(n_classes)], axis=1)


def _of_class(found: Sequence[Boxes], truth: Sequence[Boxes], kind: int, thresholds: np.ndarray) -> np.ndarray:
    right, scores, n_true = [], [], 0
    for ours, true in zip(found, truth, strict=True):
        own_N, true_M4 = ours.classes == kind, true.boxes[true.classes == kind]
        order_N = np.argsort(-ours.scores[own_N], kind="stable")
        right.append(_matched(iou(ours.boxes[own_N][order_N], true_M4), thresholds))
        scores.append(ours.scores[own_N][order_N])
        n_true += len(true_M4)
    if not n_true:
        return np.full(len(thresholds), np.nan)
    order_N = np.argsort(-np.concatenate(scores), kind="stable")
    right_TN = np.concatenate(right, axis=1)[:, order_N]
    if not right_TN.shape[1]:
        return np.zeros(len(thresholds))
    hits_TN = right_TN.cumsum(axis=1)
    recall_TN = hits_TN / n_true
    precision_TN = hits_TN / np.arange(1, right_TN.shape[1] + 1)
    best_TN = np.maximum.accumulate(precision_TN[:, ::-1], axis=1)[:, ::-1]
    best_TN = np.pad(best_TN, ((0, 0), (0, 1)))  # recalls that are never reached have precision 0
    read_TR = [best[np.searchsorted(recall, RECALLS)] for best, recall in zip(best_TN, recall_TN, strict=True)]
    return np.mean(read_TR, axis=1)


def _matched(iou_NM: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Whether each box found gets a true one, (thresholds, n)."""
    matched_TN = np.zeros((len(thresholds), len(iou_NM)), bool)
    for t, threshold in enumerate(thresholds):
        free_NM = iou_NM.copy()
        for n in range(len(iou_NM)):
            if free_NM.shape[1] and free_NM[n].max() >= threshold:
                matched_TN[t, n] = True
                free_NM[:, free_NM[n].argmax()] = -1
    return matched_TN


def confusion(
    found: Sequence[Boxes], truth: Sequence[Boxes], n_classes: int, shown_from: float, overlap: float = 0.5
) -> np.ndarray:
    """How often each class (a row) was called each class (a column); the last row and column are nothing.

    The boxes found with at least the score ``shown_from``, the most certain first, each take the free true box, of
    whatever class, that they share most with, where intersection over union reaches ``overlap``.
    """
    counts_KK = np.zeros((n_classes + 1, n_classes + 1), np.int64)
    for ours, true in zip(found, truth, strict=True):
        free_NM = iou(ours.boxes, true.boxes)
        missed_M = np.ones(len(true.boxes), bool)
        for n in np.argsort(-ours.scores, kind="stable"):
            if ours.scores[n] < shown_from:
                break
            if missed_M.any() and free_NM[n].max() >= overlap:
                m = free_NM[n].argmax()
                counts_KK[true.classes[m], ours.classes[n]] += 1
                free_NM[:, m], missed_M[m] = -1, False
            else:
                counts_KK[n_classes, ours.classes[n]] += 1
        counts_KK[:n_classes, n_classes] += np.bincount(true.classes[missed_M], minlength=n_classes)
    return counts_KK


def iou(a_N4: np.ndarray, b_M4: np.ndarray) -> np.ndarray:
    """Intersection over union of every box with every other, (n, m); in float64."""
    a_N14, b_M4 = a_N4[:, None].astype(np.float64), b_M4.astype(np.float64)
    side_NM2 = np.minimum(a_N14[..., 2:], b_M4[:, 2:]) - np.maximum(a_N14[..., :2], b_M4[:, :2])
    shared_NM = side_NM2.clip(min=0).prod(-1)
    area_N1, area_M = ((x[..., 2:] - x[..., :2]).prod(-1) for x in (a_N14, b_M4))
    return shared_NM / (area_N1 + area_M - shared_NM)
