"""Tables: CSV, Parquet, JSON lines and data sets on disk, what their columns hold, and what is to be predicted."""

import csv
import difflib
import io
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.data.text import arrow_tables, file_text, is_data_set, json_rows
from pellucid.errors import PellucidError
from pellucid.language import _

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")

_MISSING = ("", "NA", "N/A", "n/a", "na", "null", "NULL", "Null", "?", "-")
_NAN = ("NaN", "nan", "NAN")
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_COMMA_NUMBER = r"^[+-]?(\d+|\d{1,3}(\.\d{3})+)(,\d+)?$"  # 12,5 and 1.234,5
_SURE_COMMA = r"^[+-]?(0,\d+|\d+,(\d{1,2}|\d{4,})|\d{4,},\d+|\d{1,3}(\.\d{3})+,\d+)$"  # 1,234 may be a thousand
_CODE = r"^0\d+$"
_TIME = r"\d{1,2}:\d{2}(:\d{2}.*)?"
_DATE = re.compile(
    rf"^(\d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}}|\d{{1,2}}[-/.]\d{{1,2}}[-/.]\d{{4}})([T ]{_TIME})?$|^{_TIME}$"
)
_IDENTITY = re.compile(r"^(id|index|no\.?|nr\.?|row|uuid|key|column 1|编号|序号|編號|序號)$|[_ -]id$", re.I)
_FEW = 20  # so many different values are categories, or classes


@dataclass(frozen=True, eq=False)
class Column:
    """One column of a table.

    Attributes:
        name: As in the header.
        kind: "number", "category", "text", "picture" or "ignored".
        values: float64 for numbers (NaN where there is none), else objects (None where there is none): str for
            categories and texts, str (a path), bytes or a mapping with "bytes" and "path" for pictures.
        absent: Where nothing is written. A NaN that the file spells out is not absent.
        categories: Of a category: its values in sorted order.
        why: Why it is ignored; else empty.
    """

    name: str
    kind: str
    values: np.ndarray
    absent: np.ndarray
    categories: list[str] = field(default_factory=list)
    why: str = ""

    @property
    def missing(self) -> int:
        """How many rows have no usable value."""
        return int(np.isnan(self.values).sum()) if self.values.dtype == np.float64 else int(self.absent.sum())


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of equal length, and what was assumed on the way to them, in the user's language."""

    name: str
    columns: list[Column]
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.columns[0].values) if self.columns else 0

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    def column(self, name: str) -> Column:
        """
        Raises:
            PellucidError: when there is none of that name; lists those there are.
        """
        for column in self.columns:
            if column.name == name:
                return column
        near = difflib.get_close_matches(name, self.names, n=1)
        fix = _("The columns are: {columns}.").format(columns=listed(self.names, 30))
        if near:
            fix = _("Did you mean {near}?").format(near=near[0]) + " " + fix
        raise PellucidError(_("There is no column {column}.").format(column=name), self.name, fix)


@dataclass(frozen=True, eq=False)
class Target:
    """What is to be predicted.

    Attributes:
        name: The column.
        kind: "number" or "category".
        classes: Of a category, in the order of their indices; empty for a number.
        values: (k,): float64 numbers, or int64 indices of classes.
        rows: (k,) int64: the rows of the table they stand in, rising. Rows without a target are left out.
        why: Why it is taken as numbers or classes, a sentence.
        notes: What else the user should know.
    """

    name: str
    kind: str
    classes: list[str]
    values: np.ndarray
    rows: np.ndarray
    why: str
    notes: list[str] = field(default_factory=list)


def read(source: str | Path) -> Table:
    """Read a table and recognise what its columns hold.

    Raises:
        PellucidError: when the file is not a table, or not a sound one: no header, no rows, rows of unequal length,
            a name twice, numbers that can be read in two ways.
    """
    path = Path(source)
    return _read(str(source), path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=2)  # every task looks at a source before one of them prepares it
def _read(source: str, changed: int) -> Table:
    notes: list[str] = []
    return recognised(arrow(source, notes), source, notes)


def from_rows(rows: Sequence[Mapping[str, Any]], name: str = "") -> Table:
    """A table of mappings from column to value; what a mapping lacks is missing."""
    return recognised(_of_rows([dict(row) for row in rows]), name, [])


def from_columns(columns: Mapping[str, Sequence[Any] | np.ndarray], name: str = "") -> Table:
    """A table of columns of equal length: arrays, or lists of numbers, strings and None."""
    import pyarrow as pa

    return recognised(pa.table({name: _array(list(values)) for name, values in columns.items()}), name, [])


def is_table(source: str | Path) -> bool:
    """Whether the name, or for a folder its files, say that this is a table."""
    path = Path(source)
    if os.path.isdir(source):  # `os.path` takes what is too long for a name, as a typed row may be, for no folder
        return is_data_set(path)
    return path.suffix.lower() in SUFFIXES


def arrow(source: str | Path, notes: list[str]) -> "pa.Table":
    """Read a table as it stands: strings, numbers, nested values; from CSV only strings.

    Class labels that Hugging Face `datasets` numbered get their names back.

    Raises:
        PellucidError: as `read` does.
    """
    import pyarrow as pa

    path = Path(source)
    if not str(source) or not path.exists():
        raise PellucidError(_("There is no such file or folder."), str(path), _("Check the path."))
    if not is_table(path):
        what = _("This folder is not a table.") if path.is_dir() else _("This file is not a table.")
        raise PellucidError(what, str(path), _("Name a .csv, .tsv, .jsonl or .parquet file, or a data set on disk."))
    try:
        if path.is_file() and path.suffix.lower() in (".csv", ".tsv"):
            table = _csv(path, notes)
        elif path.is_file() and path.suffix.lower() in (".jsonl", ".ndjson"):
            table = _of_rows([row for _where, row in json_rows(path, notes)])
        else:
            if path.is_file() and not path.stat().st_size:
                raise PellucidError(_("The file is empty."), str(path), _("Name a file that holds a table."))
            parts = list(arrow_tables(path, notes))
            table = _with_label_names(pa.concat_tables(parts)) if parts else pa.table({})
    except (pa.ArrowException, UnicodeError) as error:
        raise PellucidError(
            _("The table cannot be read: {error}").format(error=str(error).splitlines()[0]),
            str(path),
            _("Copy or download it again."),
        ) from error
    except OSError as error:
        raise PellucidError(
            _("It cannot be read: {error}").format(error=error.strerror or error), str(error.filename or path)
        ) from error
    _refuse_duplicates(table.column_names, path)
    if not table.num_rows:
        raise PellucidError(_("The table has no rows."), str(path), _("Give at least one row below the header."))
    return table


def recognised(raw: "pa.Table", name: str, notes: list[str]) -> Table:
    """What the columns of a table that was read as it stands hold; `notes` come first."""
    columns = [_column(column, raw.column(index)) for index, column in enumerate(raw.column_names)]
    found = [
        (_("Numbers: {columns}."), [column.name for column in columns if column.kind == "number"]),
        (_("Categories: {columns}."), [_with_categories(column) for column in columns if column.kind == "category"]),
        (_("Texts: {columns}."), [column.name for column in columns if column.kind == "text"]),
        (_("Pictures: {columns}."), [column.name for column in columns if column.kind == "picture"]),
    ]
    notes = notes + [sentence.format(columns=listed(names, 8)) for sentence, names in found if names]
    for why in dict.fromkeys(column.why for column in columns if column.kind == "ignored"):
        ignored = [column.name for column in columns if column.kind == "ignored" and column.why == why]
        notes.append(_("Left out ({why}): {columns}.").format(why=why, columns=listed(ignored)))
    holes = [f"{column.name} ({column.missing:,})" for column in columns if column.missing and column.kind != "ignored"]
    if holes:
        notes.append(_("Values are missing in: {columns}.").format(columns=listed(holes, 8)))
    return Table(name, columns, notes)


def kind_of_target(table: Table, name: str) -> tuple[str, str]:
    """What a column holds as a target, "number", "category" or "text", and a sentence that says why.

    Whole numbers with few different values, each of them several times, are classes: nobody predicts a digit of 4.6.
    The same column as an input stays a number.

    Raises:
        PellucidError: when there is no such column, or it cannot be predicted: dates, nested values, nothing at all.
    """
    column = table.column(name)
    written = column.values[~column.absent]
    if not len(written):
        raise PellucidError(_("The target {column} is empty.").format(column=name), table.name)
    if column.values.dtype == np.float64:
        return _kind_of_numbers(name, written)
    if not isinstance(written[0], str) or column.why == _dates():
        raise PellucidError(
            _("The target {column} cannot be predicted: it holds {what}.").format(
                column=name, what=column.why or _("pictures")
            ),
            table.name,
            _("Choose a column of numbers, categories or texts."),
        )
    different = len(set(written))
    if column.kind == "text" or different == len(written) or different > max(_FEW, len(written) / 2):
        why = _("{column} is text: {different} different values in {n} rows.")
        return "text", why.format(column=name, different=f"{different:,}", n=f"{len(written):,}")
    return "category", _("{column} is a category: {different} different values in {n} rows.").format(
        column=name, different=f"{different:,}", n=f"{len(written):,}"
    )


def target(table: Table, name: str, kind: str | None = None, classes: Sequence[str] | None = None) -> Target:
    """The numbers or classes of a column that is to be predicted.

    Args:
        table: Where it stands.
        name: The column.
        kind: "number" or "category", where the user says so; else as `kind_of_target` finds.
        classes: Of a trained network, to evaluate it: then the table may hold any number of rows, and not all classes.

    Raises:
        PellucidError: when the column is missing or cannot be predicted, holds NaN or an infinity, only one value,
            or a class with a single example (a column of two numbers in a small table excepted: a truth table).
    """
    found, why = kind_of_target(table, name)
    if kind is not None and kind != found:
        why = _("{column} is taken as asked.").format(column=name)
    kind = kind or found
    if kind == "text":
        raise PellucidError(
            why, table.name, _("A table predicts numbers and categories; texts are predicted from one column of text.")
        )
    column = table.column(name)
    rows = np.flatnonzero(~column.absent)
    notes = []
    if len(rows) < len(table):
        notes.append(
            _("{n} rows without a {column} were left out.").format(n=f"{len(table) - len(rows):,}", column=name)
        )
    if column.values.dtype == np.float64:
        refuse_infinite(table, column, rows, nan=True)
    if kind == "number":
        values = numbers(table, name)[rows]
        if classes is None and len(rows) > 1 and (values == values[0]).all():
            raise _constant(table, name, f"{values[0]:g}")
        return Target(name, kind, [], values, rows, why, notes)

    spelt = strings(table, name)[rows]
    if classes is None:
        classes = _in_order(set(spelt), column.values.dtype == np.float64)
        if len(classes) == 1:
            raise _constant(table, name, classes[0])
        _refuse_singles(table, column, spelt)
    index = {label: i for i, label in enumerate(classes)}
    for row, label in zip(rows, spelt, strict=True):
        if label not in index:
            raise PellucidError(
                _("{label} is none of the classes.").format(label=label),
                place(table, row),
                _("The classes are: {classes}.").format(classes=listed(list(classes), 30)),
            )
    return Target(name, kind, list(classes), np.array([index[label] for label in spelt], np.int64), rows, why, notes)


def numbers(table: Table, name: str) -> np.ndarray:
    """A column as float64, NaN where there is no number.

    Raises:
        PellucidError: when something else than a number stands in it; names the row.
    """
    column = table.column(name)
    if column.values.dtype == np.float64:
        return column.values
    for row in np.flatnonzero(~column.absent):
        value = column.values[row]
        if not isinstance(value, str) or not re.match(_NUMBER, value):
            raise PellucidError(
                _('Column {column} holds numbers, but here is "{value}".').format(column=name, value=str(value)[:50]),
                place(table, row),
                _("Correct it, or leave it empty."),
            )
    return np.array([np.nan if value is None else float(value) for value in column.values], np.float64)


def strings(table: Table, name: str) -> np.ndarray:
    """A column as objects, str or None; numbers as they are written: 3, not 3.0."""
    column = table.column(name)
    if column.values.dtype != np.float64:
        return np.array([None if value is None else str(value) for value in column.values], object)
    return np.array([None if np.isnan(value) else spelt(value) for value in column.values], object)


def spelt(value: float) -> str:
    """A number as one writes it: 3 and 0.1, not 3.0."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def refuse_infinite(table: Table, column: Column, rows: np.ndarray, nan: bool = False) -> None:
    """
    Raises:
        PellucidError: at the first infinity, or nearly so, among the rows; with `nan` also at the first NaN.
    """
    wrong = np.abs(column.values[rows]) > np.finfo(np.float32).max  # networks compute in single precision
    if nan:
        wrong |= np.isnan(column.values[rows])
    if wrong.any():
        row = rows[np.argmax(wrong)]
        raise PellucidError(
            _("Column {column} holds {value}, which is no number to learn from.").format(
                column=column.name, value=column.values[row]
            ),
            place(table, row),
            _("Correct it, or leave it empty."),
        )


def place(table: Table, row: int | np.integer) -> str:
    """Where a row (from 0) stands, for an error message."""
    if not table.name:
        return _("row {row}").format(row=int(row) + 1)
    if table.name.lower().endswith((".csv", ".tsv")):
        return _("{file}, row {row} (the header not counted)").format(file=table.name, row=int(row) + 1)
    return _("{file}, row {row}").format(file=table.name, row=int(row) + 1)


def spoken(kind: str) -> str:
    """A kind of column, as a message calls it."""
    kinds = {"number": _("numbers"), "category": _("categories"), "text": _("texts"), "picture": _("pictures")}
    return kinds[kind]


def listed(names: Sequence[str], most: int = 5) -> str:
    """Names with commas; of many the first few, and how many there are."""
    return ", ".join(names[:most]) + (f", … ({len(names):,})" if len(names) > most else "")


# reading


def _csv(path: Path, notes: list[str]) -> "pa.Table":
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    text = file_text(path, notes)
    if not text.strip():
        raise PellucidError(_("The file is empty."), str(path), _("Name a file that holds a table."))
    delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(text)
    if delimiter != ",":
        spoken = _("tabs") if delimiter == "\t" else delimiter
        notes.append(_("The columns are separated by {delimiter}.").format(delimiter=spoken))
    names = _header(next(csv.reader(_sample(text), delimiter=delimiter)), path, notes)

    ragged: list[Any] = []

    def refuse(row: Any) -> str:
        ragged.append(row)
        return "error"

    data = (text.lstrip("\r\n") + "\n").encode()  # Arrow wants the end of the header's line
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(data),
            # the rows are only numbered when one thread reads them
            read_options=arrow_csv.ReadOptions(
                use_threads=False, column_names=names, skip_rows_after_names=1, block_size=max(1 << 20, len(data) + 1)
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=refuse
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid:
        if not ragged:
            raise
        row = ragged[0]
        raise PellucidError(
            _("The header has {expected} columns, this row has {actual}: {text}").format(
                expected=row.expected_columns, actual=row.actual_columns, text=_shortened(row.text)
            ),
            _("{file}, row {row} (the header not counted)").format(file=path, row=row.number - 1),
            _("Give each row as many values as the header has names; put quotes around a value that holds {delimiter}.")
            .format(delimiter=_("tabs") if delimiter == "\t" else delimiter),
        ) from None  # fmt: skip
    return _decimal_points(table, path, notes)


def _sample(text: str) -> list[str]:
    """The first lines that are not blank, with their ends; together shorter than a field may be for `csv`."""
    lines = list(io.StringIO(text[:100_000], newline=""))
    if len(text) > 100_000 and len(lines) > 1:
        lines.pop()  # it may be cut
    start = next(index for index, line in enumerate(lines) if line.strip())
    return lines[start : start + 100]


def _delimiter(text: str) -> str:
    """The one that cuts the first rows into as many values as the header has names, at least two."""
    best, found = (0.0, 0), ","
    for delimiter in ",;\t":
        widths = [len(row) for row in csv.reader(_sample(text), delimiter=delimiter) if row]
        if widths[0] < 2:
            continue
        score = (sum(width == widths[0] for width in widths) / len(widths), widths[0])
        if score > best:
            best, found = score, delimiter
    return found


def _header(cells: list[str], path: Path, notes: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    numeric = [name for name in names if re.match(_NUMBER, name)]
    years = all(re.match(r"^(19|20)\d\d$", name) for name in numeric)
    counted = numeric in ([str(i) for i in range(len(numeric))], [str(i + 1) for i in range(len(numeric))])
    if numeric and not (years or (counted and len(numeric) > 2)):
        raise PellucidError(
            _("The first line should name the columns, but it holds the number {number}.").format(number=numeric[0]),
            str(path),
            _("Put a line of names above it, such as: {example}.").format(
                example=listed([f"x{i + 1}" for i in range(len(names))], 8)
            ),
        )
    for index, name in enumerate(names):
        if not name:
            names[index] = f"column {index + 1}"
            notes.append(
                _("The header leaves column {n} without a name: it is called {name}.").format(
                    n=index + 1, name=names[index]
                )
            )
    _refuse_duplicates(names, path)
    return names


def _refuse_duplicates(names: list[str], path: Path) -> None:
    twice = [name for index, name in enumerate(names) if name in names[:index]]
    if twice:
        raise PellucidError(
            _("Two columns are called {name}.").format(name=twice[0]), str(path), _("Give each column its own name.")
        )


def _decimal_points(table: "pa.Table", path: Path, notes: list[str]) -> "pa.Table":
    """Numbers with a decimal comma rewritten with a point, where at least one of them cannot be thousands."""
    import pyarrow.compute as pc

    with_comma, sure = [], False
    for index, name in enumerate(table.column_names):
        column = table.column(index)
        if not pc.any(pc.match_substring(column, ",")).as_py():
            continue
        cleaned = _cleaned(column)
        if pc.all(pc.match_substring_regex(cleaned, _COMMA_NUMBER)).as_py():
            with_comma.append((index, name, cleaned))
            sure = sure or pc.any(pc.match_substring_regex(cleaned, _SURE_COMMA)).as_py()
    if with_comma and not sure:
        index, name, cleaned = with_comma[0]
        example = pc.filter(cleaned, pc.match_substring(cleaned, ","))[0].as_py()
        raise PellucidError(
            _("{number} in column {column} can be read in two ways: with a decimal comma, or as thousands.").format(
                number=example, column=name
            ),
            str(path),
            _("Write {point} or {whole}.").format(point=example.replace(",", "."), whole=example.replace(",", "")),
        )
    for index, name, cleaned in with_comma:
        table = table.set_column(index, name, pc.replace_substring(pc.replace_substring(cleaned, ".", ""), ",", "."))
    if with_comma:
        names = listed([name for _index, name, _cleaned in with_comma])
        notes.append(_("The numbers have a decimal comma: {columns}.").format(columns=names))
    return table


def _of_rows(rows: list[dict[str, Any]]) -> "pa.Table":
    import pyarrow as pa

    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: _array([row.get(name) for row in rows]) for name in names})


def _array(values: list[Any]) -> "pa.Array":
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if kinds & {dict, list, tuple}:  # of whatever is inside; it is only to be known as nested
        return pa.array([None if value is None else [str(value)] for value in values], pa.list_(pa.string()))
    if kinds and all(issubclass(kind, int | float | np.number) for kind in kinds) and bool not in kinds:
        return pa.array([None if value is None else _float(value) for value in values], pa.float64())
    if len(kinds) > 1:
        values = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return pa.array(values, from_pandas=False)


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf if value > 0 else -math.inf


def _with_label_names(table: "pa.Table") -> "pa.Table":
    import pyarrow as pa

    about = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    for name, feature in about.get("info", {}).get("features", {}).items():
        if isinstance(feature, dict) and feature.get("names") and name in table.column_names:
            labels = feature["names"]
            named = [labels[i] if i is not None and i >= 0 else None for i in table.column(name).to_pylist()]
            table = table.set_column(table.column_names.index(name), name, pa.array(named, pa.string()))
    return table


# recognising


def _with_categories(column: Column) -> str:
    return f"{column.name} ({listed(column.categories, 4)})"


def _column(name: str, raw: "pa.ChunkedArray") -> Column:
    import pyarrow as pa

    if pa.types.is_dictionary(raw.type):
        raw = raw.cast(raw.type.value_type)
    kind = raw.type
    absent = raw.is_null().to_numpy(zero_copy_only=False) if isinstance(raw, pa.Array) else raw.is_null().to_numpy()
    if pa.types.is_null(kind):
        return Column(name, "ignored", np.full(len(raw), None, object), absent, why=_("empty"))
    if pa.types.is_boolean(kind):
        return _of_strings(name, raw.cast(pa.string()))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _of_numbers(name, raw.cast(pa.float64(), safe=False).to_numpy(), absent)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _of_strings(name, raw.cast(pa.string()))
    values = _objects(raw.to_pylist())
    if pa.types.is_temporal(kind):
        return Column(name, "ignored", _objects(map(str, values)), absent, why=_dates())
    fields = {kind.field(index).name for index in range(kind.num_fields)} if pa.types.is_struct(kind) else set()
    if fields == {"bytes", "path"} or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return Column(name, "picture", values, absent)
    return Column(name, "ignored", values, absent, why=_("nested values"))


def _of_numbers(name: str, values: np.ndarray, absent: np.ndarray) -> Column:
    known = values[~np.isnan(values)]
    why = ""
    if not len(known):
        why = _("empty")
    elif len(known) == len(values) and len(values) > 1 and (known == known[0]).all():
        why = _("the same value in every row")
    elif len(known) > 2 and _IDENTITY.search(name) and len(np.unique(known)) == len(known) and _whole(known):
        why = _("a different number in every row: names of rows, by the look of it")
    return Column(name, "ignored" if why else "number", values, absent, why=why)


def _of_strings(name: str, raw: "pa.ChunkedArray") -> Column:
    """Numbers, if every string is one; else a category, a text, the path of a picture, or nothing to learn from."""
    import pyarrow as pa
    import pyarrow.compute as pc

    cleaned = _cleaned(raw)
    absent = cleaned.is_null().to_numpy()
    if not absent.all() and not pc.any(pc.match_substring_regex(cleaned, _CODE)).as_py():
        try:
            return _of_numbers(name, pc.cast(cleaned, pa.float64()).to_numpy(), absent)
        except pa.ArrowInvalid:
            pass  # not every one is a number
    values = _objects(cleaned.to_pylist())
    values[np.isin(values, _NAN)] = None
    absent = np.array([value is None for value in values], bool)
    known = values[~absent]
    kind, why = _kind_of_strings(list(known), bool(absent.any()))
    if kind != "category":
        return Column(name, kind, values, absent, why=why)
    return Column(name, kind, values, absent, sorted(set(known)))


def _kind_of_strings(known: list[str], holes: bool) -> tuple[str, str]:
    n, different = len(known), len(set(known))
    if not n:
        return "ignored", _("empty")
    if all(re.match(_DATE, value) for value in known):
        return "ignored", _dates()
    if all(value.lower().endswith(PICTURES) for value in known):
        return "picture", ""
    if different == 1 and not holes and n > 1:
        return "ignored", _("the same value in every row")
    if _is_prose(known) and different > n / 2:
        return "text", ""
    strange = [index for index, value in enumerate(known) if not re.match(_NUMBER, value)]
    if different > _FEW and len(strange) <= n / 10:
        return "ignored", _('numbers, but {n} values such as "{value}" are not: correct or empty them').format(
            n=len(strange), value=known[strange[0]][:50]
        ) if strange else _("codes that begin with 0, nearly all different")
    if (different == n and n > 2) or different > max(_FEW, n / 2):
        return "ignored", _("nearly every value is different: names, by the look of it")
    return "category", ""


def _is_prose(values: list[str]) -> bool:
    """Whether a value has four words, or 25 characters, or ten Chinese ones, as a mean."""
    values = values[:1000]
    n = len(values)
    chinese = sum(len(re.findall("[\u3040-\u9fff]", value)) for value in values)
    return sum(value.count(" ") for value in values) >= 3 * n or sum(map(len, values)) >= 25 * n or chinese >= 10 * n


def _kind_of_numbers(name: str, written: np.ndarray) -> tuple[str, str]:
    finite = written[np.isfinite(written)]
    values, counts = np.unique(finite, return_counts=True)
    n, different = f"{len(finite):,}", f"{len(values):,}"
    if not len(values) or not _whole(values):
        return "number", _("{column} is a number: some values are not whole.").format(column=name)
    if len(values) == 2 and set(values) in ({0, 1}, {-1, 1}):
        why = _("{column} is a category: it is only {first} or {second}.")
        return "category", why.format(column=name, first=spelt(values[0]), second=spelt(values[1]))
    if 1 < len(values) <= _FEW and len(finite) >= 10 * len(values) and counts.min() > 1:
        why = _("{column} is a category: only {different} different whole numbers in {n} rows.")
        return "category", why.format(column=name, different=different, n=n)
    why = _("{column} is a number: {different} different whole numbers in {n} rows.")
    return "number", why.format(column=name, different=different, n=n)


def _refuse_singles(table: Table, column: Column, spelt: np.ndarray) -> None:
    labels, counts = np.unique(spelt.astype(str), return_counts=True)
    single = [str(label) for label, count in zip(labels, counts, strict=True) if count == 1]
    truth_table = len(labels) == 2 and column.values.dtype == np.float64
    if single and not truth_table:
        row = np.flatnonzero(strings(table, column.name) == single[0])[0]
        raise PellucidError(
            _("Only one example of: {classes}.").format(classes=listed(single)),
            place(table, row),
            _("Add examples, give them to another class, or remove the rows."),
        )


def _constant(table: Table, name: str, value: str) -> PellucidError:
    return PellucidError(
        _("The target {column} is {value} in every row: there is nothing to learn.").format(column=name, value=value),
        table.name,
        _("Choose another target, or add rows in which it differs."),
    )


def _in_order(labels: set[str], numeric: bool) -> list[str]:
    return sorted(labels, key=float) if numeric else sorted(labels)


def _cleaned(column: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """Strings without white space around them, null where they say that a value is missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    trimmed = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.is_in(trimmed, pa.array(_MISSING)), pa.scalar(None, pa.string()), trimmed)


def _whole(values: np.ndarray) -> bool:
    return bool((values == np.floor(values)).all())


def _objects(values: Any) -> np.ndarray:
    listed = list(values)
    array = np.empty(len(listed), object)
    array[:] = listed
    return array


def _dates() -> str:
    return _("dates or times: a column of years or of days would be a number")


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:60] + "…"
