"""A choice says by how much it was made."""

import pytest
import torch
from torch import nn

import pellucid as pl


class Of(nn.Module):
    """A function as a module."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


X = torch.tensor([[1.0, 5.0, 2.0, 4.5], [0.0, -3.0, 7.0, 6.0], [2.0, 2.5, -1.0, 3.0], [9.0, 1.0, 0.5, 8.0]])


@pytest.mark.parametrize(
    ("function", "address", "margin"),
    [
        (torch.relu, ":out[1,1]", 3.0),
        (lambda x: x.amax(1), ":out[0]", 0.5),
        (lambda x: x.max(0).values, ":out[0]", 7.0),
        (lambda x: x.amax((0, 1)), ":out[]", 1.0),
        (lambda x: x.topk(2, dim=1).values, ":out[2,0]", 0.5),
        (lambda x: nn.functional.max_pool2d(x[None, None], 2), ":out[0,0,0,1]", 1.0),
        (lambda x: nn.functional.max_pool2d(x[None, None], 3, stride=2, padding=1), ":out[0,0,0,0]", 4.0),
    ],
)
def test_margin_over_what_nearly_won(function, address, margin):
    answer = pl.trace(Of(function), X).why(address)
    assert answer.margin == pytest.approx(margin)
    assert answer.kind == "sum"
