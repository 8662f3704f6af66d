"""Which devices torch finds here."""

import torch

from pellucid.errors import PellucidError
from pellucid.language import _


def device(name: str | None = None) -> str:
    """The device of that name, or without one the fastest that there is: cuda, mps or cpu.

    Raises:
        PellucidError: when torch finds no such device here.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    found = name or next(known for known in present if present[known])
    if not present.get(found):
        raise PellucidError(
            _("There is no device {device!r} here.").format(device=found),
            "--device",
            _("Devices: cpu, and cuda or mps where torch finds one."),
        )
    return found
