"""How the columns of a table become the inputs of a network: fitted on training rows, saved with the model."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pellucid.data import tables
from pellucid.data.tables import Table, Target
from pellucid.errors import PellucidError
from pellucid.language import _

MISSING = "(missing)"  # the category of what is not there
SCALINGS = ("standard", "minmax", "none")
_MOST = 100  # categories of one column; the rarer ones have no input of their own


@dataclass(frozen=True)
class Input:
    """How one column becomes inputs.

    A number is one input in the user's units, and a second one, 0 or 1, says where it was missing if it ever was in
    training. A category is one input for each of its values, 1 where the row has it.

    Attributes:
        column: Its name in the table.
        kind: "number" or "category".
        first: The index of its first input.
        shift, scale: Of a number: the network works with (x - shift) / scale.
        fill: Of a number: the median of the training rows, put where none is given.
        has_missing: Of a number: whether there is a second input.
        categories: Of a category, in the order of the inputs; `MISSING` is one of them if it was in training.
    """

    column: str
    kind: str
    first: int
    shift: float = 0.0
    scale: float = 1.0
    fill: float = 0.0
    has_missing: bool = False
    categories: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """What each input is called: "age", "age is missing", "sex = F"."""
        if self.kind == "category":
            return [f"{self.column} = {category}" for category in self.categories]
        missing = [_("{column} is missing").format(column=self.column)] if self.has_missing else []
        return [self.column, *missing]

    @property
    def indices(self) -> list[int]:
        return list(range(self.first, self.first + len(self.names)))


@dataclass(frozen=True)
class Encoding:
    """How a table becomes inputs and targets; `asdict` and `restore` carry it through JSON.

    Attributes:
        inputs: One for each column that is used.
        scaling: "standard" (mean and standard deviation), "minmax" (lowest and highest) or "none".
        target: The column that is predicted.
        kind: Of the target: "number" or "category".
        classes: Of a category, in the order of the outputs.
        target_shift, target_scale: Of a number: the network predicts (y - shift) / scale.
    """

    inputs: tuple[Input, ...]
    scaling: str
    target: str
    kind: str
    classes: tuple[str, ...] = ()
    target_shift: float = 0.0
    target_scale: float = 1.0

    @property
    def input_names(self) -> list[str]:
        return [name for part in self.inputs for name in part.names]

    @property
    def groups(self) -> dict[str, list[int]]:
        """The inputs of each column."""
        return {part.column: part.indices for part in self.inputs}

    @property
    def shifts(self) -> np.ndarray:
        """(F,) float32: 0 for what is 0 or 1 already."""
        return self._per_input("shift", 0.0)

    @property
    def scales(self) -> np.ndarray:
        """(F,) float32: never 0; 1 for what is 0 or 1 already."""
        return self._per_input("scale", 1.0)

    def _per_input(self, name: str, other: float) -> np.ndarray:
        values = np.full(len(self.input_names), other, np.float32)
        for part in self.inputs:
            if part.kind == "number":
                values[part.first] = getattr(part, name)
        return values

    def encode(self, table: Table, notes: list[str] | None = None) -> np.ndarray:
        """The inputs of each row: (n, F) float32, numbers in the user's units, categories as 0 and 1.

        Args:
            table: Of any length; other columns than those of training are not looked at.
            notes: Receives what was filled in, and categories that training never saw (all their inputs are 0).

        Raises:
            PellucidError: when a column is missing, or holds an infinity or something else than a number.
        """
        notes = [] if notes is None else notes
        lacking = [part.column for part in self.inputs if part.column not in table.names]
        if lacking:
            raise PellucidError(
                _("The table lacks columns that the network was trained on: {columns}.").format(
                    columns=tables.listed(lacking)
                ),
                table.name,
                _("Its columns are: {columns}.").format(columns=tables.listed(table.names, 30)),
            )
        x_NF = np.zeros((len(table), len(self.input_names)), np.float32)
        for part in self.inputs:
            if part.kind == "number":
                _encode_number(part, table, x_NF, notes)
            else:
                _encode_category(part, table, x_NF, notes)
        return x_NF

    def unknown(self, table: Table) -> list[tuple[str, ...]]:
        """What each row holds that training never saw, in words: categories without an input, numbers filled in.

        Raises:
            PellucidError: as `encode` does.
        """
        notes: list[tuple[str, ...]] = [()] * len(table)
        for part in self.inputs:
            if part.kind == "number":
                is_hole = np.isnan(tables.numbers(table, part.column))
                for row in [] if part.has_missing else np.flatnonzero(is_hole).tolist():
                    notes[row] += (
                        _("{column} is missing, as in no training row: {fill} was put there, the median.").format(
                            column=part.column, fill=f"{part.fill:g}"
                        ),
                    )
                continue
            known = set(part.categories)
            for row, value in enumerate(tables.strings(table, part.column)):
                value = MISSING if value is None else value
                if value not in known:
                    notes[row] += (
                        _("{column}: {value} has no input of its own and counts as nothing.").format(
                            column=part.column, value=value
                        ),
                    )
        return notes

    def targets(self, table: Table) -> Target:
        """What another table, one to evaluate on, says should be predicted.

        Raises:
            PellucidError: as `tables.target` does, and for a class that training did not have.
        """
        return tables.target(table, self.target, self.kind, self.classes)

    @staticmethod
    def restore(facts: Mapping[str, Any]) -> "Encoding":
        """The encoding of which `asdict` was written as JSON."""
        inputs = tuple(Input(**{**part, "categories": tuple(part["categories"])}) for part in facts["inputs"])
        return Encoding(**{**facts, "inputs": inputs, "classes": tuple(facts["classes"])})

    def asdict(self) -> dict[str, Any]:
        """Strings, numbers, lists and dictionaries only."""
        return asdict(self)


def fit(
    table: Table, target: Target, rows: np.ndarray, scaling: str = "standard", notes: list[str] | None = None
) -> Encoding:
    """Find how to encode a table, from its training rows alone.

    Args:
        table: All of it.
        target: Its column is no input.
        rows: (k,) of the table, for training.
        scaling: Of numbers, inputs and target alike. "standard": (x - mean) / standard deviation (that of the rows,
            divided by k). "minmax": lowest 0, highest 1. "none": as they are.
        notes: Receives what was assumed.

    Raises:
        PellucidError: when no column can be an input, or a number is infinite.
    """
    notes = [] if notes is None else notes
    if scaling not in SCALINGS:
        raise PellucidError(
            _("There is no scaling {scaling}.").format(scaling=scaling),
            "",
            _("Choose one of: {choices}.").format(choices=", ".join(SCALINGS)),
        )
    inputs: list[Input] = []
    first = 0
    for column in table.columns:
        if column.name == target.name or column.kind not in ("number", "category"):
            continue
        if column.kind == "number":
            tables.refuse_infinite(table, column, np.arange(len(table)))
            part = _fit_number(column.name, column.values[rows], scaling, first, notes)
        else:
            part = _fit_category(column.name, tables.strings(table, column.name)[rows], first, notes)
        inputs.append(part)
        first += len(part.names)
    if not inputs:
        others = [
            f"{column.name} ({column.why or tables.spoken(column.kind)})"
            for column in table.columns
            if column.name != target.name
        ]
        raise PellucidError(
            _("No column can be an input: {columns}.").format(columns=tables.listed(others))
            if others
            else _("There is no column beside {target} to predict it from.").format(target=target.name),
            table.name,
            _("Add columns of numbers or categories."),
        )
    texts = [
        column.name for column in table.columns if column.kind in ("text", "picture") and column.name != target.name
    ]
    if texts:
        notes.append(_("Not used as inputs of a table: {columns}.").format(columns=tables.listed(texts)))
    shift, scale = 0.0, 1.0
    if target.kind == "number":
        shift, scale = _shift_and_scale(target.values[np.isin(target.rows, rows)], scaling)
    return Encoding(tuple(inputs), scaling, target.name, target.kind, tuple(target.classes), shift, scale)


def _fit_number(name: str, values: np.ndarray, scaling: str, first: int, notes: list[str]) -> Input:
    known = values[~np.isnan(values)]
    holes = len(values) - len(known)
    if not len(known):
        notes.append(_("{column} has no value in any training row: it says nothing.").format(column=name))
        return Input(name, "number", first)
    median = float(np.median(known))
    shift, scale = _shift_and_scale(known, scaling)
    if holes:
        notes.append(
            _("{column} is missing in {n} training rows: filled with the median, {median}, and marked.").format(
                column=name, n=f"{holes:,}", median=f"{median:g}"
            )
        )
    spread = float(np.ptp(known))
    if spread and spread < 1e-5 * float(np.abs(known).max()):
        notes.append(
            _("{column} differs only in digits that single precision barely holds: subtract {low} from it.").format(
                column=name, low=f"{known.min():g}"
            )
        )
    return Input(name, "number", first, shift, scale, median, has_missing=bool(holes))


def _fit_category(name: str, values: np.ndarray, first: int, notes: list[str]) -> Input:
    spelt = np.array([MISSING if value is None else value for value in values], object)
    found, counts = np.unique(spelt.astype(str), return_counts=True)
    if len(found) > _MOST:
        common = np.argsort(-counts, kind="stable")[:_MOST]
        notes.append(
            _("{column} has {n} categories: the {most} commonest have an input, the others none.").format(
                column=name, n=f"{len(found):,}", most=_MOST
            )
        )
        found = found[np.sort(common)]
    return Input(name, "category", first, categories=tuple(map(str, found)))


def _shift_and_scale(values: np.ndarray, scaling: str) -> tuple[float, float]:
    if scaling == "none" or not len(values):
        return 0.0, 1.0
    if scaling == "minmax":
        shift, scale = float(values.min()), float(np.ptp(values))
    else:
        shift, scale = float(values.mean()), float(values.std())
    least = max(1e-12 * float(np.abs(values).max()), float(np.finfo(np.float32).tiny))
    return shift, scale if scale > least else 1.0  # equal values, up to rounding


def _encode_number(part: Input, table: Table, x_NF: np.ndarray, notes: list[str]) -> None:
    values = tables.numbers(table, part.column)
    column = tables.Column(part.column, "number", values, table.column(part.column).absent)
    tables.refuse_infinite(table, column, np.arange(len(table)))
    holes = np.isnan(values)
    x_NF[:, part.first] = np.where(holes, part.fill, values)
    if part.has_missing:
        x_NF[:, part.first + 1] = holes
    elif holes.any():
        notes.append(
            _("{column} is missing in {n} rows: {fill} was put there, the median of training.").format(
                column=part.column, n=f"{holes.sum():,}", fill=f"{part.fill:g}"
            )
        )


def _encode_category(part: Input, table: Table, x_NF: np.ndarray, notes: list[str]) -> None:
    index = {category: part.first + i for i, category in enumerate(part.categories)}
    unknown: dict[str, int] = {}
    for row, value in enumerate(tables.strings(table, part.column)):
        value = MISSING if value is None else value
        if value in index:
            x_NF[row, index[value]] = 1
        else:
            unknown[value] = unknown.get(value, 0) + 1
    if unknown:
        notes.append(
            _("{column}: categories without an input, in {n} rows: {unknown}.").format(
                column=part.column, n=f"{sum(unknown.values()):,}", unknown=tables.listed(list(unknown))
            )
        )
