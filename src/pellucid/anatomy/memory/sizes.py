"""Bytes by name, each with its formula: what serving and training a network take is told in these."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from pellucid.language import _


class Size(NamedTuple):
    """A part of a memory or of a file."""

    name: str  # a key of `titles`
    bytes: int
    formula: str  # with the numbers in it


@dataclass(frozen=True)
class Sizes:
    """Parts that add up to the total."""

    parts: tuple[Size, ...]

    @property
    def total(self) -> int:
        return sum(part.bytes for part in self.parts)

    def __getitem__(self, name: str) -> int:
        """The bytes of the parts of that name; 0 where there is none."""
        return sum(part.bytes for part in self.parts if part.name == name)

    def fits(self, memory: float) -> bool:
        """Whether all of it fits into so many bytes at once."""
        return self.total <= memory

    def explain(self) -> list[str]:
        """Each part and what it is computed from."""
        names = titles()
        return [f"{names[part.name]}: {part.formula} = {as_bytes(part.bytes)}" for part in self.parts]

    def json(self) -> dict[str, Any]:
        """Plain data."""
        return {"total": self.total, "parts": [part._asdict() for part in self.parts]}

    def __str__(self) -> str:
        names = titles()
        rows = [(self[name], names[name]) for name in dict.fromkeys(part.name for part in self.parts)]
        rows.append((self.total, _("in all")))
        return "\n".join(f"{size / 1e9:>10,.2f} GB {size / 2**30:>10,.2f} GiB  {name}" for size, name in rows)


def titles() -> dict[str, str]:
    """The names of parts in the user's language."""
    return {
        "weights": _("weights"),
        "buffers": _("buffers"),
        "cache": _("keys and values of past tokens"),
        "state": _("states of recurrent layers"),
        "activations": _("activations"),
        "logits": _("logits"),
        "runtime": _("the runtime's own"),
        "gradients": _("gradients"),
        "optimiser": _("state of the optimiser"),
        "buckets": _("buckets in which gradients are exchanged"),
        "gathered weights": _("weights gathered from the other devices"),
        "own gradients": _("gradients before they are shared out"),
        "master weights": _("weights in fp32, which are updated"),
        "recomputed": _("activations of one layer, made again"),
        "casts": _("copies of the weights in 16 bits"),
    }


def as_bytes(size: float) -> str:
    """Bytes for a reader, in powers of ten and of two, which are often taken for one another: 4.92 GB (4.58 GiB)."""
    for power, decimal, binary in ((3, "GB", "GiB"), (2, "MB", "MiB"), (1, "kB", "KiB")):
        if size >= 1000**power:
            return f"{size / 1000**power:,.2f} {decimal} ({size / 1024**power:,.2f} {binary})"
    return f"{size:,.0f} B"
