"""Single numbers unfolded, at the public face."""

import math

import pytest
import torch
from torch import nn

import pellucid as pl


class Perceptron(nn.Module):
    """Says yes where a weighted sum exceeds a threshold."""

    def __init__(self, weights: list[float], threshold: float) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights))
        self.threshold = nn.Parameter(torch.tensor(threshold))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ((x * self.weights).sum() > self.threshold).float()


class Line(nn.Module):
    """y = a x + b."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(a)), nn.Parameter(torch.tensor(b))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a * x + self.b


def test_perceptron_says_yes_because_12_exceeds_8():
    trace = pl.trace(Perceptron([1.0, 1.0, 0.0], 8.0), torch.tensor([8.0, 4.0, 4.0]))
    answer = trace.why(":out[]")
    assert (answer.kind, answer.value, answer.margin) == ("decision", 1.0, 4.0)
    assert [(term.value, term.source) for term in answer.terms] == [(12.0, "sum"), (8.0, "threshold")]
    assert [term.contribution for term in answer.terms[0].why().terms] == [8.0, 4.0, 0.0]
    product = answer.terms[0].why().terms[0].why()
    assert [(t.coefficient, t.value, t.factor) for t in product.terms] == [(1.0, 8.0, "weights[0]")]
    assert product.terms[0].address == ":in.0[0]"


def test_line_unfolds_to_its_two_parameters():
    trace = pl.trace(Line(2.0, 1.0), torch.tensor(3.0))
    answer = trace.why(":out[]")
    assert (answer.value, answer.constant, answer.residue) == (7.0, 1.0, 0.0)
    assert answer.constants[0].address == "b[]"
    (slope,) = answer.terms[0].why().terms
    assert (slope.coefficient, slope.value, slope.factor, slope.address) == (2.0, 3.0, "a[]", ":in.0[]")
    assert slope.why().kind == "leaf"


def test_a_question_about_many_numbers_names_their_shape():
    trace = pl.trace(nn.Linear(3, 2), torch.ones(4, 3))
    with pytest.raises(pl.PellucidError, match="8 numbers"):
        trace.why(":out")


def test_every_number_of_a_multilayer_net_adds_up():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.LayerNorm(7), nn.Linear(7, 3), nn.LogSoftmax(-1))
    trace = pl.trace(net, torch.randn(2, 5))
    for path in ("0", "1", "2", "3", "4"):
        values = trace.value(path)
        for index in torch.ones(values.shape).nonzero().tolist():
            answer = trace.why(f"{path}{index}")
            size = answer.terms.contributions.abs().sum() + sum(abs(c.contribution) for c in answer.constants)
            assert answer.kind == "sum"
            assert math.isclose(answer.total, values[tuple(index)].item(), abs_tol=1e-6 * size)
