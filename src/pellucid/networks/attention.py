"""Causal attention in bf16 on a CPU, where PyTorch's fused kernel takes up to three times as long."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

QUERIES = 128  # of one block; smaller ones save more of the masked half, larger ones calls


def causal_attention(q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor) -> Tensor:
    """softmax(q kᵀ / √K + mask) v, (B, H, T, K); each position sees itself and those before (Vaswani et al. 2017).

    Fewer key-value heads than query heads are shared by groups. The weights are kept for the backward pass, if
    there is to be one: B H T² / 2 numbers.
    """
    groups = q_BHTK.shape[1] // k_BHTK.shape[1]
    if groups > 1:
        k_BHTK, v_BHTK = (x.repeat_interleave(groups, dim=1) for x in (k_BHTK, v_BHTK))
    return _CausalAttention.apply(q_BHTK, k_BHTK, v_BHTK)


class _CausalAttention(torch.autograd.Function):
    """Block by block of queries, so that of the masked half of all pairs only the diagonal blocks' part is computed."""

    @staticmethod
    def forward(ctx: Any, q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor) -> Tensor:
        future = torch.full((QUERIES, QUERIES), -math.inf, dtype=q_BHTK.dtype, device=q_BHTK.device).triu(1)
        outputs, weights = [], []
        for start in range(0, q_BHTK.shape[2], QUERIES):
            queries_BHQK = q_BHTK[:, :, start : start + QUERIES]
            length = queries_BHQK.shape[2]
            scores_BHQS = queries_BHQK @ k_BHTK[:, :, : start + length].mT
            scores_BHQS.mul_(q_BHTK.shape[3] ** -0.5)
            scores_BHQS[..., start:] += future[:length, :length]
            weights_BHQS = torch.softmax(scores_BHQS, dim=-1)
            outputs.append(weights_BHQS @ v_BHTK[:, :, : start + length])
            if any(ctx.needs_input_grad):
                weights.append(weights_BHQS)
        ctx.save_for_backward(q_BHTK, k_BHTK, v_BHTK, *weights)
        return torch.cat(outputs, dim=2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (dy_BHTK,) = gradients
        q_BHTK, k_BHTK, v_BHTK, *weights = ctx.saved_tensors
        dq, dk_BHTK, dv_BHTK = [], torch.zeros_like(k_BHTK), torch.zeros_like(v_BHTK)
        for n, weights_BHQS in enumerate(weights):
            block = slice(n * QUERIES, (n + 1) * QUERIES)
            seen = slice(0, weights_BHQS.shape[3])
            dy_BHQK = dy_BHTK[:, :, block]
            dv_BHTK[:, :, seen] += weights_BHQS.mT @ dy_BHQK
            dweights_BHQS = dy_BHQK @ v_BHTK[:, :, seen].mT
            dscores_BHQS = torch.ops.aten._softmax_backward_data(dweights_BHQS, weights_BHQS, -1, weights_BHQS.dtype)
            dscores_BHQS.mul_(q_BHTK.shape[3] ** -0.5)
            dq.append(dscores_BHQS @ k_BHTK[:, :, seen])
            dk_BHTK[:, :, seen] += dscores_BHQS.mT @ q_BHTK[:, :, block]
        return torch.cat(dq, dim=2), dk_BHTK, dv_BHTK
