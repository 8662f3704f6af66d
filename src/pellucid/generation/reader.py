"""Reading ids with a key-value cache: only what is new goes through the network."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

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
        self._unturned = _unturned(self.quick)
        self._serial = quick is None and weight.device.type == "cpu" and weight.dtype == torch.float32

    @torch.inference_mode()
    def logits(self, ids: Sequence[int], last: int = 1) -> Tensor:
        """Logits after each of the last `last` of `ids`, (last, V), fp32. What starts as before is not read again."""
        known = _shared(self._ids, ids, len(ids) - last) if self._cache else 0
        if self._cache:
            self._cache.truncate(known)
            self._ids[known:] = ids[known:]
        new_BT = torch.tensor([ids[known:]], device=self.device)
        network = self.quick if new_BT.shape[1] == 1 else self.network
        if new_BT.shape[1] == 1 and self._unturned:
            linear = self._unturned.pop()
            linear.weight.data = linear.weight.data.t().contiguous().t()
        with _one_thread() if new_BT.shape[1] == 1 and self._serial else contextlib.nullcontext():
            x_BTD = network.hidden(new_BT, self._cache)
            return network.head(x_BTD[0, -last:]).float()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """PyTorch multiplies a matrix with one vector on one core; a second thread would only be waited for.

    Waiting is dear where other programs run: a token of GPT-2 takes up to four times as long with two threads.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _unturned(network: Decoder) -> list[nn.Linear]:
    """The layers whose weights a CPU reads 1.4 times as fast, for a single vector, when they lie column by column.

    They are turned one a token, the head last: all at once would hold up the second token. Values and shapes stay. Not
    where a network is still being trained: sums in another order would change what is learned in the last digit.
    """
    linears = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return [
        linear
        for linear in reversed(linears)
        if linear.weight.device.type == "cpu"
        and linear.weight.dtype == torch.float32
        and linear.weight.is_contiguous()
        and not linear.weight.requires_grad
    ]


def _shared(a: Sequence[int], b: Sequence[int], most: int) -> int:
    """How many ids `a` and `b` have in common at their beginning, up to `most`."""
    most = min(most, len(a), len(b))
    return next((n for n in range(most) if a[n] != b[n]), most)
