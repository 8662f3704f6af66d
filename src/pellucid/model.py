"""A model that answers about one input at a time: a network, its task, and the folder that holds both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pellucid.anatomy.weights import Weights
from pellucid.checkpoints.files import read_json
from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.networks.device import device as find_device
from pellucid.tasks import restored, task_of
from pellucid.tasks.task import Prediction, Predictor

if TYPE_CHECKING:
    from pellucid.language_model import LanguageModel
    from pellucid.tasks.explanation import Explanation
    from pellucid.tracing.trace import Trace


def open_model(
    folder: str | Path, device: str = "cpu", precision: str = "fp32", quantise: bool = False
) -> LanguageModel | Model:
    """Open a run, a folder of a network that `transformers` wrote, or a .gguf file.

    What writes text is a `LanguageModel`, everything else a `Model`; ``precision`` and ``quantise`` are for the former.

    Raises:
        PellucidError: when a file is missing, damaged, or asks for what is not supported.
    """
    if (Path(folder) / "config.json").is_file() and task_of(read_json(Path(folder) / "config.json")) != "text":
        return Model.open(folder, device)
    from pellucid.language_model import LanguageModel

    return LanguageModel.open(folder, device, precision, quantise)


@dataclass
class Model:
    """Tables, pictures, texts with labels, translations, boxes: whatever answers instead of writing on.

    `pl.open` and `pl.train` return one of these, or a `LanguageModel`.
    """

    network: nn.Module
    task: Predictor
    folder: Path | None = None

    @classmethod
    def open(cls, folder: str | Path, device: str = "cpu") -> Model:
        """Open a run, or a folder of a network of others that a task knows (BERT, Marian, EfficientNet-lite0).

        Raises:
            PellucidError: when a file is missing, damaged, or asks for what is not supported.
        """
        folder = Path(folder)
        task: Any = restored(task_of(read_json(folder / "config.json")), folder)
        network = task.open_network(folder).to(find_device(device)).eval().requires_grad_(False)
        return cls(network, task, folder)

    def predict(self, inputs: Any) -> list[Prediction]:
        """What the network says.

        Args:
            inputs: One input, a file or a folder, as `pellucid predict` takes them; or a list of inputs.

        Raises:
            PellucidError: when an input cannot be read.
        """
        with torch.inference_mode():
            return self.task.predict(self.network, self._read(inputs))

    def evaluate(self, source: str | Path | None = None) -> Any:
        """How well it does: figures by class with the confusion matrix, or errors of numbers (`tasks.scores`).

        Args:
            source: Data of the kind it was trained on; None: the run's own test part, which decided nothing.

        Raises:
            PellucidError: when the data cannot be used, or this is no run and has no test part.
        """
        task = self.task
        if source is None:
            if self.folder is None or not (self.folder / "plan.json").exists():
                raise PellucidError(
                    _("This model has no test data of its own."),
                    str(self.folder or ""),
                    _("Name data to evaluate it on: pellucid evaluate RUN SOURCE"),
                )
            facts = read_json(self.folder / "plan.json").get("facts") or {}
            task = restored(task.name, self.folder, facts)  # type: ignore[assignment]
        with torch.inference_mode():
            return task.evaluate(self.network, None if source is None else str(source))

    def trace(self, input: Any) -> Trace:
        """Run one input and record every operation: any number can then be asked why. See `tracing`."""
        return self.task.trace(self.network, self._read(input))

    def why(self, input: Any, *, value: str | None = None, rather_than: str | None = None) -> Explanation:
        """What the network's answer to one input comes from: the parts of the input that add up to it.

        Args:
            input: One input, as `predict` takes it.
            value: The class (or token, or box) to ask about; None: the answer.
            rather_than: What to compare it with; None: the runner-up, where there are classes.

        Raises:
            PellucidError: when the input cannot be read, or there is no such class.
        """
        return self.task.explain(self.network, self._read(input), value, rather_than)

    def similarity(self, text: str, other: str) -> float:
        """How alike two texts are to an encoder: the cosine between the means of their tokens' vectors, -1 to 1.

        It means something for an encoder that was trained for it, such as MiniLM.

        Raises:
            PellucidError: when the model reads no texts into vectors.
        """
        embed = getattr(self.task, "embed", None)
        if embed is None:
            raise PellucidError(
                _("This model makes no vectors of texts."),
                str(self.folder or ""),
                _("Open an encoder, such as MiniLM: pellucid sets get minilm."),
            )
        a_D, b_D = embed(self.network, [text, other])
        return (a_D @ b_D).item()

    def weights(self) -> Weights:
        """Every parameter by its name; of a table's network in the user's units: y = ax + b with the real a."""
        in_units = getattr(self.task, "in_units", None)
        if in_units is None:
            return Weights.of(self.network)
        network, inputs, outputs = in_units(self.network)
        return Weights.of(network, inputs, outputs)

    def _read(self, inputs: Any) -> Any:
        return self.task.read(str(inputs)) if isinstance(inputs, str | Path) else inputs
