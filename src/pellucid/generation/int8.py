"""int8 weights for decoding on a CPU: a quarter of the bytes to read for each token.

Each row of a weight matrix is rounded to whole numbers from −127 to 127 times a scale of its own, and so is each vector
that meets it, when it does. Products are summed exactly, in int32, by `torch._int_mm`: the call that torchao makes, and
unlike the quantised tensors of `torch.ao` not on its way out. Embeddings, norms and attention stay as they are; a tied
head is rounded too, and the embedding is not.
"""

import copy

import torch
from torch import Tensor, nn

from pellucid.networks.decoder import Decoder


class Int8Linear(nn.Module):
    """A linear layer with weights in int8."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        rounded_OI, scales_O1 = _rounded(linear.weight.detach().float())
        self.weight_OI: Tensor
        self.scales_O: Tensor
        self.register_buffer("weight_OI", rounded_OI, persistent=False)
        self.register_buffer("scales_O", scales_O1[:, 0], persistent=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        x_NI, scales_N1 = _rounded(x.reshape(-1, x.shape[-1]).float())
        y_NO = torch._int_mm(x_NI, self.weight_OI.t()) * (scales_N1 * self.scales_O)
        if self.bias is not None:
            y_NO += self.bias
        return y_NO.view(*x.shape[:-1], -1).to(x.dtype)


def int8(network: Decoder) -> Decoder:
    """A copy of `network` whose linear layers have int8 weights. What is not a linear layer is shared, not copied."""
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    quantised = copy.deepcopy(network, shared)
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            quantised.set_submodule(name, Int8Linear(module))
    return quantised.eval()


def _rounded(x_NI: Tensor) -> tuple[Tensor, Tensor]:
    """Each row as int8 (N, I) and its scale (N, 1)."""
    scales_N1 = x_NI.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
    return (x_NI / scales_N1).round_().to(torch.int8), scales_N1
