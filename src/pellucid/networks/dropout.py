"""Dropout that costs little on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Module):
    """While training, zero each entry with probability `p` and scale the others up (Srivastava et al. 2014).

    On a CPU, PyTorch draws one Bernoulli number an entry, serially, which can cost more than the layer itself. Here
    eight entries share one 64-bit draw, a byte each, so `p` is rounded to a multiple of 1/256 there (0.1 is
    26/256 = 0.1016), and the scale with it: the expectation stays exact. The draws come from the default generator, so
    `torch.manual_seed` and `torch.set_rng_state` repeat them. Other devices, and compiled code, use PyTorch's own.

    Args:
        p: The probability that an entry becomes zero, 0 <= p < 1.

    Raises:
        ValueError: when `p` is outside that range.
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"dropout {p} is not in [0, 1)")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return F.dropout(x, self.p)
        return _ByteDropout.apply(x, max(1, round(256 * (1 - self.p))))

    def extra_repr(self) -> str:
        return f"p={self.p}"


class _ByteDropout(torch.autograd.Function):
    """Keeps entries whose random byte is below `kept`; remembers one byte an entry."""

    @staticmethod
    def forward(ctx, x, kept):
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        # in place, `lt_` leaves zeros and ones in the bytes themselves: a bool mask would be many times slower to apply
        mask = words.view(torch.uint8)[: x.numel()].view(x.shape).lt_(kept)
        ctx.save_for_backward(mask)
        ctx.scale = 256 / kept
        return _masked(x, mask, ctx.scale)

    @staticmethod
    def backward(ctx, dy):
        (mask,) = ctx.saved_tensors
        return _masked(dy, mask, ctx.scale), None


def _masked(x: Tensor, mask: Tensor, scale: float) -> Tensor:
    return mask.to(x.dtype).mul_(scale).mul_(x)
