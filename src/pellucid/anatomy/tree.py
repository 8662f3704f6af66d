"""A network as a tree of shapes, without torch: what counts, compute and memory walk over.

A leaf is one layer or one product of data. It knows its tensors and its widths, and nothing of batches. `Sequence`
names its parts and says where they run, `Repeat` stands for n equal children. Nothing is allocated, so GPT-3 costs as
little as a toy.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """What every leaf answers. What holds for most is said here: no numbers of its own, no neurons, no products."""

    fixed: bool = field(default=False, kw_only=True)  # training leaves its parameters as they are

    @property
    def tensors(self) -> dict[str, Shape]:
        """The parameters that it holds, by name."""
        return {}

    @property
    def parameters(self) -> int:
        return sum(prod(shape) for shape in self.tensors.values())

    @property
    def buffers(self) -> int:
        """Numbers that are saved with the network and are no parameters: a batch norm's mean and variance."""
        return 0

    @property
    def product(self) -> Shape:
        """The multiply-adds by weights at one position, as factors: () for none."""
        return ()

    @property
    def neurons(self) -> int:
        """The outputs of a layer with weights at one position: each a weighted sum, plus a bias where there is one."""
        return 0

    @property
    def maps(self) -> int:
        """Its neurons, those that share their weights counted once: a convolution's channels."""
        return self.neurons

    @property
    def output(self) -> Shape:
        """The dimensions of what it writes at one position; () for what it writes in another leaf's place."""
        return ()


@dataclass(frozen=True)
class Input(Layer):
    """What goes in: the dimensions of one example."""

    shape: Shape

    @property
    def output(self) -> Shape:
        return self.shape


@dataclass(frozen=True)
class Embedding(Layer):
    """A table of `rows` vectors of `width`; one row is looked up for each token."""

    rows: int
    width: int
    tied_to: str | None = None  # the path of the leaf whose table this one reads: counted there, not here

    @property
    def tensors(self) -> dict[str, Shape]:
        return {} if self.tied_to else {"weight": (self.rows, self.width)}

    @property
    def output(self) -> Shape:
        return (self.width,)


@dataclass(frozen=True)
class Lone(Layer):
    """Parameters that belong to no layer: a class token, the scale of a residual branch."""

    shape: Shape

    @property
    def tensors(self) -> dict[str, Shape]:
        return {"weight": self.shape}


@dataclass(frozen=True)
class Buffer(Layer):
    """Numbers that are saved but no parameters, such as the bias by which a router balances its experts."""

    shape: Shape

    @property
    def buffers(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Linear(Layer):
    """A dense layer: y = xW + b, `outputs` neurons that each read `inputs` numbers."""

    inputs: int
    outputs: int
    bias: bool = True
    tied_to: str | None = None  # the path of the leaf whose weight this layer reads: counted there, not here
    parts: tuple[tuple[str, int], ...] = ()  # where one matrix is several: ("query", 512), ("key", 64), ("value", 64)
    follows: int | None = None  # it reads unchanged what the linear layer so many before it wrote; None: not known

    @property
    def weights(self) -> int:
        """The entries of the matrix that multiplies, wherever they are counted."""
        return self.inputs * self.outputs

    @property
    def tensors(self) -> dict[str, Shape]:
        weight = {} if self.tied_to else {"weight": (self.inputs, self.outputs)}
        return weight | ({"bias": (self.outputs,)} if self.bias else {})

    @property
    def product(self) -> Shape:
        return (self.inputs, self.outputs)

    @property
    def neurons(self) -> int:
        return self.outputs

    @property
    def output(self) -> Shape:
        return (self.outputs,)


@dataclass(frozen=True)
class Convolution(Layer):
    """A window moved over a picture (or along a line: height 1): each output channel reads its group's inputs there."""

    inputs: int
    outputs: int
    size: int | tuple[int, ...]  # of the window, in pixels
    height: int  # of what it writes, in pixels; the slices of a body stand one below the other
    width: int
    bias: bool = True
    groups: int = 1  # each output reads inputs / groups channels
    connections: int | None = None  # pairs of channels that are connected, where it is not each with each of a group
    places: int | None = None  # where the window is put, if not once for each pixel that is written: transposed

    @property
    def window(self) -> tuple[int, ...]:
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def pairs(self) -> Shape:
        """Connected pairs of channels, as factors."""
        return (self.outputs, self.inputs // self.groups) if self.connections is None else (self.connections,)

    @property
    def weights(self) -> int:
        """The entries of the kernel; each is used once for every pixel that is written."""
        return prod(self.pairs) * prod(self.window)

    @property
    def tensors(self) -> dict[str, Shape]:
        return {"weight": (*self.pairs, *self.window)} | ({"bias": (self.outputs,)} if self.bias else {})

    @property
    def product(self) -> Shape:
        moves = (self.height, self.width) if self.places is None else (self.places,)
        return (*moves, *self.pairs, *self.window)

    @property
    def neurons(self) -> int:
        return prod(self.output)

    @property
    def maps(self) -> int:
        return self.outputs

    @property
    def output(self) -> Shape:
        return (self.outputs, self.height, self.width)


@dataclass(frozen=True)
class Norm(Layer):
    """Layer or RMS norm: a scale for each entry and, where `shift`, a shift; neither where it is `plain`."""

    width: int
    shift: bool
    heads: int | None = None  # so many vectors a token are normed alike, inside attention; None: the residual stream is
    plain: bool = False

    @property
    def tensors(self) -> dict[str, Shape]:
        names = [] if self.plain else ["weight", "bias"] if self.shift else ["weight"]
        return dict.fromkeys(names, (self.width,))

    @property
    def output(self) -> Shape:
        return (self.width * (self.heads or 1),)


@dataclass(frozen=True)
class BatchNorm(Layer):
    """A scale and a shift for each channel; the mean and variance that it remembers are no parameters."""

    channels: int

    @property
    def tensors(self) -> dict[str, Shape]:
        return {"weight": (self.channels,), "bias": (self.channels,)}

    @property
    def buffers(self) -> int:
        return 2 * self.channels + 1  # a mean and a variance each, and how many batches were seen


@dataclass(frozen=True)
class Pool(Layer):
    """The mean or the largest of each window of a picture; where `trained`, scaled and shifted by channel (LeNet-5)."""

    name: str  # "average" or "max"
    channels: int
    height: int  # of what it writes, in pixels
    width: int
    trained: bool = False

    @property
    def tensors(self) -> dict[str, Shape]:
        return {"weight": (self.channels,), "bias": (self.channels,)} if self.trained else {}

    @property
    def output(self) -> Shape:
        return (self.channels, self.height, self.width)


@dataclass(frozen=True)
class Attention(Layer):
    """Products of data with data: queries by keys, weights by values. Has no parameters.

    `heads` queries share `kv_heads` keys and values a token.
    """

    heads: int
    kv_heads: int
    head_dim: int
    window: int | None = None  # how many positions a query sees, itself included; None: all before it
    rotated: bool = False  # queries and keys are turned by their positions first
    normed: bool = False  # and have passed a norm of their own before that
    value_dim: int | None = None  # of a head's values, where it is not `head_dim`
    keys: str | int | None = None  # where the keys come from, if not from the queries' own positions: see `Part`
    causal: bool | None = True  # None: it has a mask whose numbers are not known; counted as if it hid nothing
    latent: int | None = None  # numbers kept of a token in place of its keys and values (DeepSeek's MLA)

    @property
    def reach(self) -> int:
        """Multiply-adds for one query and one key that it sees: their product, and the weighted value."""
        return self.heads * (self.head_dim + (self.value_dim or self.head_dim))

    @property
    def kept(self) -> int:
        """Numbers that the key-value cache keeps of a token."""
        return self.latent or self.kv_heads * (self.head_dim + (self.value_dim or self.head_dim))

    @property
    def output(self) -> Shape:
        return (self.heads * (self.value_dim or self.head_dim),)


@dataclass(frozen=True)
class Scan(Layer):
    """A state space: each of `width` channels carries `states` numbers along the text (Gu and Dao 2023)."""

    width: int
    states: int
    heads: int | None = None  # one decay, skip and step bias for each, not each channel (Dao and Gu 2024)
    delta: bool = False  # what enters is what the state has yet to learn, nothing skips (Yang et al. 2024)

    @property
    def tensors(self) -> dict[str, Shape]:
        if self.heads is None:
            return {"decay": (self.width, self.states), "skip": (self.width,)}
        names = ("decay", "step_bias") if self.delta else ("decay", "skip", "step_bias")
        return dict.fromkeys(names, (self.heads,))

    @property
    def product(self) -> Shape:
        # the old state decays, the input enters, the output is read; and what the state knows of the input
        return (3 + self.delta, self.width, self.states)

    @property
    def output(self) -> Shape:
        return (self.width,)


@dataclass(frozen=True)
class Recurrence(Layer):
    """A recurrent layer: `gates` x `width` neurons that read the input and the layer's last output (LSTM: 4 gates)."""

    inputs: int
    width: int
    gates: int  # 1: a plain recurrent layer, 3: GRU, 4: LSTM
    bias: bool = True

    @property
    def tensors(self) -> dict[str, Shape]:
        rows = self.gates * self.width
        weights = {"weight_ih": (self.inputs, rows), "weight_hh": (self.width, rows)}
        return weights | ({"bias_ih": (rows,), "bias_hh": (rows,)} if self.bias else {})

    @property
    def product(self) -> Shape:
        return (self.inputs + self.width, self.gates * self.width)

    @property
    def neurons(self) -> int:
        return self.gates * self.width

    @property
    def output(self) -> Shape:
        return (self.width,)


@dataclass(frozen=True)
class Product(Layer):
    """A product of data with data outside attention: the factors of its multiply-adds."""

    factors: Shape

    @property
    def product(self) -> Shape:
        return self.factors


@dataclass(frozen=True)
class Activation(Layer):
    """A nonlinearity on `width` entries; `gated`: it reads 2 x width and multiplies the halves, one activated."""

    name: str
    width: int
    gated: bool = False
    thresholds: bool = False  # a perceptron's, one an entry

    @property
    def tensors(self) -> dict[str, Shape]:
        return {"threshold": (self.width,)} if self.thresholds else {}

    @property
    def output(self) -> Shape:
        return (self.width,)


@dataclass(frozen=True)
class Reshape(Layer):
    """The same numbers in another order, which some books count as a layer."""

    shape: Shape

    @property
    def output(self) -> Shape:
        return self.shape


@dataclass(frozen=True)
class Dropout(Layer):
    """Zeroes each of `width` entries with probability `p` while training."""

    width: int
    p: float


@dataclass(frozen=True)
class Repeat:
    """`n` children of the same shape.

    Each has its own parameters, unless they are `shared` (ALBERT's layers). All run one after another, unless a router
    chooses: then `active` of them run for each token (a mixture's experts).
    """

    n: int
    child: "Node"
    shared: bool = False
    active: int | None = None


class Part(NamedTuple):
    """A named child. `kind` and `positions` hold for all below it that do not name their own."""

    name: str
    node: "Node"
    kind: str | None = None  # one of `counts.KINDS`
    positions: str | int | None = None  # it runs once for each of so many, or for each "token" or "source" token


@dataclass(frozen=True)
class Sequence:
    parts: tuple[Part, ...]


Node = Layer | Repeat | Sequence


class Visit(NamedTuple):
    """A leaf as the walk meets it. `path` has `*` where a number stands for one of several equal children."""

    path: str
    kind: str
    leaf: Layer
    copies: int = 1  # so many have parameters of their own
    times: int = 1  # so many run at each position
    positions: str | int = 1

    @property
    def parameters(self) -> int:
        """Of all copies."""
        return self.copies * self.leaf.parameters

    @property
    def active(self) -> int:
        """How many copies' parameters a token meets: fewer than `copies` where a router chooses."""
        return min(self.copies, self.times)


def walk(node: Node) -> Iterator[Visit]:
    """Every leaf under `node`, in the order in which data flows."""
    yield from _walk(node, Visit("", "", Layer()))


def _walk(node: Node, at: Visit) -> Iterator[Visit]:
    if isinstance(node, Sequence):
        for part in node.parts:
            path = f"{at.path}.{part.name}".strip(".")
            kind, positions = part.kind or at.kind, part.positions or at.positions
            yield from _walk(part.node, at._replace(path=path, kind=kind, positions=positions))
    elif isinstance(node, Repeat):
        copies = at.copies * (1 if node.shared else node.n)
        times = at.times * (node.n if node.active is None else node.active)
        yield from _walk(node.child, at._replace(path=f"{at.path}.*".strip("."), copies=copies, times=times))
    else:
        yield at._replace(leaf=node)
