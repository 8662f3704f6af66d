"""Anything in: whatever names or describes a network becomes an `Anatomy`, which says what it was taken for."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.anatomy import catalogue, families
from pellucid.anatomy.families.toys import SHAPE
from pellucid.anatomy.reading.files import by_class, exists, of_config, of_path
from pellucid.anatomy.report import Anatomy
from pellucid.errors import PellucidError
from pellucid.language import _, translated

if TYPE_CHECKING:
    from collections.abc import Callable

    from pellucid.anatomy.tree import Node

ATTRIBUTE = re.compile(r"(?P<module>[^:]+):(?P<name>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*)")


def anatomy(what: Any, *example_inputs: Any, **kwargs: Any) -> Anatomy:
    """What a network is made of, counted without its weights.

    Args:
        what: A text or path, as `read` takes them; the fields of a `config.json`; what `open` and `train` return; or
            any `torch.nn.Module`.
        example_inputs: What the module is called with, for a module that is none of ours: a batch of one, as compute,
            activations and what a training takes are counted for all of it.
        kwargs: And by name.

    Raises:
        PellucidError: when it cannot be read, or the module does not take these inputs.
    """
    if isinstance(what, str | Path):
        return read(what)
    if isinstance(what, dict):
        return of_config(what, str(what.get("model_type", "")), "config", by_class(what))
    folder, network = getattr(what, "folder", None), getattr(what, "network", what)
    if network is not what and folder is not None:
        return read(folder)
    tree = _of_network(network) if not example_inputs and not kwargs else None
    notes: tuple[str, ...] = ()
    if tree is None:
        tree, notes = _of_module(network, example_inputs, kwargs), _example(*example_inputs, *kwargs.values())
    context = getattr(getattr(network, "config", None), "context", None)
    return Anatomy(type(network).__name__, tree, context=context, notes=notes)


def read(what: str | Path) -> Anatomy:
    """What a text means; in this order:

    - a folder (a run of ours, or of Hugging Face's files), a `config.json`, a `.safetensors` file or the index of
      several, a `.gguf`: of the weights only the header is read;
    - widths with hyphens between them, 784-128-10: a dense network;
    - `module:function` or `file.py:function`, which is imported and called, and gives a `torch.nn.Module`, or a tuple
      of it and its example inputs;
    - the name of a published model.

    Raises:
        PellucidError: when it is none of these, or damaged.
    """
    text, path = str(what), Path(what)
    if not text.strip():
        raise PellucidError(_("No network is named."), "", _("Name a file, or a folder."))
    if exists(path):
        return of_path(path)
    if SHAPE.fullmatch(text):
        return _of_shape(text)
    if match := ATTRIBUTE.fullmatch(text):
        return _of_attribute(match["module"], match["name"])
    if path.is_absolute() or path.suffix in (".json", ".safetensors", ".gguf") or text[:1] in (".", "~"):
        raise PellucidError(_("There is no such file or folder."), text, _("Look at its name."))
    try:
        entry = catalogue.find(text)
    except PellucidError as error:
        raise PellucidError(
            _("{name} is no file here and no published model.").format(name=text), text, error.fix
        ) from error
    return _of_entry(entry, text)


def read_family(
    family: str,
    *,
    layers: int | None = None,
    d_model: int | None = None,
    heads: int | None = None,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    d_ff: int | None = None,
    vocab: int | None = None,
    context: int | None = None,
) -> Anatomy:
    """A decoder of one of our families by its sizes; what is left out is derived as for our own, and said.

    Raises:
        PellucidError: when there is no such family, a size is missing, or they contradict each other.
    """
    from pellucid.anatomy.reading.by_hand import config_by_hand

    given = {
        "n_layers": layers,
        "d_model": d_model,
        "n_heads": heads,
        "n_kv_heads": kv_heads,
        "head_dim": head_dim,
        "d_ff": d_ff,
        "vocab_size": vocab,
        "context": context,
    }
    config, derived = config_by_hand(family, {name: size for name, size in given.items() if size is not None})
    return of_config(config, f"{family} {layers} × {d_model}", f"--family {family}", (derived,) if derived else ())


# What needs no file


def _of_entry(entry: catalogue.Entry, name: str) -> Anatomy:
    if entry.config is None:
        raise PellucidError(
            _("No configuration of {name} was published: there is nothing to count.").format(name=entry.title),
            translated(entry.source),
            _("Rumoured are {words}.").format(words=entry.published) if entry.published else "",
        )
    return replace(of_config(entry.config, name, entry.name), entry=entry)


def _of_shape(text: str) -> Anatomy:
    config = {"model_type": "dense", "layers": text}
    return of_config(config, text, text, (_("a dense network of these widths, with biases, ReLU between"),))


# Python


def _of_network(network: Any) -> Node | None:
    """The tree of a network of ours, by its settings; None for others, and for detectors, which take any picture."""
    config = getattr(getattr(network, "network", network), "config", None)
    readers: dict[str, Callable[[Any], Node]] = {
        "ConvNetConfig": families.convnet,
        "DecoderConfig": families.decoder,
        "DenseConfig": families.dense,
        "EncoderConfig": families.encoder,
        "TranslatorConfig": families.translator,
    }
    is_ours = type(config).__module__.startswith("pellucid.networks.")
    return readers[type(config).__name__](config) if is_ours and type(config).__name__ in readers else None


def _of_module(module: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Node:
    from torch import nn

    from pellucid.anatomy.reading import live

    if not isinstance(module, nn.Module):
        raise _no_network(module)
    return live.read(module, *inputs, **kwargs)


def _example(*inputs: Any) -> tuple[str, ...]:
    """What the reader should know of an example that is none, or is several."""
    if not inputs:
        line = _("known by its modules alone: an example input adds attention, and the places of convolutions")
        return (line,)
    shapes = [tuple(tensor.shape) for tensor in inputs if hasattr(tensor, "shape")]
    if not any(shape[:1] > (1,) for shape in shapes):
        return ()
    line = _("counted for all of the example, {shapes}: for a batch of one, give one")
    return (line.format(shapes=", ".join(map(str, shapes))),)


def _no_network(what: Any) -> PellucidError:
    return PellucidError(
        _("{name} is no network.").format(name=type(what).__name__),
        "",
        _("Give a torch.nn.Module with example inputs, a model, a configuration, a file or a name."),
    )


def _of_attribute(module: str, name: str) -> Anatomy:
    """A network that the user's own code makes."""
    from pellucid.anatomy.reading.imported import called

    made, *inputs = called(module, name)
    if isinstance(made, str | Path):
        raise _no_network(made)  # and no name to look up in turn
    network = anatomy(made, *inputs)
    note = _("what {name} of {module} gives").format(name=name, module=module)
    return replace(network, name=f"{module}:{name}", notes=(*network.notes, note))
