"""Where training starts: weights and biases drawn by a recipe's name, from a generator of one's own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pellucid.networks.names import check_initialisation

RECTIFIERS = ("relu", "leaky_relu", "gelu", "silu")  # let through about half of what they are given


@torch.no_grad()
def initialise(weight: Tensor, bias: Tensor | None, name: str, activation: str, generator: torch.Generator) -> None:
    """Draw a layer's weight and bias anew, in place.

    - "he": N(0, 2 / fan_in), biases 0 (He et al. 2015, equation 10).
    - "xavier": uniform within ±sqrt(6 / (fan_in + fan_out)), biases 0 (Glorot & Bengio 2010, equation 16).
    - "default": "he" before a rectifier, "xavier" before any other activation or none.
    - "normal": weights and biases N(0, 1), whatever the width (Nielsen 2015, chapter 1).
    - "uniform": weights within ±0.5 whatever the width, biases 0.1, as the well-known browser playground starts.
    - "zero": all zero, from which only a network without hidden layers learns what it should.

    Args:
        weight: (outputs, inputs), or (outputs, inputs, height, width) of a convolution.
        bias: (outputs,), or None.
        name: Of the recipe.
        activation: What follows the layer, a name of `activations.ACTIVATIONS`.
        generator: What is drawn from; one seed gives one result.

    Raises:
        PellucidError: when there is no recipe of that name.
    """
    check_initialisation(name)
    if name == "default":
        name = "he" if activation in RECTIFIERS else "xavier"
    if bias is not None:
        bias.fill_(0.1 if name == "uniform" else 0.0)
    if name == "he":
        nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
    elif name == "xavier":
        nn.init.xavier_uniform_(weight, generator=generator)
    elif name == "normal":
        weight.normal_(generator=generator)
        if bias is not None:
            bias.normal_(generator=generator)
    elif name == "uniform":
        weight.uniform_(-0.5, 0.5, generator=generator)
    else:
        weight.zero_()
