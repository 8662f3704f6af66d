"""The recipe that nanoGPT's README gives for a CPU (github.com/karpathy/nanoGPT), written anew in plain PyTorch.

4 layers, 4 heads, width 128, context 64, 12 sequences a step, no biases, no dropout, fp32; AdamW (0.9, 0.99), not
fused, weight decay 0.1 on everything with two dimensions, gradients clipped to 1.0; learning rate 1e-3 after a warm-up
of 100 in 2,000 steps, a cosine down to 1e-4; sequences from random places of the text. It has as many parameters as the
original, the same losses from the same weights and batches, and its steps take as long.
"""

import math
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYERS, HEADS, WIDTH, CONTEXT, SEQUENCES = 4, 4, 128, 64, 12
WARMUP = 100 / 2000  # share of the training


class Block(nn.Module):
    """Attention and a feed-forward layer, each behind a norm and added to what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
        self.qkv, self.project = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        batch, length, _ = x_BTD.shape
        q, k, v = (
            part.view(batch, length, HEADS, -1).transpose(1, 2)
            for part in self.qkv(self.norm1(x_BTD)).split(WIDTH, dim=2)
        )
        y_BHTK = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTD = x_BTD + self.project(y_BHTK.transpose(1, 2).reshape(batch, length, WIDTH))
        return x_BTD + self.down(F.gelu(self.up(self.norm2(x_BTD))))


class NanoGPT(nn.Module):
    """The network; its head is its embedding."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab_size, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                into_residual = name.endswith(("project.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * LAYERS) if into_residual else 0.02)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Logits (B, T, vocabulary)."""
        x_BTD = self.tokens(ids_BT) + self.positions.weight[: ids_BT.shape[1]]
        return F.linear(self.norm(self.blocks(x_BTD)), self.tokens.weight)

    def loss(self, ids_BT: Tensor, targets_BT: Tensor, reduction: str = "mean") -> Tensor:
        return F.cross_entropy(self(ids_BT).flatten(0, 1), targets_BT.flatten(), reduction=reduction)


def train(ids: np.ndarray, vocab_size: int, seed: int, progress: Callable[[int, float], float]) -> tuple[NanoGPT, int]:
    """Train until `progress(steps made, seconds)` reaches 1; returns the network and how many steps were made."""
    torch.manual_seed(seed)
    network = NanoGPT(vocab_size)
    matrices = [p for p in network.parameters() if p.ndim >= 2]
    others = [p for p in network.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))
    steps, started = 0, time.perf_counter()
    while (done := progress(steps, time.perf_counter() - started)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(done)
        starts = torch.randint(len(ids) - CONTEXT, (SEQUENCES,)).tolist()
        cut = torch.from_numpy(np.stack([ids[i : i + CONTEXT + 1] for i in starts]).astype(np.int64))
        network.loss(cut[:, :-1], cut[:, 1:]).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
    return network, steps


def learning_rate(done: float) -> float:
    """By the share of the training that is done."""
    if done < WARMUP:
        return 1e-3 * min(1.0, done / WARMUP + 0.01)  # not quite 0 at the first step
    return 1e-4 + 0.5 * (1 + math.cos(math.pi * (done - WARMUP) / (1 - WARMUP))) * (1e-3 - 1e-4)


@torch.no_grad()
def nats(network: NanoGPT, ids: np.ndarray, before: int) -> float:
    """Nats of all `ids`, in blocks of the context that do not overlap; the first is preceded by the id `before`."""
    network.eval()
    shifted = torch.from_numpy(np.concatenate([[before], ids]).astype(np.int64))
    whole = len(ids) // CONTEXT * CONTEXT
    total = 0.0
    for start in range(0, whole, 256 * CONTEXT):
        end = min(start + 256 * CONTEXT, whole)
        inputs, targets = shifted[start:end].view(-1, CONTEXT), shifted[start + 1 : end + 1].view(-1, CONTEXT)
        total += network.loss(inputs, targets, "sum").item()
    if whole < len(ids):
        total += network.loss(shifted[None, whole:-1], shifted[None, whole + 1 :], "sum").item()
    return total
