"""Networks that see, written down layer by layer: `Flow` keeps the dimensions of the picture that flows through."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from math import ceil, floor, prod
from typing import TypeVar

from pellucid.anatomy.families.fields import Fields
from pellucid.anatomy.tree import (
    Activation,
    BatchNorm,
    Convolution,
    Dropout,
    Input,
    Linear,
    Node,
    Norm,
    Part,
    Pool,
    Repeat,
    Reshape,
    Sequence,
)
from pellucid.errors import PellucidError
from pellucid.language import _

T = TypeVar("T")
Size = int | tuple[int, int]  # of a window: its side, or height and width


class Flow:
    """A picture on its way through a network: its channels, height and width now, and the layers passed so far.

    Each method adds one layer, or one part of several. Windows are padded by half their size unless `padding` says
    otherwise, so that with a stride of 1 they leave height and width as they are.
    """

    def __init__(self, channels: int, height: int, width: int, where: str = "") -> None:
        self.channels, self.height, self.width = channels, height, width
        self.where = where  # the configuration that errors name
        self.kind = "convolution"  # of the last layer with weights: activations and the like count with it
        self.parts: list[Part] = []

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    @property
    def tree(self) -> Sequence:
        return Sequence(tuple(self.parts))

    def add(self, name: str, node: Node, kind: str | None = None, positions: int | None = None) -> None:
        """A layer that leaves the dimensions as they are."""
        self.parts.append(Part(name, node, kind, positions))

    def input(self) -> None:
        self.add("input", Input(self.shape))

    def convolution(
        self,
        name: str,
        outputs: int,
        size: Size,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        bias: bool = True,
        connections: int | None = None,
        kind: str = "convolution",
    ) -> None:
        inputs = self.channels
        if inputs % groups or outputs % groups:
            raise PellucidError(
                _("{inputs} and {outputs} channels cannot be split into {groups} groups.").format(
                    inputs=inputs, outputs=outputs, groups=groups
                ),
                self.where,
                _("Give a number of groups that divides both."),
            )
        self._move(size, stride, padding)
        self.channels = outputs
        layer = Convolution(inputs, outputs, size, self.height, self.width, bias, groups, connections)
        self.add(name, layer, kind)
        self.kind = kind

    def conv_norm(
        self,
        name: str,
        outputs: int,
        size: Size,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        activation: str | None = "relu",
    ) -> None:
        """A convolution without bias, a batch norm, and an activation where there is one."""

        def write(inner: Flow) -> None:
            inner.convolution("conv", outputs, size, stride, padding, groups, bias=False)
            inner.batch_norm("norm")
            if activation is not None:
                inner.activation("activation", activation)

        self.group(name, write)

    def batch_norm(self, name: str) -> None:
        self.add(name, BatchNorm(self.channels), "norm")

    def layer_norm(self, name: str) -> None:
        """Over the channels, at each place."""
        self.add(name, Norm(self.channels, shift=True), "norm", self.height * self.width)

    def activation(self, name: str, function: str) -> None:
        self.add(name, Activation(function, prod(self.shape)), self.kind)

    def pool(
        self,
        name: str,
        kind: str,
        size: int,
        stride: int | None = None,
        padding: int = 0,
        round_up: bool = False,
        trained: bool = False,
    ) -> None:
        self._move(size, stride or size, padding, round_up)
        self.add(name, Pool(kind, *self.shape, trained), "convolution")

    def pool_to(self, name: str, side: int) -> None:
        """Means that leave a picture of this height and width, where it has not got them yet."""
        if (self.height, self.width) != (side, side):
            self.height = self.width = side
            self.add(name, Pool("average", *self.shape), "convolution")

    def flatten(self, name: str = "flatten") -> None:
        self.channels, self.height, self.width = prod(self.shape), 1, 1
        self.add(name, Reshape((self.channels,)), self.kind)

    def dense(self, name: str, outputs: int, kind: str = "dense") -> None:
        self.add(name, Linear(self.channels, outputs), kind)
        self.channels, self.kind = outputs, kind

    def dense_at_each_place(self, name: str, outputs: int) -> None:
        """The same dense layer at each place, over the channels: what a convolution of 1 x 1 computes."""
        self.add(name, Linear(self.channels, outputs), "dense", self.height * self.width)
        self.channels, self.kind = outputs, "dense"

    def dropout(self, name: str, p: float) -> None:
        self.add(name, Dropout(prod(self.shape), p), self.kind)

    def squeeze_excite(self, name: str, width: int, activation: str = "relu", gate: str = "sigmoid") -> None:
        """Each channel is scaled by what its mean and those of the others say (Hu et al. 2017, figure 3)."""
        side = Flow(self.channels, 1, 1, self.where)
        side.add("pool", Pool("average", *side.shape), "convolution")
        side.convolution("squeeze", width, 1)
        side.activation("activation", activation)
        side.convolution("excite", self.channels, 1)
        side.activation("gate", gate)
        self.add(name, side.tree)

    def group(self, name: str, write: Callable[[Flow], None]) -> None:
        """Several layers under one name."""
        inner = self.fork()
        write(inner)
        self.channels, self.height, self.width = inner.shape
        self.add(name, inner.tree)

    def blocks(self, name: str, settings: Iterable[T], write: Callable[[Flow, T], None]) -> None:
        """One block for each setting; equal ones that follow each other become one `Repeat`."""
        nodes = []
        for setting in settings:
            inner = self.fork()
            write(inner, setting)
            self.channels, self.height, self.width = inner.shape
            nodes.append(inner.tree)
        start = 0
        for node, run in groupby(nodes):
            n = len(list(run))
            index = f"{start}:{start + n}" if n > 1 else str(start)
            self.add(f"{name}[{index}]", Repeat(n, node) if n > 1 else node)
            start += n

    def branches(self, name: str, **branches: Callable[[Flow], object]) -> None:
        """What is done to the same picture side by side; the channels that come of it are put on one stack."""
        ends = {}
        for branch, write in branches.items():
            ends[branch] = self.fork()
            write(ends[branch])
        self.add(name, Sequence(tuple(Part(branch, end.tree) for branch, end in ends.items())))
        *_, last = ends.values()
        self.channels, self.height, self.width = sum(end.channels for end in ends.values()), last.height, last.width

    def training_only(self, name: str, write: Callable[[Flow], None]) -> None:
        """Layers on the side that no answer needs: they have parameters and do not run."""
        side = self.fork()
        write(side)
        self.add(name, Repeat(1, side.tree, active=0))

    def fork(self) -> Flow:
        """The same picture, for layers of its own."""
        return Flow(*self.shape, self.where)

    def _move(self, size: Size, stride: int, padding: int | None, round_up: bool = False) -> None:
        """Move a window over the picture: as many places as it has are left."""
        sides = (size, size) if isinstance(size, int) else size
        paddings = [side // 2 if padding is None else padding for side in sides]
        steps = [
            (length + 2 * padded - side) / stride
            for length, padded, side in zip((self.height, self.width), paddings, sides, strict=True)
        ]
        self.height, self.width = ((ceil if round_up else floor)(step) + 1 for step in steps)
        if min(self.height, self.width) < 1:
            raise PellucidError(
                _("The pictures are too small for this network: nothing is left of them."),
                self.where,
                _("Give a larger image_size."),
            )


def picture(fields: Fields) -> Flow:
    """The picture that a network was made for: `image_size` is its side, or height and width."""
    is_pair = isinstance(fields.content.get("image_size"), list)
    height, width = fields.sizes("image_size", 2) if is_pair else (fields.size("image_size"),) * 2
    flow = Flow(fields.size("num_channels"), height, width, fields.where)
    flow.input()
    return flow


def labels(fields: Fields) -> int | None:
    """How many classes Hugging Face's model knows: two where its `config.json` does not say; None: it has no head."""
    return fields.classes() if "ForImageClassification" in fields.architecture("ForImageClassification") else None


def classify(flow: Flow, classes: int | None, dropout: float = 0.0) -> Sequence:
    """The end of most networks: the mean over all places, and a dense layer to the classes."""
    flow.pool_to("pool", 1)
    flow.flatten()
    if dropout:
        flow.dropout("dropout", dropout)
    if classes is not None:
        flow.dense("head", classes, "head")
    return flow.tree
