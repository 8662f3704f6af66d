"""How well a decoder predicts a text: the arithmetic behind every loss, perplexity and bits per byte."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.networks.decoder import Decoder

LOGITS_AT_ONCE = 2**24  # numbers; 64 MB in fp32


@torch.inference_mode()
def score(
    network: Decoder, ids: Sequence[int] | Tensor, start_id: int | None, context: int | None = None, batch: int = 8
) -> Tensor:
    """The surprise −ln p, in nats, of each id after those before it in its block: (T,), fp32, on the CPU.

    The ids are cut into blocks of `context` that do not overlap, so that each is predicted exactly once, on average
    from half a context. Before the first stands `start_id`, before each other block the last id of the one before it.

    Args:
        network: The decoder; dropout is off meanwhile.
        ids: The text, (T,).
        start_id: The end token of an imagined document before, or the begin token; None: the first id is not predicted,
            and the answer is (T - 1,).
        context: Tokens in a block; None: as many as the network sees.
        batch: Blocks that go through the network together.
    """
    context = min(context or network.config.context, network.config.context)
    ids_T = torch.as_tensor(ids, dtype=torch.long)
    if start_id is not None:
        ids_T = torch.cat((torch.tensor([start_id]), ids_T))
    inputs_T, targets_T = ids_T[:-1], ids_T[1:]
    blocks = len(targets_T) // context
    device = network.embedding.weight.device
    was_training = network.training
    network.eval()
    nats = []
    for first in range(0, blocks, batch):
        here = slice(first * context, min(first + batch, blocks) * context)
        nats.append(_nats(network, inputs_T[here].view(-1, context).to(device), targets_T[here].to(device)))
    rest = slice(blocks * context, None)
    if len(targets_T[rest]):
        nats.append(_nats(network, inputs_T[rest][None].to(device), targets_T[rest].to(device)))
    network.train(was_training)
    return torch.cat(nats) if nats else torch.empty(0)


def _nats(network: Decoder, inputs_BT: Tensor, targets_N: Tensor) -> Tensor:
    x_ND = network.hidden(inputs_BT).flatten(0, 1)
    rows = max(1, LOGITS_AT_ONCE // network.config.vocab_size)
    return torch.cat(
        [
            F.cross_entropy(network.head(x_CD).float(), targets_C, reduction="none").cpu()
            for x_CD, targets_C in zip(x_ND.split(rows), targets_N.split(rows), strict=True)
        ]
    )


@dataclass(frozen=True)
class ScoredToken:
    """One token of a text, and how probable the model found it there."""

    id: int
    shown: str
    bytes: bytes
    probability: float


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts a text."""

    nats: float  # −ln p summed over all tokens
    tokens: int  # predicted
    bytes: int  # of the text in UTF-8
    scored: tuple[ScoredToken, ...] = ()  # each token, where it was asked for

    @property
    def loss(self) -> float:
        """Nats a token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """e to the loss: among so many equally probable tokens the model is as unsure as here."""
        return math.exp(min(self.loss, 700.0))

    @property
    def bits_per_byte(self) -> float:
        """Total nats / ln 2 / bytes: comparable across tokenizers, and with compressors."""
        return self.nats / math.log(2) / self.bytes
