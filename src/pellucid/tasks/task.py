"""The interface between a kind of learning and everything that trains, judges and runs it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from torch import Tensor, nn

if TYPE_CHECKING:
    from pellucid.training.options import TrainOptions
    from pellucid.training.plan import Plan


@dataclass(frozen=True)
class Design:
    """A network that a task could train, and what the plan must know to choose among several."""

    network: dict[str, Any]  # the settings, as they go into the plan
    parameters: int
    flops: float  # of a training step, for each item (a token, a row, a picture)
    items: int  # in one example: tokens in a sequence; 1 for a row or a picture


class Batches(Protocol):
    """Endless batches of training data, from a position that can be saved and resumed exactly."""

    position: dict[str, Any]

    def __iter__(self) -> Iterator[Any]: ...
    def __next__(self) -> Any: ...


class Task(Protocol):
    """One kind of learning. No base class: whatever has these methods is a task."""

    name: ClassVar[str]  # stands in config.json; looked up in `TASKS`
    items: int  # how many items (tokens, rows, pictures) the training part holds

    def save(self, folder: Path) -> None:
        """Write what `open` needs beside the network's files: tokenizer, scaling, labels."""

    def facts(self) -> dict[str, Any]:
        """What was found out about the data, for the plan; "held_out_items" is always among it."""

    def designs(self, options: TrainOptions) -> list[Design]:
        """The networks that could be trained, small to large; one, where the options fix it."""

    def why(self, design: Design, options: TrainOptions) -> dict[str, str]:
        """A reason for each setting of the design that the options left open."""

    def regularised(self, network: dict[str, Any], dropout: float) -> dict[str, Any]:
        """The network's settings with this dropout."""

    def memory(self, plan: Plan) -> int:
        """Forecast of the peak resident size of the training, in bytes."""

    def network(self, plan: Plan) -> nn.Module:
        """A freshly initialised network for the plan's settings and seed."""

    def save_network(self, network: nn.Module, folder: Path) -> None:
        """Write config.json and model.safetensors."""

    def open_network(self, folder: Path) -> nn.Module:
        """Read what `save_network` wrote."""

    def batches(self, split: str, plan: Plan) -> Batches:
        """Training data, seeded by the plan."""

    def loss(self, network: nn.Module, batch: Any) -> tuple[Tensor, int]:
        """The SUM of the loss over the targets, and how many targets there are."""

    def metrics(self, network: nn.Module, plan: Plan, whole: bool = False) -> dict[str, float]:
        """Figures on held-out data, lower is better; the first decides which model is best. ``whole``: on all of it."""

    def baselines(self, thorough: bool = False) -> dict[str, Any]:
        """What the verdict compares with: the fields of its `Reference`. ``thorough`` may take seconds."""
