"""Networks of our own kinds in two files: `config.json` with the settings, `model.safetensors` with every number."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.checkpoints.files import TENSORS, read_json, read_tensors, write_json, write_tensors
from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.networks.scaling import Scaled, Scaling

# model_type in config.json: "file:configuration:network" in pellucid.networks. The configuration is called with the
# settings by name, the network with the configuration and seed=None.
KINDS = {
    "pellucid-dense": "dense:DenseConfig:Dense",
    "pellucid-convnet": "convnet:ConvNetConfig:ConvNet",
    "pellucid-detector": "detector:DetectorConfig:Detector",
}


def save_plain(network: nn.Module, folder: str | Path, config: dict[str, Any], own: dict[str, Any]) -> None:
    """Write `config.json` and `model.safetensors` into `folder`, each whole or not at all.

    Args:
        network: What to save: parameters and buffers. Where it is `Scaled`, `config` is that of the network within.
        folder: Made when there is none.
        config: "model_type", one of `KINDS`, and the network's settings.
        own: Goes under the key "pellucid": the task and what it needs to predict.

    Raises:
        PellucidError: when the disk refuses.
    """
    folder = Path(folder)
    if isinstance(network, Scaled):
        scalings = {"inputs": network.inputs, "outputs": network.outputs}
        config = config | {"scaling": {name: list(s.shift.shape) for name, s in scalings.items() if s is not None}}
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / TENSORS, dict(network.state_dict()))
    write_json(folder / "config.json", config | {"pellucid": own})


def open_plain(folder: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network saved in `folder`, and all of `config.json`.

    Raises:
        PellucidError: when a file is missing or damaged, the kind of network or a setting is unknown, or tensors are
            missing, left over or of the wrong shape.
    """
    folder = Path(folder)
    content = read_json(folder / "config.json")
    network = _build(content, folder)
    tensors = read_tensors(folder)
    _compare(network.state_dict(), tensors, folder)
    network.load_state_dict(tensors, assign=True)
    return network.requires_grad_(), content


def is_plain(content: dict[str, Any]) -> bool:
    """Whether a `config.json` is of a kind that `open_plain` opens."""
    return str(content.get("model_type")) in KINDS


def _build(content: dict[str, Any], folder: Path) -> nn.Module:
    """The network that a configuration describes, its parameters on the meta device."""
    settings = dict(content)
    kind = settings.pop("model_type", None)
    scaling = settings.pop("scaling", {})
    settings.pop("pellucid", None)
    if not is_plain(content):
        raise PellucidError(
            _("There is no kind of network {name!r}.").format(name=kind),
            str(folder / "config.json"),
            _("There are {names}.").format(names=", ".join(KINDS)),
        )
    file, config, network = KINDS[kind].split(":")
    module = import_module(f"pellucid.networks.{file}")
    try:
        made = getattr(module, network)(getattr(module, config)(**settings), seed=None)
        with torch.device("meta"):
            scalings = {name: Scaling(torch.zeros(n), torch.ones(n)) for name, n in scaling.items()}
        return Scaled(made, **scalings) if scalings else made
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:  # a setting is unknown, or no number
        raise PellucidError(
            _("{name} is damaged: {why}.").format(name="config.json", why=error),
            str(folder / "config.json"),
            _("Copy or download it again."),
        ) from error
    except PellucidError as error:  # which names an option: here it is the file that is wrong
        raise PellucidError(error.what, str(folder / "config.json"), error.fix) from error


def _compare(wanted: dict[str, Tensor], found: dict[str, Tensor], folder: Path) -> None:
    """Refuse tensors that are not exactly those of the network."""
    for name, tensor in wanted.items():
        if name not in found:
            raise PellucidError(
                _("The tensor {name} is missing.").format(name=name),
                str(folder / TENSORS),
                _("Copy or download it again."),
            )
        if found[name].shape != tensor.shape:
            raise PellucidError(
                _("The tensor {name} is {found}; config.json makes it {expected}.").format(
                    name=name, found=tuple(found[name].shape), expected=tuple(tensor.shape)
                ),
                str(folder / TENSORS),
                _("The two files belong to different models; copy or download both again."),
            )
    left = sorted(found.keys() - wanted.keys())
    if left:
        raise PellucidError(
            _("The tensor {name} has no place in this model.").format(name=left[0]),
            str(folder / TENSORS),
            _("config.json may belong to another model."),
        )
