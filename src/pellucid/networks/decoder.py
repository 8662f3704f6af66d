"""The decoder-only transformer: GPT-1, GPT-2/3, Llama, Mistral, Qwen2 and Qwen3 are settings of one module."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.networks.attention import causal_attention
from pellucid.networks.decoder_config import FAMILIES, DecoderConfig, decoder_config
from pellucid.networks.dropout import Dropout
from pellucid.networks.transformer import ACTIVATIONS, sinusoids, table

if TYPE_CHECKING:
    from pellucid.networks.cache import KeyValueCache

__all__ = ["FAMILIES", "Decoder", "DecoderConfig", "decoder_config", "rotary_frequencies"]


class Decoder(nn.Module):
    """A decoder-only transformer: ids in, the logits of each next token out.

    Args:
        config: The shape. Every family is a setting of it.
        seed: Of the initialisation; None leaves the parameters on the meta device, for who loads them from a file.

    Raises:
        ValueError: when the configuration contradicts itself.
    """

    rotary_frequencies: Tensor
    sinusoids: Tensor

    def __init__(self, config: DecoderConfig, seed: int | None = 0) -> None:
        super().__init__()
        _check(config)
        self.config = config
        device = torch.get_default_device()
        with torch.device("meta"):  # spares torch's own initialisation, and the global generator
            self.embedding = table(config.vocab_size, config.d_model)
            self.positions = table(config.context, config.d_model) if config.positions == "learned" else None
            self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
            self.norm = nn.Identity() if config.post_norm else _norm(config)
            self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.dropout = Dropout(config.dropout)
        if config.positions == "rotary":
            frequencies_K, self.rotary_scale = rotary_frequencies(config)
            self.register_buffer("rotary_frequencies", frequencies_K.to(device), persistent=False)
        elif config.positions == "sinusoidal":
            self.register_buffer("sinusoids", sinusoids(config.context, config.d_model).to(device), persistent=False)
        self.tie()
        if seed is not None and device.type != "meta":
            self._apply(lambda t: torch.empty_like(t, device=device) if t.is_meta else t)
            self.tie()
            self.initialise(seed)

    def forward(self, ids_BT: Tensor, cache: KeyValueCache | None = None, last_only: bool = False) -> Tensor:
        """Logits of the token after each of `ids_BT`: (B, T, vocab_size), or (B, 1, vocab_size) with `last_only`.

        With a cache, `ids_BT` continues the tokens that it holds, and is added to them.

        Raises:
            ValueError: when the sequence is longer than `config.context`.
        """
        x_BTD = self.hidden(ids_BT, cache)
        # contiguous: a product with a slice would copy the head's weight first
        return self.head(x_BTD[:, -1:].contiguous() if last_only else x_BTD)

    def hidden(self, ids_BT: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """What the head reads: the residual stream after the last norm, (B, T, d_model)."""
        start = cache.length if cache is not None else 0
        end = start + ids_BT.shape[1]
        if end > self.config.context:
            raise ValueError(f"{end} tokens do not fit into a context of {self.config.context}")
        x_BTD = self.embedding(ids_BT)
        rotation = None
        if self.positions is not None:
            x_BTD = x_BTD + self.positions.weight[start:end]
        elif self.config.positions == "sinusoidal":
            # the scale is §3.4 of the paper: without it the sinusoids drown the embedding
            x_BTD = x_BTD * math.sqrt(self.config.d_model) + self.sinusoids[start:end]
        else:
            rotation = self._rotation(start, end, x_BTD)
        x_BTD = self.dropout(x_BTD)
        for block in self.blocks:
            x_BTD = block(x_BTD, rotation, cache)
        if cache is not None:
            cache.advance(end - start)
        return self.norm(x_BTD)

    def tie(self) -> None:
        """Make the head's weight the embedding's again, if the configuration says so."""
        if self.config.tied:
            self.head.weight = self.embedding.weight

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw all parameters anew, from a generator of its own.

        Families with learned or sinusoidal positions as in GPT-2 (Radford et al. 2019, §2.3): N(0, 0.02), the two
        projections into the residual stream divided by sqrt(2 n_layers). The others: embedding N(0, 0.02), matrices
        N(0, 0.7 / sqrt(fan_in)), projections into the residual stream zero, so that each block starts as the identity.
        Biases are zero and norms one.
        """
        generator = torch.Generator(self.embedding.weight.device).manual_seed(seed)
        like_gpt = self.config.positions != "rotary"
        for name, parameter in self.named_parameters():
            into_residual = name.endswith(("attention.output.weight", "feed_forward.down.weight"))
            if name.endswith("bias"):
                parameter.zero_()
            elif "norm" in name:
                parameter.fill_(1.0)
            elif like_gpt or parameter is self.embedding.weight:
                std = 0.02 / math.sqrt(2 * self.config.n_layers) if into_residual else 0.02
                parameter.normal_(0.0, std, generator=generator)
            elif into_residual:
                parameter.zero_()
            else:
                parameter.normal_(0.0, 0.7 / math.sqrt(parameter.shape[1]), generator=generator)

    def _rotation(self, start: int, end: int, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (T, 1, head_dim) of the angles of positions start..end, as `rotate` wants them."""
        positions_T = torch.arange(start, end, device=x_BTD.device, dtype=torch.float32)
        angles_T1K = (positions_T[:, None] * self.rotary_frequencies)[:, None]  # K here: one a pair
        cos_T1K, sin_T1K = angles_T1K.cos() * self.rotary_scale, angles_T1K.sin() * self.rotary_scale
        return torch.cat((cos_T1K, cos_T1K), dim=-1), torch.cat((-sin_T1K, sin_T1K), dim=-1)


class Block(nn.Module):
    """Attention, then the feed-forward layer, each added to the residual stream."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.post_norm = config.post_norm
        self.attention_norm = _norm(config)
        self.attention = Attention(config, layer)
        self.feed_forward_norm = _norm(config)
        self.feed_forward = FeedForward(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x_BTD: Tensor, rotation: tuple[Tensor, Tensor] | None, cache: KeyValueCache | None) -> Tensor:
        if self.post_norm:
            x_BTD = self.attention_norm(x_BTD + self.dropout(self.attention(x_BTD, rotation, cache)))
            return self.feed_forward_norm(x_BTD + self.dropout(self.feed_forward(x_BTD)))
        x_BTD = x_BTD + self.dropout(self.attention(self.attention_norm(x_BTD), rotation, cache))
        return x_BTD + self.dropout(self.feed_forward(self.feed_forward_norm(x_BTD)))


class Attention(nn.Module):
    """Causal self-attention; groups of query heads may share one key-value head (Ainslie et al. 2023)."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = config.n_heads, config.n_kv_heads, config.head_dim
        self.layer = layer
        self.window = config.sliding_windows[layer] if config.sliding_windows else None
        outputs = (config.n_heads + 2 * config.n_kv_heads) * config.head_dim
        self.qkv = nn.Linear(config.d_model, outputs, bias=config.qkv_bias)
        self.query_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else None
        self.key_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else None
        self.output = nn.Linear(config.n_heads * config.head_dim, config.d_model, bias=config.output_bias)

    def forward(self, x_BTD: Tensor, rotation: tuple[Tensor, Tensor] | None, cache: KeyValueCache | None) -> Tensor:
        batch, length, _ = x_BTD.shape
        qkv_BTHK = self.qkv(x_BTD).view(batch, length, -1, self.head_dim)
        q_BTHK, k_BTHK, v_BTHK = qkv_BTHK.split([self.n_heads, self.n_kv_heads, self.n_kv_heads], dim=2)
        if self.query_norm is not None and self.key_norm is not None:
            q_BTHK, k_BTHK = self.query_norm(q_BTHK), self.key_norm(k_BTHK)
        if rotation is not None:
            q_BTHK, k_BTHK = rotate(q_BTHK, *rotation), rotate(k_BTHK, *rotation)
        q_BHTK, k_BHSK, v_BHSK = q_BTHK.transpose(1, 2), k_BTHK.transpose(1, 2), v_BTHK.transpose(1, 2)
        if cache is not None:
            k_BHSK, v_BHSK = cache.extend(self.layer, k_BHSK, v_BHSK)
        y_BHTK = self._attend(q_BHTK, k_BHSK, v_BHSK)
        return self.output(y_BHTK.transpose(1, 2).reshape(batch, length, -1))

    def _attend(self, q_BHTK: Tensor, k_BHSK: Tensor, v_BHSK: Tensor) -> Tensor:
        """Each of the T queries, the last T of S positions, attends to the positions up to its own."""
        queries, positions = q_BHTK.shape[2], k_BHSK.shape[2]
        if self.window is not None and positions > self.window:
            first = max(0, positions - queries + 1 - self.window)  # what not even the first query sees
            k_BHSK, v_BHSK = k_BHSK[:, :, first:], v_BHSK[:, :, first:]
            positions -= first
        mask_TS = None
        whole = queries == positions and (self.window is None or positions <= self.window)
        if queries > 1 and not whole:
            mask_TS = torch.ones(queries, positions, dtype=torch.bool, device=q_BHTK.device).tril(positions - queries)
            if self.window is not None:
                mask_TS = mask_TS.triu(positions - queries + 1 - self.window)
        in_bf16_on_cpu = q_BHTK.dtype == torch.bfloat16 and q_BHTK.device.type == "cpu"
        if whole and queries > 1 and in_bf16_on_cpu:
            return causal_attention(q_BHTK, k_BHSK, v_BHSK)
        return F.scaled_dot_product_attention(
            q_BHTK,
            k_BHSK,
            v_BHSK,
            attn_mask=mask_TS,
            is_causal=whole and queries > 1,
            enable_gqa=self.n_kv_heads != self.n_heads,
        )


class FeedForward(nn.Module):
    """Two layers with an activation between; gated (Shazeer 2020): down(silu(gate(x)) * up(x))."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        if config.gated:
            self.gate_up = nn.Linear(config.d_model, 2 * config.d_ff, bias=config.ff_bias)
        else:
            self.up = nn.Linear(config.d_model, config.d_ff, bias=config.ff_bias)
        self.gated = config.gated
        self.down = nn.Linear(config.d_ff, config.d_model, bias=config.ff_bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        if self.gated:
            gate_BTF, up_BTF = self.gate_up(x_BTD).chunk(2, dim=-1)
            return self.down(self.activation(gate_BTF) * up_BTF)
        return self.down(self.activation(self.up(x_BTD)))


class RMSNorm(nn.Module):
    """Divide by the root mean square of the last dimension, times a weight (Zhang and Sennrich 2019)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and torch.is_grad_enabled():
            return _RMSNormCPU.apply(x, self.weight, self.eps)
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


class _RMSNormCPU(torch.autograd.Function):
    """RMS norm in few passes: PyTorch's backward on a CPU, which has no kernel for it, takes 2 to 5 times as long."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        x32 = x.float()
        norm = torch.linalg.vector_norm(x32, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x32 * scale).mul_(weight).to(x.dtype)

    @staticmethod
    def backward(ctx, dy):
        x, weight, scale = ctx.saved_tensors
        width = x.shape[-1]
        # float32: the kernel would add up the weight's gradient over all rows in bfloat16
        dy32, weight32 = dy.float().contiguous(), weight.float()
        mean = torch.zeros_like(scale)
        dx, dweight, _ = torch.ops.aten.native_layer_norm_backward(
            dy32, x.float().contiguous(), [width], mean, scale, weight32, None, [True, True, False]
        )
        # a layer norm's backward also takes away the mean of dy * weight, which an RMS norm's does not
        with torch.autocast("cpu", enabled=False):
            dmean = torch.mv(dy32.view(-1, width), weight32).view(scale.shape)
        return dx.add_(dmean.mul_(scale).div_(width)).to(x.dtype), dweight.to(weight.dtype), None


def rotate(x_BTHK: Tensor, cos_T1K: Tensor, sin_T1K: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + head_dim / 2]) by its position's angle (Su et al. 2021, in Llama's layout).

    `sin_T1K` is negative in its first half. Three operations: many small ones would dominate the reading of one token.
    """
    cos_T1K, sin_T1K = cos_T1K.to(x_BTHK.dtype), sin_T1K.to(x_BTHK.dtype)
    return torch.addcmul(x_BTHK * cos_T1K, x_BTHK.roll(x_BTHK.shape[-1] // 2, dims=-1), sin_T1K)


def rotary_frequencies(config: DecoderConfig) -> tuple[Tensor, float]:
    """Radians per position of each pair, float32 (head_dim / 2,), and the scale of cosines and sines.

    Scaling: "linear" (position interpolation, Chen et al. 2023), "llama3" (Llama 3.1), "yarn" (Peng et al. 2023).

    Raises:
        ValueError: when there is no such scaling.
    """
    scaling = config.rotary_scaling or {"type": "default"}
    with torch.device("cpu"):
        pairs_K = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
        frequencies_K = 1.0 / config.rotary_base**pairs_K
        match scaling["type"]:
            case "default":
                return frequencies_K, 1.0
            case "linear":
                return frequencies_K / scaling["factor"], 1.0
            case "llama3":
                return _llama3(frequencies_K, scaling), 1.0
            case "yarn":
                return _yarn(frequencies_K, scaling, config), _yarn_scale(scaling)
    raise ValueError(f"no rotary scaling {scaling['type']!r}")


def _llama3(frequencies_K: Tensor, scaling: dict[str, Any]) -> Tensor:
    """Slow turns are slowed by the factor, fast ones stay; those between are blended by their turns in old contexts."""
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns_K = frequencies_K * scaling["original_max_position_embeddings"] / (2 * math.pi)
    fast_K = ((turns_K - low) / (high - low)).clamp(0, 1)
    return frequencies_K * (fast_K + (1 - fast_K) / scaling["factor"])


def _yarn(frequencies_K: Tensor, scaling: dict[str, Any], config: DecoderConfig) -> Tensor:
    """As `_llama3`, blended along the index of the pair, between the pairs that make beta_fast and beta_slow turns."""

    def pair(turns: float) -> float:
        span = scaling["original_max_position_embeddings"] / (turns * 2 * math.pi)
        return config.head_dim * math.log(span) / (2 * math.log(config.rotary_base))

    low, high = pair(scaling.get("beta_fast", 32)), pair(scaling.get("beta_slow", 1))
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, config.head_dim - 1)
    slow_K = ((torch.arange(len(frequencies_K)) - low) / ((high - low) or 0.001)).clamp(0, 1)
    return frequencies_K * (1 - slow_K + slow_K / scaling["factor"])


def _yarn_scale(scaling: dict[str, Any]) -> float:
    def mscale(weight: float) -> float:
        return 0.1 * weight * math.log(scaling["factor"]) + 1.0 if scaling["factor"] > 1 else 1.0

    if "attention_factor" in scaling:
        return scaling["attention_factor"]
    if scaling.get("mscale") and scaling.get("mscale_all_dim"):
        return mscale(scaling["mscale"]) / mscale(scaling["mscale_all_dim"])
    return mscale(1.0)


def _norm(config: DecoderConfig) -> nn.Module:
    if config.norm == "layer":
        return nn.LayerNorm(config.d_model, eps=config.norm_eps)
    return RMSNorm(config.d_model, config.norm_eps)


def _check(config: DecoderConfig) -> None:
    if config.n_heads % config.n_kv_heads:
        raise ValueError(f"{config.n_heads} query heads cannot share {config.n_kv_heads} key-value heads")
    if config.activation not in ACTIVATIONS:
        raise ValueError(f"no activation {config.activation!r}")
    if config.positions == "rotary" and config.head_dim % 2:
        raise ValueError(f"rotary positions turn pairs: head_dim {config.head_dim} must be even")
    if config.sliding_windows is not None and len(config.sliding_windows) != config.n_layers:
        raise ValueError(f"{len(config.sliding_windows)} sliding windows for {config.n_layers} layers")
