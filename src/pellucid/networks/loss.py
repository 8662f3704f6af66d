"""Cross-entropy in one pass over the logits, which become their own gradient: for vocabularies that fill the memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

AT_ONCE = 2**18  # numbers; their fp32 copy (1 MB) stays in a core's cache


def cross_entropy_sum(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """-Σ ln softmax(logits)[target] over the targets that are not negative; fp32, whatever the logits' dtype.

    With gradients enabled the storage of ``logits_NV`` is overwritten: it is of no use afterwards. Its gradient,
    softmax(logits) - onehot(target), is computed together with the loss; PyTorch goes over the logits seven times.
    """
    return _CrossEntropySum.apply(logits_NV, targets_N)


class _CrossEntropySum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        loss = torch.zeros((), dtype=torch.float32, device=logits_NV.device)
        wanted = ctx.needs_input_grad[0]
        gradient_NV = logits_NV.detach()
        rows = max(1, AT_ONCE // logits_NV.shape[1])
        for part_RV, target_R in zip(gradient_NV.split(rows), targets_N.split(rows), strict=True):
            log_p_RV = torch.log_softmax(part_RV, dim=1, dtype=torch.float32)
            counted_R1 = (target_R >= 0)[:, None]
            target_R1 = target_R.clamp(min=0)[:, None]
            loss -= (log_p_RV.gather(1, target_R1) * counted_R1).sum()
            if wanted:
                gradient_RV = log_p_RV.exp_().scatter_add_(
                    1, target_R1, -torch.ones_like(target_R1, dtype=torch.float32)
                )
                part_RV.copy_(gradient_RV.mul_(counted_R1))
        if wanted:
            ctx.save_for_backward(gradient_NV)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient_NV,) = ctx.saved_tensors
        (outer,) = gradients
        return gradient_NV if outer.device.type == "cpu" and outer == 1 else gradient_NV * outer, None
