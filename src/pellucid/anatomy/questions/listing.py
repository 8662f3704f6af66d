"""What there is: published models, devices, and what a budget buys of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pellucid.anatomy import catalogue, counts, families
from pellucid.anatomy.cost import devices, optimal
from pellucid.anatomy.questions.common import find_device

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult


class Model(NamedTuple):
    """A published model: counted from its configuration, beside what was published."""

    entry: catalogue.Entry
    total: int | None  # None where no configuration was published
    active: int | None

    @property
    def difference(self) -> float | None:
        """Of the count from the published number, as a share of it: 124,439,808 from "124M" is 0.35 %."""
        if self.total is None or self.entry.published_size is None:
            return None
        value, _rounding = self.entry.published_size
        return self.total / value - 1


@dataclass(frozen=True)
class Models:
    """Rows of the catalogue."""

    rows: tuple[Model, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from pellucid.anatomy.shown import tables

        return tables.models(self)

    def json(self) -> list[dict[str, Any]]:
        return [asdict(row.entry) | {"total": row.total, "active": row.active} for row in self.rows]


def models(words: str = "") -> Models:
    """The published models in which all of `words` occur, each counted.

    Raises:
        PellucidError: when there is none.
    """
    entries = catalogue.search(words)
    if not entries:
        catalogue.find(words)  # says what is near
    return Models(tuple(_counted(entry) for entry in entries))


def _counted(entry: catalogue.Entry) -> Model:
    if entry.config is None:
        return Model(entry, None, None)
    parameters = counts.parameters(families.describe(entry.config, entry.name))
    return Model(entry, parameters.total, parameters.active)


@dataclass(frozen=True)
class Hardware:
    """The devices that can be named."""

    rows: tuple[devices.Device, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from pellucid.anatomy.shown import tables

        return tables.hardware(self)

    def json(self) -> list[dict[str, Any]]:
        return [asdict(row) for row in self.rows]


def hardware() -> Hardware:
    """All devices of the table; see `devices.table`."""
    return Hardware(tuple(devices.table().values()))


class Bought(NamedTuple):
    """What a budget buys."""

    budget: optimal.Budget

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from pellucid.anatomy.shown import tables

        return tables.budget(self.budget)

    def json(self) -> dict[str, Any]:
        return asdict(self.budget)


def budget(
    money: float, device: str | None = None, utilisation: float | None = None, price: float | None = None
) -> Bought:
    """What so many dollars buy on a device; see `optimal.what_fits`."""
    return Bought(optimal.what_fits(find_device(device), money=money, utilisation=utilisation, price=price))
