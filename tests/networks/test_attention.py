"""Causal attention against the formula in float64, forward and backward."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.networks.attention import QUERIES, causal_attention


def formula(q, k, v):
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = q @ k.mT / q.shape[3] ** 0.5
    seen = torch.ones(scores.shape[2:], dtype=torch.bool).tril()
    return scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v


@given(
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(1, 3),
    st.sampled_from([1, 2, QUERIES - 1, QUERIES, QUERIES + 1, 2 * QUERIES + 7]),
    st.sampled_from([1, 4, 16]),
    st.integers(0, 99),
)
def test_equals_the_formula_and_its_gradients(batch, kv_heads, groups, length, size, seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, kv_heads * groups, length, size), *[(batch, kv_heads, length, size)] * 2]
    ours = [torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes]
    theirs = [x.detach().clone().requires_grad_() for x in ours]
    weights = torch.randn(shapes[0], generator=generator, dtype=torch.float64)
    a, b = causal_attention(*ours), formula(*theirs)
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    (a * weights).sum().backward()
    (b * weights).sum().backward()
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("length", [64, 300])
def test_bf16_is_as_near_to_the_truth_as_pytorchs_own(length):
    torch.manual_seed(0)
    exact = [torch.randn(2, 4, length, 32, dtype=torch.float64) for _ in range(3)]
    truth = formula(*exact)
    rounded = [x.bfloat16() for x in exact]
    theirs = torch.nn.functional.scaled_dot_product_attention(*rounded, is_causal=True)
    ours = causal_attention(*rounded)
    assert (ours - truth).abs().mean() < 1.5 * (theirs - truth).abs().mean()
