"""Texts with what they should become: another text, or a category."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pellucid.data import tables
from pellucid.data.text import file_text
from pellucid.errors import PellucidError
from pellucid.language import _

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, eq=False)
class Pairs:
    """Texts and the texts they should become.

    Attributes:
        sources, targets: Of equal length; neither side of a pair is empty.
        groups: (n,) int64: pairs with the same source, or the same target, have the same number; see `splits.split`.
        notes: What was left out or assumed.
    """

    sources: list[str]
    targets: list[str]
    groups: np.ndarray
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Labelled:
    """Texts and their classes.

    Attributes:
        texts: None is empty.
        labels: (n,) int64 indices of classes.
        classes: Their names.
        column: Of a table, which column the texts are from.
        groups: (n,) int64: equal texts have the same number; see `splits.split`.
        notes: What was left out or assumed.
    """

    texts: list[str]
    labels: np.ndarray
    classes: list[str]
    column: str
    groups: np.ndarray
    notes: list[str] = field(default_factory=list)


def read(source: str | Path, target: str, column: str | None = None) -> Pairs:
    """Read pairs from two columns of text of a table.

    Args:
        source: A table, as `tables.read` reads them.
        target: The column of what the texts should become.
        column: The column of the texts; needed when there are several beside the target.

    Raises:
        PellucidError: when the table cannot be read, a column is missing or not text, or no whole pair is left.
    """
    notes: list[str] = []
    raw = tables.arrow(source, notes)
    column = _column(raw, str(source), target, column, notes)
    return _pairs(_texts(raw, str(source), column), _texts(raw, str(source), target), str(source), notes)


def read_lines(source: str | Path, target: str | Path) -> Pairs:
    """Read pairs from two text files, one text a line, the same number of lines in both.

    Raises:
        PellucidError: when a file cannot be read, the numbers of lines differ, or no whole pair is left.
    """
    notes: list[str] = []
    sides = []
    for path in (Path(source), Path(target)):
        if not path.is_file():
            raise PellucidError(_("There is no such file."), str(path), _("Check the path."))
        sides.append(file_text(path, notes).removesuffix("\n").split("\n"))
    if len(sides[0]) != len(sides[1]):
        raise PellucidError(
            _("The pairs are of unequal length: {n} lines here, {m} lines there.").format(
                n=f"{len(sides[0]):,}", m=f"{len(sides[1]):,}"
            ),
            f"{source}, {target}",
            _("Line n of the second file is what line n of the first should become; it may be an empty line."),
        )
    return _pairs(sides[0], sides[1], f"{source}, {target}", notes)


def read_labelled(
    source: str | Path, target: str, column: str | None = None, classes: Sequence[str] | None = None
) -> Labelled:
    """Read texts and their categories from two columns of a table.

    Args:
        source: A table, as `tables.read` reads them.
        target: The column of the categories.
        column: The column of the texts; needed when there are several.
        classes: Of a trained network, to evaluate it; else those that are found.

    Raises:
        PellucidError: when the table cannot be read, a column is missing or not what it should be, or `tables.target`
            refuses the target.
    """
    import pyarrow as pa

    notes: list[str] = []
    raw = tables.arrow(source, notes)
    column = _column(raw, str(source), target, column, notes)
    texts = _texts(raw, str(source), column)
    empty = np.array([not text.strip() for text in texts], bool)
    if empty.all():
        raise _nothing_left(str(source))
    labels = tables.strings(tables.recognised(raw.select([target]), str(source), []), target)
    missing = np.array([label is None for label in labels], bool) & ~empty
    labels[empty] = None  # so that classes are counted without them, and rows keep their numbers
    told = tables.recognised(pa.table({target: pa.array(labels, pa.string())}), str(source), [])
    found = tables.target(told, target, "category", classes)
    for left_out, why in ((empty, _("{n} rows without a text were left out.")),
                          (missing, _("{n} rows without a label were left out."))):  # fmt: skip
        if left_out.any():
            notes.append(why.format(n=f"{left_out.sum():,}"))
    kept = [texts[row].strip() for row in found.rows]
    groups = groups_of_texts(kept)
    contrary = len(set(zip(groups.tolist(), found.values.tolist(), strict=True))) - len(set(groups.tolist()))
    if contrary:
        notes.append(_("{n} texts stand there again with another label.").format(n=f"{contrary:,}"))
    return Labelled(kept, found.values, found.classes, column, groups, notes)


def groups_of_texts(texts: Sequence[str]) -> np.ndarray:
    """Equal texts, white space aside, have the same number."""
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(" ".join(text.split()), len(seen)) for text in texts], np.int64)


def _pairs(sources: Iterable[str], targets: Iterable[str], where: str, notes: list[str]) -> Pairs:
    both = [(source.strip(), target.strip()) for source, target in zip(sources, targets, strict=True)]
    whole = [pair for pair in both if all(pair)]
    if not whole:
        raise _nothing_left(where)
    if len(whole) < len(both):
        notes.append(_("{n} pairs with an empty side were left out.").format(n=f"{len(both) - len(whole):,}"))
    kept_sources, kept_targets = [source for source, _target in whole], [target for _source, target in whole]
    return Pairs(
        kept_sources, kept_targets, _joined(groups_of_texts(kept_sources), groups_of_texts(kept_targets)), notes
    )


def _joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Groups in which rows are together that are together in either."""
    leader = list(range(len(first)))

    def find(i: int) -> int:
        while leader[i] != i:
            leader[i] = leader[leader[i]]
            i = leader[i]
        return i

    for groups in (first, second):
        seen: dict[int, int] = {}
        for row, group in enumerate(groups.tolist()):
            leader[find(row)] = find(seen.setdefault(group, row))
    return np.array([find(row) for row in range(len(first))], np.int64)


def _column(raw: "pa.Table", where: str, target: str, column: str | None, notes: list[str]) -> str:
    """The column of the texts: the one asked for, or the only one of text beside the target."""
    table = tables.recognised(raw, where, [])
    table.column(target)
    if column is not None:
        table.column(column)
        if column == target:
            raise PellucidError(
                _("Column {column} cannot be both the text and the target.").format(column=column),
                where,
                _("Choose another text: {columns}.").format(columns=tables.listed(table.names, 30)),
            )
        return column
    of_strings = [name for name in raw.column_names if name != target and _is_string(raw, table.column(name))]
    of_text = [name for name in of_strings if table.column(name).kind == "text"]
    found = of_text if of_text else of_strings
    if len(found) == 1:
        if len(raw.column_names) > 2:
            notes.append(_("The text is read from column {column}.").format(column=found[0]))
        return found[0]
    if not found:
        raise PellucidError(
            _("No column beside {target} holds text.").format(target=target),
            where,
            _("The columns are: {columns}.").format(columns=tables.listed(table.names, 30)),
        )
    raise PellucidError(
        _("Several columns hold text."), where, _("Choose one with --text: {columns}.").format(columns=", ".join(found))
    )


def _is_string(raw: "pa.Table", column: tables.Column) -> bool:
    import pyarrow as pa

    kind = raw.schema.field(column.name).type
    return column.values.dtype == object and (pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _texts(raw: "pa.Table", where: str, column: str) -> list[str]:
    """The strings of a column as they stand, empty ones where there is none."""
    import pyarrow as pa

    kind = raw.schema.field(column).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise PellucidError(
            _("Column {column} holds {type}, not text.").format(column=column, type=str(kind)),
            where,
            _("Choose a column of text: {columns}.").format(columns=tables.listed(raw.column_names, 30)),
        )
    return [text or "" for text in raw.column(column).to_pylist()]


def _nothing_left(where: str) -> PellucidError:
    return PellucidError(_("No row has both a text and what it should become."), where, _("Check the two columns."))
