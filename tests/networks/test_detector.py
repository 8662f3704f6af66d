"""The detector: who answers for which box, the losses, suppression against slow references, and exact reasons."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import pellucid as pl
from pellucid.networks.detection import (
    assign,
    corners,
    detect,
    detection_loss,
    focal_loss,
    giou,
    iou,
    suppress,
)
from pellucid.networks.detector import Detector, DetectorConfig


@st.composite
def boxes(draw, most: int = 8, side: float = 64.0):
    numbers = st.floats(0, side - 1, width=32)
    found = []
    for _number in range(draw(st.integers(0, most))):
        left, top = draw(numbers), draw(numbers)
        found.append([left, top, draw(st.floats(left + 0.5, side)), draw(st.floats(top + 0.5, side))])
    return torch.tensor(found).reshape(-1, 4)


def small(n_classes: int = 3) -> Detector:
    return Detector(DetectorConfig(n_classes, channels=(4, 6, 8, 8), d_head=8))


def test_shapes_and_size():
    config = DetectorConfig(10)
    net = Detector(config)
    logits, found = net(torch.rand(2, 3, 128, 96))
    assert (logits.shape, found.shape) == ((2, 10, 16, 12), (2, 4, 16, 12))
    assert (config.stride, config.multiple) == (8, 16)
    assert sum(p.numel() for p in net.parameters()) == 435_102


def test_untrained_every_cell_says_one_percent_and_a_box_of_one_cell():
    torch.manual_seed(0)
    logits, found = small()(torch.rand(4, 3, 64, 64))
    torch.testing.assert_close(torch.sigmoid(logits), torch.full_like(logits, 0.01), rtol=0.5, atol=0)
    x, y, width, height = found[0, :, 2, 5]
    assert (x.item(), y.item()) == pytest.approx((5.5 * 8, 2.5 * 8), abs=1)
    assert (width.item(), height.item()) == pytest.approx((8, 8), rel=0.2)


def test_a_finer_grid():
    net = Detector(DetectorConfig(2, channels=(4, 4, 4), grid=0, d_head=4))
    assert net(torch.rand(1, 3, 16, 16))[0].shape == (1, 2, 8, 8)


# ---- who answers


@given(boxes())
def test_assignment_equals_the_rule_read_aloud(found):
    owner, stride = assign(found, 8, 8, 8), 8
    for row in range(8):
        for column in range(8):
            x, y = (column + 0.5) * stride, (row + 0.5) * stride
            candidates = []
            for number, (left, top, right, bottom) in enumerate(found):
                middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
                near = max(abs(x - middle_x), abs(y - middle_y)) < stride
                holds = (min(int(middle_y / stride), 7), min(int(middle_x / stride), 7)) == (row, column)
                if holds or (near and left < x < right and top < y < bottom):
                    candidates.append((((right - left) * (bottom - top)).item(), number))
            assert owner[row, column] == (min(candidates)[1] if candidates else -1)


def test_a_box_thinner_than_a_cell_is_answered_for():
    owner = assign(torch.tensor([[17.0, 10.0, 19.0, 30.0]]), 4, 4, 8)
    assert torch.nonzero(owner == 0).tolist() == [[2, 2]]


# ---- losses


def test_focal_loss_is_the_papers_formula():
    for logit, wanted in ((-3.0, 1.0), (2.0, 1.0), (-3.0, 0.0), (2.0, 0.0)):
        p = 1 / (1 + math.exp(-logit))
        right, alpha = (p, 0.25) if wanted else (1 - p, 0.75)
        expected = -alpha * (1 - right) ** 2 * math.log(right)
        found = focal_loss(torch.tensor(logit, dtype=torch.float64), torch.tensor(wanted, dtype=torch.float64))
        assert found.item() == pytest.approx(expected, rel=1e-12)


def test_giou_of_known_boxes():
    a = torch.tensor([[0.0, 0.0, 2.0, 2.0]]).expand(3, 4)
    b = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 3.0, 3.0], [4.0, 0.0, 6.0, 2.0]])
    # shares 1 of 7, and 2 of the 9 around both are empty; apart: 8 of 12 filled
    torch.testing.assert_close(giou(a, b), torch.tensor([1.0, 1 / 7 - 2 / 9, -4 / 12]))


@given(boxes(), boxes())
def test_giou_is_at_most_iou_and_symmetric(a, b):
    n = min(len(a), len(b))
    found = giou(a[:n], b[:n])
    assert (found <= iou(a[:n], b[:n]).diagonal() + 1e-6).all()
    assert (found > -1).all()
    torch.testing.assert_close(found, giou(b[:n], a[:n]))


def truth() -> list[tuple[Tensor, Tensor]]:
    one = torch.tensor([[3.0, 5.0, 25.0, 30.0], [40.0, 40.0, 52.0, 60.0]]), torch.tensor([2, 0])
    return [one, (torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))]


def test_a_perfect_answer_costs_nothing():
    logits, found = torch.full((2, 3, 8, 8), -20.0), torch.ones(2, 4, 8, 8)
    owner = assign(truth()[0][0], 8, 8, 8)
    for row, column in torch.nonzero(owner >= 0).tolist():
        left, top, right, bottom = truth()[0][0][owner[row, column]]
        logits[0, truth()[0][1][owner[row, column]], row, column] = 20.0
        found[0, :, row, column] = torch.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top])
    loss, count = detection_loss(logits, found, truth(), 8)
    assert count == (owner >= 0).sum()
    assert loss.item() == pytest.approx(0, abs=1e-5)


def test_the_loss_is_a_sum_over_pictures():
    net = small().eval()
    pictures = torch.rand(2, 3, 64, 64)
    loss, count = detection_loss(*net(pictures), truth(), 8)
    parts = [detection_loss(*net(pictures[n : n + 1]), truth()[n : n + 1], 8) for n in range(2)]
    assert count == sum(part[1] for part in parts)
    assert parts[1][1] == 0  # nothing to find there; what was found all the same still costs
    assert parts[1][0] > 0
    assert loss.item() == pytest.approx(sum(part[0].item() for part in parts), rel=1e-5)


def test_pictures_without_any_box_have_a_gradient():
    net = small()
    detection_loss(*net(torch.rand(1, 3, 64, 64)), truth()[1:], 8)[0].backward()
    assert net.classes.last.bias.grad.abs().sum() > 0


def test_learns_three_squares_by_heart():
    torch.manual_seed(0)
    pictures, marks = torch.zeros(3, 3, 64, 64), []
    for number, (left, top, side) in enumerate([(5, 8, 20), (30, 30, 12), (20, 2, 30)]):
        pictures[number, number, top : top + side, left : left + side] = 1
        marks.append((torch.tensor([[left, top, left + side, top + side]]).float(), torch.tensor([number])))
    net = small()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    for _step in range(150):
        loss, count = detection_loss(*net(pictures), marks, 8)
        optimiser.zero_grad()
        (loss / count).backward()
        optimiser.step()
    logits, found = net.eval()(pictures)
    for number, (box, kind) in enumerate(marks):
        best = detect(logits[number], found[number], (64, 64), least=0.3)
        assert best.classes.tolist() == kind.tolist()
        assert iou(best.boxes, box).item() > 0.8


# ---- from answers to boxes


@given(boxes(12), st.integers(0, 99), st.sampled_from([0.1, 0.5, 0.9]))
def test_suppression_equals_the_rule_read_aloud(found, seed, overlap):
    scores = torch.rand(len(found), generator=torch.Generator().manual_seed(seed))
    left, kept = sorted(range(len(found)), key=lambda n: -scores[n]), []
    while left:
        kept.append(left.pop(0))
        left = [n for n in left if iou(found[kept[-1]][None], found[n][None]).item() <= overlap]
    assert suppress(found, scores, overlap).tolist() == kept


def test_detections_say_which_cell_found_them_and_stay_on_the_picture():
    logits, found = torch.full((3, 4, 4), -9.0), torch.zeros(4, 4, 4)
    found[2:] = 4
    logits[1, 2, 3], found[:, 2, 3] = 3.0, torch.tensor([30.0, 20.0, 10.0, 10.0])
    logits[2, 2, 2], found[:, 2, 2] = 2.0, torch.tensor([29.0, 20.0, 10.0, 10.0])  # the same thing, less certain
    logits[0, 0, 0], found[:, 0, 0] = 1.0, torch.tensor([4.0, 4.0, 6.0, 6.0])
    best = detect(logits, found, (32, 32), least=0.5)
    assert best.boxes.tolist() == [[25.0, 15.0, 32.0, 25.0], [1.0, 1.0, 7.0, 7.0]]
    assert (best.classes.tolist(), best.cells.tolist()) == ([1, 0], [[2, 3], [0, 0]])
    assert best.scores.tolist() == pytest.approx([1 / (1 + math.exp(-3)), 1 / (1 + math.exp(-1))])
    assert detect(logits, found, (32, 32), least=0.5, most=1).classes.tolist() == [1]
    assert len(detect(logits, found, (32, 32), least=0.99).boxes) == 0


def test_corners_of_centre_and_size():
    assert corners(torch.tensor([[10.0, 20.0, 4.0, 6.0]])).tolist() == [[8.0, 17.0, 12.0, 23.0]]


# ---- why


def test_every_answer_of_a_cell_adds_up_down_to_the_pixels():
    net = small().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.bias)
    pictures = torch.rand(1, 3, 64, 64)
    trace = pl.trace(net, pictures)
    logits, found = net(pictures)
    for address, value in (("classes[0,2,3,4]", logits[0, 2, 3, 4]), (":out.1[0,2,3,4]", found[0, 2, 3, 4])):
        answer = trace.why(address)
        assert (answer.kind, answer.value) == ("sum", value.item())
        assert answer.total == pytest.approx(answer.value, abs=1e-5)
        flow = trace.flow(address)
        assert not flow.stopped
        assert flow.inputs[":in.0"].shape == pictures.shape
        assert abs(flow.residue) <= 1e-4 * (1 + abs(flow.value))
