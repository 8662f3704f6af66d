"""Files of tensors and JSON, read with care and written so that no moment leaves a half-written one behind."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pellucid.checkpoints.headers import INDEX, TENSORS
from pellucid.checkpoints.json_file import read_json
from pellucid.checkpoints.whole_file import sync, write_text, write_whole
from pellucid.errors import PellucidError
from pellucid.language import _

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def read_tensors(folder: str | Path, dtype: torch.dtype | None = torch.float32) -> dict[str, Tensor]:
    """Every tensor of `folder`, from `model.safetensors` or the shards that `model.safetensors.index.json` lists.

    Args:
        folder: A model's folder.
        dtype: What floating-point tensors become; None leaves them as they are in the file.

    Raises:
        PellucidError: when there is no such file, only a pickle, or a file is cut short or damaged.
    """
    folder = Path(folder)
    if (folder / TENSORS).is_file():
        return read_file(folder / TENSORS, dtype)
    if (folder / INDEX).is_file():
        return _read_shards(folder, dtype)
    for pattern in PICKLES:
        for pickle in sorted(folder.glob(pattern)):
            raise PellucidError(
                _("{name} is a pickle: opening it could run any program that its author put in.").format(
                    name=pickle.name
                ),
                str(pickle),
                _("If you trust it, open it with transformers and save_pretrained(folder): that writes safetensors."),
            )
    raise PellucidError(
        _("There is no {name} here.").format(name=TENSORS), str(folder), _("Name the folder of a trained model.")
    )


def read_file(path: str | Path, dtype: torch.dtype | None = torch.float32) -> dict[str, Tensor]:
    """Every tensor of one safetensors file, as `read_tensors` gives them.

    Raises:
        PellucidError: when the file is missing, cut short or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise PellucidError(
            _("There is no {name} here.").format(name=path.name), str(path.parent), _("Copy or download it again.")
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise PellucidError(
            _("{name} is damaged: {why}.").format(name=path.name, why=error), str(path), _("Copy or download it again.")
        ) from error
    if dtype is None:
        return tensors
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def write_tensors(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file whole or not at all; the same tensors give the same bytes.

    Raises:
        PellucidError: when the disk is full or may not be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def write(temporary: Path) -> None:
        temporary.touch()
        mode = temporary.stat().st_mode  # by the user's umask; the library makes files that only their owner may read
        try:
            save_file(tensors, temporary, metadata or {"format": "pt"})
        except SafetensorError as error:  # a full disk is among them
            raise OSError(str(error)) from error
        temporary.chmod(mode)
        _order_metadata(temporary)

    write_whole(Path(path), write)


def write_json(path: str | Path, content: dict[str, Any]) -> None:
    """Write a JSON object whole or not at all.

    Raises:
        PellucidError: when the disk is full or may not be written.
    """
    write_text(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def replace_folder(temporary: str | Path, final: str | Path) -> None:
    """Put the finished folder `temporary` in the place of `final`, such that a whole one exists at every moment.

    A folder cannot be renamed over another that is not empty, so there are two renames: `final` becomes
    `final.previous`, then `temporary` becomes `final`. Killed between the two, only `.previous` is there:
    `whole_folder` finds it, and so does the next call. Both folders must lie on one file system.
    """
    temporary, final = Path(temporary), Path(final)
    previous = _previous(final)
    for path in [*temporary.rglob("*"), temporary]:
        sync(path)
    if final.exists():
        shutil.rmtree(previous, ignore_errors=True)  # what an earlier kill left; only ever while `final` is whole
        final.rename(previous)
    temporary.rename(final)
    sync(final.parent)
    shutil.rmtree(previous, ignore_errors=True)


def whole_folder(final: str | Path) -> Path | None:
    """Where `final`, written by `replace_folder`, is to be read from; None when it was never written."""
    final = Path(final)
    return next((folder for folder in (final, _previous(final)) if folder.is_dir()), None)


def _previous(final: Path) -> Path:
    return final.with_name(final.name + ".previous")


def _read_shards(folder: Path, dtype: torch.dtype | None) -> dict[str, Tensor]:
    index = read_json(folder / INDEX).get("weight_map")
    if not isinstance(index, dict) or not all(isinstance(name, str) for name in index.values()):
        raise PellucidError(
            _("{name} is damaged: {why}.").format(name=INDEX, why=_("it has no weight_map")),
            str(folder / INDEX),
            _("Copy or download it again."),
        )
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(index.values())):
        if Path(name).name != name or not (folder / name).is_file():
            raise PellucidError(
                _("The shard {name} is missing.").format(name=name), str(folder), _("Copy or download it again.")
            )
        tensors |= read_file(folder / name, dtype)
    for tensor_name in index:
        if tensor_name not in tensors:
            raise PellucidError(
                _("The tensor {name} is missing.").format(name=tensor_name),
                str(folder / index[tensor_name]),
                _("Copy or download it again."),
            )
    return tensors


def _order_metadata(path: Path) -> None:
    """Sort the metadata of a safetensors file: the library writes them in the random order of a hash map."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(text) <= length, "only the order changes"
        file.seek(8)
        file.write(text.ljust(length))
