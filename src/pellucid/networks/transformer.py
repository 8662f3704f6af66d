"""What encoder and translator share: attention, the block of Vaswani et al. 2017 and BERT, sinusoidal positions."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.networks.attention import causal_attention
from pellucid.networks.dropout import Dropout

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}


class BlockConfig(Protocol):
    """What a block must know of its network's config."""

    @property
    def d_model(self) -> int: ...
    @property
    def n_heads(self) -> int: ...
    @property
    def d_ff(self) -> int: ...
    @property
    def activation(self) -> str: ...
    @property
    def norm_eps(self) -> float: ...
    @property
    def dropout(self) -> float: ...


class EncoderBlock(nn.Module):
    """Self-attention, then the feed-forward layer; each is added to what it read, and the sum is normed (post-norm)."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config.d_model, config.n_heads)
        self.attention_norm = nn.LayerNorm(config.d_model, config.norm_eps)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(config.d_model, config.norm_eps)
        self.dropout = Dropout(config.dropout)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        x_BTD = self.attention_norm(x_BTD + self.dropout(self.attention(x_BTD, mask_BT)))
        return self.feed_forward_norm(x_BTD + self.dropout(self.feed_forward(x_BTD)))


class SelfAttention(nn.Module):
    """Each position looks at all positions, or with `causal` at itself and those before (Vaswani et al. 2017, §3.2)."""

    def __init__(self, d_model: int, n_heads: int, causal: bool = False) -> None:
        super().__init__()
        self.n_heads, self.causal = n_heads, causal
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.output = nn.Linear(d_model, d_model)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor | None = None, cache: AttentionCache | None = None) -> Tensor:
        """`mask_BT` is true where there is a token and no padding. With a cache, `x_BTD` continues what it holds."""
        q_BHTK, k_BHSK, v_BHSK = (heads(x, self.n_heads) for x in self.qkv(x_BTD).chunk(3, dim=-1))
        if cache is not None:
            k_BHSK, v_BHSK = cache.extend(k_BHSK, v_BHSK)
        mask = mask_BT[:, None, None] if mask_BT is not None else None
        return self.output(joined(attend(q_BHTK, k_BHSK, v_BHSK, mask, self.causal)))


class CrossAttention(nn.Module):
    """Each of T positions looks at the S positions of another sequence, its memory (Vaswani et al. 2017, §3.2.3)."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model)
        self.key_value = nn.Linear(d_model, 2 * d_model)
        self.output = nn.Linear(d_model, d_model)

    def forward(
        self,
        x_BTD: Tensor,
        memory_BSD: Tensor,
        mask_BS: Tensor | None = None,
        cache: AttentionCache | None = None,
    ) -> Tensor:
        """`mask_BS` is true where the memory is no padding. A cache keeps the memory's keys and values."""
        q_BHTK = heads(self.query(x_BTD), self.n_heads)
        if cache is not None and cache.keys is not None and cache.values is not None:
            k_BHSK, v_BHSK = cache.keys, cache.values
        else:
            k_BHSK, v_BHSK = (heads(x, self.n_heads) for x in self.key_value(memory_BSD).chunk(2, dim=-1))
            if cache is not None:
                cache.extend(k_BHSK, v_BHSK)
        mask = mask_BS[:, None, None] if mask_BS is not None else None
        return self.output(joined(attend(q_BHTK, k_BHSK, v_BHSK, mask)))


class AttentionCache:
    """The keys and values that one attention has read, (B, H, S, K); None before the first."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def extend(self, k_BHTK: Tensor, v_BHTK: Tensor) -> tuple[Tensor, Tensor]:
        """Add those of T more positions; return all."""
        if self.keys is not None and self.values is not None:
            k_BHTK, v_BHTK = torch.cat((self.keys, k_BHTK), dim=2), torch.cat((self.values, v_BHTK), dim=2)
        self.keys, self.values = k_BHTK, v_BHTK
        return k_BHTK, v_BHTK

    def select(self, rows_N: Tensor) -> None:
        """Keep these rows of the batch, in this order; a row may be named twice."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[rows_N], self.values[rows_N]


class FeedForward(nn.Module):
    """Two layers with an activation between: down(activation(up(x))) (Vaswani et al. 2017, eq. 2)."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.up = nn.Linear(config.d_model, config.d_ff)
        self.down = nn.Linear(config.d_ff, config.d_model)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x_BTD)))


def attend(q_BHTK: Tensor, k_BHSK: Tensor, v_BHSK: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """softmax(q kᵀ / √K) v, (B, H, T, K) (Vaswani et al. 2017, eq. 1).

    Args:
        q_BHTK: Queries.
        k_BHSK: Keys.
        v_BHSK: Values.
        mask: Boolean, broadcast to (B, H, T, S): true where a query may look; at least one place for each query.
        causal: The queries are the last T of the S positions, and look at none after their own.
    """
    queries, positions = q_BHTK.shape[2], k_BHSK.shape[2]
    bf16_on_cpu = q_BHTK.dtype == torch.bfloat16 and q_BHTK.device.type == "cpu"
    whole = causal and mask is None and 1 < queries == positions
    if whole and bf16_on_cpu:
        return causal_attention(q_BHTK, k_BHSK, v_BHSK)
    if causal and queries > 1 and not whole:
        past_TS = torch.ones(queries, positions, dtype=torch.bool, device=q_BHTK.device).tril(positions - queries)
        mask = past_TS if mask is None else mask & past_TS
    if not bf16_on_cpu:
        return F.scaled_dot_product_attention(q_BHTK, k_BHSK, v_BHSK, attn_mask=mask, is_causal=whole)
    # PyTorch's fused kernel takes up to four times as long there
    scores_BHTS = (q_BHTK * q_BHTK.shape[3] ** -0.5) @ k_BHSK.mT
    if mask is not None:
        scores_BHTS = scores_BHTS.masked_fill(~mask, -math.inf)
    return torch.softmax(scores_BHTS, dim=-1).to(v_BHSK.dtype) @ v_BHSK


def heads(x_BTD: Tensor, n_heads: int) -> Tensor:
    """(B, T, H K) cut into heads: (B, H, T, K)."""
    return x_BTD.unflatten(-1, (n_heads, -1)).transpose(1, 2)


def joined(x_BHTK: Tensor) -> Tensor:
    """The heads of `heads` side by side again: (B, T, H K)."""
    return x_BHTK.transpose(1, 2).flatten(2)


def sinusoids(context: int, d_model: int, interleaved: bool = True) -> Tensor:
    """The fixed positions of Vaswani et al. 2017, §3.5, float32 (context, d_model).

    sin(t / 10000^(2i / d_model)) and the cosine of the same angle stand at the places 2i and 2i + 1, as in the paper;
    with `interleaved` false at i and ⌈d_model / 2⌉ + i, as in Marian: the same numbers in another order, and the order
    of dimensions means nothing to what learns its weights.
    """
    with torch.device("cpu"):
        positions_T = torch.arange(context, dtype=torch.float64)
        frequencies = 10_000.0 ** (-torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
        angles = positions_T[:, None] * frequencies
        if interleaved:
            return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[:, :d_model].float()
        return torch.cat((angles.sin(), angles.cos()), dim=1)[:, :d_model].float()


def table(rows: int, width: int) -> nn.Embedding:
    """An embedding whose numbers are still to be set."""
    # nn.Embedding(rows, width) would draw normal numbers, which on the meta device loads torch's compiler: a second
    return nn.Embedding.from_pretrained(torch.empty(rows, width), freeze=False)


def check_block(config: BlockConfig) -> None:
    """Raises:
    ValueError: when the config contradicts itself.
    """
    if config.d_model % config.n_heads:
        raise ValueError(f"a width of {config.d_model} cannot be shared by {config.n_heads} heads")
    if config.activation not in ACTIVATIONS:
        raise ValueError(f"no activation {config.activation!r}")
