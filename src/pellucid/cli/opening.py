"""How the commands that use a model open it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cyclopts import Parameter

from pellucid.errors import PellucidError
from pellucid.language import _

if TYPE_CHECKING:
    from pellucid.language_model import LanguageModel
    from pellucid.model import Model


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Opening:
    """How to open a model."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of weights and arithmetic."""
    int8: bool = False
    """Write with 8-bit weights: about twice as fast on a CPU; what it costs in accuracy is measured and said."""
    device: str = "cpu"
    """cpu, cuda or mps."""
    threads: int | None = None
    """CPU threads. All physical cores, when left out."""

    def open(self, folder: str) -> LanguageModel:
        """A model that writes.

        Raises:
            PellucidError: when it does not.
        """
        from pellucid.model import Model

        model = self.open_any(folder)
        if isinstance(model, Model):
            raise PellucidError(
                _("This network does not write text: it is for {task}.").format(task=model.task.name),
                folder,
                _("Ask it with: pellucid predict {folder} INPUT").format(folder=folder),
            )
        return model

    def open_any(self, folder: str) -> LanguageModel | Model:
        """Whatever was trained, or made by others."""
        if self.threads is not None and self.threads < 1:
            raise PellucidError(
                _("{option} {value} makes no sense.").format(option="--threads", value=self.threads),
                "--threads",
                _("It must be more than 0."),
            )
        from pellucid.model import open_model

        if self.threads:
            import torch

            torch.set_num_threads(self.threads)
        return open_model(folder, self.device, self.precision, self.int8)


OPENING = Opening()
