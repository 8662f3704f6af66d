"""The flow down to a network's inputs."""

import pytest
import torch
from torch import nn

import pellucid as pl


def network() -> nn.Sequential:
    """A small convolutional one, linear on either side of each kink."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), nn.MaxPool2d(2), second, nn.ReLU(), nn.Flatten(), nn.Linear(128, 2))


@pytest.mark.parametrize("which", [slice(0, 1), slice(2, 3), slice(None)], ids=["first", "last", "whole batch"])
def test_contributions_of_an_input_have_its_shape(which):
    """Also where it is a part of a larger tensor. Without bends between 0 and the input, they are gradient x input."""
    net, batch = network(), torch.randn(3, 3, 8, 8)
    x = batch[which]
    flow = pl.trace(net, x).flow(":out[0,1]")
    leaf = x.clone().requires_grad_()
    net(leaf)[0, 1].backward()
    assert list(flow.inputs) == [":in.0"]
    torch.testing.assert_close(flow.inputs[":in.0"], leaf.grad * x, rtol=1e-5, atol=1e-6)
    assert abs(flow.residue) < 1e-5


def test_an_input_that_repeats_one_number_counts_it_once():
    linear = nn.Linear(4, 1, bias=False)
    flow = pl.trace(linear, torch.tensor([2.0]).expand(1, 4)).flow(":out[0,0]")
    assert flow.inputs[":in.0"].sum().item() == pytest.approx(flow.value)


def test_two_inputs_that_share_a_storage_are_shown_as_the_storage():
    class Sum(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return (a + 2 * b).sum()

    both = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    flow = pl.trace(Sum(), both[0], both[1]).flow(":out[]")
    assert flow.inputs[":in.0"].flatten().tolist() == [1.0, 2.0, 6.0, 8.0]
