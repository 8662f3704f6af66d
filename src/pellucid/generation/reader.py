"""Reading ids with a key-value cache: only what is new goes through the network."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.networks.cache import KeyValueCache
from pellucid.networks.decoder import Decoder


class Reader:
    """A network and what it has read last.

    Args:
        network: Reads whatever is longer than one token.
        capacity: Most tokens to be read at once; None: the network's context.
        cached: False reads everything anew each time: slow, and the oracle of the tests.
        quick: Reads single tokens instead, from the same cache: the int8 copy of `network`.
    """

    def __init__(
        self, network: Decoder, capacity: int | None = None, cached: bool = True, quick: Decoder | None = None
    ) -> None:
        self.network, self.quick = network, quick or network
        weight = network.embedding.weight
        self.device = weight.device
        self.context = network.config.context
        self.capacity = min(self.context, capacity or self.context)
        self._cache = KeyValueCache(network.config, 1, self.capacity, weight.dtype, weight.device) if cached else None
        self._ids: list[int] = []  # those in the cache

    @torch.inference_mode()
    def logits(self, ids: Sequence[int], last: int = 1) -> Tensor:
        """Logits after each of the last `last` of `ids`, (last, V), fp32. What starts as before is not read again."""
        known = _shared(self._ids, ids, len(ids) - last) if self._cache else 0
        if self._cache:
            self._cache.truncate(known)
            self._ids[known:] = ids[known:]
        new_BT = torch.tensor([ids[known:]], device=self.device)
        network = self.quick if new_BT.shape[1] == 1 else self.network
        x_BTD = network.hidden(new_BT, self._cache)
        return network.head(x_BTD[0, -last:]).float()


def _shared(a: Sequence[int], b: Sequence[int], most: int) -> int:
    """How many ids `a` and `b` have in common at their beginning, up to `most`."""
    most = min(most, len(a), len(b))
    return next((n for n in range(most) if a[n] != b[n]), most)
