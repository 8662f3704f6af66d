"""Scaling: the figures of a textbook's example, there and back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pellucid as pl
from pellucid.networks.scaling import Scaled, Scaling


def test_scores_from_50_to_90_become_0_to_1():
    scaling = Scaling([50.0], [40.0])
    scores = torch.tensor([[90.0], [80.0], [70.0], [60.0], [50.0]])
    assert scaling(scores).flatten().tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert torch.equal(scaling.inverse(scaling(scores)), scores)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.floats(-1e6, 1e6))
def test_inverse_is_the_way_back(shift, scale, x):
    scaling = Scaling(torch.tensor([shift]), torch.tensor([scale])).double()
    there_and_back = scaling.inverse(scaling(torch.tensor([x], dtype=torch.float64)))
    assert there_and_back.item() == pytest.approx(x, abs=1e-8)


def test_a_scaling_is_kept_but_not_trained():
    scaling = Scaling([1.0, 2.0], [3.0, 4.0])
    assert list(scaling.parameters()) == []
    assert set(scaling.state_dict()) == {"shift", "scale"}


def test_why_names_the_column_in_the_users_units():
    linear = torch.nn.Linear(1, 1)
    network = Scaled(linear, Scaling([165.0], [5.0]), Scaling([55.0], [5.0]))
    trace = pl.trace(network, torch.tensor([[170.0]]))
    flow = trace.flow(":out[0,0]", exact=True)
    ((name, contribution),) = flow.inputs.items()
    slope, bias = linear.weight.item(), linear.bias.item()
    assert name == ":in.0"
    assert contribution.item() == pytest.approx(slope * 170, rel=1e-6)
    assert sum(flow.constants.values()) == pytest.approx(5 * bias + 55 - slope * 165, rel=1e-6)
