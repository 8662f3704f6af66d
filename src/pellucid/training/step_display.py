"""A training step in a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text
from torch import Tensor

from pellucid.language import _
from pellucid.tracing.display import heading, number
from pellucid.training.stepping import StepShown, Update


def show(shown: StepShown, top: int = 8, console: Console | None = None) -> None:
    """Print a step: every number of a small network, else a summary and the `top` largest gradients."""
    console = console or Console(highlight=False)
    said = _("Step {n}: {optimiser}, learning rate η = {rate}, {parameters:,} parameters").format(
        n=shown.number, optimiser=shown.optimiser, rate=number(shown.learning_rate), parameters=shown.parameters
    )
    console.print(Text(said, style="bold"))
    for note in shown.notes:
        console.print(Text(f"• {note}", style="yellow"))
    for title, part in (
        (_("The batch"), _batch(shown, top)),
        (_("Forward: what each module gives"), _forward(shown)),
        (_("Loss"), _loss(shown)),
        (_("Backward and update: w + Δw = new w, ∇ = ∂C/∂w"), _updates(shown)),
    ):
        console.print(heading(title))
        console.print(part)
    if not shown.small:
        console.print(heading(_("The largest gradients")))
        for found in shown.json(top)["largest_gradients"]:
            console.print(Text(f"{number(found['value']):>10}  {found['address']}"))
    console.print(heading(_("What the step did to the loss of this batch")))
    console.print(_effect(shown))
    console.print(Text(_asking(shown), style="dim"))


def _batch(shown: StepShown, top: int) -> RenderableType:
    examples = shown.examples if shown.small else shown.examples[:top]
    rows = _table("", *(str(name) for name in examples[0])) if examples else _table("")
    for n, example in enumerate(examples):
        rows.add_row(f"[{n}]", *(number(x) if isinstance(x, float) else _short(str(x)) for x in example.values()))
    if len(shown.examples) > len(examples):
        rows.add_row("…", _("{n:,} more").format(n=len(shown.examples) - len(examples)))
    return rows


def _forward(shown: StepShown) -> RenderableType:
    if not shown.small:
        rows = _table(_("address"), _("shape"), _("norm"), _("smallest"), _("largest"), _("zeros"), numbers=True)
        for layer in shown.layers:
            found = layer.summary()
            figures = (number(found[name]) for name in ("norm", "min", "max"))
            rows.add_row(layer.address, _shape(layer.values), *figures, f"{found['zeros']:.0%}")
        return rows
    rows = _table(_("address"), _("kind"), _("values"))
    for layer in shown.layers:
        for n, values in enumerate(layer.values.reshape(len(layer.values), -1).tolist()):
            kind = layer.kind if n == 0 else ""
            rows.add_row(f"{layer.address}[{n},…]", kind, "  ".join(f"{number(x):>9}" for x in values))
    return rows


def _loss(shown: StepShown) -> RenderableType:
    lines = [
        _("C = {loss}: the mean over {n:g} targets; |∇C| = {norm}").format(
            loss=number(shown.loss), n=shown.targets, norm=number(shown.gradient_norm)
        )
    ]
    lines += [_("the sum over the targets is at {address}").format(address=name) for name in shown.loss_addresses]
    return Text("\n".join(lines))


def _updates(shown: StepShown) -> RenderableType:
    if shown.small:
        rows = _table(_("address"), "w", "∇", "Δw", _("new w"), numbers=True)
        for update in shown.updates:
            numbers = (update.before, update.gradient, update.change, update.after)
            for at, values in zip(
                _indices(update), zip(*(x.flatten().tolist() for x in numbers), strict=True), strict=True
            ):
                rows.add_row(update.name + at, *(number(x) for x in values))
        return rows
    rows = _table(_("parameter"), _("shape"), "|w|", "|∇|", "|Δw|/|w|", numbers=True)
    for update in shown.updates:
        norms = (x.norm().item() for x in (update.before, update.gradient))
        rows.add_row(update.name, _shape(update.before), *(number(x) for x in (*norms, update.ratio)))
    return rows


def _effect(shown: StepShown) -> RenderableType:
    lines = [
        _("C before {before}, after {after}: ΔC = {change}").format(
            before=number(shown.loss), after=number(shown.loss_after), change=number(shown.change)
        )
    ]
    expected, name = (shown.descent, "−η |∇C|²") if shown.descent is not None else (shown.first_order, "∇C · Δw")
    said = _("to first order {name} = {expected}").format(name=name, expected=number(expected))
    if expected:
        said += _("; ΔC is {ratio:.4g} times that (1, were the step small enough)").format(
            ratio=shown.change / expected
        )
    return Text("\n".join([*lines, said]))


def _asking(shown: StepShown) -> str:
    if not shown.updates:
        return ""
    update = shown.updates[0]
    index = "[" + ",".join("0" * update.before.ndim) + "]"
    return _("Ask of any number why: --why {gradient}, --why {updated}").format(
        gradient=f'"{update.name}:grad{index}"', updated=f'"{update.name}:updated{index}"'
    )


def _indices(update: Update) -> list[str]:
    from itertools import product

    return ["[" + ",".join(map(str, index)) + "]" for index in product(*map(range, update.before.shape))]


def _short(text: str, most: int = 60) -> str:
    text = text.replace("\n", "↵")
    return text if len(text) <= most else f"{text[:most]}…"


def _shape(x: Tensor) -> str:
    return "×".join(map(str, x.shape))


def _table(*names: str, numbers: bool = False) -> Any:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for n, name in enumerate(names):
        table.add_column(name, no_wrap=numbers or n == 0, justify="right" if numbers and n else "left")
    return table
