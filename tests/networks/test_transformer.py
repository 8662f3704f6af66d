"""Attention, the sinusoids and the cache against their formulas; that they are transformers' is tested with files."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.networks.transformer import AttentionCache, CrossAttention, SelfAttention, attend, sinusoids


def formula(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, allowed: np.ndarray) -> np.ndarray:
    q, k, v = (x.detach().double().numpy() for x in (q, k, v))
    scores = np.where(allowed, q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    queries=st.integers(1, 6),
    more=st.integers(0, 4),
    padded=st.booleans(),
    causal=st.booleans(),
)
def test_attention_is_its_formula(dtype: torch.dtype, queries: int, more: int, padded: bool, causal: bool) -> None:
    generator = torch.Generator().manual_seed(queries * 10 + more)
    positions = queries + more
    q, k, v = (
        torch.randn(2, 3, n, 4, generator=generator).to(dtype).requires_grad_() for n in (queries, positions, positions)
    )
    mask_BS = torch.ones(2, positions, dtype=torch.bool)
    mask_BS[1, 1:] = not padded
    y = attend(q, k, v, mask_BS[:, None, None] if padded else None, causal)
    allowed = np.broadcast_to(mask_BS.numpy()[:, None, None], (2, 3, queries, positions))
    if causal:
        allowed = allowed & np.tri(queries, positions, positions - queries, dtype=bool)
    expected = formula(q, k, v, allowed)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
    np.testing.assert_allclose(y.detach().double().numpy(), expected, atol=tolerance)

    y.float().square().sum().backward()
    wide = [x.detach().double().requires_grad_() for x in (q, k, v)]
    scores = wide[0] @ wide[1].mT / 2
    again = torch.softmax(scores.masked_fill(~torch.from_numpy(allowed.copy()), -torch.inf), -1) @ wide[2]
    again.square().sum().backward()
    for ours, theirs in zip((q, k, v), wide, strict=True):
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=0.1, atol=10 * tolerance)


@pytest.mark.parametrize("d_model", [2, 7, 16])
def test_sinusoids_are_the_papers_formula_in_either_order(d_model: int) -> None:
    angles = [[t / 10_000 ** (2 * (j // 2) / d_model) for j in range(d_model)] for t in range(9)]
    paper = np.where(np.arange(d_model) % 2, np.cos(angles), np.sin(angles))
    np.testing.assert_allclose(sinusoids(9, d_model).numpy(), paper, atol=1e-6)
    halves = np.concatenate((paper[:, ::2], paper[:, 1::2]), axis=1)
    np.testing.assert_allclose(sinusoids(9, d_model, interleaved=False).numpy(), halves, atol=1e-6)


def test_a_cache_changes_nothing() -> None:
    torch.manual_seed(0)
    x_BTD, memory_BSD = torch.randn(2, 6, 8), torch.randn(2, 5, 8)
    causal, cross = SelfAttention(8, 2, causal=True), CrossAttention(8, 2)
    kept, kept_memory = AttentionCache(), AttentionCache()
    pieces = x_BTD.split([1, 3, 2], dim=1)
    torch.testing.assert_close(torch.cat([causal(x, cache=kept) for x in pieces], 1), causal(x_BTD))
    whole = cross(x_BTD, memory_BSD)
    torch.testing.assert_close(torch.cat([cross(x, memory_BSD, cache=kept_memory) for x in pieces], 1), whole)

    kept.select(torch.tensor([1, 1, 0]))
    assert kept.keys is not None
    assert kept.keys.shape == (3, 2, 6, 4)
    torch.testing.assert_close(kept.keys[0], kept.keys[1])
