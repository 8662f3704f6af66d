"""The verbs that make a model. A command of the command line is a thin face of one of them or of a model's method."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.model import Model, open_model
from pellucid.training import run
from pellucid.training.options import TrainOptions
from pellucid.training.plan import Plan

if TYPE_CHECKING:
    from pellucid.language_model import LanguageModel
    from pellucid.training.progress import Progress


def train(
    source: str | Path | None = None, out: str | Path = "", *, progress: Progress | None = None, **options: Any
) -> LanguageModel | Model:
    """Train a network on ``source`` and return it; everything about the training is in the folder ``out``.

    Args:
        source: A text, a table, a folder of pictures, a Hugging Face data set on disk; None: the demo text.
        out: The run's folder; it must not exist.
        progress: What listens: `pellucid.training.progress.Terminal()` shows what the command line shows.
        options: The fields of `TrainOptions`.

    Raises:
        PellucidError: when the source, the folder or an option cannot be used.
    """
    run.start(None if source is None else str(source), str(out), TrainOptions.of(options), progress)
    return open(out)


def plan(source: str | Path | None = None, *, progress: Progress | None = None, **options: Any) -> Plan:
    """What `train` would do with the same arguments: every decision, its reason, the forecast. Nothing is kept."""
    return run.start(None if source is None else str(source), "plan", TrainOptions.of(options), progress, dry_run=True)


def open(
    folder: str | Path, device: str = "cpu", precision: str = "fp32", quantise: bool = False
) -> LanguageModel | Model:
    """Open a run, a folder of a network that `transformers` wrote, or a .gguf file: see `model.open_model`."""
    return open_model(folder, device, precision, quantise)


def resume(out: str | Path, *, progress: Progress | None = None) -> LanguageModel | Model:
    """Go on with the run in ``out``, bit for bit as if it had never stopped, and return the trained model."""
    run.resume(str(out), progress)
    return open(out)
