"""The GGUF format: the settings and tensors of one file.

Every length in the file is checked against the file's own before anything is read or reserved. Blocks of quantised
numbers are decoded by the package `gguf`. Source: the format's specification, docs/gguf.md in the repository of ggml.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from pellucid.errors import PellucidError
from pellucid.language import _

if TYPE_CHECKING:  # headers are read without
    import numpy as np

T = TypeVar("T")
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # for struct
STRING, ARRAY = 8, 9
F32, F16, BF16 = 0, 1, 30
PLAIN = {F32: 4, F16: 2, BF16: 2}  # bytes of a number


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies in the file."""

    kind: int  # F32, F16, BF16 or one of gguf's GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int  # from the start of the file
    size: int  # bytes


class GGUFFile:
    """A GGUF file, opened: `settings` and `tensors` are read, the tensors' numbers when asked for.

    Raises:
        PellucidError: when the file is no GGUF, damaged, cut short, or of a version or kind that is not supported.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with self.path.open("rb") as file:
                if file.read(4) != b"GGUF":
                    raise PellucidError(
                        _("This is no model: it is not a GGUF file."),
                        str(path),
                        _("Name the folder of a model, or a .gguf file."),
                    )
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise PellucidError(
                _("{name} cannot be read: {why}.").format(name=self.path.name, why=error.strerror), str(path)
            ) from error
        try:
            header = _Header(self._data)
            version, tensors, settings = header.numbers("IQQ")
            if version not in (2, 3):
                self._refuse_version(version)
            self.settings = Settings({header.string(): header.value() for _n in header.count(settings)}, str(path))
            found = {header.string(): header.tensor() for _n in header.count(tensors)}
            start = self._aligned(header.position)
            self.tensors = {
                name: self._info(name, dimensions, kind, start + offset)
                for name, (dimensions, kind, offset) in found.items()
            }
        except (ValueError, struct.error) as error:
            raise self._damaged(str(error)) from error

    def read(self, name: str) -> np.ndarray:
        """The numbers of tensor `name`, as float32.

        Raises:
            PellucidError: when they are of a quantised kind that cannot be decoded.
        """
        import numpy as np

        tensor = self.tensors[name]
        raw = np.frombuffer(self._data, np.uint8, tensor.size, tensor.offset)
        if tensor.kind == F32:
            numbers = raw.view("<f4").astype(np.float32)  # a copy: the file's own pages are read-only
        elif tensor.kind == F16:
            numbers = raw.view("<f2").astype(np.float32)
        elif tensor.kind == BF16:
            numbers = (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            numbers = self._decoded(name, raw, tensor)
        return numbers.reshape(tensor.shape)

    def _decoded(self, name: str, raw: np.ndarray, tensor: TensorInfo) -> np.ndarray:
        from gguf import GGMLQuantizationType, dequantize  # only where needed: the package costs start-up time

        kind = GGMLQuantizationType(tensor.kind)
        try:
            return dequantize(raw.reshape(math.prod(tensor.shape[:-1]), -1), kind)
        except NotImplementedError:
            self._refuse_kind(name, kind.name)

    def _info(self, name: str, dimensions: tuple[int, ...], kind: int, offset: int) -> TensorInfo:
        count = math.prod(dimensions)
        size = count * PLAIN[kind] if kind in PLAIN else self._quantised_size(name, dimensions, kind)
        if not count or offset + size > len(self._data):
            raise ValueError(_("it ends before its tensor {name} does").format(name=name))
        return TensorInfo(kind, dimensions[::-1], offset, size)

    def _quantised_size(self, name: str, dimensions: tuple[int, ...], kind: int) -> int:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        if kind not in set(GGMLQuantizationType):
            self._refuse_kind(name, str(kind))
        numbers, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        if dimensions[0] % numbers:
            raise ValueError(_("a row of its tensor {name} ends within a block").format(name=name))
        return math.prod(dimensions) // numbers * size

    def _aligned(self, position: int) -> int:
        alignment = self.settings.get("general.alignment", int, 32)
        if alignment < 1 or alignment & (alignment - 1):
            raise ValueError(f"general.alignment = {alignment}")
        return -(-position // alignment) * alignment

    def _damaged(self, why: str) -> PellucidError:
        return PellucidError(
            _("{name} is damaged: {why}.").format(name=self.path.name, why=why),
            str(self.path),
            _("Copy or download it again."),
        )

    def _refuse_version(self, version: int) -> NoReturn:
        raise PellucidError(
            _("GGUF files for big-endian machines are not supported.")
            if version & 0xFFFF == 0
            else _("Version {n} of GGUF is not supported.").format(n=version),
            str(self.path),
            _("Supported are versions 2 and 3, little-endian."),
        )

    def _refuse_kind(self, name: str, kind: str) -> NoReturn:
        raise PellucidError(
            _("The tensor {name} is quantised as {kind}, which is not supported.").format(name=name, kind=kind),
            str(self.path),
            _("Take a file of another quantisation, such as Q8_0 or Q4_K."),
        )


@dataclass
class Settings:
    """The metadata of a file, taken setting by setting, so that what nobody knows can be refused by name."""

    values: dict[str, Any]
    where: str
    known: set[str] = field(default_factory=set)

    def get(self, name: str, kind: type[T], default: T | None = None) -> T:
        """The setting, which must be of this type; the default where it is missing.

        Raises:
            PellucidError: when it is missing and has no default, or is of another type.
        """
        self.known.add(name)
        value = self.values.get(name, default)
        if value is None:
            raise PellucidError(
                _("The file does not say {name}.").format(name=name), self.where, _("Copy or download it again.")
            )
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:  # and not isinstance: a truth value is no number
            self.refuse(name)
        return value

    def size(self, name: str, default: int | None = None) -> int:
        """A whole number of at least one."""
        value = self.get(name, int, default)
        return value if value >= 1 else self.refuse(name)

    def positive(self, name: str, default: float | None = None) -> float:
        value = self.get(name, float, default)
        return value if 0 < value < math.inf else self.refuse(name)

    def only(self, name: str, *values: Any) -> None:
        """Refuse the setting if it is there with another value than these."""
        self.known.add(name)
        if name in self.values and self.values[name] not in values:
            self.refuse(name)

    def ignore(self, names: Iterable[str]) -> None:
        """These do not change what the model says."""
        self.known.update(names)

    def refuse_others(self, prefix: str) -> None:
        """Refuse what begins with `prefix` and was neither taken nor ignored."""
        for name in self.values:
            if name.startswith(prefix) and name not in self.known:
                self.refuse(name)

    def refuse(self, name: str, fix: str = "") -> NoReturn:
        value = str(self.values.get(name))
        raise PellucidError(
            _("This model's {name} = {value} is not supported.").format(
                name=name, value=value if len(value) <= 60 else f"{value[:60]} …"
            ),
            self.where,
            fix or _("Take another file of this model, or another model."),
        )


class _Header:
    """Reads a file's beginning, value by value."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self.position = data, 4  # after the magic word

    def numbers(self, forms: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{forms}", self._data, self.position)
        self.position += struct.calcsize(f"<{forms}")
        return found

    def string(self) -> str:
        (length,) = self.numbers("Q")
        self._check(length)
        self.position += length
        return self._data[self.position - length : self.position].decode()

    def value(self) -> Any:
        (kind,) = self.numbers("I")
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            kind, length = self.numbers("IQ")
            if kind == STRING:
                return [self.string() for _n in self.count(length)]
            self._check(length)
            return list(self.numbers(f"{length}{_form(kind)}"))
        return self.numbers(_form(kind))[0]

    def tensor(self) -> tuple[tuple[int, ...], int, int]:
        """Dimensions (the one whose neighbours lie side by side comes first), kind, offset."""
        (length,) = self.numbers("I")
        if not 1 <= length <= 4:
            raise ValueError(_("it has a tensor of {n} dimensions").format(n=length))
        *dimensions, kind, offset = self.numbers(f"{length}QIQ")
        return tuple(dimensions), kind, offset

    def count(self, n: int) -> range:
        """So many things of eight bytes or more are still to come."""
        self._check(8 * n)
        return range(n)

    def _check(self, size: int) -> None:
        if size > len(self._data) - self.position:
            raise ValueError(_("it ends too early"))


def _form(kind: int) -> str:
    if kind not in SCALARS:
        raise ValueError(f"metadata of type {kind}")
    return SCALARS[kind]
