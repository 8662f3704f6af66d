"""What a detector's grid of answers means: its loss against true boxes, and the boxes that it found.

The loss is FCOS's (Tian et al. 2019, https://arxiv.org/abs/1904.01355): focal loss for the classes, 1 - GIoU for the
boxes of the cells that answer for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

ALPHA, GAMMA = 0.25, 2.0  # of the focal loss: Lin et al. 2017, https://arxiv.org/abs/1708.02002, section 5.1
RADIUS = 1.0  # in cells: a cell whose centre is this near a box's centre, along both axes, answers for it
OVERLAP = 0.6  # two boxes that share more than this (intersection over union) are one thing


def detection_loss(
    logits_BKRC: Tensor, boxes_B4RC: Tensor, truth: Sequence[tuple[Tensor, Tensor]], stride: int
) -> tuple[Tensor, int]:
    """The sum of the focal loss over all cells and classes, and of 1 − GIoU over the cells that answer for a box.

    Args:
        truth: for each picture its boxes (n, 4) left, top, right, bottom in pixels, and their classes (n,).

    Returns:
        The sum, and how many cells answer for a box: what FCOS divides by.
    """
    rows, columns = logits_BKRC.shape[-2:]
    owners, offset = [], 0
    for boxes_N4, _classes_N in truth:
        owner_RC = assign(boxes_N4, rows, columns, stride)
        owners.append(torch.where(owner_RC >= 0, owner_RC + offset, -1))
        offset += len(boxes_N4)
    owner_BRC = torch.stack(owners)
    boxes_N4, classes_N = (torch.cat([picture[part] for picture in truth]) for part in (0, 1))
    batch, row, column = torch.nonzero(owner_BRC >= 0, as_tuple=True)
    owner_P = owner_BRC[batch, row, column]
    wanted_BKRC = torch.zeros_like(logits_BKRC, dtype=torch.float32)
    wanted_BKRC[batch, classes_N[owner_P], row, column] = 1
    found_P4 = corners(boxes_B4RC.movedim(1, -1)[batch, row, column].float())
    loss = focal_loss(logits_BKRC.float(), wanted_BKRC).sum() + (1 - giou(found_P4, boxes_N4[owner_P])).sum()
    return loss, len(owner_P)


def assign(boxes_N4: Tensor, rows: int, columns: int, stride: int) -> Tensor:
    """Which box each cell answers for, (rows, columns); −1 for none.

    A cell answers for the smallest of the boxes whose centre is within `RADIUS` cells of its own, along both axes, and
    which hold its centre. The cell that holds a box's centre always answers for it, unless a smaller box takes it.
    """
    owner_RC = torch.full((rows, columns), -1, device=boxes_N4.device)
    if not len(boxes_N4):
        return owner_RC
    centre_2RC = cell_centres(rows, columns, stride).to(boxes_N4)
    x_RC1, y_RC1 = centre_2RC[:, :, :, None]
    left_N, top_N, right_N, bottom_N = boxes_N4.unbind(1)
    middle_x_N, middle_y_N = (left_N + right_N) / 2, (top_N + bottom_N) / 2
    far_RCN = torch.maximum((x_RC1 - middle_x_N).abs(), (y_RC1 - middle_y_N).abs())
    inside_RCN = (x_RC1 > left_N) & (x_RC1 < right_N) & (y_RC1 > top_N) & (y_RC1 < bottom_N)
    answers_RCN = inside_RCN & (far_RCN < RADIUS * stride)
    row_N, column_N = (
        (middle / stride).long().clamp(0, n - 1) for middle, n in ((middle_y_N, rows), (middle_x_N, columns))
    )
    answers_RCN[row_N, column_N, torch.arange(len(boxes_N4))] = True
    area_N = (right_N - left_N) * (bottom_N - top_N)
    smallest_RC, owner_RC = torch.where(answers_RCN, area_N, torch.inf).min(dim=-1)
    return torch.where(smallest_RC.isfinite(), owner_RC, -1)


def focal_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """−α (1−p)^γ ln p where 1 is wanted, −(1−α) p^γ ln(1−p) where 0 is: Lin et al. 2017, equation 5."""
    p = torch.sigmoid(logits)
    miss = wanted * (1 - p) + (1 - wanted) * p
    alpha = wanted * ALPHA + (1 - wanted) * (1 - ALPHA)
    return alpha * miss**GAMMA * F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")


def giou(a_N4: Tensor, b_N4: Tensor) -> Tensor:
    """Generalised intersection over union, −1 to 1, of boxes by their corners: Rezatofighi et al. 2019, algorithm 1."""
    shared_N = (torch.minimum(a_N4[:, 2:], b_N4[:, 2:]) - torch.maximum(a_N4[:, :2], b_N4[:, :2])).clamp(min=0).prod(1)
    around_N = (torch.maximum(a_N4[:, 2:], b_N4[:, 2:]) - torch.minimum(a_N4[:, :2], b_N4[:, :2])).prod(1)
    union_N = area(a_N4) + area(b_N4) - shared_N
    return shared_N / union_N - (around_N - union_N) / around_N


@dataclass(frozen=True)
class Detections:
    """What was found on one picture, the most certain first."""

    boxes: Tensor  # (n, 4) left, top, right, bottom in pixels
    classes: Tensor  # (n,)
    scores: Tensor  # (n,) the class's own probability: sigmoid of its logit
    cells: Tensor  # (n, 2) row and column of the cell that found it: logits[class, row, column] is the logit


def detect(
    logits_KRC: Tensor, boxes_4RC: Tensor, size: tuple[int, int], least: float = 0.05, most: int = 100
) -> Detections:
    """The boxes of one picture: each cell's best class, where it scores ``least``; then non-maximum suppression.

    Args:
        size: Height and width of the picture, at which boxes are cut off.
        most: Boxes, the most certain ones.
    """
    height, width = size
    scores_RC, classes_RC = torch.sigmoid(logits_KRC).max(dim=0)
    cells_N2 = torch.nonzero(scores_RC >= least)
    row, column = cells_N2.unbind(1)
    boxes_N4 = corners(boxes_4RC[:, row, column].T).clamp(min=0).minimum(boxes_4RC.new_tensor([width, height] * 2))
    kept = suppress(boxes_N4, scores_RC[row, column])[:most]
    return Detections(boxes_N4[kept], classes_RC[row, column][kept], scores_RC[row, column][kept], cells_N2[kept])


def suppress(boxes_N4: Tensor, scores_N: Tensor, overlap: float = OVERLAP) -> Tensor:
    """Non-maximum suppression: the indices of the boxes kept, the most certain first.

    The most certain box is kept and those that share more than ``overlap`` with it go, whatever their class; so on with
    what is left.
    """
    order_N = scores_N.argsort(descending=True, stable=True)
    near_NN = (iou(boxes_N4[order_N], boxes_N4[order_N]) > overlap).triu(1)
    kept_N = torch.ones(len(order_N), dtype=torch.bool, device=boxes_N4.device)
    for place in range(len(order_N)):
        if kept_N[place]:
            kept_N &= ~near_NN[place]
    return order_N[kept_N]


def iou(a_N4: Tensor, b_M4: Tensor) -> Tensor:
    """Intersection over union of every box with every other, (n, m)."""
    a_N14 = a_N4[:, None]
    shared_NM = (
        (torch.minimum(a_N14[..., 2:], b_M4[:, 2:]) - torch.maximum(a_N14[..., :2], b_M4[:, :2])).clamp(min=0).prod(-1)
    )
    return shared_NM / (area(a_N4)[:, None] + area(b_M4) - shared_NM)


def area(boxes_N4: Tensor) -> Tensor:
    return (boxes_N4[:, 2:] - boxes_N4[:, :2]).prod(1)


def corners(boxes_N4: Tensor) -> Tensor:
    """Centre x, centre y, width, height → left, top, right, bottom."""
    centre_N2, size_N2 = boxes_N4.split(2, dim=-1)
    return torch.cat([centre_N2 - size_N2 / 2, centre_N2 + size_N2 / 2], dim=-1)


def cell_centres(rows: int, columns: int, stride: int) -> Tensor:
    """x and y of every cell's centre in pixels, (2, rows, columns)."""
    y_R, x_C = (stride * (torch.arange(n) + 0.5) for n in (rows, columns))
    return torch.stack(torch.meshgrid(x_C, y_R, indexing="xy"))
