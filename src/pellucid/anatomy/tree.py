"""A network as a tree of shapes, without torch: what counts, compute and memory walk over.

A leaf is one layer or one product of data; it knows its widths and nothing of batches. `Sequence` names its parts,
`Repeat` stands for n equal children. Nothing is allocated, so GPT-3 costs as little as a toy.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Embedding:
    """A table of `rows` vectors of `width`; one row is looked up for each token."""

    rows: int
    width: int

    @property
    def parameters(self) -> int:
        return self.rows * self.width


@dataclass(frozen=True)
class Linear:
    """A dense layer: y = xW + b, `outputs` neurons that each read `inputs` numbers."""

    inputs: int
    outputs: int
    bias: bool = True
    tied_to: str | None = None  # the path of the leaf whose weight this layer reads: counted there, not here

    @property
    def weights(self) -> int:
        """The entries of the matrix that multiplies, wherever they are counted."""
        return self.inputs * self.outputs

    @property
    def parameters(self) -> int:
        return (0 if self.tied_to else self.weights) + (self.outputs if self.bias else 0)


@dataclass(frozen=True)
class Norm:
    """Layer or RMS norm: a scale for each entry and, where `shift`, a shift."""

    width: int
    shift: bool
    heads: int | None = None  # so many vectors a token are normed alike, inside attention; None: the residual stream is

    @property
    def parameters(self) -> int:
        return self.width * (2 if self.shift else 1)


@dataclass(frozen=True)
class Convolution:
    """A window of `size` x `size` pixels moved over a picture: each of `outputs` channels reads all `inputs` there."""

    inputs: int
    outputs: int
    size: int
    height: int  # of what it writes, in pixels
    width: int
    bias: bool = True

    @property
    def weights(self) -> int:
        """The entries of the kernel; each is used once for every pixel that is written."""
        return self.inputs * self.outputs * self.size**2

    @property
    def parameters(self) -> int:
        return self.weights + (self.outputs if self.bias else 0)


@dataclass(frozen=True)
class BatchNorm:
    """A scale and a shift for each channel; the mean and variance that it remembers are no parameters."""

    channels: int

    @property
    def parameters(self) -> int:
        return 2 * self.channels


@dataclass(frozen=True)
class Pool:
    """The mean or the largest of each window of a picture."""

    name: str  # "average" or "max"
    channels: int
    height: int  # of what it writes, in pixels
    width: int
    parameters: int = 0


@dataclass(frozen=True)
class Attention:
    """Causal attention: products of data with data. `heads` queries share `kv_heads` keys and values a token."""

    heads: int
    kv_heads: int
    head_dim: int
    window: int | None = None  # how many positions a query sees, itself included; None: all before it
    rotated: bool = False  # queries and keys are turned by their positions first
    normed: bool = False  # and have passed a norm of their own before that
    parameters: int = 0


@dataclass(frozen=True)
class Activation:
    """A nonlinearity on `width` entries; `gated`: it reads 2 x width and multiplies the halves, one activated."""

    name: str
    width: int
    gated: bool = False
    parameters: int = 0  # a perceptron's thresholds


@dataclass(frozen=True)
class Dropout:
    """Zeroes each of `width` entries with probability `p` while training."""

    width: int
    p: float
    parameters: int = 0


@dataclass(frozen=True)
class Repeat:
    """`n` children of the same shape, each with its own parameters."""

    n: int
    child: "Node"


class Part(NamedTuple):
    """A named child; `kind` holds for all below it that do not name their own."""

    name: str
    node: "Node"
    kind: str | None = None  # one of `counts.KINDS`


@dataclass(frozen=True)
class Sequence:
    parts: tuple[Part, ...]


Leaf = Embedding | Linear | Convolution | Norm | BatchNorm | Pool | Attention | Activation | Dropout
Node = Leaf | Repeat | Sequence


class Visit(NamedTuple):
    """A leaf as the walk meets it. `path` has `*` where a number stands for one of `times` equal children."""

    path: str
    kind: str
    leaf: Leaf
    times: int


def walk(node: Node, path: str = "", kind: str = "", times: int = 1) -> Iterator[Visit]:
    """Every leaf under `node`, in the order in which data flows."""
    if isinstance(node, Sequence):
        for part in node.parts:
            yield from walk(part.node, f"{path}.{part.name}".lstrip("."), part.kind or kind, times)
    elif isinstance(node, Repeat):
        yield from walk(node.child, f"{path}.*", kind, times * node.n)
    else:
        yield Visit(path, kind, node, times)
