"""Figures and tables as all that is shown of an anatomy has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

from rich.table import Table
from rich.text import Text

from pellucid.anatomy.tree import Linear, walk
from pellucid.language import _

if TYPE_CHECKING:
    from pellucid.anatomy.report import Anatomy


def kinds() -> dict[str, str]:
    """`counts.KINDS` in the user's language."""
    return {
        "embedding": _("embedding"),
        "attention": _("attention"),
        "feed-forward": _("feed-forward"),
        "mixer": _("mixer"),
        "convolution": _("convolution"),
        "recurrent": _("recurrent"),
        "dense": _("dense"),
        "norm": _("norm layer"),  # in Chinese the norm of a vector is another word
        "head": _("head"),
    }


class KindRow(NamedTuple):
    """All layers of a kind."""

    kind: str
    name: str  # in the user's language
    parameters: int
    neurons: int
    tied_to: str | None  # the layer whose parameters it uses, counted there


def by_kind(anatomy: Anatomy) -> Iterator[KindRow]:
    """A row for each kind that the network has."""
    parameters, neurons = anatomy.parameters.by_kind, anatomy.neurons.by_kind
    tied = {v.kind: v.leaf.tied_to for v in walk(anatomy.tree) if isinstance(v.leaf, Linear) and v.leaf.tied_to}
    for kind, name in kinds().items():
        if parameters[kind] or neurons[kind]:
            yield KindRow(kind, name, parameters[kind], neurons[kind], tied.get(kind))


def short(n: float, billion: str = "B") -> str:
    """At most four digits: 174.6 B, 2 T, a billion being 10^9; all below 10,000. Operations say G for `billion`."""
    if abs(n) < 10_000:
        return f"{n:,.0f}"
    n = float(f"{n:.4g}")
    if abs(n) >= 1e21:
        return f"{n:.4g}"
    units = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, billion), (1e6, "M"), (1e3, "k"))
    scale, unit = next((scale, unit) for scale, unit in units if abs(n) >= scale)
    return f"{n / scale:.4g} {unit}"


def share(n: float, whole: float) -> str:
    """66.4 %; what is little and not nothing is said to be so."""
    if not whole:
        return "–"
    percent = 100 * n / whole
    return "< 0.01 %" if 0 < abs(percent) < 0.01 else f"{percent:.2f} %" if abs(percent) < 1 else f"{percent:.1f} %"


def table(*columns: str | tuple[str, Literal["left", "right"]], gap: int = 2) -> Table:
    """A table without lines. Columns of numbers stay whole, those of words fold where it is too narrow."""
    made = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, show_header=any(_title(c) for c in columns))
    for column in columns:
        justify = "left" if isinstance(column, str) else column[1]
        made.add_column(
            Text(_title(column)), justify=justify, header_style="dim", overflow="fold", no_wrap=justify == "right"
        )
    return made


def add(rows: Table, *cells: str, style: str = "") -> None:
    """A row of plain words: what stands in brackets, as in blocks[0:3], is no markup."""
    rows.add_row(*map(Text, cells), style=style)


def _title(column: str | tuple[str, str]) -> str:
    return column if isinstance(column, str) else column[0]


def cut(path: str) -> str:
    """blocks[0:5,6:11,12:17].*.attention with the first of its slices only."""
    return re.sub(r"\[([^],]*),[^]]*\]", r"[\1,…]", path)


def heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")
