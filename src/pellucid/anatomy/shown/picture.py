"""Where a network's parameters are, saved as a page or as a drawing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pellucid.anatomy.shown.drawing import MADE, drawing
from pellucid.anatomy.shown.page import MARK, page
from pellucid.checkpoints.whole_file import write_text
from pellucid.errors import PellucidError
from pellucid.language import _

if TYPE_CHECKING:
    from pellucid.anatomy.report import Anatomy


def save(anatomy: Anatomy, path: Path) -> None:
    """Write the picture; see `Anatomy.save`.

    Raises:
        PellucidError: when the name is no .html or .svg, another file is there, or it cannot be written.
    """
    kinds_of_file = {".html": page, ".htm": page, ".svg": drawing}
    kind = path.suffix.lower()
    if kind not in kinds_of_file:
        raise PellucidError(
            _("An anatomy is saved as a page or as a drawing."), str(path), _("Name it anatomy.html or anatomy.svg.")
        )
    if path.is_dir() or (path.exists() and not _is_ours(path)):
        raise PellucidError(
            _("{name} is there already, and was not made by Pellucid.").format(name=path.name),
            str(path),
            _("Choose another name."),
        )
    write_text(path, kinds_of_file[kind](anatomy))


def _is_ours(path: Path) -> bool:
    start = path.read_text("utf-8", "replace")[:2000]
    return MARK in start or MADE in start
