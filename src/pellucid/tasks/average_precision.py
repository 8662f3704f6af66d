"""Average precision: how good a detector's boxes are, as COCO counts it (Lin et al. 2014; its own `COCOeval`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of intersection over union, from which on a box is right
RECALLS = np.linspace(0, 1, 101)  # at which precision is read


@dataclass(frozen=True)
class Boxes:
    """The boxes of one picture, found or true ones; the scores of true ones do not matter."""

    boxes: np.ndarray  # (n, 4) left, top, right, bottom
    classes: np.ndarray  # (n,)
    scores: np.ndarray  # (n,)


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


def iou(a_N4: np.ndarray, b_M4: np.ndarray) -> np.ndarray:
    """Intersection over union of every box with every other, (n, m); in float64."""
    a_N14, b_M4 = a_N4[:, None].astype(np.float64), b_M4.astype(np.float64)
    side_NM2 = np.minimum(a_N14[..., 2:], b_M4[:, 2:]) - np.maximum(a_N14[..., :2], b_M4[:, :2])
    shared_NM = side_NM2.clip(min=0).prod(-1)
    area_N1, area_M = ((x[..., 2:] - x[..., :2]).prod(-1) for x in (a_N14, b_M4))
    return shared_NM / (area_N1 + area_M - shared_NM)
