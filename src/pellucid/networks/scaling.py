"""Scaling kept with the network: it learns on numbers of about one, and speaks in the user's units."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Scaling(nn.Module):
    """y = (x − shift) / scale, for each column or channel: fitted on training rows or pictures, then fixed.

    Args:
        shift: One number a column, in the user's units: what becomes 0; of pictures (C, 1, 1).
        scale: As many: what becomes 1 apart; never 0.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, shift: Sequence[float] | Tensor, scale: Sequence[float] | Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", torch.as_tensor(shift, dtype=torch.float32))
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32))

    def forward(self, x_BF: Tensor) -> Tensor:
        return (x_BF - self.shift) / self.scale

    def inverse(self, y_BF: Tensor) -> Tensor:
        """Back into the user's units."""
        return y_BF * self.scale + self.shift


class Scaled(nn.Module):
    """A network between two scalings: columns in the user's units in, answers in the user's units out.

    Training calls `network` alone, with inputs and targets that are scaled already.

    Args:
        network: From (B, F) to (B, O), on scaled numbers.
        inputs: Scales the F columns; None: they are taken as they are.
        outputs: Scales the O targets, and is undone here; None for logits.
    """

    def __init__(self, network: nn.Module, inputs: Scaling | None = None, outputs: Scaling | None = None) -> None:
        super().__init__()
        self.inputs, self.network, self.outputs = inputs, network, outputs

    def forward(self, x_BF: Tensor) -> Tensor:
        if self.inputs is not None:
            x_BF = self.inputs(x_BF)
        y_BO = self.network(x_BF)
        return y_BO if self.outputs is None else self.outputs.inverse(y_BO)
