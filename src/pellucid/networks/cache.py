"""The key-value cache: what a decoder remembers of the tokens it has read."""

import torch
from torch import Tensor

from pellucid.networks.decoder_config import DecoderConfig


class KeyValueCache:
    """Keys and values of every layer, preallocated, so that a new token is written in place and nothing is copied.

    Args:
        config: The decoder's configuration.
        batch: Sequences side by side, all of one length.
        capacity: Most tokens it can hold; None: the decoder's context.
        dtype: Of keys and values: what the decoder's attention computes in.
        device: Where it lives.
    """

    def __init__(
        self,
        config: DecoderConfig,
        batch: int = 1,
        capacity: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.capacity = config.context if capacity is None else capacity
        self.length = 0  # tokens held: the position of the next one
        shape = (batch, config.n_kv_heads, self.capacity, config.head_dim)
        self._keys = [torch.empty(shape, dtype=dtype, device=device) for _ in range(config.n_layers)]
        self._values = [torch.empty(shape, dtype=dtype, device=device) for _ in range(config.n_layers)]

    def extend(self, layer: int, k_BHTK: Tensor, v_BHTK: Tensor) -> tuple[Tensor, Tensor]:
        """Write T new keys and values of `layer` after the `length` ones held; return views of all `length + T`.

        `length` itself moves once all layers have been extended: see `advance`.

        Raises:
            ValueError: when they do not fit.
        """
        end = self.length + k_BHTK.shape[2]
        if end > self.capacity:
            raise ValueError(f"the cache holds {self.capacity} tokens, {end} are needed")
        k_BHSK, v_BHSK = self._keys[layer][:, :, :end], self._values[layer][:, :, :end]
        k_BHSK[:, :, self.length :] = k_BHTK
        v_BHSK[:, :, self.length :] = v_BHTK
        return k_BHSK, v_BHSK

    def advance(self, tokens: int) -> None:
        """Count `tokens` more as held; the decoder calls it after its last layer."""
        self.length += tokens

    def truncate(self, length: int) -> None:
        """Forget every token from position `length` on.

        Raises:
            ValueError: when fewer tokens are held.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot cut a cache of {self.length} tokens to {length}")
        self.length = length
