"""Files written so that no moment leaves a half-written one behind. Without torch."""

import os
from collections.abc import Callable
from pathlib import Path

from pellucid.errors import PellucidError
from pellucid.language import _


def write_text(path: str | Path, text: str) -> None:
    """Write a text whole or not at all.

    Raises:
        PellucidError: when the disk is full or may not be written.
    """
    write_whole(Path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` write under a temporary name, sync, rename: a reader sees the old file or the new one, never a part.

    Raises:
        PellucidError: when that raises an `OSError`: the disk is full, say.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        write(temporary)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise PellucidError(
            _("{name} cannot be written: {why}.").format(name=path.name, why=error.strerror or error),
            str(path),
            _("Free some disk space, or name a folder that you may write to."),
        ) from error


def sync(path: Path) -> None:
    """Have the disk hold what was written; a crash of the machine then finds it."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
