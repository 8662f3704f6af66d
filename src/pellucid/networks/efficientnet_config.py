"""The settings of an EfficientNet-lite. No torch is needed here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One row of the paper's Table 1: `repeat` blocks, of which the first has the stride and changes the width."""

    repeat: int
    kernel: int
    stride: int
    expand: int  # the width within a block, as a multiple of the width that it is given
    channels: int  # the width that it gives


LITE0 = (
    Stage(repeat=1, kernel=3, stride=1, expand=1, channels=16),
    Stage(repeat=2, kernel=3, stride=2, expand=6, channels=24),
    Stage(repeat=2, kernel=5, stride=2, expand=6, channels=40),
    Stage(repeat=3, kernel=3, stride=2, expand=6, channels=80),
    Stage(repeat=3, kernel=5, stride=1, expand=6, channels=112),
    Stage(repeat=4, kernel=5, stride=2, expand=6, channels=192),
    Stage(repeat=1, kernel=3, stride=1, expand=6, channels=320),
)


@dataclass(frozen=True)
class EfficientNetConfig:
    """The settings of an EfficientNet-lite."""

    classes: int = 1000
    stages: tuple[Stage, ...] = LITE0
    stem: int = 32  # channels
    head: int = 1280  # channels
    dropout: float = 0.2
    norm_eps: float = 1e-3
    norm_momentum: float = 0.01
    image_size: int = 224  # that it was trained on; any other will do
