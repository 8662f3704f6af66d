"""The journal: one JSON object a line, appended and never rewritten. It is the record of truth of a run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pellucid.errors import PellucidError
from pellucid.language import _


class Journal:
    """Appends events to ``path``, one a line: a step is ``{"event": "step", "step": n, ...}``."""

    def __init__(self, path: Path, offset: int | None = None) -> None:
        """Open for appending; with ``offset`` (bytes), what stands after it is cut off first (a resume does this)."""
        self.path = path
        if offset is not None:
            size = path.stat().st_size if path.exists() else 0
            if size < offset:
                raise PellucidError(
                    _("The journal ends before the checkpoint was saved ({size} of {offset} bytes).").format(
                        size=size, offset=offset
                    ),
                    str(path),
                    _("Restore the file from a copy, or train into a new folder; the model files are untouched."),
                )
            with path.open("r+b") as file:
                file.truncate(offset)
        self._file = path.open("ab")

    def write(self, event: str, **what: Any) -> None:
        self._file.write(json.dumps({"event": event, **what}, ensure_ascii=False).encode() + b"\n")
        self._file.flush()

    def sync(self) -> int:
        """Make what was written durable, and return the offset (bytes) at which a resume may cut."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


def read(path: Path, event: str | None = None) -> Iterator[dict[str, Any]]:
    """The events in a journal, or those of one kind. A torn last line (the process was killed) is left out."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                entry = json.loads(line)
            except ValueError:
                if line.endswith(b"\n"):
                    raise PellucidError(
                        _("Line {number} of the journal is not JSON.").format(number=number),
                        str(path),
                        _("Remove the line, or train into a new folder."),
                    ) from None
                return
            if event is None or entry.get("event") == event:
                yield entry
