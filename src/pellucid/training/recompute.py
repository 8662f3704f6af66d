"""Recomputation: less memory for more time, on any network that repeats something."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute_blocks(network: nn.Module) -> None:
    """Let each block of ``network`` keep its input only: the backward pass computes the rest of it once more.

    Losses, gradients and statistics stay the same to the last bit, dropout included (Chen et al. 2016, "Training deep
    nets with sublinear memory cost"). A block is an entry of a `ModuleList`.
    """
    for block in blocks(network):
        block.forward = partial(_forward, block, block.forward)


def blocks(network: nn.Module) -> list[nn.Module]:
    """What a network repeats: the entries of its `ModuleList`s."""
    return [block for module in network.modules() if isinstance(module, nn.ModuleList) for block in module]


def _forward(block: nn.Module, forward: Callable[..., Any], *inputs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _unchanged(block)))


@contextmanager
def _unchanged(block: nn.Module) -> Iterator[None]:
    """The second time, a batch norm's statistics stay: they have seen this batch."""
    before = [(buffer, buffer.clone()) for buffer in block.buffers()]
    try:
        yield
    finally:  # the recomputation may stop early, by an exception, when it has all that it needs
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
