"""The shape of a dense network. No torch is needed here."""

from __future__ import annotations

from dataclasses import dataclass

from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.networks.names import check_activation, check_initialisation

NORMS = ("layer", "batch", "rms")


@dataclass(frozen=True)
class DenseConfig:
    """The shape of a dense network; lists, as JSON has them, become tuples.

    Raises:
        PellucidError: when a width is not positive, a name is unknown, or settings by layer are too few or too many.
    """

    inputs: int
    outputs: int
    hidden: tuple[int, ...] = ()  # the widths of the hidden layers
    activation: str | tuple[str, ...] = "relu"  # of all hidden layers, or of each
    output_activation: str = "linear"
    bias: bool | tuple[bool, ...] = True  # of all layers, or of each, the output layer's last
    dropout: float = 0.0  # after each hidden layer
    norm: str | None = None  # "layer", "batch" or "rms": in each hidden layer, before its activation
    initialisation: str = "default"

    def __post_init__(self) -> None:
        for name in ("hidden", "activation", "bias"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        _check(self)

    @property
    def widths(self) -> tuple[int, ...]:
        """Inputs, hidden layers, outputs."""
        return (self.inputs, *self.hidden, self.outputs)

    @property
    def activations(self) -> tuple[str, ...]:
        """Of each layer, the output layer's last."""
        hidden = (self.activation,) * len(self.hidden) if isinstance(self.activation, str) else self.activation
        return (*hidden, self.output_activation)

    @property
    def biases(self) -> tuple[bool, ...]:
        """Whether each layer has one, the output layer last."""
        return (self.bias,) * (len(self.hidden) + 1) if isinstance(self.bias, bool) else self.bias


def _check(config: DenseConfig) -> None:
    """Refuse a configuration that no network has."""
    for width in config.widths:
        if not isinstance(width, int) or isinstance(width, bool) or width < 1:
            raise PellucidError(
                _("A layer cannot have {width} neurons.").format(width=width),
                "layers",
                _("Give each layer a width of 1 or more, such as 16-8."),
            )
    if len(config.activations) != len(config.hidden) + 1:
        raise PellucidError(
            _("{n} activations do not fit {layers} hidden layers.").format(
                n=len(config.activations) - 1, layers=len(config.hidden)
            ),
            "activation",
            _("Name one for all, or one for each hidden layer."),
        )
    if len(config.biases) != len(config.hidden) + 1:
        raise PellucidError(
            _("{n} settings of the bias do not fit {layers} layers.").format(
                n=len(config.biases), layers=len(config.hidden) + 1
            ),
            "bias",
            _("Give one for all, or one for each layer with the output layer last."),
        )
    for name in (*config.activations, *([config.activation] if isinstance(config.activation, str) else [])):
        check_activation(name)
    if config.norm is not None and config.norm not in NORMS:
        raise PellucidError(
            _("There is no norm {name!r}.").format(name=config.norm),
            "norm",
            _("Use one of {names}.").format(names=", ".join(NORMS)),
        )
    if not 0 <= config.dropout < 1:
        raise PellucidError(
            _("A dropout of {p} is not in [0, 1).").format(p=config.dropout),
            "dropout",
            _("Use a probability such as 0.1."),
        )
    check_initialisation(config.initialisation)
