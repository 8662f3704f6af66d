"""Documents from files, folders, tables and data sets, and the part of them that is held out."""

import json
import os
import random
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.errors import PellucidError
from pellucid.language import _

if TYPE_CHECKING:
    import pyarrow as pa

_TABLES = (".jsonl", ".ndjson", ".parquet", ".csv")
_BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
# what texts without a mark are found in, likelier ones first; gb18030 holds GB2312 and GBK, cp1252 Latin-1
_ENCODINGS = (
    *("gb18030", "big5", "cp1252", "cp932", "euc_jp", "cp949", "cp1251", "koi8_r", "cp1250", "iso8859_2", "cp1253"),
    *("cp1254", "cp1255", "cp1256"),
)
_SEVERAL = 10  # from so many documents on whole documents are held out
_LINE = 20  # bytes; shorter lines ("}", "Yes.") are repeated in every text


@dataclass(frozen=True)
class Document:
    """A text and where it came from."""

    text: str
    name: str


@dataclass(frozen=True)
class Corpus:
    """Documents, and what was assumed or skipped on the way to them, in the user's language."""

    documents: list[Document]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Split:
    """A text in two parts that do not overlap.

    Attributes:
        train, validation: Texts, one a document.
        how: A sentence that says what was held out, and how it was chosen.
        repeated: The share of the held-out lines (white space around them removed, 20 bytes of UTF-8 or more) that
            stand verbatim as lines of the training part; 0 when there is no such line.
        notes: What else the user should know.
    """

    train: list[str]
    validation: list[str]
    how: str
    repeated: float
    notes: list[str] = field(default_factory=list)


def read(source: str | Path | None, column: str | None = None) -> Corpus:
    """Read a text file, a folder of them, JSON lines, Parquet, CSV, a Hugging Face data set on disk, or the demo text.

    Args:
        source: The path; None for the demo text, the Python language reference in the standard library.
        column: The column of a table that holds the text; needed when the table has several text columns.

    Raises:
        PellucidError: when there is no text, it cannot be read as text, or the column is missing or not text.
    """
    if source is None:
        return _demo()
    path = Path(source)
    if not str(source) or not path.exists():  # Path("") would be the folder that one stands in
        raise PellucidError(_("There is no such file or folder."), str(path), _("Check the path."))
    notes: list[str] = []
    table = (path.is_dir() and is_data_set(path)) or path.suffix.lower() in _TABLES
    try:
        if table:
            documents = list(_rows(path, column, notes))
        else:
            if column is not None:
                raise PellucidError(
                    _("Only tables have columns."),
                    str(path),
                    _("Leave --text {column} out, or name a .jsonl, .parquet or .csv file.").format(column=column),
                )
            documents = _folder(path, notes) if path.is_dir() else [Document(file_text(path, notes), path.name)]
    except OSError as error:
        raise PellucidError(
            _("It cannot be read: {error}").format(error=error.strerror or error), str(error.filename or path)
        ) from error
    full = [document for document in documents if document.text.strip()]
    if not full:
        raise PellucidError(_("There is no text in it."), str(path), _("Name a file or folder that holds text."))
    if len(full) < len(documents):
        notes.append(_("{n} empty documents were left out.").format(n=len(documents) - len(full)))
    return Corpus(full, notes)


def split(
    corpus: Corpus | Sequence[Document], share: float = 0.05, seed: int = 0, validation: Corpus | None = None
) -> Split:
    """Hold out about `share` of the bytes: whole documents where there are at least ten, else the end of the text.

    Documents that are the same, or of which one holds the whole of another, stay on one side.

    Args:
        corpus: What to split.
        share: Of the bytes, 0 < share < 1.
        seed: Decides which documents are held out.
        validation: The held-out part, if there is one already: then nothing is split off.

    Raises:
        PellucidError: when the share is not between 0 and 1, or the text has less than two lines to share out.
    """
    documents = list(corpus.documents if isinstance(corpus, Corpus) else corpus)
    if not 0 < share < 1:
        raise PellucidError(
            _("A share of {share} cannot be held out.").format(share=share), "", _("Use a share like 0.05.")
        )
    notes: list[str] = []
    if validation is not None:
        train, held_out = _without_given(documents, validation, notes)
        how = _("Held out: the validation text that was given.")
    else:
        parts = _by_document(documents, share, seed) if len(documents) >= _SEVERAL else None
        if parts is not None:
            train, held_out = parts
            how = _("Held out: {n} of {all} documents, {percent:.1f} % of the bytes, chosen by seed {seed}.").format(
                n=len(held_out), all=len(documents), percent=_percent(train, held_out), seed=seed
            )
        else:
            train, held_out, cut = _by_span(documents, share)
            if len(documents) == 1:
                how = _("Held out: the last {lines} lines, {percent:.1f} % of the bytes.")
            elif len(documents) < _SEVERAL:
                how = _(
                    "Held out: the last {lines} lines, {percent:.1f} % of the bytes (fewer than {several} documents)."
                )
            else:
                how = _(
                    "Held out: the last {lines} lines, {percent:.1f} % of the bytes (the documents hold each other)."
                )
            lines = sum(text.count("\n") + (not text.endswith("\n")) for text in held_out)
            how = how.format(lines=lines, percent=_percent(train, held_out), several=_SEVERAL)
            if cut:
                notes.append(_("The text has so few lines that a line was cut to hold a part out."))
    if sum(map(_size, held_out)) < 2000:
        notes.append(
            _("The held-out part is only {n} bytes: its loss is a rough estimate.").format(n=sum(map(_size, held_out)))
        )
    return Split(train, held_out, how, _repeated(train, held_out), notes)


# reading


def _demo() -> Corpus:
    from pydoc_data.topics import topics  # half a megabyte: only when asked for

    kept: dict[str, set[str]] = {}
    # a topic contained in another keeps its own headings there, underlined another way: hence not by the whole text
    for name in sorted(topics, key=lambda name: (-len(topics[name]), name)):
        lines = list(_lines(topics[name]))
        if not any(sum(line in other for line in lines) >= 0.8 * len(lines) for other in kept.values()):
            kept[name] = set(lines)
    note = _("Demo text: the Python language reference, {n} topics; {dropped} more are contained in these.")
    documents = [Document(topics[name], name) for name in sorted(kept)]
    return Corpus(documents, [note.format(n=len(kept), dropped=len(topics) - len(kept))])


def _folder(folder: Path, notes: list[str]) -> list[Document]:
    documents, hidden, binary, empty = [], 0, [], 0
    for root, directories, files in os.walk(folder):
        hidden += sum(name.startswith(".") for name in (*directories, *files))
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        for name in sorted(files):
            path = Path(root, name)
            if name.startswith(".") or not path.is_file():
                continue
            data = path.read_bytes()
            if not data:
                empty += 1
            elif _is_binary(data):
                binary.append(path.relative_to(folder).as_posix())
            else:
                documents.append(Document(_decode(data, path, notes), path.relative_to(folder).as_posix()))
    if hidden:
        notes.append(_("{n} hidden files and folders were skipped.").format(n=hidden))
    if empty:
        notes.append(_("{n} empty files were skipped.").format(n=empty))
    if binary:
        some = ", ".join(binary[:3]) + (", …" if len(binary) > 3 else "")
        notes.append(_("{n} binary files were skipped: {some}.").format(n=len(binary), some=some))
    if not documents:
        raise PellucidError(
            _("There is no text file in this folder."),
            str(folder),
            _("Name a folder that holds .txt, .md or other text."),
        )
    return sorted(documents, key=lambda document: document.name)


def file_text(path: Path, notes: list[str]) -> str:
    """The text of one file; an encoding other than UTF-8 is noted, an empty or a binary file refused."""
    data = path.read_bytes()
    if not data:
        raise PellucidError(_("The file is empty."), str(path), _("Name a file that holds text."))
    if _is_binary(data):
        offset = data.index(0)
        raise PellucidError(
            _("This is not a text file: byte {offset} is 0.").format(offset=offset), str(path), _("Name a text file.")
        )
    return _decode(data, path, notes)


def _is_binary(data: bytes) -> bool:
    return b"\0" in data and not data.startswith((b"\xff\xfe", b"\xfe\xff"))


def _decode(data: bytes, path: Path, notes: list[str]) -> str:
    """Decode by byte-order mark, else as UTF-8, else by the encoding that charset-normalizer is sure of.

    Raises:
        PellucidError: with the offset of the first bad byte.
    """
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        guess = _recognised(data) if encoding == "utf-8" else None
        if guess is None:
            raise PellucidError(
                _("Byte {offset} (0x{byte}) is not {encoding}, and no other encoding is recognised.").format(
                    offset=error.start,
                    byte=data[error.start : error.start + 1].hex().upper(),
                    encoding=encoding.upper(),
                ),
                str(path),
                _("Convert the file to UTF-8: iconv -f ITS-ENCODING -t UTF-8."),
            ) from error
        encoding, text = guess
        notes.append(_("{file} is not UTF-8; it was read as {encoding}.").format(file=path.name, encoding=encoding))
    else:
        if encoding == "utf-16":
            notes.append(_("{file} was read as {encoding}.").format(file=path.name, encoding="UTF-16"))
    return text.replace("\r\n", "\n")


def _recognised(data: bytes) -> tuple[str, str] | None:
    """The encoding and the text, when one of `_ENCODINGS` fits clearly better than those that read otherwise."""
    from charset_normalizer import from_bytes  # slow to import, seldom needed

    as_utf8 = data.decode(errors="replace")
    n_bad = as_utf8.count("\ufffd")
    if sum(character > "\x7f" for character in as_utf8) >= 2 * n_bad + 2:
        return None  # mostly whole characters: damaged UTF-8, which no other encoding would read rightly
    # chaos is the share of what looks like a wrong guess, coherence the likeness to a language
    found = [match for match in from_bytes(data, cp_isolation=list(_ENCODINGS)) if match.chaos <= 0.16]
    found.sort(key=lambda match: (-match.coherence, match.chaos, _ENCODINGS.index(match.encoding)))
    if not found:
        return None
    best = found[0]
    ambiguous = any(str(match) != str(best) for match in found[1:])
    if ambiguous and best.coherence == 0 and best.encoding != "gb18030":
        return None
    try:
        return best.encoding, data.decode(best.encoding)
    except UnicodeDecodeError:
        return None


# tables


def is_data_set(folder: Path) -> bool:
    """Whether Hugging Face `datasets` saved this folder."""
    return any((folder / name).is_file() for name in ("dataset_info.json", "state.json", "dataset_dict.json"))


def _rows(path: Path, column: str | None, notes: list[str]) -> Iterator[Document]:
    if path.suffix.lower() in (".jsonl", ".ndjson") and path.is_file():
        texts: Iterable[Any] = _json_lines(path, column, notes)
    else:
        texts = _arrow(path, column, notes)
    missing = 0
    for number, text in enumerate(texts, 1):
        if text is None:
            missing += 1
        else:
            yield Document(text.replace("\r\n", "\n"), f"{path.name}:{number}")
    if missing:
        notes.append(_("{n} rows without text were left out.").format(n=missing))


def _json_lines(path: Path, column: str | None, notes: list[str]) -> Iterator[str | None]:
    rows = json_rows(path, notes)
    names = list(dict.fromkeys(name for _where, row in rows for name in row))
    of_text = [name for name in names if all(isinstance(row.get(name), str | None) for _where, row in rows)]
    of_text = [name for name in of_text if any(row.get(name) is not None for _where, row in rows)]
    if column is None or column not in names:
        column = _chosen(column, names, of_text, path, notes)
    for where, row in rows:
        text = row.get(column)
        if text is not None and not isinstance(text, str):
            raise _not_text(column, type(text).__name__, where, of_text)
        if text is not None and re.search("[\ud800-\udfff]", text):  # JSON can write half a character: "\\ud83d"
            raise PellucidError(
                _("This line holds half a character (a lone surrogate)."), where, _("Write the text as UTF-8.")
            )
        yield text


def json_rows(path: Path, notes: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """Where each object of a JSON lines file stands, and the object; a line that is a string has one column, "text"."""
    rows = []
    # not splitlines: U+2028 and the like may stand inside a JSON string
    for number, line in enumerate(file_text(path, notes).split("\n"), 1):
        if not line.strip():
            continue
        where = _("{file}, line {number}").format(file=path, number=number)
        try:
            row = json.loads(line)
        except ValueError as error:
            raise PellucidError(
                _("This line is not JSON: {error}").format(error=error), where, _("Each line must be one JSON object.")
            ) from error
        row = {"text": row} if isinstance(row, str) else row
        if not isinstance(row, dict):
            raise PellucidError(_("This line is not a JSON object."), where, _("Each line must be one JSON object."))
        rows.append((where, row))
    return rows


def _arrow(path: Path, column: str | None, notes: list[str]) -> Iterator[str | None]:
    import pyarrow as pa

    try:
        for table in arrow_tables(path, notes):
            names = table.schema.names
            of_text = [field.name for field in table.schema if _is_text(field.type)]
            if column is None or column not in names:
                column = _chosen(column, names, of_text, path, notes)
            if column not in of_text:
                raise _not_text(column, str(table.schema.field(column).type), str(path), of_text)
            for chunk in table.column(column).chunks:
                yield from chunk.to_pylist()
    except (pa.ArrowInvalid, pa.ArrowSerializationError, UnicodeDecodeError) as error:
        raise PellucidError(
            _("The table cannot be read: {error}").format(error=str(error).splitlines()[0]),
            str(path),
            _("Copy or download it again."),
        ) from error


def arrow_tables(path: Path, notes: list[str]) -> Iterator["pa.Table"]:
    """The parts of a Parquet or CSV file, or of a data set on disk, one after the other."""
    import pyarrow as pa

    if path.is_dir():
        for file in _data_files(path, notes):
            with pa.memory_map(str(file)) as source:
                yield pa.ipc.open_stream(source).read_all()
    elif path.suffix.lower() == ".csv":
        from pyarrow import csv

        yield csv.read_csv(path, parse_options=csv.ParseOptions(newlines_in_values=True))
    else:
        from pyarrow import parquet

        with parquet.ParquetFile(path) as opened:
            for group in range(opened.num_row_groups):
                yield opened.read_row_group(group)


def _data_files(folder: Path, notes: list[str]) -> list[Path]:
    """The Arrow files of a data set that Hugging Face `datasets` saved; of several splits "train", else the first."""
    if (folder / "dataset_dict.json").is_file():
        splits = _json(folder / "dataset_dict.json").get("splits", [])
        name = "train" if "train" in splits else next(iter(splits), "train")
        notes.append(_("Of the data set's splits ({all}) {name} was read.").format(all=", ".join(splits), name=name))
        folder = folder / name
    state = _json(folder / "state.json") if (folder / "state.json").is_file() else {}
    files = [folder / entry["filename"] for entry in state.get("_data_files", ())] or sorted(folder.glob("*.arrow"))
    if not files:
        raise PellucidError(_("The data set has no Arrow file."), str(folder), _("Save it again with save_to_disk."))
    return files


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise PellucidError(_("This is not JSON: {error}").format(error=error), str(path)) from error


def _is_text(type: "pa.DataType") -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(type):
        type = type.value_type
    return pa.types.is_string(type) or pa.types.is_large_string(type) or pa.types.is_string_view(type)


def _chosen(column: str | None, names: list[str], of_text: list[str], path: Path, notes: list[str]) -> str:
    listed = ", ".join(names)
    if column is not None:
        raise PellucidError(
            _("There is no column {column}.").format(column=column),
            str(path),
            _("The columns are: {columns}.").format(columns=listed),
        )
    if len(of_text) == 1:
        if len(names) > 1:
            notes.append(_("The text is read from column {column}, the only one of text.").format(column=of_text[0]))
        return of_text[0]
    if not of_text:
        raise PellucidError(
            _("No column holds text."), str(path), _("The columns are: {columns}.").format(columns=listed)
        )
    raise PellucidError(
        _("Several columns hold text."),
        str(path),
        _("Choose one with --text: {columns}.").format(columns=", ".join(of_text)),
    )


def _not_text(column: str, type: str, where: str, of_text: list[str]) -> PellucidError:
    return PellucidError(
        _("Column {column} holds {type}, not text.").format(column=column, type=type),
        where,
        _("The columns of text are: {columns}.").format(columns=", ".join(of_text) or _("none")),
    )


# splitting


def _by_document(documents: list[Document], share: float, seed: int) -> tuple[list[str], list[str]] | None:
    """Whole documents held out, as near to the share as they come; None when no group of them is small enough."""
    texts = [document.text for document in documents]
    groups = _related(texts)
    total = sum(map(_size, texts))
    order = list(range(len(groups)))
    random.Random(seed).shuffle(order)
    held_out: set[int] = set()
    taken = 0
    for index in order:
        size = sum(_size(texts[i]) for i in groups[index])
        # taken whenever that brings the bytes nearer to the share
        if abs(taken + size - share * total) < abs(taken - share * total):
            held_out.update(groups[index])
            taken += size
    if not held_out:
        smallest = min(groups, key=lambda group: sum(_size(texts[i]) for i in group))
        if sum(_size(texts[i]) for i in smallest) > total / 2 or len(groups) == 1:
            return None
        held_out.update(smallest)
    if len(held_out) == len(texts):
        return None
    return (
        [text for i, text in enumerate(texts) if i not in held_out],
        [text for i, text in enumerate(texts) if i in held_out],
    )


def _related(texts: list[str]) -> list[list[int]]:
    """Indices in groups: texts that are the same, or contained in one another, white space around them aside."""
    first: dict[str, int] = {}
    leader = list(range(len(texts)))

    def find(i: int) -> int:
        while leader[i] != i:
            leader[i] = leader[leader[i]]
            i = leader[i]
        return i

    for i, text in enumerate(texts):
        leader[i] = find(first.setdefault(text.strip(), i))
    for inner, outer in _contained(list(first.items())):
        leader[find(inner)] = find(outer)
    groups: dict[int, list[int]] = {}
    for i in range(len(texts)):
        groups.setdefault(find(i), []).append(i)
    return list(groups.values())


def _contained(bodies: list[tuple[str, int]]) -> Iterator[tuple[int, int]]:
    """Pairs (inner, outer) of indices: the inner text stands whole in the outer one, beginning where a line begins.

    Comparing every two texts would take the square of their number. Instead every line of every text is looked up
    among the first lines of all texts: the work is that of reading, and one comparison for each first line found.
    """
    by_first_line: dict[str, list[tuple[str, int]]] = {}
    for body, i in bodies:
        by_first_line.setdefault(body.partition("\n")[0].strip(), []).append((body, i))
    for body, i in bodies:
        start = 0
        while start < len(body):
            end = body.find("\n", start)
            end = len(body) if end < 0 else end
            line = body[start:end]
            for inner, j in by_first_line.get(line.strip(), ()):
                if j != i and len(inner) < len(body) and body.startswith(inner, start + len(line) - len(line.lstrip())):
                    yield j, i
            start = end + 1


def _by_span(documents: list[Document], share: float) -> tuple[list[str], list[str], bool]:
    """Hold out the end of the text, cut where a line begins; True when a line itself had to be cut."""
    texts = [document.text for document in documents]
    ends = []
    total = 0
    for text in texts:
        total += _size(text)
        ends.append(total)
    wanted = int(total * (1 - share))
    which = min(bisect_right(ends, wanted), len(texts) - 1)
    text = texts[which]
    within = wanted - (ends[which] - _size(text))
    cut, whole_line = _line_start(text, within, alone=len(texts) == 1)
    train = [*texts[:which], text[:cut]]
    held_out = [text[cut:], *texts[which + 1 :]]
    train = [text for text in train if text.strip()]
    held_out = [text for text in held_out if text.strip()]
    if not train or not held_out:
        raise PellucidError(
            _("The text is too short to hold a part of it out."),
            documents[0].name,
            _("Give at least two lines of text."),
        )
    return train, held_out, not whole_line


def _line_start(text: str, n_bytes: int, alone: bool) -> tuple[int, bool]:
    """Where to cut near `n_bytes`: the last line start before it, else the first after it, else a space or nothing."""
    near = len(text.encode()[:n_bytes].decode(errors="ignore"))
    end = len(text.rstrip())
    before = text.rfind("\n", 0, min(near, end)) + 1
    # one very long line must not drag half of the text into the held-out part
    if text[:before].strip() and near - before <= max(len(text) // 4, 200):
        return before, True
    after = text.find("\n", near, end) + 1
    if after and text[:after].strip():
        return after, True
    if text[:before].strip():
        return before, True
    if not alone:
        return (0, True) if near < len(text) / 2 else (len(text), True)
    space = text.rfind(" ", 1, min(near, end)) + 1
    return (space if text[:space].strip() else near), False


def _without_given(documents: list[Document], validation: Corpus, notes: list[str]) -> tuple[list[str], list[str]]:
    held_out = [document.text for document in validation.documents]
    same = {text.strip() for text in held_out}
    train = [document.text for document in documents if document.text.strip() not in same]
    if not train:
        raise PellucidError(
            _("Every document of the text is also in the validation text."), "", _("Give another validation text.")
        )
    if len(train) < len(documents):
        notes.append(
            _("{n} documents that are also in the validation text were left out of training.").format(
                n=len(documents) - len(train)
            )
        )
    return train, held_out


def _repeated(train: list[str], held_out: list[str]) -> float:
    lines = [line for text in held_out for line in _lines(text)]
    wanted = set(lines)
    seen = {line for text in train for line in _lines(text) if line in wanted}
    return sum(line in seen for line in lines) / len(lines) if lines else 0.0


def _lines(text: str) -> Iterator[str]:
    return (line for line in map(str.strip, text.split("\n")) if _size(line) >= _LINE)


def _percent(train: list[str], held_out: list[str]) -> float:
    part = sum(map(_size, held_out))
    return 100 * part / (part + sum(map(_size, train)))


def _size(text: str) -> int:
    return len(text.encode())
