"""How much memory a training takes: the peak resident size of the process, foretold from shapes alone.

The peak is the largest of a few moments of a training, each the sum of what is alive then. In the formulas N is the
network's parameters, M those in matrices inside blocks, V the vocabulary, D the width, n the tokens that go through the
network at once (batch x context), and e the bytes of a number in a matrix product (2 under bf16 autocast, else 4).
Weights, gradients, optimiser state and the residual stream are fp32 always. Tokens are mapped from a file: their pages
count for nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pellucid.anatomy import counts, families
from pellucid.anatomy.tree import Activation, Attention, Dropout, Embedding, Layer, Linear, Norm, Visit, walk
from pellucid.language import _

if TYPE_CHECKING:
    from pellucid.networks.decoder import DecoderConfig

PROCESS = (
    356_000_000  # Python, torch and its kernels, tokenizers, after steps of a network of next to no size: measured
)
HELD = 0.38  # share of what comes and goes that the C library holds but cannot use again: 0.17 to 0.6 were measured
QUERIES = 128  # as in `networks/attention.py`, which cannot be imported without torch
TOGETHER = 2**22  # as in `training/optimisers.py`, a room above


@dataclass(frozen=True)
class Memory:
    """The peak: what is alive then, in bytes by name, adding up to the total."""

    parts: dict[str, int]
    moment: str  # when it comes: a key of `moments`
    moments: dict[str, int]  # the total at each moment

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    def __str__(self) -> str:
        names = _names()
        rows = {names[part]: size for part, size in self.parts.items() if size} | {_("peak"): self.total}
        return "\n".join(f"{size / 1e6:>10,.1f} MB  {name}" for name, size in rows.items())


def _names() -> dict[str, str]:
    """The parts in the user's language."""
    return {
        "process": _("Python, torch and its kernels"),
        "weights": _("weights"),
        "optimiser state": _("state of the optimiser"),
        "activations": _("activations kept for the backward pass"),
        "bf16 copies of weights": _("copies of the weights in bf16"),
        "gradients": _("gradients of the weights"),
        "logits": _("logits, or their gradient"),
        "passing gradients": _("gradients of activations in passage"),
        "tied gradients": _("gradients of the embedding before they are added up"),
        "orthogonalising": _("matrices that Muon orthogonalises"),
        "best model": _("the best model, read back"),
        "holes between blocks": _("held by the allocator between blocks"),
    }


def forecast(
    config: DecoderConfig,
    batch: int,
    context: int | None = None,
    precision: str = "bf16",
    optimiser: str = "muon",
    accumulation: int = 1,
    process: int = PROCESS,
    held: float = HELD,
) -> Memory:
    """Forecast the peak resident size of a training on CPU.

    Always there: the process, 4N of weights, and the optimiser's state, 8N (AdamW: two moments) or 4M + 8(N - M)
    (Muon: one momentum for the matrices inside blocks). Beside them:

    - head: the backward pass begins. What `kept` says of every leaf; 2 bytes for each weight of a matrix under bf16;
      enV of logits, which have become their own gradient; eDV of the head's gradient; 4N of gradients if earlier
      micro-batches left them.
    - last block: what the blocks kept, (e + 4)DV of the head's gradient and its cast, twice the gradient of the
      residual stream (8nD), and the largest of what `passing` says of a leaf.
    - embedding: when the backward pass ends. 4N of gradients, and 8DV more where the table is tied: its gradient as
      head and its gradient as embedding are there while their sum is made.
    - update: 4N of gradients, and what the optimiser needs for a while (see `orthogonalising`).
    - finish: 4N + 4M for reading the best model from its file.

    Args:
        config: The network's shape.
        batch: Sequences that go through the network at once.
        context: Tokens in a sequence; the config's when left out.
        precision: "fp32", or "bf16" for autocast.
        optimiser: "adamw" or "muon".
        accumulation: Micro-batches in a step.
        process: Bytes that the process takes without any network.
        held: Share of what comes and goes that is lost to holes between blocks; 0 gives the bytes that torch asks for.
    """
    length = context or config.context
    n, e = batch * length, 2 if precision == "bf16" else 4
    tree = families.decoder(config)
    visits, total, inside = list(walk(tree)), counts.parameters(tree).total, counts.matrices(tree)
    table = config.vocab_size * config.d_model

    always = {
        "process": process,
        "weights": 4 * total,
        "optimiser state": 8 * total if optimiser == "adamw" else 4 * inside + 8 * (total - inside),
    }
    activations = {"activations": sum(v.times * kept(v.leaf, n, e, length) for v in visits)}
    weights = sum(v.copies * v.leaf.weights for v in visits if isinstance(v.leaf, Linear))
    casts = {"bf16 copies of weights": 2 * weights if e == 2 else 0}
    earlier = 4 * total if accumulation > 1 else 0
    gradients = {"gradients": 4 * total}
    moments = {
        "head": {**activations, **casts, "gradients": earlier + e * table, "logits": e * n * config.vocab_size},
        "last block": {
            **activations,
            **casts,
            "gradients": earlier + (e % 4 + 4) * table,
            "passing gradients": max(passing(v.leaf, n, e) for v in visits) + 8 * n * config.d_model,
        },
        "embedding": {**gradients, "tied gradients": 8 * table if config.tied else 0},
        "update": {**gradients, "orthogonalising": orthogonalising(visits) if optimiser == "muon" else 0},
        "finish": {"best model": 4 * total + 4 * inside},
    }
    for parts in moments.values():
        parts["holes between blocks"] = round(held * sum(parts.values()))
    totals = {name: sum(always.values()) + sum(parts.values()) for name, parts in moments.items()}
    moment = max(totals, key=totals.__getitem__)
    return Memory(always | moments[moment], moment, totals)


def kept(leaf: Layer, n: int, e: int, length: int) -> int:
    """Bytes that autograd keeps of a leaf from its forward to its backward pass, if no other leaf keeps them anyway."""
    match leaf:
        case Linear():  # its input, cast to the product's precision
            return e * n * leaf.inputs
        case Norm(heads=None):  # its input, fp32; one (RMS) or two numbers a vector
            return 4 * n * (leaf.width + (2 if leaf.shift else 1))
        case Norm(heads=int(heads)):  # its input is what attention keeps of the linear layer before it
            return 4 * n * heads
        case Attention():
            return _kept_of_attention(leaf, n, e, length)
        case Activation(gated=True):  # both halves of its input, and the activated one
            return 3 * e * n * leaf.width
        case Activation():  # its input
            return e * n * leaf.width
        case Dropout():  # one byte an entry
            return n * leaf.width if leaf.p else 0
        case Embedding():
            return 0
    raise TypeError(leaf)


def _kept_of_attention(leaf: Attention, n: int, e: int, length: int) -> int:
    """What attention keeps; its output is the next layer's input, and counted there.

    Queries, keys and values in one tensor, as the linear layer made them: en(H + 2H_kv)K. Turned queries and keys,
    en(H + H_kv)K, and under bf16 the casts of cosines and sines. PyTorch's kernel: 4 bytes a query, and a mask where a
    window is narrower than the text. Ours (bf16, `networks/attention.py`): the weights of the pairs that it computes,
    and keys and values repeated for every head in place of the shared ones.
    """
    made = e * n * (leaf.heads + 2 * leaf.kv_heads) * leaf.head_dim
    turned = e * n * (leaf.heads + leaf.kv_heads) * leaf.head_dim if leaf.rotated else 0
    angles = 4 * e * length * leaf.head_dim if leaf.rotated and e == 2 else 0
    windowed = leaf.window is not None and leaf.window < length
    if e == 4 or windowed:
        return made + turned + angles + 4 * n * leaf.heads + (e * length**2 if windowed else 0)
    weights = e * n // length * leaf.heads * _pairs(length)
    if leaf.heads == leaf.kv_heads:
        return made + turned + angles + weights
    queries = e * n * leaf.heads * leaf.head_dim
    made = made if leaf.normed or not leaf.rotated else 0
    return made + (queries if leaf.rotated else 0) + 2 * queries + angles + weights


def _pairs(length: int) -> int:
    """Pairs of positions whose weights our attention computes: a block of queries by all positions up to its end."""
    starts = range(0, length, QUERIES)
    return sum(min(QUERIES, length - start) * min(start + QUERIES, length) for start in starts)


def passing(leaf: Layer, n: int, e: int) -> int:
    """Bytes of gradients alive while the backward pass is in a leaf, less what it has set free before."""
    match leaf:
        case Activation(gated=True):  # of the product and of both factors, less the product
            return 2 * e * n * leaf.width
        case Activation():
            return e * n * leaf.width
        case Attention():  # of the output, and of queries, keys and values for every head
            return 4 * e * n * leaf.heads * leaf.head_dim
    return 0


def orthogonalising(visits: list[Visit]) -> int:
    """Bytes that Muon needs for a while: of one shape it orthogonalises `TOGETHER` numbers at once, G in all.

    4G for the looked-ahead gradients, 4G for them in one tensor, 2G + 2G for the iterate and the next one in bf16, and
    two bf16 products of the iterate with itself, as wide as the matrix's shorter side.
    """
    matrices: Counter[tuple[int, int]] = Counter()
    for visit in visits:
        if isinstance(visit.leaf, Linear) and visit.kind != "head":
            matrices[visit.leaf.inputs, visit.leaf.outputs] += visit.copies
    return max(
        min(n, max(1, TOGETHER // (i * o))) * (12 * i * o + 4 * min(i, o) ** 2) for (i, o), n in matrices.items()
    )
