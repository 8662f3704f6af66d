"""The sets as a table in a terminal, and as plain facts."""

from typing import Any

from rich.console import Console
from rich.table import Table

from pellucid.data.sets import FOLDER
from pellucid.data.sets.catalogue import SETS, Set
from pellucid.language import _


def facts() -> list[dict[str, Any]]:
    """For JSON: a dictionary a set, sizes in bytes."""
    return [
        {
            "name": found.name,
            "what": found.what(),
            "licence": found.licence,
            "rights": found.rights() if found.rights else None,
            "file": found.file,
            "size": found.size,
            "download": found.download,
            "packages": [
                {key: getattr(package, key) for key in ("tool", "name", "version", "size", "sha256")}
                for package in found.packages
            ],
            "command": found.command.format(path=f"{FOLDER}/{found.file}"),
        }
        for found in SETS.values()
    ]


def show() -> None:
    """Print the table; of each hash the first 12 digits."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 150)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 1, 0))
    table.add_column(_("Name"), no_wrap=True, style="bold")
    table.add_column(_("What"), ratio=3, overflow="fold")
    table.add_column(_("Licence"), ratio=2, overflow="fold")
    table.add_column(_("MB to fetch"), justify="right")
    table.add_column(_("MB on disk"), justify="right")
    table.add_column(_("From (SHA-256)"), ratio=3, overflow="fold")
    for found in SETS.values():
        licence = found.licence + (f"; {found.rights()}" if found.rights else "")
        table.add_row(found.name, found.what(), licence, _mb(found.download), _mb(found.size), _source(found))
    console.print(table)


def _mb(size: int) -> str:
    return f"{size / 1e6:.3g}" if size >= 1e5 else f"{size / 1e6:.2g}"


def _source(found: Set) -> str:
    if not found.packages:
        return _("scikit-learn, as installed")
    return "\n".join(f"{package} ({package.sha256[:12]}…)" for package in found.packages)
