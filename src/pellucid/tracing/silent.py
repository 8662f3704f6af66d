"""Neurons that are silent: whatever comes in, they give 0, and no gradient reaches them any more."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Silent:
    """The neurons of one activation that gave 0 for every input."""

    path: str  # of the activation's module
    neurons: tuple[int, ...]  # their indices; of pictures: channels that are 0 everywhere
    of: int


@torch.no_grad()
def silent_neurons(module: nn.Module, inputs: Tensor) -> list[Silent]:
    """Count, for each ReLU, the neurons that are 0 for all of many inputs ("dying ReLU", Lu et al. 2019).

    Args:
        module: Any network with `nn.ReLU` or `nn.ReLU6` modules; it is run once, in evaluation mode.
        inputs: (N, ...), the more the better: what is 0 on all of them may still answer to others.
    """
    found: list[Silent] = []

    def watch(path: str) -> object:
        def look(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            by_neuron = output.movedim(1, 0).flatten(1) if output.ndim > 2 else output.T
            quiet = (by_neuron == 0).all(1)
            found.append(Silent(path, tuple(quiet.nonzero().flatten().tolist()), len(quiet)))

        return look

    watched = [
        part.register_forward_hook(watch(path))  # type: ignore[arg-type]
        for path, part in module.named_modules()
        if isinstance(part, nn.ReLU | nn.ReLU6)
    ]
    was_training = module.training
    module.eval()
    try:
        module(inputs)
    finally:
        module.train(was_training)
        for hook in watched:
            hook.remove()
    return found
