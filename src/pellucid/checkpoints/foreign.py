"""What all families of Hugging Face's need: tensors cut and put together."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pellucid.errors import PellucidError
from pellucid.language import _


@dataclass(frozen=True)
class Sources:
    """Where one of our parameters is found in Hugging Face's files."""

    names: tuple[str, ...]  # stacked along the first dimension
    rows: tuple[int, ...] | None = None  # of each, when there are several
    transposed: bool = False  # GPT's Conv1D keeps (inputs, outputs)


def scatter(parameter: Tensor, sources: Sources) -> dict[str, Tensor]:
    """Our parameter as the tensors of their file."""
    parameter = parameter.t() if sources.transposed else parameter
    parts = parameter.split(sources.rows) if sources.rows else (parameter,)
    return dict(zip(sources.names, parts, strict=True))


def gather(folder: Path, tensors: dict[str, Tensor], sources: Sources, shape: torch.Size) -> Tensor:
    """Take our parameter out of `tensors`.

    Raises:
        PellucidError: when a tensor is missing or of another shape.
    """
    parts = []
    for n, name in enumerate(sources.names):
        if name not in tensors:
            raise PellucidError(_("The tensor {name} is missing.").format(name=name), str(folder))
        part = tensors.pop(name)
        expected = (sources.rows[n], *shape[1:]) if sources.rows else tuple(shape)
        expected = expected[::-1] if sources.transposed else expected
        if tuple(part.shape) != expected or not part.is_floating_point():
            raise PellucidError(
                _("The tensor {name} is {found}; config.json makes it {expected}.").format(
                    name=name, found=f"{str(part.dtype).removeprefix('torch.')} {tuple(part.shape)}", expected=expected
                ),
                str(folder),
                _("The two files belong to different models; copy or download both again."),
            )
        parts.append(part.t() if sources.transposed else part)
    # a transposed view stays one: turning it would cost time, and a single vector passes it faster as it is
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def fill(
    network: nn.Module,
    folder: Path,
    tensors: dict[str, Tensor],
    sources: Callable[[str], Sources],
    ignored: str,
    dtype: torch.dtype,
) -> None:
    """Put the tensors of a file into a network made without numbers.

    Args:
        network: Its parameters are on the meta device.
        folder: Where the tensors come from, for messages.
        tensors: All of the file's; those used are taken out.
        sources: Where the parameter of a name is found.
        ignored: A pattern of the names that may be left over.
        dtype: Of the parameters.

    Raises:
        PellucidError: when a tensor is missing, left over or of another shape.
    """
    found = {
        name: gather(folder, tensors, sources(name), parameter.shape).to(dtype)
        for name, parameter in network.named_parameters()
    }
    for name in tensors:
        if not re.fullmatch(ignored, name):
            raise PellucidError(
                _("The tensor {name} has no place in this model.").format(name=name),
                str(folder),
                _("config.json may belong to another model."),
            )
    network.load_state_dict(found, strict=False, assign=True)
    network.requires_grad_()
