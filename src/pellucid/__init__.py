"""Pellucid: neural networks you can see through. The verbs are imported on first use, and torch only with them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pellucid.anatomy.reading import anatomy
    from pellucid.errors import PellucidError
    from pellucid.experiments.ladder import ladder
    from pellucid.experiments.playground import Playground
    from pellucid.experiments.probes import probe, sentence_by_layer
    from pellucid.experiments.sweep import sweep
    from pellucid.generation.decode import Token
    from pellucid.generation.options import Sampling
    from pellucid.language_model import Evaluation, LanguageModel
    from pellucid.model import Model
    from pellucid.tracing.edits import edit
    from pellucid.tracing.lenses import top_texts
    from pellucid.tracing.moments import compare
    from pellucid.tracing.saving import load_trace
    from pellucid.tracing.silent import silent_neurons
    from pellucid.tracing.trace import record, trace
    from pellucid.tracing.updates import step_memory
    from pellucid.training.options import TrainOptions
    from pellucid.training.stepping import step
    from pellucid.verbs import open, plan, resume, train

__version__ = "0.1.0"
_HOMES = {
    "Evaluation": "pellucid.language_model",
    "LanguageModel": "pellucid.language_model",
    "Model": "pellucid.model",
    "PellucidError": "pellucid.errors",
    "Playground": "pellucid.experiments.playground",
    "Sampling": "pellucid.generation.options",
    "Token": "pellucid.generation.decode",
    "TrainOptions": "pellucid.training.options",
    "anatomy": "pellucid.anatomy.reading",
    "compare": "pellucid.tracing.moments",
    "edit": "pellucid.tracing.edits",
    "ladder": "pellucid.experiments.ladder",
    "load_trace": "pellucid.tracing.saving",
    "open": "pellucid.verbs",
    "plan": "pellucid.verbs",
    "probe": "pellucid.experiments.probes",
    "record": "pellucid.tracing.trace",
    "resume": "pellucid.verbs",
    "silent_neurons": "pellucid.tracing.silent",
    "sentence_by_layer": "pellucid.experiments.probes",
    "sweep": "pellucid.experiments.sweep",
    "step": "pellucid.training.stepping",
    "step_memory": "pellucid.tracing.updates",
    "top_texts": "pellucid.tracing.lenses",
    "trace": "pellucid.tracing.trace",
    "train": "pellucid.verbs",
}
__all__ = [
    "Evaluation",
    "LanguageModel",
    "Model",
    "PellucidError",
    "Playground",
    "Sampling",
    "Token",
    "TrainOptions",
    "anatomy",
    "compare",
    "edit",
    "ladder",
    "load_trace",
    "open",
    "plan",
    "probe",
    "record",
    "resume",
    "sentence_by_layer",
    "silent_neurons",
    "step",
    "step_memory",
    "sweep",
    "top_texts",
    "trace",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pellucid' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
