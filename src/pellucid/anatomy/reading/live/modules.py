"""The layers that a module is by its type alone: where no example runs, and for parameters that the example leaves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn

from pellucid.anatomy import tree


class ByType(NamedTuple):
    """A layer of a module: its name there, "" for the module itself, and the names of its parameters."""

    name: str
    leaf: tree.Layer
    parameters: tuple[str, ...]


def layers(module: nn.Module) -> list[ByType]:
    """The layers that a module's own parameters are; those of no known layer stand alone."""
    own = {name: p for name, p in module._parameters.items() if p is not None}
    known = [*_known(module, own)] if own else []
    known = [layer for layer in known if layer.leaf.parameters == sum(own[name].numel() for name in layer.parameters)]
    met = {name for layer in known for name in layer.parameters}
    return [*known, *(layer for layer in alone(module) if layer.parameters[0] not in met)]


def alone(module: nn.Module) -> list[ByType]:
    """Each of a module's own parameters by itself."""
    return [ByType(name, tree.Lone(tuple(p.shape)), (name,)) for name, p in module._parameters.items() if p is not None]


def _known(module: Any, own: dict[str, nn.Parameter]) -> Iterator[ByType]:
    names = tuple(name for name in ("weight", "bias") if name in own)
    bias, kind = "bias" in own, type(module).__name__
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        yield from _recurrent(module, own)
    elif isinstance(module, nn.MultiheadAttention) and "in_proj_weight" in own:
        together = tuple(name for name in ("in_proj_weight", "in_proj_bias") if name in own)
        yield ByType("in_proj", tree.Linear(module.embed_dim, 3 * module.embed_dim, len(together) == 2), together)
    elif "weight" not in own:
        return
    elif isinstance(module, nn.Linear):
        yield ByType("", tree.Linear(module.in_features, module.out_features, bias), names)
    elif kind == "Conv1D" and own["weight"].ndim == 2:  # GPT-2's in transformers: a dense layer, its weight transposed
        yield ByType("", tree.Linear(own["weight"].shape[0], own["weight"].shape[1], bias), names)
    elif isinstance(module, nn.modules.conv._ConvNd):
        size = (1, *module.kernel_size)[-max(2, len(module.kernel_size)) :]
        leaf = tree.Convolution(module.in_channels, module.out_channels, size, 0, 0, bias, module.groups)
        yield ByType("", leaf, names)
    elif isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        yield ByType("", tree.Embedding(module.num_embeddings, module.embedding_dim), names)
    elif remembers(module):
        yield ByType("", tree.BatchNorm(module.num_features), names)
    elif "norm" in kind.lower():
        yield ByType("", tree.Norm(own["weight"].numel(), shift=bias), names)


def remembers(module: nn.Module) -> bool:
    """Whether it is a batch norm with everything that `tree.BatchNorm` has."""
    return isinstance(module, nn.modules.batchnorm._NormBase) and module.affine and module.track_running_stats


def _recurrent(module: Any, own: dict[str, nn.Parameter]) -> Iterator[ByType]:
    """A recurrence for each layer and direction."""
    for suffix in [name.removeprefix("weight_ih") for name in own if name.startswith("weight_ih")]:
        names = tuple(f"{name}{suffix}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        names = tuple(name for name in names if name in own)
        (rows, inputs), (_rows, width), name = own[names[0]].shape, own[names[1]].shape, suffix.strip("_")
        bias = len(names) == 4
        if width == module.hidden_size:
            yield ByType(name, tree.Recurrence(inputs, width, rows // width, bias), names)
        else:  # LSTMP: what the layer reads of itself is made narrower first
            yield ByType(f"{name}.input", tree.Linear(inputs, rows, bias), names[::2])
            yield ByType(f"{name}.hidden", tree.Linear(width, rows, bias), names[1::2])
            yield ByType(f"{name}.output", tree.Linear(module.hidden_size, width, bias=False), (f"weight_hr{suffix}",))
