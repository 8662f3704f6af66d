"""Activations by name: what a neuron makes of its weighted sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.networks.names import check_activation


def activation(name: str) -> nn.Module:
    """The activation of that name, of `ACTIVATIONS`; it has no parameters.

    Raises:
        PellucidError: when there is none; it names those there are.
    """
    check_activation(name)
    return ACTIVATIONS[name]()


class Step(nn.Module):
    """The perceptron's decision (Rosenblatt 1958): 1 where x > threshold, else 0. Its slope is 0 everywhere.

    Args:
        width: Neurons, each with a threshold that is a parameter; None: the threshold is 0.
    """

    def __init__(self, width: int | None = None) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.zeros(width)) if width is not None else None

    def forward(self, x_BF: Tensor) -> Tensor:
        return _Step.apply(x_BF, 0.0 if self.threshold is None else self.threshold)


class _Step(torch.autograd.Function):
    """A comparison has no slope in PyTorch; with one of zero, what stands before it is left as it is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: Tensor | float) -> Tensor:
        ctx.width = threshold.shape if isinstance(threshold, Tensor) else None
        return x.gt(threshold).to(x.dtype)  # not `>`: Python would ask the parameter first, whether it is less

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None]:
        (dy,) = gradients
        return torch.zeros_like(dy), dy.new_zeros(ctx.width) if ctx.width is not None else None


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "linear": nn.Identity,
    "step": Step,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,  # slope 0.01 below 0 (Maas et al. 2013)
    "gelu": nn.GELU,  # x Φ(x), exact (Hendrycks & Gimpel 2016)
    "silu": nn.SiLU,  # x sigmoid(x) (Elfwing et al. 2017)
}
