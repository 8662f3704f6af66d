"""What is known of a network without running it: the object that `pl.anatomy` returns."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pellucid.anatomy import compute, counts, explain, families
from pellucid.anatomy.compare import Comparison
from pellucid.anatomy.what_if import changed, context
from pellucid.errors import PellucidError
from pellucid.language import _

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console, ConsoleOptions, RenderResult

    from pellucid.anatomy import questions
    from pellucid.anatomy.catalogue import Entry
    from pellucid.anatomy.tree import Node
    from pellucid.checkpoints.headers import Held

T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class Anatomy:
    """A network as shapes, and all that follows from them."""

    name: str  # as it was asked for
    tree: Node
    config: dict[str, Any] = field(default_factory=dict)  # of its `config.json`; empty where only a module is known
    where: str = ""  # the file that describes it
    entry: Entry | None = None  # what was published of it
    context: int | None = None  # its longest text, in tokens
    stored: str | None = None  # the number format of its weights, where a file says so
    notes: tuple[str, ...] = ()  # what the reader of the description should be told
    file: dict[str, Held] = field(default_factory=dict)  # what a file of weights holds in each number format, exactly

    @property
    def title(self) -> str:
        """What it is called where it was published."""
        return self.entry.title if self.entry else self.name

    @cached_property
    def parameters(self) -> counts.Parameters:
        return counts.parameters(self.tree)

    @cached_property
    def neurons(self) -> counts.Neurons:
        return counts.neurons(self.tree)

    @cached_property
    def dimensions(self) -> list[counts.Point]:
        return counts.dimensions(self.tree)

    def activations(self, **lengths: int) -> int:
        """Every number that is written for one input; see `counts.activations`."""
        return counts.activations(self.tree, **lengths)

    def forward(self, **lengths: int) -> compute.Work:
        """The multiply-adds of one example's forward pass; a text has `lengths`, token=... and source=..."""
        return compute.forward(self.tree, **lengths)

    def training_step(self, fused: bool = True, recompute: bool = False, **lengths: int) -> compute.TrainingWork:
        """The multiply-adds of a training step on one example; see `compute.training_step`."""
        return compute.training_step(self.tree, fused, recompute, **lengths)

    def generated_token(self, past: int, source: int = 0) -> compute.Work:
        """The multiply-adds of one more token after `past` others."""
        return compute.generated_token(self.tree, past, source)

    def explain(self, part: str = "", quantity: str = "parameters", **lengths: int) -> explain.Formula:
        """The formula of a count, with this network's numbers in it; see `explain.explain`."""
        return explain.explain(self.tree, part, quantity, **lengths)

    def what_if(self, **changes: Any) -> Anatomy:
        """The same network with other settings.

        Args:
            changes: Fields of its configuration, or the words of this house: d_model, n_layers, n_heads, ...

        Raises:
            PellucidError: when there is no configuration to change, no such field, or it cannot have this value.
        """
        if not self.config:
            raise PellucidError(
                _("{name} has no configuration that could be changed.").format(name=self.name),
                self.where,
                _("Choose a published model, a config.json, or a shape such as 784-128-10."),
            )
        config = changed(self.config, changes, self.where)
        tree = families.describe(config, self.where)
        said = ", ".join(f"{name}={value}" for name, value in changes.items())
        name = f"{self.name}, {said}"
        return Anatomy(name, tree, config, self.where, context=context(config), stored=self.stored)

    def training(self, tokens: float | None = None, device: str | None = None, **options: Any) -> questions.Training:
        """FLOPs, memory, time, money and energy of a training; see `questions.train`."""
        from pellucid.anatomy import questions  # what counting does without

        return questions.train(self, tokens, device, **options)

    def serving(self, format: str = "bf16", device: str | None = None, **options: Any) -> questions.Serving:
        """Memory, speed and price of running it; see `questions.serve`."""
        from pellucid.anatomy import questions

        return questions.serve(self, format, device=device, **options)

    def compare(self, other: Anatomy) -> Comparison:
        """Both side by side, and where the difference lies."""
        return Comparison.of(self, other)

    def json(self) -> dict[str, Any]:
        """Plain data: the counts, by kind and by layer; null for what the tensors of a file do not tell."""
        return {
            "name": self.name,
            "config": self.config,
            "parameters": asdict(self.parameters) | {"trainable": self.parameters.trainable},
            "neurons": _known(lambda: asdict(self.neurons)),
            "dimensions": _known(lambda: [point._asdict() for point in self.dimensions]),
            "published": asdict(self.entry) if self.entry else None,
            "notes": list(self.notes),
            "file": {name: held._asdict() for name, held in self.file.items()},
        }

    def save(self, path: str | Path) -> None:
        """A picture of where the parameters are: a treemap, as a page (.html) or a drawing (.svg)."""
        from pellucid.anatomy.shown.picture import save

        save(self, Path(path))

    def __str__(self) -> str:
        """What `pellucid anatomy` prints of it."""
        from io import StringIO

        from rich.console import Console

        page = StringIO()
        Console(file=page, width=80, color_system=None).print(self)
        return "\n".join(line.rstrip() for line in page.getvalue().splitlines())

    def __repr__(self) -> str:
        counted = f"{self.parameters.total:,} parameters, {self.neurons.total:,} neurons"
        return f"<Anatomy of {self.name}: {counted}; print() shows all>"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from pellucid.anatomy.shown.display import lines

        yield from lines(self)


def _known(ask: Callable[[], T]) -> T | None:
    try:
        return ask()
    except PellucidError:
        return None
