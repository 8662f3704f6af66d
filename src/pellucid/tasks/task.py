"""The interface between a kind of learning and everything that trains, judges and runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pellucid.tasks.explanation import Explanation
    from pellucid.tracing.trace import Trace
    from pellucid.training.options import TrainOptions
    from pellucid.training.plan import Plan


@dataclass(frozen=True)
class Design:
    """A network that a task could train, and what the plan must know to choose among several."""

    network: dict[str, Any]  # the settings, as they go into the plan
    parameters: int
    flops: float  # of a training step, for each item (a token, a row, a picture)
    items: int  # in one example: tokens in a sequence; 1 for a row or a picture


@dataclass(frozen=True)
class Recipe:
    """How a kind of learning is best trained, where the user says nothing. `why` has a reason for each choice."""

    optimiser: str
    learning_rate: float  # the peak
    embedding_rate: float = 0.0  # of embedding, head, norms and biases, with muon
    schedule: str = "stable"
    warmup: float = 0.02
    decay: float = 0.6
    clip: float | None = 1.0  # None: gradients are used as they are
    batch: int | None = None  # examples in a step; None: it grows with the time there is
    passes: int = 40  # over the training data, at most
    precision: str | None = None  # None: whichever is faster here
    threads: int | None = None  # None: all physical cores
    weight_decay: float | None = None  # None: as the task's `regularisation` says
    judge_all: bool = False  # whether each evaluation looks at everything held out: it takes next to no time
    why: dict[str, str] = field(default_factory=dict)


class Rival(NamedTuple):
    """Something that can predict without the network, and how well it does in the task's first figure."""

    key: str  # in the verdict's evidence
    name: str  # as it is said
    value: float


@dataclass(frozen=True)
class Reference:
    """What a loss is compared with; all of it can be computed before the first step."""

    unit: str  # of the loss: "nats a token"
    simple: float  # the loss of the simplest guess that looks at no input: token or class frequencies, the mean
    simple_said: str  # what that guess knows: "how often each token occurs"
    figure: str  # the key of the task's first figure in the evidence; lower is better
    show: Callable[[float], str]  # that figure in words: "1.84 bits per byte"
    rivals: tuple[Rival, ...] = ()
    even: float | None = None  # the loss of guessing evenly, where that can be said
    even_said: str = ""  # "ln(4,096)"
    even_among: str = ""  # "4,096 tokens"
    figure_per_loss: float | None = None  # how much a loss of 1 is in the first figure, where they are proportional
    notes: tuple[str, ...] = ()  # said after the comparison
    data: str = ""  # what the held-out losses are of; "": unseen data
    decisive: bool = False  # whether nothing more can be learned once the loss is next to nothing (of rows, not text)


@dataclass(frozen=True)
class Prediction:
    """What a network says about one input."""

    input: Any  # as the user gave it
    value: Any  # a class, a number in the user's units, a text, a list of boxes
    probabilities: dict[str, float] | None = None  # softmax of the raw logits, by class
    notes: tuple[str, ...] = ()  # what the network could make nothing of


class Batches(Protocol):
    """Endless batches of training data, from a position that can be saved and resumed exactly."""

    position: dict[str, Any]

    def __iter__(self) -> Iterator[Any]: ...
    def __next__(self) -> Any: ...


class Task(Protocol):
    """One kind of learning. No base class: whatever has these methods is a task."""

    name: ClassVar[str]  # stands in config.json; looked up in `TASKS`
    options: ClassVar[frozenset[str]]  # the fields of `TrainOptions` that only some tasks understand, and this one does
    items: int  # how many items (tokens, rows, pictures) the training part holds
    judged_on: str  # what the last figures of a training are measured on: "all held-out text", "the test rows"
    unit: str  # what an item is called, in the plural and the user's language: "tokens", "rows"

    @staticmethod
    def recognise(source: str | None, options: TrainOptions) -> str | None:
        """Why this source is for this task, in the user's language; None where it is not."""

    @staticmethod
    def prepare(source: str | None, options: TrainOptions, folder: Path) -> Task:
        """Read and split the source, fit whatever is fitted on the training part only, write what was made of it into
        ``folder``.

        Raises:
            PellucidError: when the source cannot be used.
        """

    @staticmethod
    def restore(folder: Path, facts: dict[str, Any] | None = None) -> Task:
        """From saved files alone. With ``facts`` it can train: the data of `prepare` are there as well."""

    def save(self, folder: Path) -> None:
        """Write what `restore` needs beside the network's files: tokenizer, scaling, classes."""

    # what the plan asks

    def facts(self) -> dict[str, Any]:
        """What was found out about the data, for the plan; "held_out_items" is always among it, and "notes"."""

    def summary(self) -> list[str]:
        """What is said of the data before the plan."""

    def designs(self, options: TrainOptions) -> list[Design]:
        """The networks that could be trained, small to large; one, where the options fix it."""

    def why(self, design: Design, options: TrainOptions) -> dict[str, str]:
        """A reason for each setting of the design that the options left open."""

    def recipe(self, design: Design) -> Recipe:
        """How to train this design, where the user says nothing."""

    def regularisation(self, passes: float) -> tuple[float, float, str]:
        """Dropout and weight decay that suit so many passes over the data, and why."""

    def regularised(self, network: dict[str, Any], dropout: float) -> dict[str, Any]:
        """The network's settings with this dropout."""

    def memory(self, plan: Plan) -> int:
        """Forecast of the peak resident size of the training, in bytes."""

    def rows(self, plan: Plan) -> list[tuple[str, str, str]]:
        """The plan's lines about the network: name, value, reason."""

    # what the loop asks

    def network(self, plan: Plan) -> nn.Module:
        """A freshly initialised network for the plan's settings and seed."""

    def save_network(self, network: nn.Module, folder: Path) -> None:
        """Write config.json and model.safetensors."""

    def open_network(self, folder: Path) -> nn.Module:
        """Read what `save_network` wrote."""

    def batches(self, split: str, plan: Plan) -> Batches:
        """Training data, seeded by the plan."""

    def loss(self, network: nn.Module, batch: Any) -> tuple[Tensor, float]:
        """The SUM of the loss over the targets, and how many targets there are (by weight, where they have weights)."""

    def metrics(self, network: nn.Module, plan: Plan, whole: bool = False) -> dict[str, float]:
        """Figures on held-out data, lower is better: first the one to compare, and "loss", by which a model is best.

        ``whole``: on all of it, or on the part that took no part in any decision, where there is one.
        """

    def say(self, metrics: dict[str, float]) -> str:
        """These figures in words."""

    def baselines(self, thorough: bool = False) -> Reference:
        """What the verdict compares with. ``thorough`` may take seconds."""

    def next_command(self, folder: str) -> str:
        """What a user would try with the trained model."""


class Predictor(Task, Protocol):
    """A task whose network answers about one input at a time. (A language model writes instead.)"""

    def read(self, source: str) -> Sequence[Any]:
        """The inputs in a file or folder, or the one input that the source is."""

    def predict(self, network: nn.Module, inputs: Sequence[Any]) -> list[Prediction]:
        """What the network says about each input."""

    def evaluate(self, network: nn.Module, source: str | None = None) -> Any:
        """How well it does on a source of data, or on the run's own test part; what it returns has `json()`."""

    def trace(self, network: nn.Module, inputs: Sequence[Any]) -> Trace:
        """The first input, run and recorded: every number on the way can be asked why."""

    def explain(
        self, network: nn.Module, inputs: Sequence[Any], value: str | None, rather_than: str | None
    ) -> Explanation:
        """Why the network says this of the first input: in the user's columns, words, pixels and units."""
