"""A count as its formula, and two networks side by side, in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.console import Group as Lines
from rich.text import Text

from pellucid.anatomy.compare import Change, Comparison, Row
from pellucid.anatomy.explain import Formula, Group, Term
from pellucid.anatomy.shown.words import add, heading, kinds, share, short, table
from pellucid.language import _

SPELLED = 24  # most terms of a sum that is written out before its table


@dataclass(frozen=True)
class Sum:
    """Terms joined by plus signs, broken between terms only."""

    terms: Sequence[str]
    after: str  # = 604,028,928

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = [self.terms[0]]
        for term in (*(f"+ {term}" for term in self.terms[1:]), self.after):
            if term and cell_len(lines[-1]) + 1 + cell_len(term) <= options.max_width:
                lines[-1] += f" {term}"
            elif term:
                lines.append(f"  {term}")
        yield Text("\n".join(lines))


def formula(shown: Formula) -> RenderableType:
    """The formula with the network's numbers, then term by term what each number is."""
    quantities = {"parameters": _("parameters"), "neurons": _("neurons"), "multiply-adds": _("multiply-adds")}
    quantity = quantities[shown.quantity]
    part = kinds().get(shown.part, shown.part)
    title = _("{quantity} of {part}").format(quantity=quantity, part=part) if part else quantity
    lines: list[RenderableType] = [Text(f"{title}: {shown.total:,}", style="bold")]
    groups = [group for group in shown.groups if group.terms]
    if not groups:
        return Lines(*lines, Text(_("Nothing of it is counted there.")))
    for group in groups:
        lines += [Text(), *_group(group)]
    if len(groups) > 1:
        lines += [Text(), Sum([f"{group.total:,}" for group in groups], f"= {shown.total:,}")]
    return Lines(*lines)


def _group(group: Group) -> list[RenderableType]:
    """One sum, how often it occurs, and its terms."""
    lines: list[RenderableType] = []
    if len(group.terms) <= SPELLED:
        lines.append(Sum([str(term) for term in group.terms], f"= {group.each:,}"))
    if group.times > 1:
        line = _("{n:,} times: {n:,} × {each:,} = {total:,}").format(n=group.times, each=group.each, total=group.total)
        lines.append(Text(line, style="bold"))
    rows = table(_("layer"), _("numbers"), _("factors"), ("", "right"))
    for term in group.terms:
        add(rows, term.path or "–", _named(term), str(term), f"{term.value:,}")
    if len(group.terms) > 1:
        add(rows, _("sum"), "", "", f"{group.each:,}", style="bold")
    return [*lines, rows]


def _named(term: Term) -> str:
    names = {
        "weight": _("weight"),
        "bias": _("bias"),
        "outputs": _("outputs"),
        "products": _("products"),
        "queries by keys, weights by values": _("queries by keys, weights by values"),
    }
    return names.get(term.name, term.name)


def comparison(shown: Comparison) -> RenderableType:
    """Both side by side by kind, what each setting brings, and where the difference lies."""
    total, names = shown.total, kinds()
    rows = table(
        _("parameters"),
        (shown.left, "right"),
        (shown.right, "right"),
        (_("difference"), "right"),
        (_("of it"), "right"),
    )
    for column in rows.columns[1:3]:
        column.no_wrap = False
    for row in shown.kinds:
        add(rows, names[row.name], *_side_by_side(row), share(row.difference, total.difference))
    add(rows, _("in all"), *_side_by_side(total), "100 %" if total.difference else "", style="bold")
    add(rows, _("neurons"), *_side_by_side(shown.neurons), "")
    lines: list[RenderableType] = [rows]
    if shown.changes:
        lines += [heading(_("setting by setting, changed in this order")), _changes(shown)]
    return Lines(*lines, Text(), Text(where(shown)))


def _side_by_side(row: Row) -> tuple[str, str, str]:
    return f"{row.left:,}", f"{row.right:,}", f"{row.difference:+,}" if row.difference else "0"


def _changes(shown: Comparison) -> RenderableType:
    rows = table(_("setting"), shown.left, shown.right, (_("brings"), "right"), (_("parameters then"), "right"))
    now = shown.total.left
    for change in shown.changes:
        now += change.parameters
        add(
            rows,
            _lines(change.fields),
            _lines(change.left),
            _lines(change.right),
            f"{change.parameters:+,}",
            f"{now:,}",
        )
    return rows


def _lines(values: tuple[object, ...]) -> str:
    return "\n".join("–" if value is None else str(value) for value in values)


def where(shown: Comparison) -> str:
    """In one sentence where the difference lies."""
    total = shown.total
    if not any(row.difference for row in shown.kinds):
        return _("Both have the same parameters in every kind of layer.")
    names = kinds()
    largest = max(shown.kinds, key=lambda row: abs(row.difference))
    more = _("{right} has {n} parameters more than {left}") if total.difference > 0 else None
    fewer = _("{right} has {n} parameters fewer than {left}") if total.difference < 0 else None
    said = (more or fewer or _("{right} has as many parameters as {left}")).format(
        right=shown.right, left=shown.left, n=short(abs(total.difference))
    )
    if total.difference and total.left:
        factor = total.right / total.left
        said += _(" ({factor} times as many)").format(factor=f"{factor:,.0f}" if factor >= 100 else f"{factor:.3g}")
    said += _("; most of the difference lies in {kind}: {n:+,}").format(kind=names[largest.name], n=largest.difference)
    change: Change | None = max(shown.changes, key=lambda change: abs(change.parameters), default=None)
    if change is not None:
        said += _("; the setting that brings most is {fields}: {n:+,}").format(
            fields=", ".join(change.fields), n=change.parameters
        )
    return said + _(".")
