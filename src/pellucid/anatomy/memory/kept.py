"""What each leaf keeps from its forward to its backward pass, byte by byte as our networks and PyTorch do it.

In the formulas n is how many vectors go through a leaf at once (batch x tokens), and e the bytes of a number in a
matrix product (2 under bf16 autocast, else 4). A tensor that two leaves keep is counted at the one that wrote it: the
backward pass comes to it last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from math import prod

from pellucid.anatomy.counts import positions
from pellucid.anatomy.tree import (
    Activation,
    Attention,
    BatchNorm,
    Convolution,
    Dropout,
    Layer,
    Linear,
    Node,
    Norm,
    Pool,
    Recurrence,
    Scan,
    Visit,
    walk,
)

QUERIES = 128  # as in `networks/attention.py`, which cannot be imported without torch
BY_OUTPUT = ("relu", "sigmoid", "tanh")  # their slope follows from what they wrote, the others' from what they read


@dataclass(frozen=True)
class Run:
    """What goes through the network at once, and how."""

    batch: int  # examples
    length: int = 1  # tokens in each
    inputs: int = 0  # numbers in each, where they are no tokens
    e: int = 4  # bytes of a number in a matrix product
    device: str = "cpu"


@dataclass(frozen=True)
class Pass:
    """A leaf in one pass, and sizes in bytes."""

    visit: Visit
    kept: int  # from the forward to the backward pass
    shared: int  # of what it keeps of another leaf's, which counts it
    cast: int  # of its matrix in bf16, kept as long
    entering: int  # of what flows into it; 0 where that is the task's
    read: int  # of the gradient of what it reads; 0 where none is needed
    written: int  # of the gradient of what it writes


def passes(tree: Node, run: Run) -> list[Pass]:
    """Every leaf of the tree in the order in which data flows; where it stands for several, one of them."""
    found = []
    size = run.inputs  # numbers that flow into the next leaf
    before: Layer | None = None
    for visit in walk(tree):
        leaf, n = visit.leaf, run.batch * positions(visit.positions, {"token": run.length, "source": run.length})
        reads, first = _read(leaf, size), before is None and run.inputs > 0
        keeps, shared = kept(leaf, n, reads, run), 0
        if visit.path.endswith("shortcut"):  # reads what the block's first layer keeps
            shared = keeps
        elif _keeps_input(leaf) and (_keeps_output(before) or (first and run.e == 4)):  # or the task does
            shared = run.e * n * reads
        is_cast = run.e == 2 and not (first and isinstance(leaf, Linear))
        cast = 2 * leaf.weights if is_cast and isinstance(leaf, Linear | Convolution) else 0
        entering, read = (0, 0) if first else ((run.e if run.inputs else 4) * n * size, run.e * n * reads)
        size, before = prod(leaf.output) if leaf.output else size, leaf
        found.append(Pass(visit, keeps - shared, shared, cast, entering, read, run.e * n * size))
    return found


def blocks(passes: list[Pass]) -> Iterator[tuple[bool, list[Pass]]]:
    """The leaves between blocks (False), and those of each block: of a `Repeat`, or a numbered part of a sequence."""
    for key, group in groupby(passes, key=lambda one: _block(one.visit.path)):
        inside = list(group)
        copies = min(one.visit.times for one in inside) if key.endswith("*") else 1
        own = []
        for one in inside:
            visit = one.visit._replace(copies=one.visit.copies // copies, times=one.visit.times // copies)
            own.append(replace(one, visit=visit, kept=visit.times * one.kept, cast=visit.active * one.cast))
        for _copy in range(copies):
            yield bool(key), own


def _block(path: str) -> str:
    """The path down to the first name that is a number or stands for several; "" where there is none."""
    names = path.split(".")
    at = next((i for i, name in enumerate(names) if name == "*" or name.isdigit()), None)
    return "" if at is None else ".".join(names[: at + 1])


def _read(leaf: Layer, size: int) -> int:
    """How many numbers a leaf reads at one position, of `size` that flow."""
    match leaf:
        case Linear():
            return leaf.inputs
        case Activation():
            return leaf.width * (2 if leaf.gated else 1)
        case Attention():  # for every head, as they are multiplied
            return 3 * leaf.heads * leaf.head_dim
        case Norm(heads=None) | Dropout():
            return leaf.width
    return size


def kept(leaf: Layer, n: int, size: int, run: Run) -> int:
    """Bytes that autograd keeps of a leaf that reads `size` numbers.

    Raises:
        TypeError: for a recurrent layer or a state space, which no network here has.
    """
    e = run.e
    match leaf:
        case Linear() | Convolution():  # its input, cast to the product's precision
            return e * n * size
        case BatchNorm():  # its input; a mean and a deviation a channel, fp32
            return e * n * size + 8 * leaf.channels
        case Norm(heads=None, shift=False) if run.inputs:  # PyTorch's own RMS norm, in fp32: what it read and wrote
            return n * (8 * leaf.width + 4)
        case Norm(heads=None):  # its input, fp32 in a residual stream; one (RMS) or two numbers a vector
            return n * ((e if run.inputs else 4) * leaf.width + (8 if leaf.shift else 4))
        case Norm(heads=int(heads)):  # its input is what attention keeps of the linear layer before it
            return 4 * n * heads
        case Attention():
            return _kept_of_attention(leaf, n, run)
        case Activation(gated=True):  # both halves of its input, and the activated one
            return 3 * e * n * leaf.width
        case Activation(name="step"):
            return 0
        case Activation():  # its input, or its output
            return e * n * leaf.width
        case Pool():  # its input; of each maximum, where it was
            return (e * n * size if _keeps_input(leaf) else 0) + (
                8 * n * prod(leaf.output) if leaf.name == "max" else 0
            )
        case Dropout():  # one byte an entry
            return n * leaf.width if leaf.p else 0
        case Scan() | Recurrence():
            raise TypeError(leaf)
    return 0


def _keeps_input(leaf: Layer) -> bool:
    """Whether it keeps what it reads as it is. (The mean of a whole picture needs its size only.)"""
    if isinstance(leaf, Pool):
        return (leaf.height, leaf.width) != (1, 1)
    return isinstance(leaf, Linear | Convolution | BatchNorm)


def _keeps_output(leaf: Layer | None) -> bool:
    """Whether it keeps what it wrote: its slope follows from that."""
    return isinstance(leaf, Activation) and leaf.name in BY_OUTPUT and not leaf.gated


def _kept_of_attention(leaf: Attention, n: int, run: Run) -> int:
    """What attention keeps; its output is the next layer's input, and counted there.

    Queries, keys and values in one tensor, as the linear layer made them: en(H + 2H_kv)K. Turned queries and keys,
    en(H + H_kv)K, and under bf16 the casts of cosines and sines. PyTorch's kernel: 4 bytes a query, and a mask where a
    window is narrower than the text. Ours (bf16 on a CPU, `networks/attention.py`): the weights of the pairs that it
    computes, and keys and values repeated for every head in place of the shared ones.
    """
    e, length = run.e, run.length
    made = e * n * (leaf.heads + 2 * leaf.kv_heads) * leaf.head_dim
    turned = e * n * (leaf.heads + leaf.kv_heads) * leaf.head_dim if leaf.rotated else 0
    angles = 4 * e * length * leaf.head_dim if leaf.rotated and e == 2 else 0
    windowed = leaf.window is not None and leaf.window < length
    if e == 4 or windowed or run.device != "cpu":
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
