"""Checkpoints: weights, optimiser, random state, data position, journal offset: a folder that is whole or absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from pellucid.checkpoints.files import read_file, read_json, replace_folder, whole_folder, write_json, write_tensors
from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.tasks.task import Task
from pellucid.training.finite import finite
from pellucid.training.optimisers import Optimiser


def save(folder: Path, network: nn.Module, task: Task, optimiser: Optimiser, state: dict[str, Any]) -> None:
    """Write ``folder`` under a temporary name, sync it, and rename it whole.

    Raises:
        PellucidError: when a weight is not finite; the checkpoint that was there stays.
    """
    for name, parameter in network.named_parameters():
        if not finite(parameter):
            raise PellucidError(
                _("A weight is not a finite number; it was not saved."),
                name,
                _("The last checkpoint is whole: go on from it with --resume."),
            )
    new = folder.with_name(folder.name + ".new")
    new.mkdir(parents=True, exist_ok=True)
    task.save(new)
    task.save_network(network, new)
    tensors = optimiser.state()
    tensors["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    write_tensors(new / "optimiser.safetensors", tensors)
    write_json(new / "state.json", state)
    replace_folder(new, folder)


def load(folder: Path, network: nn.Module, task: Task, optimiser: Optimiser) -> dict[str, Any] | None:
    """Put back what `save` wrote and return its state; None when no checkpoint was ever finished."""
    found = whole_folder(folder)
    if found is None:
        return None
    copy_weights(task.open_network(found), network)
    tensors = read_file(found / "optimiser.safetensors", dtype=None)
    torch.set_rng_state(tensors.pop("random/cpu"))
    cuda = tensors.pop("random/cuda", None)
    if cuda is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(cuda)
    optimiser.load(tensors)
    return read_json(found / "state.json")


@torch.no_grad()
def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Give ``target`` the parameters and buffers of ``source``, in place."""
    for there, here in zip(
        (source.parameters(), source.buffers()), (target.parameters(), target.buffers()), strict=True
    ):
        for value, place in zip(there, here, strict=True):
            place.copy_(value)
