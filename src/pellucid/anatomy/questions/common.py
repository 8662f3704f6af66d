"""What several questions share: the words that are asked with, the device, the length of texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pellucid.anatomy.arguments import whole
from pellucid.anatomy.cost import devices
from pellucid.anatomy.explain import QUANTITIES
from pellucid.anatomy.memory.serving import RUNTIME
from pellucid.anatomy.tree import walk
from pellucid.errors import PellucidError
from pellucid.language import _

if TYPE_CHECKING:
    from pellucid.anatomy.report import Anatomy


def asked(words: str) -> tuple[str, str]:
    """What `--explain` asks for: a quantity, parameters where none is named, and a part, all where none is."""
    quantity, _space, part = words.strip().partition(" ")
    if quantity not in QUANTITIES:
        quantity, part = "parameters", words.strip()
    return quantity, "" if part in ("all", "total") else part.strip()


def find_device(name: str | None) -> devices.Device:
    """The device of that name; "here" measures this machine.

    Raises:
        PellucidError: when there is none, or none was named.
    """
    if name is None:
        raise PellucidError(
            _("Which device?"), "--device", _("--device a100-80gb, say, or --device here; --hardware shows all.")
        )
    return devices.find(devices.HERE if name == "here" else name)


def runtime(device: devices.Device | None) -> int:
    """Bytes that CUDA takes of a device: none where there is no CUDA. Without a device, a GPU is meant."""
    return RUNTIME if device is None or device.has_cuda else 0


def text_length(network: Anatomy, length: int | None) -> int | None:
    """Tokens of a text: what was asked for, or the network's context; None where no text is read.

    Raises:
        PellucidError: when neither is known, or a network that reads no text is asked for some.
    """
    if not {visit.positions for visit in walk(network.tree)} & {"token", "source"}:
        if length is not None:
            raise PellucidError(_("This network reads no text."), network.name, _("Leave --length out."))
        return None
    if length is None and network.context is None:
        raise PellucidError(
            _("How long are the texts?"), network.name, _("Say --length 512, say: nothing in it limits the length.")
        )
    return whole(length if length is not None else network.context or 1, "length")


def without_device(**given: float | None) -> None:
    """Refuse what has a meaning for a device only."""
    for name, value in given.items():
        if value is not None:
            raise PellucidError(
                _("--{name} has no meaning without --device.").format(name=name),
                "--device",
                _("--device a100-80gb, say, or --device here; --hardware shows all."),
            )
