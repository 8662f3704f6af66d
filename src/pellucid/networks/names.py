"""What activations and initialisations are called, and what happens to other names. No torch is needed here."""

from __future__ import annotations

from pellucid.errors import PellucidError
from pellucid.language import _

ACTIVATIONS = ("linear", "step", "sigmoid", "tanh", "relu", "leaky_relu", "gelu", "silu")
INITIALISATIONS = ("default", "he", "xavier", "normal", "uniform", "zero")


def check_activation(name: str) -> None:
    """Refuse a name that is not among `ACTIVATIONS`.

    Raises:
        PellucidError: when there is no such activation; it names those there are.
    """
    if name not in ACTIVATIONS:
        raise PellucidError(
            _("There is no activation {name!r}.").format(name=name),
            "activation",
            _("Use one of {names}.").format(names=", ".join(ACTIVATIONS)),
        )


def check_initialisation(name: str) -> None:
    """Refuse a name that is not among `INITIALISATIONS`.

    Raises:
        PellucidError: when there is no such recipe; it names those there are.
    """
    if name not in INITIALISATIONS:
        raise PellucidError(
            _("There is no initialisation {name!r}.").format(name=name),
            "init",
            _("Use one of {names}.").format(names=", ".join(INITIALISATIONS)),
        )
