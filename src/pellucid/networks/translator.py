"""The translator: the Transformer of 2017 (Vaswani et al. 2017, figure 1), encoder and decoder."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.networks.dropout import Dropout
from pellucid.networks.transformer import (
    AttentionCache,
    CrossAttention,
    EncoderBlock,
    FeedForward,
    SelfAttention,
    check_block,
    sinusoids,
)
from pellucid.networks.translator_config import TranslatorConfig


class Translator(nn.Module):
    """The Transformer of 2017: source and target ids in, the logits of each next target token out.

    Positions have Marian's order of the paper's sinusoids (see `sinusoids`), so that Hugging Face's MarianMTModel is
    this network; its head has a bias, as there.

    Args:
        config: The shape.
        seed: Of the initialisation; None leaves the parameters on the meta device, for who loads them from a file.

    Raises:
        ValueError: when the configuration contradicts itself.
    """

    def __init__(self, config: TranslatorConfig, seed: int | None = 0) -> None:
        super().__init__()
        check_block(config)
        self.config = config
        device = torch.get_default_device()
        positions_TD = sinusoids(config.context, config.d_model, interleaved=False).to(device)
        with torch.device("meta"):
            self.encoder = TranslatorEncoder(config, positions_TD)
            self.decoder = TranslatorDecoder(config, positions_TD)
            self.head = nn.Linear(config.d_model, config.vocab_size)
        self.tie()
        if seed is not None and device.type != "meta":
            self._apply(lambda t: torch.empty_like(t, device=device) if t.is_meta else t)
            self.tie()
            self.initialise(seed)

    def forward(self, source_BS: Tensor, target_BT: Tensor, source_mask_BS: Tensor | None = None) -> Tensor:
        """Logits of the token after each of `target_BT`, (B, T, vocab_size).

        Args:
            source_BS: The sentences to translate, each with its end token, and padding after it.
            target_BT: What is written so far, from the start token on. Padding at its end needs no mask: no token
                looks at what comes after it.
            source_mask_BS: True (or 1) where the source is no padding, at least once in each row; None: everywhere.

        Raises:
            ValueError: when a sequence is longer than `config.context`.
        """
        return self.head(self.hidden(source_BS, target_BT, source_mask_BS))

    def hidden(self, source_BS: Tensor, target_BT: Tensor, source_mask_BS: Tensor | None = None) -> Tensor:
        """What the head reads, (B, T, d_model). A loss that picks the real tokens first spares the head the padding."""
        return self.decoder(target_BT, self.encode(source_BS, source_mask_BS), source_mask_BS)

    def encode(self, source_BS: Tensor, source_mask_BS: Tensor | None = None) -> Tensor:
        """The memory: what the encoder makes of the source, (B, S, d_model)."""
        return self.encoder(source_BS, source_mask_BS)

    def decode(
        self,
        target_BT: Tensor,
        memory_BSD: Tensor,
        source_mask_BS: Tensor | None = None,
        cache: TranslatorCache | None = None,
    ) -> Tensor:
        """Logits of the token after each of `target_BT`, (B, T, vocab_size).

        With a cache, `target_BT` continues the tokens that it holds, and is added to them.
        """
        return self.head(self.decoder(target_BT, memory_BSD, source_mask_BS, cache))

    def tie(self) -> None:
        """Make the three weights one again (§3.4): of both embeddings and of the head."""
        self.decoder.embedding.weight = self.head.weight = self.encoder.embedding.weight

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw all parameters anew: the embedding N(0, 1 / √d_model), matrices uniform (Glorot and Bengio 2010).

        Queries, keys and values count as a matrix each. Biases are zero and norms one. The paper does not say; this is
        what its authors' code did.
        """
        generator = torch.Generator(self.head.weight.device).manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif "norm" in name:
                parameter.fill_(1.0)
            elif parameter is self.head.weight:
                parameter.normal_(0.0, self.config.d_model**-0.5, generator=generator)
            else:
                stacked = "qkv" in name or "key_value" in name
                outputs, inputs = (self.config.d_model if stacked else parameter.shape[0]), parameter.shape[1]
                bound = math.sqrt(6 / (inputs + outputs))
                parameter.uniform_(-bound, bound, generator=generator)


class TranslatorEncoder(nn.Module):
    """The left half of figure 1."""

    def __init__(self, config: TranslatorConfig, positions_TD: Tensor) -> None:
        super().__init__()
        self.embedding = PositionedEmbedding(config, positions_TD)
        self.blocks = nn.ModuleList(EncoderBlock(config) for _ in range(config.encoder_layers))

    def forward(self, source_BS: Tensor, mask_BS: Tensor | None = None) -> Tensor:
        mask_BS = mask_BS.bool() if mask_BS is not None else None
        x_BSD = self.embedding(source_BS)
        for block in self.blocks:
            x_BSD = block(x_BSD, mask_BS)
        return x_BSD


class TranslatorDecoder(nn.Module):
    """The right half of figure 1, up to the head."""

    def __init__(self, config: TranslatorConfig, positions_TD: Tensor) -> None:
        super().__init__()
        self.embedding = PositionedEmbedding(config, positions_TD)
        self.blocks = nn.ModuleList(DecoderBlock(config) for _ in range(config.decoder_layers))

    def forward(
        self,
        target_BT: Tensor,
        memory_BSD: Tensor,
        mask_BS: Tensor | None = None,
        cache: TranslatorCache | None = None,
    ) -> Tensor:
        mask_BS = mask_BS.bool() if mask_BS is not None else None
        x_BTD = self.embedding(target_BT, cache.length if cache is not None else 0)
        for n, block in enumerate(self.blocks):
            x_BTD = block(x_BTD, memory_BSD, mask_BS, cache.layers[n] if cache is not None else None)
        return x_BTD


class PositionedEmbedding(nn.Module):
    """Each token's vector times √d_model, plus the sinusoids of its position (§3.4 and §3.5)."""

    sinusoids: Tensor

    def __init__(self, config: TranslatorConfig, positions_TD: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.vocab_size, config.d_model))
        self.dropout = Dropout(config.dropout)
        self.register_buffer("sinusoids", positions_TD, persistent=False)

    def forward(self, ids_BT: Tensor, start: int = 0) -> Tensor:
        """`start` is the position of the first."""
        end, (context, d_model) = start + ids_BT.shape[1], self.sinusoids.shape
        if end > context:
            raise ValueError(f"{end} tokens do not fit into a context of {context}")
        # without the scale the sinusoids would drown the embedding
        return self.dropout(F.embedding(ids_BT, self.weight) * math.sqrt(d_model) + self.sinusoids[start:end])


class DecoderBlock(nn.Module):
    """Causal self-attention, attention to the memory, the feed-forward layer; each is added, and the sum is normed."""

    def __init__(self, config: TranslatorConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config.d_model, config.n_heads, causal=True)
        self.attention_norm = nn.LayerNorm(config.d_model, config.norm_eps)
        self.cross_attention = CrossAttention(config.d_model, config.n_heads)
        self.cross_attention_norm = nn.LayerNorm(config.d_model, config.norm_eps)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(config.d_model, config.norm_eps)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        x_BTD: Tensor,
        memory_BSD: Tensor,
        mask_BS: Tensor | None = None,
        caches: tuple[AttentionCache, AttentionCache] | None = None,
    ) -> Tensor:
        own, cross = caches or (None, None)
        x_BTD = self.attention_norm(x_BTD + self.dropout(self.attention(x_BTD, cache=own)))
        seen_BTD = self.cross_attention(x_BTD, memory_BSD, mask_BS, cross)
        x_BTD = self.cross_attention_norm(x_BTD + self.dropout(seen_BTD))
        return self.feed_forward_norm(x_BTD + self.dropout(self.feed_forward(x_BTD)))


class TranslatorCache:
    """What the decoder remembers: keys and values of the target tokens it has read, and of the memory."""

    def __init__(self, config: TranslatorConfig) -> None:
        self.layers = [(AttentionCache(), AttentionCache()) for _ in range(config.decoder_layers)]

    @property
    def length(self) -> int:
        """Target tokens held: the position of the next one."""
        keys = self.layers[0][0].keys if self.layers else None
        return keys.shape[2] if keys is not None else 0

    def select(self, rows_N: Tensor, memory: bool = True) -> None:
        """Keep these rows of the batch, in this order; `memory` false: of the target only, where sources stay put."""
        for own, cross in self.layers:
            own.select(rows_N)
            if memory:
                cross.select(rows_N)
