"""Losses against PyTorch's and NumPy's in float64: values, gradients, weights of classes, and what the tape says."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import pellucid as pl
from pellucid.networks.losses import AT_ONCE, LOSSES, binary_cross_entropy, count, cross_entropy, cross_entropy_in_place

POSITIVE = {  # targets of each loss, by whether they are positive; cross-entropy is looked at on its own
    "squared_error": (-1.3, 2.4),
    "absolute": (-1.3, 2.4),
    "binary_cross_entropy": (0.0, 1.0),
    "hinge": (-1.0, 1.0),
    "perceptron": (-1.0, 1.0),
}


def by_hand(name, a, y):
    """One loss of one output, from its definition."""
    right = 1 / (1 + np.exp(-a))
    return {
        "squared_error": 0.5 * (y - a) ** 2,
        "absolute": abs(y - a),
        "binary_cross_entropy": -(y * np.log(right) + (1 - y) * np.log(1 - right)),
        "hinge": max(0.0, 1 - y * a),
        "perceptron": max(0.0, -y * a),
    }[name]


answers = st.lists(st.tuples(st.floats(-8, 8), st.booleans()), min_size=1, max_size=9)


@pytest.mark.parametrize("name", POSITIVE)
@given(drawn=answers, weights=st.none() | st.tuples(st.floats(0, 5), st.floats(0.1, 5)))
def test_sum_and_count_are_those_of_the_definition(name, drawn, weights):
    a, positive = np.array([x for x, _ in drawn]), np.array([yes for _, yes in drawn])
    y = np.where(positive, POSITIVE[name][1], POSITIVE[name][0])
    w = np.ones(len(a)) if weights is None else np.where(positive, weights[1], weights[0])
    outputs, targets = torch.from_numpy(a)[:, None], torch.from_numpy(y)
    by_class = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    found = LOSSES[name](outputs, targets, by_class)
    assert found.item() == pytest.approx(sum(w * [by_hand(name, *one) for one in zip(a, y, strict=True)]), abs=1e-9)
    assert count(targets, by_class) == pytest.approx(w.sum())
    halves = [LOSSES[name](outputs[part], targets[part], by_class) for part in (slice(0, 3), slice(3, None))]
    assert sum(halves).item() == pytest.approx(found.item(), abs=1e-9)  # micro-batches may be cut anywhere


@pytest.mark.parametrize("weighted", [False, True], ids=["even", "weighted"])
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite_differences(name, weighted):
    generator = torch.Generator().manual_seed(0)
    if name == "cross_entropy":
        outputs, targets = torch.randn(8, 3, generator=generator), torch.tensor([0, 2, 1, -100, 1, 2, 0, -1])
        weights = torch.tensor([0.2, 1.0, 3.0]).double()
    else:
        outputs = torch.randn(8, 1, generator=generator)
        targets = torch.tensor(POSITIVE[name]).double().repeat(4)
        weights = torch.tensor([0.2, 3.0]).double()
    outputs = outputs.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, targets, weights if weighted else None), outputs)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("squared_error", lambda a, y: F.mse_loss(a, y) / 2),
        ("absolute", F.l1_loss),
        ("binary_cross_entropy", F.binary_cross_entropy_with_logits),
        ("hinge", lambda a, y: F.margin_ranking_loss(a, torch.zeros_like(a), y, margin=1.0)),
    ],
)
def test_sum_by_count_is_pytorchs_mean(name, theirs):
    outputs = torch.randn(30, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor(POSITIVE[name]).repeat(15)
    torch.testing.assert_close(LOSSES[name](outputs, targets) / count(targets), theirs(outputs, targets))


@given(
    st.integers(1, 12),
    st.integers(2, 5),
    st.integers(0, 99),
    st.sampled_from([(False, 0.0), (True, 0.0), (False, 0.1), (False, 1.0)]),
)
def test_cross_entropy_is_pytorchs(rows, classes, seed, settings):
    generator = torch.Generator().manual_seed(seed)
    weighted, smoothing = settings
    logits = torch.randn(rows, 2, classes, generator=generator, dtype=torch.float64)
    targets = torch.randint(-1, classes, (rows, 2), generator=generator)
    targets[0, 0] = 0
    weights = 0.1 + torch.rand(classes, generator=generator, dtype=torch.float64) if weighted else None
    expected = F.cross_entropy(logits.mT, targets, weights, ignore_index=-1, label_smoothing=smoothing)
    found = cross_entropy(logits, targets, weights, smoothing=smoothing)
    assert (found / count(targets, weights)).item() == pytest.approx(expected.item(), rel=1e-12)


def test_smoothing_is_a_target_spread_over_all_classes():
    logits = torch.randn(1, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spread = np.array([0.025, 0.025, 0.925, 0.025])
    surprise = -np.log(np.exp(logits[0].numpy()) / np.exp(logits[0].numpy()).sum())
    assert cross_entropy(logits, torch.tensor([2]), smoothing=0.1).item() == pytest.approx(surprise @ spread)


def test_two_classes_as_logits_or_as_their_difference_are_one_loss():
    z = torch.linspace(-40, 40, 9)
    pair = torch.stack([torch.zeros_like(z), z], dim=1)
    classes = torch.arange(9) % 2
    weights = torch.tensor([0.3, 2.0])
    torch.testing.assert_close(binary_cross_entropy(z, classes.float(), weights), cross_entropy(pair, classes, weights))


def test_a_vector_to_predict_counts_once():
    y, a = torch.ones(4, 10), torch.zeros(4, 10)
    assert LOSSES["squared_error"](a, y) / count(y) == 5  # 1/2n Σ |y - a|² over n = 4 examples


def test_masked_targets_count_nothing():
    targets = torch.tensor([[-1, -100], [-7, -1]])
    assert count(targets) == count(targets, torch.ones(3)) == 0
    assert cross_entropy(torch.randn(2, 2, 3), targets) == 0


@pytest.mark.parametrize("name", POSITIVE)
def test_outputs_of_another_number_are_refused(name):
    with pytest.raises(RuntimeError):
        LOSSES[name](torch.zeros(4, 2), torch.zeros(4))


def test_an_output_of_zero_is_a_mistake_to_the_perceptron():
    zero = torch.zeros(2, requires_grad=True)
    LOSSES["perceptron"](zero, torch.tensor([1.0, -1.0])).backward()
    assert zero.grad.tolist() == [-1, 1]


class Cost(nn.Module):
    """A small network together with its loss, so that the tape holds both."""

    def __init__(self, name, outputs, weights, smoothing):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, outputs))
        self.name, self.more = name, {"smoothing": smoothing} if smoothing else {}
        self.weights = weights

    def forward(self, x, targets):
        return LOSSES[self.name](self.net(x), targets, self.weights, **self.more)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True], ids=["even", "weighted"])
@pytest.mark.parametrize("name", LOSSES)
def test_the_tape_explains_value_and_gradient(name, weighted, smoothing):
    if smoothing and name != "cross_entropy":
        return
    many = name == "cross_entropy"
    targets = torch.tensor([0, 2, 1, -100, 1, 2]) if many else torch.tensor(POSITIVE[name]).repeat(3)
    weights = torch.tensor([0.5, 1.0, 2.0][: 3 if many else 2]) if weighted else None
    cost = Cost(name, 3 if many else 1, weights, smoothing)
    with pl.record(cost) as trace:
        loss = cost(torch.randn(6, 3), targets)
        loss.backward()
    answer = trace.why(":out[]")
    assert answer.value == loss.item()
    assert answer.kind == "sum"
    assert abs(answer.residue) <= answer.budget <= 1e-4
    for term in answer.terms[:3]:
        assert term.why().kind in ("sum", "leaf"), term
    for path, parameter in cost.net.named_parameters():
        index = [0] * parameter.dim()
        answer = trace.why(f"net.{path}:grad{index}")
        assert answer.kind == "sum"
        assert answer.value == parameter.grad[tuple(index)].item()
        assert math.isclose(answer.total, answer.value, rel_tol=1e-4, abs_tol=1e-6)


# ---- the one for large vocabularies


@given(st.integers(1, 40), st.sampled_from([2, 7, 300, AT_ONCE // 3]), st.integers(0, 99), st.floats(0.5, 2))
def test_equals_pytorchs(rows, vocabulary, seed, scale):
    generator = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(rows, vocabulary, generator=generator)
    targets = torch.randint(-1, vocabulary, (rows,), generator=generator)
    targets[targets < 0] = -100
    theirs = logits.clone().requires_grad_()
    ours = logits.clone().requires_grad_()
    expected = F.cross_entropy(theirs, targets, reduction="sum")
    found = cross_entropy_in_place(ours * 1, targets)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    (found * scale).backward()
    (expected * scale).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_without_gradients_the_logits_stay_as_they_are():
    logits = torch.randn(5, 9)
    before = logits.clone()
    with torch.no_grad():
        cross_entropy_in_place(logits, torch.arange(5))
    assert torch.equal(logits, before)


def test_bf16_logits_lose_nothing_but_their_own_rounding():
    torch.manual_seed(0)
    logits = torch.randn(64, 500).bfloat16()
    targets = torch.randint(0, 500, (64,))
    exact = F.cross_entropy(logits.double(), targets, reduction="sum")
    torch.testing.assert_close(cross_entropy_in_place(logits, targets).double(), exact, rtol=1e-6, atol=0)
