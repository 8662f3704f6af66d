"""The answers of `questions` in a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.text import Text

from pellucid.anatomy.cost.assumptions import figure
from pellucid.anatomy.memory.sizes import Sizes, as_bytes, titles
from pellucid.anatomy.shown.words import add, short, table
from pellucid.language import _, translated

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from pellucid.anatomy.cost.devices import Device
    from pellucid.anatomy.cost.optimal import Budget
    from pellucid.anatomy.questions import Hardware, Model, Models, Serving, Training

Printed = Iterator["RenderableType"]


def models(answer: Models) -> Printed:
    """The catalogue: what was counted beside what was published."""
    rows = table(_("model"), (_("parameters"), "right"), (_("published"), "right"), (_("difference"), "right"))
    for row in answer.rows:
        add(rows, row.entry.name, *_counted(row))
    yield rows
    for row in answer.rows:
        if len(answer.rows) <= 12 and (note := row.entry.note):
            yield Text(f"{row.entry.name}: {translated(note)}")
    if any(row.entry.status for row in answer.rows):
        yield Text(_("Of rumoured and undisclosed models nothing is counted: no configuration was published."))
    n = len(answer.rows)
    yield Text(_("{n} models. `pellucid anatomy NAME` opens one; --json has sources and notes.").format(n=n))


def _counted(row: Model) -> tuple[str, str, str]:
    published = row.entry.published or ""
    status = {"rumour": _("rumour"), "undisclosed": _("undisclosed")}.get(row.entry.status or "", "")
    if row.total is None:
        return status or "–", published, ""
    total = f"{row.total:,}"
    difference = "" if row.difference is None else f"{row.difference:+.2%}" if row.difference else "="
    return total, published, difference


def hardware(answer: Hardware) -> Printed:
    """The devices, each figure as its maker prints it."""
    rows = table(
        _("device"),
        (_("TFLOP/s"), "right"),
        (_("GB"), "right"),
        (_("GB/s"), "right"),
        (_("W"), "right"),
        (_("$/h"), "right"),
        _("price of"),
    )
    for device in answer.rows:
        name, peak = device.rate()
        add(
            rows,
            device.name,
            f"{peak / 1e12:,.0f} {name}",
            f"{device.memory / 1e9:,.0f}",
            f"{device.bandwidth / 1e9:,.0f}",
            f"{device.power:,.0f}" if device.power else "–",
            f"{device.price:.2f}" if device.price else "–",
            str(device.price_date),
        )
    yield rows
    yield Text(_("Peaks are dense, of the fastest format for training; --json has the others, and every source."))


def budget(answer: Budget) -> Printed:
    """What a budget buys, and the formulas."""
    rows = table(_("best model, by"), (_("parameters"), "right"), (_("tokens"), "right"), (_("loss"), "right"))
    for best in answer.optima:
        add(rows, best.source, short(best.parameters), short(best.tokens), f"{best.loss:.2f}")
    yield rows
    yield from _formulas([line for name, line in answer.reasons.items() if not name.startswith("optimum")])


def serving(answer: Serving) -> Printed:
    """Memory part by part, whether it fits, how fast at most."""
    shape = _("{name}: weights in {format}, cache in {cache}, {batch:,} × {length:,} tokens")
    if answer.length is None:
        shape = _("{name}: weights in {format}, {batch:,} at once")
    at = {"name": answer.name, "format": answer.number_format, "cache": answer.cache_format, "batch": answer.batch}
    yield Text(shape.format(**at, length=answer.length), style="bold")
    yield _sizes(answer.sizes)
    if answer.token:
        yield Text(_("One more token of a text takes {size}.").format(size=as_bytes(answer.token)))
    if answer.device is not None:
        yield _verdict(answer.fits, answer.devices, answer.device)
        most = _("At most {batch:,} at once.")
        if answer.length is not None:
            most = _("At most {batch:,} texts of this length.")
        if answer.largest_context is not None:
            most = _("At most {context:,} tokens at this batch, or {batch:,} texts of this length.")
        yield Text(most.format(context=answer.largest_context, batch=answer.largest_batch))
    yield from _beyond(answer.context, max(answer.length or 0, answer.largest_context or 0))
    if answer.speed is not None:
        speed = _("At most {speed:,.1f} tokens a second in all; what holds back is {bound}.")
        bound = {"bandwidth": _("bandwidth"), "compute": _("compute")}[answer.speed.bound]
        yield Text(speed.format(speed=answer.speed.tokens_per_second, bound=bound))
        if answer.speed.money is not None:
            yield Text(_("A million tokens cost at least {money:,.2f} $.").format(money=answer.speed.money))
    yield from _formulas(answer.explain())


def training(answer: Training) -> Printed:
    """Work, memory, time, money; what was published beside."""
    title = _("{name}, {n} tokens") if answer.length is not None else _("{name}, {n} inputs")
    yield Text(title.format(name=answer.name, n=short(answer.examples)), style="bold")
    if answer.rule is not None:
        both = _("FLOPs: {rule:.4g} by 6ND; {exact:.4g} by operation at {length:,} tokens a text ({difference:+.1%}).")
        difference = answer.exact / answer.rule - 1
        yield Text(both.format(rule=answer.rule, exact=answer.exact, length=answer.length, difference=difference))
    else:
        yield Text(_("FLOPs: {exact:.4g} by operation.").format(exact=answer.exact))
    yield from _beyond(answer.context, answer.length or 0)
    if answer.memory is not None:
        yield _sizes(answer.memory)
    if answer.device is not None and answer.memory is not None:
        yield _verdict(answer.fits, answer.devices, answer.device)
        if answer.recomputed is not None:
            yield Text(_("With --recompute it takes {size}.").format(size=as_bytes(answer.recomputed.total)))
        if answer.smallest is None:
            yield Text(_("On no number of these devices does it fit."))
        elif answer.sharding != "none":
            said = _("It fits on {n:,} of them or more, shared out by {sharding}.")
            yield Text(said.format(n=answer.smallest, sharding=answer.sharding))
    if answer.cost is not None or answer.published is not None:
        yield _costs(answer)
    if answer.utilisation is not None:
        yield Text(_("The published hours mean a utilisation of {share:.1%}.").format(share=answer.utilisation))
    yield from _formulas(answer.explain())


def _costs(answer: Training) -> Table:
    """Time, money and energy, as foretold and as they were published."""
    rows = table("", (_("device-hours"), "right"), (_("days"), "right"), (_("money"), "right"), (_("energy"), "right"))
    for name, cost in ((_("foretold"), answer.cost), (_("published"), answer.published)):
        if cost is not None:
            add(
                rows,
                name,
                figure(cost.device_hours),
                f"{cost.days:,.2f}" if cost.days >= 0.1 else figure(cost.days),
                "–" if cost.money is None else f"{figure(cost.money)} $",
                "–" if cost.energy_kwh is None else _energy(cost.energy_kwh),
            )
    return rows


def _energy(kwh: float) -> str:
    return f"{kwh / 1000:,.1f} MWh" if kwh >= 1000 else f"{figure(kwh)} kWh"


def _beyond(context: int | None, length: int) -> Printed:
    if context is not None and length > context:
        yield Text(_("The network was made for texts of up to {n:,} tokens.").format(n=context))


def _verdict(fits: bool | None, n: int, device: Device) -> Text:
    where = _("{n:,} × {device}, {size} each").format(n=n, device=device.title, size=as_bytes(device.memory))
    if fits:
        return Text(_("Fits: {where}.").format(where=where), style="green")
    return Text(_("Does not fit: {where}.").format(where=where), style="red")


def _sizes(sizes: Sizes) -> Table:
    """A part a row, parts of one name together."""
    rows = table(_("memory"), ("", "right"))
    names = titles()
    for name in dict.fromkeys(part.name for part in sizes.parts):
        add(rows, names[name], as_bytes(sizes[name]))
    add(rows, _("in all"), as_bytes(sizes.total), style="bold")
    return rows


def _formulas(lines: list[str]) -> Printed:
    yield Text(_("How the numbers come about:"), style="bold")
    for line in lines:
        yield Text(f"  {line}")
