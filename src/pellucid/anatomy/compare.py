"""Two networks side by side: where the difference of their parameters lies, and which setting brings how much of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pellucid.anatomy import counts, families
from pellucid.errors import PellucidError

if TYPE_CHECKING:
    from pellucid.anatomy.report import Anatomy


Field = tuple[str, ...]


class Row(NamedTuple):
    """One count of both."""

    name: str
    left: int
    right: int

    @property
    def difference(self) -> int:
        return self.right - self.left


class Change(NamedTuple):
    """Settings that differ, mostly one, and by how many parameters the total moves when they change next."""

    fields: tuple[str, ...]
    left: tuple[Any, ...]
    right: tuple[Any, ...]
    parameters: int


@dataclass(frozen=True)
class Comparison:
    """`right` against `left`."""

    left: str
    right: str
    kinds: tuple[Row, ...]  # the parameters of each kind of layer; they add up to `total`
    total: Row
    neurons: Row
    changes: tuple[Change, ...]  # the settings one after another, from left to right; empty for different families

    @classmethod
    def of(cls, left: Anatomy, right: Anatomy) -> Comparison:
        """Compare two networks."""
        kinds = tuple(
            Row(kind, left.parameters.by_kind[kind], right.parameters.by_kind[kind])
            for kind in counts.KINDS
            if left.parameters.by_kind[kind] or right.parameters.by_kind[kind]
        )
        return cls(
            left.name,
            right.name,
            kinds,
            Row("parameters", left.parameters.total, right.parameters.total),
            Row("neurons", left.neurons.total, right.neurons.total),
            tuple(_changes(left, right)),
        )

    def json(self) -> dict[str, Any]:
        """Plain data."""
        rows = {"kinds": [row._asdict() for row in self.kinds], "changes": [one._asdict() for one in self.changes]}
        return asdict(self) | rows | {"total": self.total._asdict(), "neurons": self.neurons._asdict()}


def _changes(left: Anatomy, right: Anatomy) -> list[Change]:
    """From the left configuration to the right one, setting by setting: a sum that telescopes to the difference.

    Settings that only together make a network (a width and its number of heads) move together.
    """
    if not left.config or left.config.get("model_type") != right.config.get("model_type"):
        return []
    settings, others, total = _flat(left.config), _flat(right.config), left.parameters.total
    config = dict(settings)
    waiting: list[Field] = []
    changes: list[Change] = []
    absent = object()
    for field in dict.fromkeys([*settings, *others]):
        if settings.get(field, absent) == others.get(field, absent):
            continue
        if field in others:
            config[field] = others[field]
        else:
            del config[field]
        waiting.append(field)
        try:
            now = counts.parameters(families.describe(_nested(config), right.where)).total
        except PellucidError:
            continue
        if now != total:
            before, after = (tuple(side.get(name) for name in waiting) for side in (settings, others))
            changes.append(Change(tuple(map(".".join, waiting)), before, after, now - total))
        total, waiting = now, []
    return changes


def _flat(config: dict[str, Any], under: Field = ()) -> dict[Field, Any]:
    """Each setting by its way: text_config.hidden_size."""
    flat: dict[Field, Any] = {}
    for name, value in config.items():
        flat |= _flat(value, (*under, name)) if isinstance(value, dict) and value else {(*under, name): value}
    return flat


def _nested(flat: dict[Field, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for (*way, name), value in flat.items():
        home = config
        for step in way:
            home = home.setdefault(step, {})
        home[name] = value
    return config
