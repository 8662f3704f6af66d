"""What lies in safetensors files, by their headers alone: the numbers are not read. Without torch.

Source: the format's README, https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from pellucid.checkpoints.json_file import read_json
from pellucid.errors import PellucidError
from pellucid.language import _

TENSORS = "model.safetensors"
INDEX = "model.safetensors.index.json"
LONGEST = 100_000_000  # bytes of a header: the format's own limit
BITS = {  # of a number
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
}  # fmt: skip


class Stored(NamedTuple):
    """A tensor in a file."""

    shape: tuple[int, ...]
    format: str  # F32, BF16 and so on; in a .gguf Q4_K and so on
    bytes: int

    @property
    def numbers(self) -> int:
        return prod(self.shape)

    @property
    def is_whole(self) -> bool:
        """Whether its numbers are integers or truth values: positions, packed codes, and no parameters."""
        return self.format.startswith(("I", "U", "BOOL")) and not self.format.startswith("IQ")


class Held(NamedTuple):
    """What a file holds in one number format."""

    numbers: int
    bytes: int


def by_format(tensors: Mapping[str, Stored]) -> dict[str, Held]:
    """How much of which number format there is, the most bytes first."""
    found: dict[str, Held] = {}
    for tensor in tensors.values():
        numbers, size = found.get(tensor.format, (0, 0))
        found[tensor.format] = Held(numbers + tensor.numbers, size + tensor.bytes)
    return dict(sorted(found.items(), key=lambda pair: -pair[1].bytes))


def safetensors_header(path: str | Path) -> dict[str, Stored]:
    """The tensors of one safetensors file, by its first bytes.

    Raises:
        PellucidError: when it cannot be read, or its header is cut short, damaged, or names bytes that the file lacks.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise _damaged(path, _("its header ends after its {size:,} bytes").format(size=size))
            if length > LONGEST:
                raise _damaged(path, _("it begins with no length of a header"))
            header = json.loads(file.read(length).decode())
        if not isinstance(header, dict):
            raise _damaged(path, _("its header is no JSON object"))
        header.pop("__metadata__", None)
        return {name: _tensor(path, name, entry, size - 8 - length) for name, entry in header.items()}
    except OSError as error:
        raise PellucidError(
            _("{name} cannot be read: {why}.").format(name=path.name, why=error.strerror), str(path)
        ) from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON
        raise _damaged(path, str(error)) from error


def index_header(path: str | Path) -> dict[str, Stored]:
    """The tensors of all the files that an index lists.

    Raises:
        PellucidError: when a file is missing or damaged, or a tensor is not where the index says.
    """
    path = Path(path)
    names = read_json(path).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise _damaged(path, _("it has no weight_map"))
    found: dict[str, Stored] = {}
    for shard in sorted(set(names.values())):
        if Path(shard).name != shard or not (path.parent / shard).is_file():
            raise PellucidError(
                _("The shard {name} is missing.").format(name=shard), str(path.parent), _("Copy or download it again.")
            )
        held = safetensors_header(path.parent / shard)
        missing = next((name for name, home in names.items() if home == shard and name not in held), None)
        if missing is not None:
            raise PellucidError(
                _("The tensor {name} is missing.").format(name=missing),
                str(path.parent / shard),
                _("Copy or download it again."),
            )
        found |= held
    return found


def _tensor(path: Path, name: str, entry: Any, size: int) -> Stored:
    """One entry of a header, where `size` bytes follow it.

    Raises:
        PellucidError: when it contradicts itself, or its numbers are not all there.
    """
    entry = entry if isinstance(entry, dict) else {}
    kind, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if kind not in BITS or not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise _damaged(path, _("its entry for {name} cannot be read").format(name=name))
    if offsets[1] > size:
        raise _damaged(path, _("it ends before its tensor {name} does").format(name=name))
    if 8 * (offsets[1] - offsets[0]) != -(-prod(shape) * BITS[kind] // 8) * 8:
        raise _damaged(path, _("its tensor {name} has other bytes than its shape asks for").format(name=name))
    return Stored(tuple(shape), kind, offsets[1] - offsets[0])


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _damaged(path: Path, why: str) -> PellucidError:
    return PellucidError(
        _("{name} is damaged: {why}.").format(name=path.name, why=why), str(path), _("Copy or download it again.")
    )
