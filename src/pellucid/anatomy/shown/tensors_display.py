"""A file of tensors in a terminal: what is known without a configuration, and what is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from pellucid.anatomy.counts import KINDS
from pellucid.anatomy.shown.words import add, cut, heading, kinds, share, short, table
from pellucid.anatomy.tree import Buffer, walk
from pellucid.errors import PellucidError
from pellucid.language import _

if TYPE_CHECKING:
    from pellucid.anatomy.report import Anatomy

ROWS = 60  # most layers that are shown


def tensor_lines(anatomy: Anatomy, rows: int | None = ROWS) -> Iterator[RenderableType]:
    """Parameters by kind and by layer, neurons where shapes tell; nothing that depends on how data flow."""
    counted = anatomy.parameters
    yield Text(anatomy.name, style="bold")
    for note in anatomy.notes:
        yield Text(note, style="dim")
    yield Text(_("{n:,} parameters ({short})").format(n=counted.total, short=short(counted.total)), style="bold")
    if counted.buffers:
        yield Text(_("buffers: {n:,} numbers are saved with it and are no parameters").format(n=counted.buffers))
    try:
        neurons = anatomy.neurons.total
        yield Text(_("{n:,} neurons, if each matrix is a layer that is used once").format(n=neurons))
    except PellucidError as error:
        yield Text(error.what)
    yield heading(_("parameters by kind, as names tell"))
    by_kind, names = table(_("kind"), (_("parameters"), "right"), (_("share"), "right")), kinds()
    for kind in KINDS:
        if n := counted.by_kind[kind]:
            add(by_kind, names[kind], f"{n:,}", share(n, counted.total))
    yield by_kind
    yield heading(_("layers, all copies counted"))
    layers = table(_("layer"), _("tensors"), ("", "right"), (_("parameters"), "right"))
    visits = [visit for visit in walk(anatomy.tree) if visit.leaf.tensors or isinstance(visit.leaf, Buffer)]
    for visit in visits[:rows]:
        shapes = list(visit.leaf.tensors.values()) or [(visit.leaf.buffers,)]
        said = " + ".join(" × ".join(map(str, shape)) or "1" for shape in shapes)
        copies = f"{visit.copies} ×" if visit.copies > 1 else ""
        add(layers, cut(visit.path), said, copies, f"{visit.parameters:,}" if visit.parameters else "–")
    yield layers
    if rows is not None and len(visits) > rows:
        yield Text(_("and {n:,} more; --json shows all").format(n=len(visits) - rows), style="dim")
    yield Text()
    yield Text(
        _("Compute, dimensions and caches are not known: put config.json beside the file, or count the module itself."),
        style="dim",
    )
