"""What all sizes of a ladder share, the text above all, and the training of one size."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.checkpoints.whole_file import write_text
from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.training.options import TrainOptions

if TYPE_CHECKING:
    from pellucid.tasks.task import Design
    from pellucid.tasks.text import TextTask
    from pellucid.training.plan import Plan
    from pellucid.training.progress import Progress

# widths and depths in step, 16 to 24 wide for each layer; from 48x2 on each has about 2.8 times the one before
SHAPES = ((32, 2), (48, 2), (64, 3), (96, 4), (128, 6), (192, 8), (256, 12), (384, 16), (512, 24), (768, 32))
SIZES = 5  # of them, when the user does not say
FEWEST_SIZES = 3  # a curve has three numbers
FEWEST_HELD_OUT = 2000  # bytes: fewer cannot tell losses apart that differ by a few percent
# options that would differ from size to size, or that the ladder decides
NOT_SHARED = ("size", "width", "depth", "heads", "kv_heads", "feed_forward", "start_from", "plan")


@dataclass(frozen=True)
class Size:
    """The shape of a network, and its parameters counted both ways."""

    width: int
    depth: int
    parameters: int  # all of them
    without_embeddings: int  # nor the head: the N of Kaplan et al. 2020

    @property
    def name(self) -> str:
        return f"{self.width}x{self.depth}"


@dataclass(frozen=True)
class Trained:
    """One training; the figures are of the state that was kept, on all held-out text."""

    seed: int
    folder: str  # below the ladder's
    loss: float  # nats a token
    bits_per_byte: float
    steps: int
    best_step: int
    tokens: int  # that it has seen
    seconds: float  # of training steps


@dataclass(frozen=True)
class Rung:
    """One size, over all seeds."""

    size: Size
    runs: tuple[Trained, ...]

    @property
    def name(self) -> str:
        return self.size.name

    @property
    def loss(self) -> float:
        """The mean over the seeds, in nats a token."""
        return statistics.fmean(run.loss for run in self.runs)

    @property
    def spread(self) -> float:
        """The standard deviation over the seeds; 0 of a single one."""
        return statistics.stdev(run.loss for run in self.runs) if len(self.runs) > 1 else 0.0

    @property
    def bits_per_byte(self) -> float:
        return statistics.fmean(run.bits_per_byte for run in self.runs)

    @property
    def tokens(self) -> int:
        """That each training has seen."""
        return self.runs[0].tokens

    @property
    def seconds(self) -> float:
        """Of the training steps of all seeds."""
        return sum(run.seconds for run in self.runs)


@dataclass(frozen=True)
class Course:
    """The text in tokens, and every decision that holds for all sizes.

    Attributes:
        folder: The ladder's; what was read is in its folder `text`.
        task: The text, held-out part and tokenizer.
        options: Of every training, but for shape, length and seed.
        items_per_step: Tokens of one step.
        tokens: How many each training sees; None: by its parameters.
        tokens_per_parameter: Then so many for each, embeddings included.
    """

    folder: Path
    task: TextTask
    options: TrainOptions
    items_per_step: int = 0
    tokens: int | None = None
    tokens_per_parameter: float | None = None

    @staticmethod
    def prepare(folder: Path, source: str | None, options: TrainOptions, wanted: Sequence[tuple[int, int]]) -> Course:
        """Read the text, hold a part of it out, train the tokenizer, and settle context, number format and batch.

        Raises:
            PellucidError: when the text cannot be used or is too short, or an option makes no sense.
        """
        from pellucid.data import text as texts
        from pellucid.tasks import recognise
        from pellucid.tasks.text import TextTask
        from pellucid.training.machine import machine_of

        options = replace(options, task="text", patience=0 if options.patience is None else options.patience)
        recognise(source, options)  # refuses what is no option of a text
        corpus = texts.read(source, options.text)
        given = texts.read(options.validation, options.text) if options.validation else None
        split = texts.split(corpus, seed=options.seed, validation=given)
        _refuse_short(split, source)
        place = folder / "text"
        place.mkdir()  # a copy: the user's file may change between two sizes
        for name, documents in (("train", split.train), ("held-out", split.validation)):
            lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents]
            write_text(place / f"{name}.jsonl", "".join(lines))
        task = TextTask.prepare(str(place / "train.jsonl"), replace(options, **_columns(place)), place)
        notes = dict.fromkeys([*corpus.notes, *split.notes, *task.facts()["notes"]])
        task.facts().update(notes=list(notes), held_out=split.how)
        options = TrainOptions.of(options.given() | {"precision": machine_of(options).precision})
        course = Course(folder, task, options)
        contexts = [course._design(*shape).items for shape in wanted]  # by itself it would grow with the size
        course = replace(course, options=replace(options, context=options.context or min(contexts)))
        return replace(course, items_per_step=course._plan(*wanted[0]).items_per_step)

    @staticmethod
    def open(folder: Path, saved: dict[str, Any]) -> Course:
        """From what `json` gave."""
        from pellucid.tasks.text import TextTask

        task = TextTask.restore(folder / "text", saved["facts"])
        told = {name: saved[name] for name in ("items_per_step", "tokens", "tokens_per_parameter")}
        return Course(folder, task, TrainOptions.of(saved["options"]), **told)

    def json(self) -> dict[str, Any]:
        told = ("items_per_step", "tokens", "tokens_per_parameter")
        return {"options": self.options.given(), "facts": self.task.facts()} | {n: getattr(self, n) for n in told}

    def tokens_in(self, minutes: float, wanted: Sequence[tuple[int, int]], seeds: int) -> int:
        """How many tokens every training can see, so that all of them together take so many minutes of steps."""
        from pellucid.training.run import seconds_per_step

        a_step = sum(seconds_per_step(self.task, self._plan(*shape)) for shape in wanted)
        return max(1, int(60 * minutes / (seeds * a_step))) * self.items_per_step

    def size(self, shape: tuple[int, int]) -> Size:
        """A shape's parameters.

        Raises:
            PellucidError: when there is no such network.
        """
        from pellucid.anatomy import counts, families
        from pellucid.networks.decoder import DecoderConfig

        found = counts.parameters(families.decoder(DecoderConfig(**self._design(*shape).network)))
        looked_up = found.by_kind["embedding"] + found.by_kind["head"]
        return Size(*shape, found.total, found.total - looked_up)

    def steps(self, size: Size) -> int:
        tokens = self.tokens or (self.tokens_per_parameter or 0.0) * size.parameters
        return max(1, round(tokens / self.items_per_step))

    def fit_memory(self, size: Size) -> None:
        """Refuse a size that this machine has no memory for."""
        from pellucid.training import machine

        machine.fit_memory(self.task, self._plan(size.width, size.depth, self.steps(size)))

    def train(self, size: Size, seed: int, progress: Progress | None) -> Trained:
        """Make a training, go on with it, or read what came of it."""
        from pellucid.training import run

        out = self.folder / _place(size, seed)
        if not (out / "plan.json").exists():
            options = self._options(size.width, size.depth, self.steps(size))
            run.start(str(self.folder / "text" / "train.jsonl"), str(out), replace(options, seed=seed), progress)
        elif not self.has(size, seed):
            run.resume(str(out), progress)
        return self._read(size, seed)

    def has(self, size: Size, seed: int) -> bool:
        """Whether a training is finished."""
        from pellucid.training import journal

        path = self.folder / _place(size, seed) / "journal.jsonl"
        return path.exists() and any(True for _event in journal.read(path, "finished"))

    def _read(self, size: Size, seed: int) -> Trained:
        from pellucid.training import journal
        from pellucid.training.plan import Plan

        out = self.folder / _place(size, seed)
        end = list(journal.read(out / "journal.jsonl", "finished"))[-1]
        return Trained(
            seed,
            _place(size, seed),
            loss=end["loss"],
            bits_per_byte=end["bits_per_byte"],
            steps=end["step"],
            best_step=end["best_step"],
            tokens=end["step"] * Plan.open(out / "plan.json").items_per_step,
            seconds=round(sum(event["seconds"] for event in journal.read(out / "journal.jsonl", "step")), 3),
        )

    def _options(self, width: int, depth: int, steps: int) -> TrainOptions:
        shared = _columns(self.folder / "text") | {"tokenizer": str(self.folder / "text"), "vocab": None}
        return replace(self.options, width=width, depth=depth, steps=steps, minutes=None, **shared)

    def _design(self, width: int, depth: int) -> Design:
        return self.task.designs(self._options(width, depth, 1))[0]

    def _plan(self, width: int, depth: int, steps: int = 1) -> Plan:
        """A plan of this size; what it foretells of time is not measured."""
        from pellucid.training.machine import machine_of
        from pellucid.training.plan import derive

        options = self._options(width, depth, steps)
        return derive(self.task, options, machine_of(options), lambda plan: 0.0)


def shapes_of(sizes: int | str | Sequence[str]) -> list[tuple[int, int]]:
    """Widths and depths, from "64x3,96x4,128x6", a list of such names, or how many of `SHAPES`.

    Raises:
        PellucidError: when they are not that, stand twice, or are fewer than three.
    """
    if isinstance(sizes, str):
        sizes = int(sizes) if sizes.strip().isdecimal() else [name for name in re.split("[,，]", sizes) if name]
    if isinstance(sizes, int) and sizes > len(SHAPES):
        raise PellucidError(
            _("There are {n} sizes to choose from by number.").format(n=len(SHAPES)),
            f"--sizes {sizes}",
            _("Name widths and depths: --sizes 64x3,96x4,128x6,192x8"),
        )
    found = list(SHAPES[: max(0, sizes)]) if isinstance(sizes, int) else [shape_of(name, "--sizes") for name in sizes]
    if len(found) < FEWEST_SIZES:
        raise PellucidError(
            _("Too few sizes for a curve: {n}.").format(n=len(found)),
            "--sizes",
            _("Use at least {fewest}; from {enough} on it can be said how sure the curve is.").format(
                fewest=FEWEST_SIZES, enough=FEWEST_SIZES + 1
            ),
        )
    return found


def shape_of(name: str, option: str) -> tuple[int, int]:
    """Width and depth from "64x3".

    Raises:
        PellucidError: when it is not that.
    """
    found = re.fullmatch(r"\s*([1-9]\d*)\s*[x×*]\s*([1-9]\d*)\s*", str(name))
    if not found:
        raise PellucidError(
            _("{name!r} is no size.").format(name=name),
            option,
            _("Name a width and a depth, such as 64x3: vectors of 64 numbers, 3 layers."),
        )
    return int(found[1]), int(found[2])


def _refuse_short(split: Any, source: str | None) -> None:
    held_out = sum(len(text.encode()) for text in split.validation)
    if held_out < FEWEST_HELD_OUT:
        raise PellucidError(
            _(
                "The text is too short: {n:,} bytes of it are held out, and no sizes can be told apart on so few."
            ).format(n=held_out),
            source or "",
            _("Use a longer text, or --validation with at least {n:,} bytes.").format(n=FEWEST_HELD_OUT),
        )


def _columns(place: Path) -> dict[str, Any]:
    """The options by which a training reads the text that was shared out."""
    return {"text": "text", "validation": str(place / "held-out.jsonl")}


def _place(size: Size, seed: int) -> str:
    """The folder of a training, below the ladder's."""
    return f"{size.name}/seed={seed}"
