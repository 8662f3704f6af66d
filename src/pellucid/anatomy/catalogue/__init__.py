"""The catalogue of published models: each a configuration with its source, what was published, and what it cost.

The tables lie in `catalogue/*.toml`, read when they are first needed. No total is stored: what a model has is counted
from its configuration, and `published` stands beside the count.
"""

import re
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from pellucid.errors import PellucidError
from pellucid.language import _

TABLES = Path(__file__).parent
SCALES = {"": 1, "K": 1e3, "M": 1e6, " million": 1e6, "B": 1e9, "T": 1e12}


@dataclass(frozen=True)
class Training:
    """What was published about a training; None for what was not."""

    source: str
    tokens: float | None = None
    hours: float | None = None  # of one device
    device: str | None = None  # its key in devices.toml


@dataclass(frozen=True)
class Entry:
    """A published model."""

    name: str
    title: str
    family: str
    year: int
    source: str
    config: dict[str, Any] | None = None  # fields of its own config.json; None where none was published
    published: str | None = None  # the number of parameters, as published
    published_total: int | None = None  # the same, where a whole number was published
    note: str | None = None  # why the count differs from it, where that is not rounding
    status: str | None = None  # "rumour" or "undisclosed": there is no configuration
    aliases: tuple[str, ...] = ()
    training: Training | None = None

    @property
    def published_size(self) -> tuple[float, float] | None:
        """The published number and half of its last digit's worth, "1.76B" being (1.76e9, 5e6); None without one."""
        if self.published_total is not None:
            return self.published_total, 0
        found = re.match(rf"(\d[\d,]*)\.?(\d*)({'|'.join(SCALES)})(?=,|$)", self.published or "")
        if found is None:
            return None
        whole, decimals, unit = found[1].replace(",", ""), found[2], SCALES[found[3]]
        return float(f"{whole}.{decimals}") * unit, 0.5 * unit / 10 ** len(decimals)


def find(name: str) -> Entry:
    """The model of this name or alias; capitals, hyphens and the owner's name on the hub do not matter.

    Raises:
        PellucidError: when there is none; its fix offers the nearest names.
    """
    names = _names()
    key = _key(name.rsplit("/", 1)[-1])
    for form in (_key(name), key):  # vit-b/16; meta-llama/Llama-2-70b
        if form in names:
            return names[form]
    nearest = dict.fromkeys(names[near].name for near in get_close_matches(key, names, n=5, cutoff=0.6))
    nearest = nearest or dict.fromkeys(entry.name for entry in search(name)[:5])
    raise PellucidError(
        _("The catalogue has no model called {name}.").format(name=name),
        "",
        _("Nearest are {names}; --list shows all.").format(names=", ".join(nearest))
        if nearest
        else _("--list shows all that it has."),
    )


def search(words: str) -> list[Entry]:
    """Every model in which each of `words` occurs: in its name, title, aliases, family, year or source."""
    wanted = words.lower().split()
    return [entry for entry in entries() if all(word in _text(entry) for word in wanted)]


@cache
def entries() -> tuple[Entry, ...]:
    """All models, in the order of the tables."""
    return tuple(
        _entry(name, row)
        for path in sorted(TABLES.glob("*.toml"))
        for name, row in tomllib.loads(path.read_text(encoding="utf-8")).items()
    )


def _entry(name: str, row: dict[str, Any]) -> Entry:
    training = Training(**row.pop("training")) if "training" in row else None
    config = _with_null(row.pop("config", None))
    return Entry(name=name, config=config, training=training, aliases=tuple(row.pop("aliases", ())), **row)


def _with_null(value: Any) -> Any:
    """The configuration with JSON's null, which TOML lacks, where the tables say "null"."""
    if isinstance(value, dict):
        return {name: _with_null(field) for name, field in value.items()}
    return None if value == "null" else value


@cache
def _names() -> dict[str, Entry]:
    return {_key(name): entry for entry in entries() for name in (*entry.aliases, entry.name)}


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower())


def _text(entry: Entry) -> str:
    return " ".join((entry.name, entry.title, *entry.aliases, entry.family, str(entry.year), entry.source)).lower()
