"""Losses: what training makes small. Each is the sum over the targets; the loop divides it by their `count`.

Wherever there are classes, `weights` say how much a target of each class counts. Class indices are integers, those
below 0 masked; the targets of the losses for two classes are floats (0 or 1, -1 or +1), the positive class above 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

AT_ONCE = 2**18  # numbers; their fp32 copy (1 MB) stays in a core's cache
MASKED = -100


def count(targets: Tensor, weights: Tensor | None = None) -> float:
    """How many targets there are to divide the sum by, a vector counting once; with ``weights``: the sum of theirs."""
    if weights is not None:
        return _by_class(targets, weights).sum().item()
    return len(targets) if targets.is_floating_point() else int((targets >= 0).sum())


def squared_error(outputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Σ (y - a)² / 2: the quadratic cost of the textbooks, 1/2n Σ |y - a|², before it is divided by n.

    Args:
        outputs: a, (N,), (N, 1) or (N, K), in the targets' unit.
        targets: y, as many; (N,) for one output.
        weights: (2,), of targets not above and above 0; None: each counts 1.

    Source: Nielsen 2015, "Neural Networks and Deep Learning", equation 6.
    """
    return _total((targets - outputs.view_as(targets)).square() / 2, targets, weights)


def absolute(outputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Σ |y - a|, least where the median is, so that outliers pull less; shapes as for `squared_error`."""
    return _total((targets - outputs.view_as(targets)).abs(), targets, weights)


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """-Σ Σ_c q_c ln softmax(logits)_c in nats, where q = (1 - smoothing) onehot(target) + smoothing / C.

    Args:
        logits: (..., C).
        targets: (...,), class indices; those below 0 are masked.
        weights: (C,), how much a target of each class counts.
        smoothing: Share of the probability that is spread evenly over all classes.

    Source: Szegedy et al. 2016, "Rethinking the Inception architecture", section 7 (smoothing).
    """
    targets = torch.where(targets >= 0, targets, MASKED).flatten()
    losses = F.cross_entropy(
        logits.flatten(0, -2), targets, ignore_index=MASKED, reduction="none", label_smoothing=smoothing
    )
    return _total(losses, targets, weights)


def binary_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """-Σ y ln σ(z) + (1 - y) ln(1 - σ(z)) in nats, by logits z and targets y in 0 to 1, shapes as `squared_error`.

    Source: Nielsen 2015, "Neural Networks and Deep Learning", equation 57.
    """
    losses = F.binary_cross_entropy_with_logits(logits.view_as(targets), targets, reduction="none")
    return _total(losses, targets, weights)


def hinge(outputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Σ max(0, 1 - t y), for targets t of -1 or +1: right answers are pushed on until they are right by a margin of 1.

    Source: Cortes and Vapnik 1995, "Support-vector networks".
    """
    return _total((1 - targets * outputs.view_as(targets)).clamp(min=0), targets, weights)


def perceptron(outputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Σ max(0, -t y), for targets t of -1 or +1: its gradient step is Rosenblatt's rule, w ← w + rate t x by mistake.

    Source: Rosenblatt 1958; as a criterion, Duda and Hart 1973, section 5.5.
    """
    # clamp's derivative at 0 is 1, relu's 0: an output of 0 is a mistake, else all-zero weights would never move
    return _total((-targets * outputs.view_as(targets)).clamp(min=0), targets, weights)


def _total(losses: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    return losses.sum() if weights is None else (losses * _by_class(targets, weights)).sum()


def _by_class(targets: Tensor, weights: Tensor) -> Tensor:
    """How much each target counts."""
    if targets.is_floating_point():
        return weights[(targets > 0).long()]
    return torch.where(targets >= 0, weights[targets.clamp(min=0)], 0)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "squared_error": squared_error,
    "absolute": absolute,
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "hinge": hinge,
    "perceptron": perceptron,
}


def cross_entropy_in_place(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Cross-entropy in one pass, for vocabularies that fill the memory; in fp32, whatever the logits' dtype.

    With gradients enabled the storage of ``logits_NV`` is overwritten: it is of no use afterwards. Its gradient,
    softmax(logits) - onehot(target), is computed together with the loss; PyTorch goes over the logits seven times.
    """
    return _CrossEntropyInPlace.apply(logits_NV, targets_N)


class _CrossEntropyInPlace(torch.autograd.Function):
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
