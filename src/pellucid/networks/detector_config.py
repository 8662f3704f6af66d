"""The shape of a detector. No torch is needed here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DetectorConfig:
    """The shape of a detector; a list of channels, as JSON has it, becomes a tuple. Each stage halves the picture."""

    n_classes: int
    channels: tuple[int, ...] = (16, 32, 64, 96)  # of each stage
    grid: int = 2  # the stage whose cells answer: 0 has 2 pixels a cell, 1 has 4, 2 has 8
    d_head: int = 64  # channels of the top-down path and of the heads

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))

    @property
    def stride(self) -> int:
        """Pixels a cell, along each axis."""
        return 2 ** (self.grid + 1)

    @property
    def multiple(self) -> int:
        """Height and width of a picture must be multiples of this."""
        return 2 ** len(self.channels)
