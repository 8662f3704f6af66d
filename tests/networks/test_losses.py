"""Cross-entropy against PyTorch's, value and gradient."""

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from pellucid.networks.losses import AT_ONCE, cross_entropy_in_place


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
