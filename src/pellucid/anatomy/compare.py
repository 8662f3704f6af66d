"""Two networks side by side: where the difference of their parameters lies, and which setting brings how much of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pellucid.anatomy import counts, families
from pellucid.errors import PellucidError

if TYPE_CHECKING:
    from pellucid.anatomy.report import Anatomy


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
    config, total = dict(left.config), left.parameters.total
    waiting: list[str] = []
    changes: list[Change] = []
    absent = object()
    for field in dict.fromkeys([*left.config, *right.config]):
        if left.config.get(field, absent) == right.config.get(field, absent):
            continue
        if field in right.config:
            config[field] = right.config[field]
        else:
            del config[field]
        waiting.append(field)
        try:
            now = counts.parameters(families.describe(config, right.where)).total
        except PellucidError:
            continue
        if now != total:
            before, after = (tuple(side.config.get(name) for name in waiting) for side in (left, right))
            changes.append(Change(tuple(waiting), before, after, now - total))
        total, waiting = now, []
    return changes
