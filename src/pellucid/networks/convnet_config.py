"""The shape of a convolutional network, written as one reads it: a text for each layer. No torch is needed here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from pellucid.errors import PellucidError
from pellucid.language import _

ACTIVATIONS = ("sigmoid", "tanh", "relu", "leaky_relu", "gelu", "silu")
# What each piece is called in its layer's module; a second one of a layer is called conv_2 and so on.
ROLES = {
    "conv": "conv", "residual": "block", "batch": "norm", "max": "pool", "average": "pool", "flatten": "flatten",
    "dense": "linear", "dropout": "dropout", **dict.fromkeys(ACTIVATIONS, "activation"),
}  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """One step of a layer, with the shapes that it reads and writes: (channels, height, width), or (width,)."""

    kind: str  # a key of `ROLES`
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    size: int = 0  # of the window, in pixels; 0: all of the map
    stride: int = 1
    padding: int = 0
    p: float = 0.0  # of dropout
    bias: bool = True
    followed_by: str = "linear"  # the activation that it leads to


@dataclass(frozen=True)
class ConvNetConfig:
    """The shape of a convolutional network; lists, as JSON has them, become tuples.

    A layer is a text of pieces, each reading what the one before it writes:

    - ``conv 16 5 stride=1 padding=2``: 16 channels by a window of 5 x 5 pixels; without bias where ``batch`` follows
    - ``batch``: batch norm (Ioffe & Szegedy 2015)
    - ``relu``, ``leaky_relu``, ``tanh``, ``sigmoid``, ``gelu``, ``silu``
    - ``max 2``, ``average 2``: pooling, with a stride of its size, or ``max 3 stride=2 padding=1``; ``average all``
      leaves one number a channel
    - ``residual 32 stride=2``: two convolutions of 3 x 3 with a shortcut (He et al. 2015, figure 2)
    - ``flatten``, ``dense 84``, ``dropout 0.5``

    Raises:
        PellucidError: when a piece cannot be read or does not fit what comes before it.
    """

    channels: int  # 1 for grey pictures, 3 for coloured ones
    height: int  # in pixels
    width: int
    layers: tuple[str, ...]
    initialisation: str = "default"

    def __post_init__(self) -> None:
        if isinstance(self.layers, list):
            object.__setattr__(self, "layers", tuple(self.layers))
        for name in ("channels", "height", "width"):
            size = getattr(self, name)
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise PellucidError(
                    _("A picture cannot have {name} = {size}.").format(name=name, size=size),
                    name,
                    _("Give channels, height and width as whole numbers of 1 or more."),
                )
        if not self.pieces or len(self._last.outputs) != 1:
            raise PellucidError(
                _("The network does not end in one number for each class."),
                self.layers[-1] if self.layers else "",
                _('End it with a layer such as "flatten, dense 10".'),
            )

    @property
    def classes(self) -> int:
        """How many logits there are for each picture."""
        return self._last.outputs[0]

    @cached_property
    def pieces(self) -> tuple[dict[str, Piece], ...]:
        """Each layer's pieces, by the names that its modules have."""
        shape: tuple[int, ...] = (self.channels, self.height, self.width)
        layers = []
        for text in self.layers:
            pieces = _read_layer(text, shape)
            shape = pieces[-1].outputs
            seen: Counter[str] = Counter()
            named = {}
            for piece in pieces:
                role = ROLES[piece.kind]
                seen[role] += 1
                named[f"{role}_{seen[role]}" if seen[role] > 1 else role] = piece
            layers.append(named)
        return tuple(layers)

    @property
    def _last(self) -> Piece:
        return list(self.pieces[-1].values())[-1]


def convnet_config(
    name: str, channels: int, height: int, width: int, classes: int, initialisation: str = "default"
) -> ConvNetConfig:
    """The network of that name, of `PRESETS`, for pictures of a size.

    - "lenet5": LeCun et al. 1998, figure 2, as it is built today: plain averages, tanh, and a third layer in which
      every channel reads all sixteen maps. On 1 x 28 x 28 or 1 x 32 x 32 pixels with ten classes 61,706 parameters.
    - "residual": He et al. 2015, section 4.2 with n = 1, and for pictures above 40 pixels a first layer as in their
      ResNets for ImageNet, at half the width.

    Raises:
        PellucidError: when there is no such network, or the pictures are too small for it.
    """
    if name not in PRESETS:
        raise PellucidError(
            _("There is no convolutional network {name!r}.").format(name=name),
            "network",
            _("Use one of {names}.").format(names=", ".join(PRESETS)),
        )
    layers = PRESETS[name](min(height, width), classes)
    return ConvNetConfig(channels, height, width, layers, initialisation)


def _lenet5(side: int, classes: int) -> tuple[str, ...]:
    padding = 0 if side >= 32 else 2  # the paper puts digits of 28 pixels into pictures of 32
    return (
        f"conv 6 5 padding={padding}, tanh, average 2",
        "conv 16 5, tanh, average 2",
        "conv 120 5, tanh",
        "flatten, dense 84, tanh",
        f"dense {classes}",
    )


def _residual(side: int, classes: int) -> tuple[str, ...]:
    if side <= 40:
        width, first = 16, "conv 16 3 padding=1, batch, relu"
    else:
        width, first = 32, "conv 32 7 stride=2 padding=3, batch, relu, max 3 stride=2 padding=1"
    return (
        first,
        f"residual {width}",
        f"residual {2 * width} stride=2",
        f"residual {4 * width} stride=2",
        f"average all, dense {classes}",
    )


PRESETS = {"lenet5": _lenet5, "residual": _residual}


def _read_layer(text: str, shape: tuple[int, ...]) -> list[Piece]:
    words = [piece.split() for piece in text.split(",")]
    pieces: list[Piece] = []
    for i, (kind, *settings) in enumerate(word or [""] for word in words):
        later = [word[0] for word in words[i + 1 :] if word]
        followed_by = next((name for name in later if name in ACTIVATIONS), "linear")
        try:
            piece = _piece(kind, settings, shape, followed_by, bias=later[:1] != ["batch"])
        except ValueError:
            raise PellucidError(
                _("The layer {text!r} cannot be read or does not fit here.").format(text=text),
                " ".join([kind, *settings]),
                _('Write it as in "conv 16 5 padding=2, relu, max 2" and "flatten, dense 10".'),
            ) from None
        if min(piece.outputs) < 1:
            raise PellucidError(
                _("The pictures are too small for this network: nothing is left after {text!r}.").format(text=text),
                f"{shape[-1]} × {shape[-2]}",
                _("Use larger pictures, or fewer layers that shrink them."),
            )
        shape = piece.outputs
        pieces.append(piece)
    return pieces


def _piece(kind: str, settings: list[str], shape: tuple[int, ...], followed_by: str, bias: bool) -> Piece:
    """One piece.

    Raises:
        ValueError: when it cannot be read, or its input has the wrong number of dimensions.
    """
    given = [word for word in settings if "=" not in word]
    named = dict(word.split("=", 1) for word in settings if "=" in word)
    if kind in ACTIVATIONS or kind == "batch":
        _expect(not settings and (kind != "batch" or len(shape) == 3))
        return Piece(kind, shape, shape)
    if kind == "flatten":
        _expect(not settings and len(shape) == 3)
        return Piece(kind, shape, (shape[0] * shape[1] * shape[2],))
    if kind == "dropout":
        _expect(len(given) == 1 and not named)
        p = float(given[0])
        _expect(0 <= p < 1)
        return Piece(kind, shape, shape, p=p)
    if kind == "dense":
        _expect(len(given) == 1 and not named and len(shape) == 1)
        _expect(int(given[0]) > 0)
        return Piece(kind, shape, (int(given[0]),), bias=bias, followed_by=followed_by)
    _expect(len(shape) == 3)
    if kind == "average" and given == ["all"]:
        _expect(not named)
        return Piece(kind, shape, shape[:1])
    known = {"conv": ("stride", "padding"), "residual": ("stride",)}
    _expect(kind in ("conv", "residual", "max", "average"))
    _expect(named.keys() <= set(known.get(kind, ("stride", "padding"))))
    *channels, size = map(int, given if kind != "residual" else [*given, "3"])
    _expect(len(channels) == (kind in ("conv", "residual")) and min([*channels, size]) > 0)
    stride = int(named.get("stride", size if kind in ("max", "average") else 1))
    padding = int(named.get("padding", kind == "residual"))
    _expect(stride > 0 and padding >= 0 and (kind == "conv" or padding <= size // 2))
    left = [(side + 2 * padding - size) // stride + 1 for side in shape[1:]]
    outputs = (channels[0] if channels else shape[0], *left)
    if kind == "residual":
        bias, followed_by = False, "relu"
    return Piece(kind, shape, outputs, size, stride, padding, bias=bias, followed_by=followed_by)


def _expect(true: bool) -> None:
    if not true:
        raise ValueError
