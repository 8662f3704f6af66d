"""Answers and flows in a terminal: signed bars, coloured text, trees that fit the screen."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from pellucid.language import _
from pellucid.tracing.answers import Answer, Term
from pellucid.tracing.asking import TokenByToken
from pellucid.tracing.layers import Flow, Layer
from pellucid.tracing.layers import Group as Part
from pellucid.tracing.plain import Step, by_token, listed, opened, others

# For and against, readable on light and dark, and by those who do not tell red from green; faint to strong.
FOR = ("color(74)", "color(32)", "bold color(26)")
AGAINST = ("color(179)", "color(172)", "bold color(166)")
HALF = 4  # columns on each side of a bar's middle
EIGHTHS = " ▏▎▍▌▋▊▉█"


def show(shown: Any, console: Console | None = None, top: int = 8, path: Sequence[Step] = ()) -> None:
    """Print an answer or a flow; of an answer, only the terms on `path`, where one is given."""
    (console or Console(highlight=False)).print(rendered(shown, top, path))


def as_text(shown: Any, width: int = 80, top: int = 8) -> str:
    """The same without colours."""
    page = io.StringIO()
    show(shown, Console(file=page, width=width, color_system=None, highlight=False), top)
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines())


def one_line(shown: Any) -> str:
    """For `repr`: what was asked, and what it comes from."""
    if isinstance(shown, TokenByToken):
        return f"<{shown.text!r}, token by token: p = {shown.probability:.3g}>"
    if isinstance(shown, Flow):
        return f"<flow to {shown.target}: {number(shown.value)}, {len(shown.layers)} layers>"
    return f"<{shown.question} = {number(shown.value)}: {shown.kind}, {len(shown.terms)} terms>"


def rendered(shown: Any, top: int = 8, path: Sequence[Step] = ()) -> RenderableType:
    """What `rich` prints."""
    if isinstance(shown, Flow):
        return Group(title(shown.target), *_flow(shown, top))
    if isinstance(shown, TokenByToken):
        return _spelled(shown, top)
    return _answer(shown, top, path)


# ---- whole answers


def _answer(answer: Answer, top: int, path: Sequence[Step]) -> Group:
    parts: list[RenderableType] = [
        title(answer.question, answer.context.model if answer.context else ""),
        *_head(answer),
    ]
    if answer.context is not None and not path and answer.kind == "sum":
        flow = answer.context.flow()
        if flow.layers or flow.tokens is not None or any(x.any() for x in flow.inputs.values()):
            parts += _flow(flow, top, len(answer.context.tokens))
    if len(answer.terms) or answer.constants:
        parts += [heading(_("single terms")), _tree(answer, top, path), balance(answer)]
    if len(answer.terms) and not path:
        parts.append(Text(_("Open one: answer.terms[0].why(), or --open 1 on the command line."), style="dim"))
    return Group(*parts)


def _spelled(spelled: TokenByToken, top: int) -> Group:
    product = " × ".join(f"{p:.4g}" for p in spelled.probabilities)
    line = _("{text!r} is {n} tokens, asked one by one; its probability is the product: {product} = {p:.4g}").format(
        text=spelled.text, n=len(spelled.answers), product=product, p=spelled.probability
    )
    return Group(Text(line, style="bold"), *(_answer(answer, top, ()) for answer in spelled.answers))


def _head(answer: Answer) -> list[RenderableType]:
    lines: list[RenderableType] = [Text(sentence(answer))]
    if answer.context and answer.context.candidates:
        named = {token.id: token for token in (*answer.context.candidates, *answer.context.asked)}
        chosen = [token.id for token in answer.context.asked]
        line = Text(_("could come next:"), style="dim")
        for token in sorted(named.values(), key=lambda token: -token.probability):
            style = (FOR[1] if token.id == chosen[0] else AGAINST[1]) if token.id in chosen else "none"
            line.append(f"  {token.shown} {percent(token.probability)}", style=style)
        lines.append(line)
    lines += [Text(f"• {note}", style="yellow") for note in answer.notes]
    return lines


def sentence(answer: Answer) -> str:
    """What the value means, in words."""
    value = number(answer.value)
    if answer.kind == "decision":
        sides = [number(term.value) for term in (*answer.terms[:2], *answer.constants)]
        return _("{value}: a decision between {sides}; the margin is {margin}.").format(
            value=value, sides=" | ".join(sides), margin=number(answer.margin or 0.0)
        )
    if answer.kind == "leaf":
        known = {"parameter": _("a parameter"), "input": _("an input"), "outside": _("from outside the recording")}
        return _("{value}: {what}, given and not computed: here the sum ends.").format(
            value=value, what=known.get(answer.operation, answer.operation)
        )
    if answer.kind == "not a sum":
        return _(
            "{value}: a probability is not a sum. Two things about it are: its logarithm (--about log-probability; "
            "trace.log_probability(token)) and why this token rather than that one (--rather-than)."
        ).format(value=value)
    if answer.kind == "unexplained":
        return _("{value}: no rule makes a sum of this ({what}).").format(value=value, what=answer.operation)
    if answer.context and len(answer.context.asked) == 2:
        a, b = answer.context.asked
        ratio = math.exp(min(abs(answer.value), 700.0))
        if answer.value < 0:
            a, b = b, a
        return _("{value}: the logits' difference; {a} is e^{size} = {ratio:,.4g} times as probable as {b}.").format(
            value=signed(answer.value), a=a.shown, b=b.shown, size=number(abs(answer.value)), ratio=ratio
        )
    if len(answer.terms) == 1 and not answer.constants:
        return _("{value}: made by {what} from one term.").format(value=value, what=answer.operation)
    return _("{value}: made by {what}, the sum of {n:,} terms.").format(
        value=value, what=answer.operation, n=len(answer.terms)
    )


def _tree(answer: Answer, top: int, path: Sequence[Step], prefix: str = "") -> Tree:
    tree = Tree(Text(answer.address or answer.question, overflow="ellipsis", no_wrap=True), guide_style="dim")
    rows = listed(answer, top, path)
    biases = sorted(answer.constants, key=lambda term: -abs(term.contribution))
    left = len(answer.terms) - len(rows)
    largest = max((abs(term.contribution) for term in (*(term for _n, term in rows), *biases)), default=0.0)
    for n, term in rows:
        branch = tree.add(_term(f"{prefix}{n}", term, largest, answer.kind))
        if path and path[0][0] == n:
            behind = opened(term, *path[0])
            name = f"{prefix}{n}{'c' if path[0][1] else ''}."
            inner = _tree(behind, top, path[1:], name)
            branch.add(Text(f"{name[:-1]}  {sentence(behind)}" if path[0][1] else sentence(behind), style="italic"))
            for child in inner.children:
                branch.children.append(child)
            if behind.terms:
                branch.add(balance(behind, brief=True))
    if left:
        amount = others(answer, rows)
        tree.add(_row("…", amount, largest, _("all other {n:,} terms").format(n=left), "dim"))
    for term in biases[:top]:
        tree.add(_row("k", term.contribution, largest, _("constant: {name}").format(name=term.address or term.source)))
    if len(biases) > top:
        amount = sum(term.contribution for term in biases[top:])
        tree.add(_row("k", amount, largest, _("all other {n:,} constants").format(n=len(biases) - top), "dim"))
    return tree


def _term(name: str, term: Term, largest: float, kind: str) -> Text:
    if kind == "decision":
        return _row(name, term.value, largest, f"{term.source}  {term.address}")
    product = f"= {number(term.coefficient)} × {number(term.value)}"
    return _row(name, term.contribution, largest, f"{product:<20} {term.address}  ({term.source})")


def _row(name: str, amount: float, largest: float, rest: str, style: str = "") -> Text:
    line = Text(f"{name:<3} ", overflow="ellipsis", no_wrap=True)
    return (
        line.append(bar(amount, largest))
        .append(f" {signed(amount):>9}  ", style=shade(amount, largest))
        .append(rest, style=style)
    )


def balance(answer: Answer, brief: bool = False) -> Text:
    """The equation that every answer is checked by."""
    constants = _("constants")
    constant = f" {signed(answer.constant)} ({constants})" if answer.constants else ""
    if answer.kind == "decision":
        return Text("")
    if brief:
        text = _("Σ = {value}, residue {residue:.1e}, cancellation {cancellation:.3g}").format(
            value=signed(answer.value), residue=answer.residue, cancellation=answer.cancellation
        )
        return Text(text, style="dim")
    text = _(
        "Σ {n:,} terms {terms}{constant} = {value}, residue {residue:.1e}; cancellation Σ|terms|/|value| = "
        "{cancellation:.3g}; convention: {convention}"
    ).format(
        n=len(answer.terms),
        terms=signed(answer.total - answer.constant),
        constant=constant,
        value=signed(answer.value),
        residue=answer.residue,
        cancellation=answer.cancellation,
        convention=answer.convention,
    )
    return Text(text, style="dim")


# ---- flows


def _flow(flow: Flow, top: int, seen: int = 0) -> list[RenderableType]:
    parts: list[RenderableType] = []
    tokens = by_token(flow)[: seen or None]
    if tokens:
        largest = max(abs(amount) for _name, amount in tokens)
        parts += [heading(_("the text, by what each token contributes")), coloured(tokens), Text()]
        parts.append(_list(sorted(enumerate(tokens), key=lambda item: -abs(item[1][1])), top, largest))
    if flow.inputs:
        sums = [(name, x.sum().item()) for name, x in flow.inputs.items()]
        if any(amount for _name, amount in sums):
            parts += [heading(_("inputs")), _named(sums, top)]
    if flow.layers:
        parts += [heading(_("the layers: each row adds up to {value}").format(value=signed(flow.value))), _layers(flow)]
        heads = top_heads(flow, top)
        if heads:
            parts += [heading(_("the heads that bring most, and from where")), _heads(heads)]
    else:
        parts.append(Text(_("No layers can be read off this module's names."), style="dim"))
    if flow.stopped:
        parts += [heading(_("where no rule goes on")), _named(flow.stopped.items(), top)]
    parts += [
        heading(_("constants")),
        _named(flow.constants.items(), top) if flow.constants else Text("0", style="dim"),
    ]
    parts.append(flow_balance(flow))
    return [Group(*parts)]


def flow_balance(flow: Flow) -> Text:
    """Everything that a flow begins with, added up."""
    sums = [
        (_("tokens"), flow.tokens.sum().item() if flow.tokens is not None else 0.0),
        (_("inputs"), sum(x.sum().item() for x in flow.inputs.values())),
        (_("constants"), sum(flow.constants.values())),
        (_("stopped"), sum(flow.stopped.values())),
    ]
    shown = " ".join(f"{signed(amount)} ({name})" for name, amount in sums if amount or name == _("constants"))
    text = _("Σ = {sums} = {value}, residue {residue:.1e}; convention: {convention}").format(
        sums=shown, value=signed(flow.value), residue=flow.residue, convention=flow.convention
    )
    return Text(text, style="dim")


def coloured(tokens: Iterable[tuple[str, float]]) -> Text:
    """A text, each token in the colour of its contribution."""
    tokens = list(tokens)
    largest = max((abs(amount) for _name, amount in tokens), default=0.0)
    line = Text()
    for name, amount in tokens:
        line.append(name, style=shade(amount, largest)).append("⏎\n" if name == "⏎" else "")
    for name, styles in ((_("for"), FOR), (_("against"), AGAINST)):
        line.append(f"   {name} ", style="dim")
        for style in styles:
            line.append("■", style=style)
    return line


def _list(rows: Sequence[tuple[int, tuple[str, float]]], top: int, largest: float) -> Table:
    table = _table(None, "right", None)
    for n, (name, amount) in rows[:top]:
        table.add_row(
            bar(amount, largest),
            Text(signed(amount), shade(amount, largest)),
            Text(name if name == f"[{n}]" else f"{name}  [{n}]"),
        )
    if len(rows) > top:
        amount = sum(amount for _n, (_name, amount) in rows[top:])
        table.add_row(bar(amount, largest), signed(amount), Text(_("all other {n:,} tokens").format(n=len(rows) - top)))
    return table


def _named(pairs: Iterable[tuple[str, float]], top: int) -> Table:
    rows = cut(pairs, top)
    largest = max((abs(amount) for _name, amount in rows), default=0.0)
    table = _table(None, "right", None)
    for name, amount in rows:
        table.add_row(bar(amount, largest), Text(signed(amount), shade(amount, largest)), Text(name))
    return table


def cut(pairs: Iterable[tuple[str, float]], top: int) -> list[tuple[str, float]]:
    """The largest ones, and a row for all others; what is less than a thousandth of the largest is among these."""
    rows = sorted(pairs, key=lambda pair: -abs(pair[1]))
    shown = [row for row in rows[:top] if abs(row[1]) >= abs(rows[0][1]) / 1000]
    rest = rows[len(shown) :]
    if rest:
        shown.append((_("all other {n:,}").format(n=len(rest)), sum(amount for _name, amount in rest)))
    return shown


def columns(flow: Flow) -> list[str]:
    """The kinds of parts that a flow's layers have: at most two, the largest; the others are one more."""
    sizes: dict[str, float] = {}
    for layer in flow.layers:
        for part in layer.groups:
            sizes[kind_of(part)] = sizes.get(kind_of(part), 0.0) + abs(part.amount)
    kept = sorted(sizes, key=lambda kind: -sizes[kind])[:2]
    return [kind for kind in sizes if kind in kept] + ([_("other parts")] if len(sizes) > 2 else [])


def kind_of(part: Part) -> str:
    """What a part of a layer is."""
    name = part.name.rpartition(".")[2]
    if part.heads is not None or "att" in name.lower():
        return _("attention")
    if name.lower() in (
        "feed_forward",
        "mlp",
        "ffn",
        "ff",
        "feedforward",
        "intermediate",
        "output",
        "dense",
        "densereludense",
    ):
        return _("feed-forward")
    return name


def of_kind(layer: Layer, kind: str, kinds: Sequence[str]) -> float:
    """What a layer's parts of a kind contribute."""
    if kind == _("other parts"):
        return sum(part.amount for part in layer.groups if kind_of(part) not in kinds)
    return sum(part.amount for part in layer.groups if kind_of(part) == kind)


def _layers(flow: Flow) -> Group:
    kinds = columns(flow)
    largest = max((abs(of_kind(layer, kind, kinds)) for layer in flow.layers for kind in kinds), default=0.0)
    most = max((abs(layer.past) for layer in flow.layers), default=0.0)
    short = layer_names(flow)
    headings = [_("layer"), *(head for kind in (*kinds, _("past this layer")) for head in (kind, "")), _("constants")]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim", show_edge=False)
    for n, head in enumerate(headings):
        table.add_column(head, justify="right" if n in (0, len(headings) - 1) or n % 2 == 0 else "left", no_wrap=True)
    for layer in flow.layers:
        cells: list[RenderableType] = [Text(short[layer.name])]
        for kind in kinds:
            amount = of_kind(layer, kind, kinds)
            cells += [bar(amount, largest), Text(signed(amount), shade(amount, largest))]
        cells += [bar(layer.past, most), Text(signed(layer.past), shade(layer.past, most))]
        constant = layer.constant + layer.later + layer.residue
        small = abs(constant) < 5e-4
        cells.append(Text("0" if small else signed(constant), "dim" if small else ""))
        table.add_row(*cells)
    legend = _(
        "A full bar is {parts} in the parts, {past} in what goes past. Constants: what enters in this layer or later "
        "from no input, and the rounding."
    ).format(parts=number(largest), past=number(most))
    return Group(table, Text(legend, style="dim"))


def layer_names(flow: Flow) -> dict[str, str]:
    """Each layer's path without what all of them share: its number, most often."""
    paths = [layer.name.split(".") for layer in flow.layers]
    if len({len(path) for path in paths}) != 1:
        return {layer.name: layer.name for layer in flow.layers}
    differ = [n for n, parts in enumerate(zip(*paths, strict=True)) if len(set(parts)) > 1] or [-1]
    return {".".join(path): ".".join(path[n] for n in differ) for path in paths}


Head = tuple[str, int, float, list[tuple[str, float]]]  # layer, head, contribution, by position looked at


def top_heads(flow: Flow, top: int) -> list[Head]:
    """The attention heads that contribute most, each with the positions that it brings it from."""
    tokens, short = by_token(flow), layer_names(flow)
    often = Counter(name for name, _amount in tokens)
    names = [f"{name}[{n}]" if often[name] > 1 else name for n, (name, _amount) in enumerate(tokens)]
    found: list[Head] = []
    for layer in flow.layers:
        for part in layer.groups:
            if part.heads is None:
                continue
            heads = part.heads if part.heads.dim() == 2 else part.heads.sum(0)
            for h, row in enumerate(heads.tolist()):
                fitting = names if len(names) == len(row) else [f"[{n}]" for n in range(len(row))]
                sources = sorted(zip(fitting, row, strict=True), key=lambda source: -abs(source[1]))
                found.append((short[layer.name], h, sum(row), sources))
    return sorted(found, key=lambda head: -abs(head[2]))[:top]


def _heads(heads: Sequence[Head]) -> Table:
    largest = max(abs(amount) for _layer, _h, amount, _sources in heads)
    table = _table("right", None, "right", None)
    for layer, h, amount, sources in heads:
        seen = Text("  ").join(
            Text(f"{name} {signed(part)}", shade(part, largest)) for name, part in sources[:3] if part
        )
        table.add_row(
            Text(_("layer {layer} head {head}").format(layer=layer, head=h)), bar(amount, largest),
            Text(signed(amount), shade(amount, largest)), seen,
        )  # fmt: skip
    return table


# ---- pieces


def _table(*justify: Any) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    for side in justify:
        table.add_column(justify=side or "left", no_wrap=True, overflow="ellipsis")
    return table


def title(text: str, model: str = "") -> Text:
    """The question."""
    return Text(text, style="bold").append(f"   {model}" if model else "", style="dim")


def heading(text: str) -> Padding:
    """Of a part of the view."""
    return Padding(Text(text, style="bold underline"), (1, 0, 0, 0))


def bar(amount: float, largest: float) -> Text:
    """A signed bar: to the right of the middle what speaks for it, to the left what speaks against."""
    size = min(1.0, abs(amount) / largest) * HALF if largest and math.isfinite(amount) else 0.0
    if amount >= 0:
        whole, part = divmod(round(size * 8), 8)
        right = "█" * whole + (EIGHTHS[part] if part else "")
        return Text(" " * HALF + "│" + set_cell_size(right, HALF), style=shade(amount, largest))
    whole, part = divmod(round(size * 2), 2)
    left = ("▐" if part else "") + "█" * whole or "▕"
    return Text(" " * (HALF - cell_len(left)) + left + "│" + " " * HALF, style=shade(amount, largest))


def shade(amount: float, largest: float) -> str:
    """The colour of a contribution."""
    share = abs(amount) / largest if largest else 0.0
    if share < 0.05 or math.isnan(share):
        return "dim"
    return (FOR if amount > 0 else AGAINST)[2 if share > 0.6 else 1 if share > 0.25 else 0]


def number(x: float) -> str:
    """Four digits, in the shorter of two ways."""
    if x == 0 or not math.isfinite(x):
        return f"{x:g}"
    return f"{x:.4g}" if 1e-3 <= abs(x) < 1e5 else f"{x:.2e}"


def signed(x: float) -> str:
    """A contribution."""
    if x == 0 or not math.isfinite(x):
        return f"{x:+g}" if x else "0"
    return f"{x:+.3f}" if 1e-3 <= abs(x) < 1e4 else f"{x:+.1e}"


def percent(probability: float) -> str:
    """As in `generation.display`: 12.3%, or 0.0041% where one digit would show nothing."""
    return f"{probability:.1%}" if probability >= 0.0005 or probability == 0 else f"{100 * probability:.2g}%"
