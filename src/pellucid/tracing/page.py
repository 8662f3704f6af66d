"""Answers and flows as one page of HTML that needs nothing else, and as a view for notebooks.

Everything on it is there without a program running in it: what opens are `<details>`. The few lines of JavaScript add
comfort. Its texts speak the language in which it was written.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import count
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from pellucid.checkpoints.whole_file import write_text
from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.tracing.answers import Answer, Term
from pellucid.tracing.asking import TokenByToken
from pellucid.tracing.display import (
    balance,
    columns,
    cut,
    flow_balance,
    kind_of,
    layer_names,
    number,
    of_kind,
    percent,
    sentence,
    signed,
    top_heads,
)  # fmt: skip
from pellucid.tracing.layers import Flow, Layer
from pellucid.tracing.plain import by_token, others

MARK = '<meta name="generator" content="Pellucid">'
ASSETS = Path(__file__).parent / "assets"
UNFOLDED = 240  # most terms that are opened beforehand: each takes a few milliseconds
SOURCES = 24  # most positions in a picture of heads
PIXELS = 48  # most rows and columns of a picture
ROWS = 160  # most tokens that get a row or a number of their own


def save(shown: Any, path: str | Path, top: int = 8, limit: int = 2_000_000, beside: str = "") -> None:
    """See `Shown.save`. ``beside``: HTML of the caller's own, put after all else."""
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise PellucidError(_("A page is a .html file."), str(path), _("Name it why.html, for example."))
    if path.is_dir() or (path.exists() and MARK not in path.read_text("utf-8", "replace")[:2000]):
        raise PellucidError(
            _("{name} is there already, and is no page of Pellucid's.").format(name=path.name),
            str(path),
            _("Choose another name."),
        )
    write_text(path, page(shown, top, limit, beside))


def page(shown: Any, top: int = 8, limit: int = 2_000_000, beside: str = "") -> str:
    """The whole page."""
    style, script = ((ASSETS / name).read_text("utf-8") for name in ("why.css", "why.js"))
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    language = _("en")
    before = (
        f'<!DOCTYPE html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n{MARK}\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(_name(shown))}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
    )
    after = f"\n<script>\n{script}</script>\n</body>\n</html>\n"
    labels = {"expand": _("open all"), "collapse": _("close all"), "dark": _("light or dark")}
    tools = "".join(f'<button type="button" data-do="{do}">{escape(text)}</button>' for do, text in labels.items())
    foot = _(
        "Each number here is the sum of the ones that it opens to: what is left over is the rounding of the "
        "arithmetic, and is shown. Exact is not the same as causal: without one part, others may step in."
    )
    made = _("Made with Pellucid: a file of its own, which asks nothing of the network.")
    before += f'<main class="why"><nav class="tools" hidden>{tools}</nav>'
    after = f"{beside}<footer><p>{escape(foot)}</p><p>{escape(made)}</p></footer></main>{after}"
    room = limit - len((before + after).encode())
    for share in (1.0, 0.6, 0.3, 0.0):
        inside = _body(shown, top, int(room * share), UNFOLDED if share else 0)
        if len(inside.encode()) <= room:
            return before + inside + after
    raise PellucidError(
        _("This does not fit into {limit:,} bytes.").format(limit=limit),
        "limit",
        _("Allow more, or ask for fewer rows: top."),
    )


def _name(shown: Any) -> str:
    if isinstance(shown, TokenByToken):
        return shown.text
    return shown.target if isinstance(shown, Flow) else shown.question


def fragment(shown: Any) -> str:
    """For notebooks: the same, smaller, inside someone else's page."""
    style = (ASSETS / "why.css").read_text("utf-8")
    return f'<style>{style}</style><div class="why small">{_body(shown, 6, 150_000, 40)}</div>'


def _body(shown: Any, top: int, room: int, unfolded: int) -> str:
    if isinstance(shown, Flow):
        return f"<header><h1>{escape(shown.target)}</h1></header>{_flow(shown, top, room)}"
    if isinstance(shown, TokenByToken):
        each = max(1, len(shown.answers))
        product = " × ".join(percent(p) for p in shown.probabilities)
        text = _(
            "{text!r} is {n} tokens, asked one by one; its probability is the product: {product} = {p:.4g}"
        ).format(text=shown.text, n=len(shown.answers), product=product, p=shown.probability)
        answers = "".join(_answer(answer, top, room // each, unfolded // each) for answer in shown.answers)
        return f'<p class="spelled">{escape(text)}</p>{answers}'
    return _answer(shown, top, room, unfolded)


def _answer(answer: Answer, top: int, room: int, unfolded: int) -> str:
    context = answer.context
    model = f'<p class="model">{escape(context.model)}</p>' if context and context.model else ""
    parts = [f"<article><header>{model}<h1>{_question(answer)}</h1>"]
    lead = re.sub(r"e\^([\d.]+)", r"e<sup>\1</sup>", _token(sentence(answer)))
    parts.append(f'<p class="lead">{lead}</p>')
    if context and context.candidates:
        parts.append(_candidates(answer))
    parts += [f'<p class="note">{escape(note)}</p>' for note in answer.notes]
    parts.append("</header>")
    if context and answer.kind == "sum":
        flow = context.flow()
        if flow.layers or flow.tokens is not None or flow.inputs:
            parts.append(_flow(flow, top, room * 2 // 3, len(context.tokens)))
    left = room - sum(len(part.encode()) for part in parts)
    if len(answer.terms) or answer.constants:
        parts.append(_terms(answer, top, left, unfolded))
    return "".join(parts) + "</article>"


def _question(answer: Answer) -> str:
    """The question, its two tokens in the colours of their sides."""
    text = _token(answer.question)
    asked = answer.context.asked if answer.context else ()
    for token, side in zip(asked, ("for", "against"), strict=False):
        shown = _token(token.shown)
        text = text.replace(f" {shown}", f' <span class="side {side}">{shown}</span>', 1)
    return text


def _candidates(answer: Answer) -> str:
    context = answer.context
    assert context is not None
    asked = [token.id for token in context.asked]
    named = {token.id: token for token in (*context.candidates, *context.asked)}
    items = []
    for token in sorted(named.values(), key=lambda token: -token.probability):
        side = {0: " for", 1: " against"}.get(asked.index(token.id), "") if token.id in asked else ""
        items.append(
            f'<li class="{side.strip()}"><span class="token">{_token(token.shown)}</span>'
            f'<span class="meter"><i style="--v:{token.probability:.4f}"></i></span>'
            f"<b>{percent(token.probability)}</b></li>"
        )
    return _section(_("What could come next"), f'<ol class="next">{"".join(items)}</ol>')


# ---- the flow


def _flow(flow: Flow, top: int, room: int, seen: int = 0) -> str:
    tokens = by_token(flow)[: seen or None]
    parts = []
    if tokens:
        parts.append(_section(_("The text, by what each token contributes"), _text(tokens), _legend()))
    inputs = {name: x for name, x in flow.inputs.items() if x.any()}
    if inputs:
        rows = _named([(name, x.sum().item()) for name, x in inputs.items()], top)
        pictures = "".join(_pixels(name, x) for name, x in inputs.items())
        parts.append(_section(_("The inputs"), rows + pictures, _legend() if pictures else ""))
    if flow.layers:
        hint = _(
            "Each row adds up to {value}. Bars of the parts share one scale; what goes past a layer has its own. "
            "A row opens to its attention heads and the tokens that they look at."
        ).format(value=signed(flow.value))
        used = sum(len(part.encode()) for part in parts)
        parts.append(_section(_("The layers"), _layers(flow, tokens, room - used), escape(hint)))
        heads = top_heads(flow, top)
        if heads:
            parts.append(_section(_("The heads that bring most, and from where"), _heads(heads)))
    if flow.stopped:
        parts.append(_section(_("Where no rule goes on"), _named(flow.stopped.items(), top)))
    constants = _named(flow.constants.items(), top) if flow.constants else '<p class="quiet">0</p>'
    parts.append(_section(_("Constants: what comes from no input"), constants))
    parts.append(_flow_sum(flow))
    return "".join(parts)


def _text(tokens: Sequence[tuple[str, float]]) -> str:
    largest = max(abs(amount) for _name, amount in tokens)
    numbered = " numbered" if len(tokens) <= ROWS else ""
    spans = []
    for n, (name, amount) in enumerate(tokens):
        if not numbered and abs(amount) < largest / 50:  # no colour to be seen
            spans.append(escape(name.replace("␣", " ")) + "<br>" * name.endswith("⏎"))
            continue
        under = f"<small>{signed(amount)}</small>" if numbered else ""
        shown = _token(name) if numbered else escape(name.replace("␣", " "))
        spans.append(
            f'<span class="tok {_side(amount)}" style="--c:{_share(amount, largest):.3f}" data-t="{n}" '
            f'title="{escape(name)} [{n}]: {signed(amount)}"><span>{shown}</span>{under}</span>'
        )
        if name.endswith("⏎"):
            spans.append("<br>")
    return f'<p class="text{numbered}">{"".join(spans)}</p>'


def _legend() -> str:
    sides = {"for": _("for"), "against": _("against")}
    return " ".join(f'<span class="key {side}"></span> {escape(name)}' for side, name in sides.items())


def _layers(flow: Flow, tokens: Sequence[tuple[str, float]], room: int) -> str:
    kinds, short = columns(flow), layer_names(flow)
    largest = max((abs(of_kind(layer, kind, kinds)) for layer in flow.layers for kind in kinds), default=0.0)
    most = max((abs(layer.past) for layer in flow.layers), default=0.0)
    strongest = max(flow.layers, key=lambda layer: _heads_size(layer))
    heads = [_("layer"), *kinds, _("past this layer"), _("constants, rounding")]
    top = "".join(f"<span>{escape(head)}</span>" for head in heads)
    rows = []
    pictures: dict[str, str] = {}
    for layer in sorted(flow.layers, key=lambda layer: -_heads_size(layer)):  # where room is short, the weak ones go
        picture = _picture(layer, [name for name, _amount in tokens])
        if len(picture.encode()) < room - 60_000 or not pictures:
            pictures[layer.name] = picture
            room -= len(picture.encode())
    for layer in flow.layers:
        cells = [f'<span class="name">{escape(short[layer.name])}</span>']
        cells += [_cell(of_kind(layer, kind, kinds), largest) for kind in kinds]
        rest = layer.constant + layer.later + layer.residue
        shown = signed(rest) if abs(rest) > 1e-5 * (largest + most) else "≈ 0"
        cells += [_cell(layer.past, most, "past"), f'<span class="n quiet" title="{signed(rest)}">{shown}</span>']
        row, inside = "".join(cells), pictures.get(layer.name, "")
        opened = " open" if layer is strongest and inside else ""
        if inside:
            rows.append(f'<details class="layer"{opened}><summary class="row">{row}</summary>{inside}</details>')
        else:
            rows.append(f'<div class="layer"><div class="row">{row}</div></div>')
    missing = len(flow.layers) - sum(bool(pictures.get(layer.name)) for layer in flow.layers)
    said = ""
    if missing and any(part.heads is not None for layer in flow.layers for part in layer.groups):
        said = _("The heads of {n:,} layers are left out to keep this page small.").format(n=missing)
    style = f"--columns:{len(kinds) + 1}"
    return f'<div class="layers" style="{style}"><div class="row head">{top}</div>{"".join(rows)}</div>{_cut(said)}'


def _heads_size(layer: Layer) -> float:
    return sum(part.heads.abs().sum().item() for part in layer.groups if part.heads is not None)


def _picture(layer: Layer, names: list[str]) -> str:
    """Heads by the positions that they look at."""
    tables = []
    for part in layer.groups:
        if part.heads is None:
            continue
        heads = (part.heads if part.heads.dim() == 2 else part.heads.sum(0)).tolist()
        width = len(heads[0]) if heads else 0
        if len(names) < width and not any(any(row[len(names) :]) for row in heads):
            width = len(names) or width  # what was read later has no part in this
        shown = sorted(sorted(range(width), key=lambda t: -sum(abs(row[t]) for row in heads))[:SOURCES])
        fitting = names if len(names) >= width else [f"[{t}]" for t in range(width)]
        largest = max((abs(row[t]) for row in heads for t in shown), default=0.0)
        columns_ = "".join(f'<th scope="col" data-t="{t}"><span>{_token(fitting[t])}</span></th>' for t in shown)
        more = width > len(shown)
        columns_ += f'<th scope="col"><span>{escape(_("others"))}</span></th>' * more
        columns_ += '<th scope="col"><span>Σ</span></th>'
        body = []
        digits = width <= 12
        for h, row in enumerate(heads):
            cells = [_square(row[t], largest, digits, t) for t in shown]
            if more:
                cells.append(_square(sum(row) - sum(row[t] for t in shown), largest, digits))
            total = f'<td class="sum">{signed(sum(row))}</td>'
            name = escape(_("head {n}").format(n=h))
            body.append(f'<tr><th scope="row">{name}</th>{"".join(cells)}{total}</tr>')
        cut = _("{n:,} of {all:,} positions, the strongest").format(n=len(shown), all=width) if more else ""
        constant = ""
        if abs(part.constant) > 1e-5 * largest:
            constant = _("{part}: {amount} of it are its biases.").format(
                part=kind_of(part), amount=signed(part.constant)
            )
        tables.append(
            f'<div class="scroll"><table class="heads{"" if digits else " dense"}"><thead><tr><td></td>{columns_}</tr>'
            f"</thead><tbody>{''.join(body)}</tbody></table></div>{_cut(cut)}{_cut(constant)}"
        )
    return f'<div class="inside">{"".join(tables)}</div>' if tables else ""


def _square(amount: float, largest: float, digits: bool, t: int | None = None) -> str:
    at = f' data-t="{t}"' if t is not None else ""
    shown = f"{amount:+.2f}" if digits and abs(amount) >= 0.005 else "" if not digits else "·"
    style = f'style="--c:{_share(amount, largest):.2f}"'
    return f'<td class="{_side(amount)}" {style}{at} title="{signed(amount)}">{shown}</td>'


def _heads(heads: Sequence[tuple[str, int, float, list[tuple[str, float]]]]) -> str:
    largest = max(abs(amount) for _layer, _h, amount, _sources in heads)
    items = []
    for layer, h, amount, sources in heads:
        name = _("layer {layer} head {head}").format(layer=layer, head=h)
        seen = " ".join(
            f'<span class="tok {_side(part)}" style="--c:{_share(part, largest):.2f}">{_token(token)} '
            f"<small>{signed(part)}</small></span>"
            for token, part in sources[:4]
            if part
        )
        items.append(
            f'<div class="row plain"><span class="label">{escape(name)}</span>{_cell(amount, largest)}'
            f'<span class="seen">{seen}</span></div>'
        )
    return f'<div class="list">{"".join(items)}</div>'


def _pixels(name: str, x: Tensor) -> str:
    """What each place of a picture contributes, its channels added up; nothing for what is no picture."""
    if x.dim() < 3 or min(x.shape[-2:]) < 4 or x.shape[:-2].numel() > 4:
        return ""
    plane = x.detach().float().cpu().reshape(1, -1, *x.shape[-2:]).sum(1, keepdim=True)
    height, width = (min(size, PIXELS) for size in plane.shape[-2:])
    area = plane.shape[-2] * plane.shape[-1] / (height * width)
    rows = (F.adaptive_avg_pool2d(plane, (height, width)) * area)[0, 0].tolist()
    largest = max(abs(amount) for row in rows for amount in row)
    cells = "".join(
        f'<i class="{_side(amount)}" style="--c:{_share(amount, largest):.2f}" title="{signed(amount)}"></i>'
        for row in rows
        for amount in row
    )
    return f'<div class="pixels" role="img" aria-label="{escape(name)}" style="--width:{width}">{cells}</div>'


def _named(pairs: Iterable[tuple[str, float]], top: int) -> str:
    rows = cut(pairs, top)
    largest = max((abs(amount) for _name, amount in rows), default=0.0)
    items = "".join(
        f'<div class="row plain"><span class="label">{escape(name)}</span>{_cell(amount, largest)}</div>'
        for name, amount in rows
    )
    return f'<div class="list">{items}</div>'


def _flow_sum(flow: Flow) -> str:
    return f'<p class="sum">{escape(flow_balance(flow).plain)}</p>'


# ---- terms


@dataclass
class _Node:
    answer: Answer
    weight: float  # of what the page is about, how much is below here
    depth: int
    opened: dict[int, _Node] = field(default_factory=dict)


def _terms(answer: Answer, top: int, room: int, unfolded: int) -> str:
    """The terms, the weightiest of them opened, as deep as there is room."""
    root = _Node(answer, 1.0, 0)
    order = count()
    waiting: list[tuple[float, int, _Node, int, Term]] = []

    def offer(node: _Node) -> None:
        rows = node.answer.terms[:top]
        size = sum(abs(term.contribution) for term in rows) or 1.0
        for n, term in enumerate(rows):
            if term._open is not None and math.isfinite(term.contribution):
                share = abs(term.contribution) / size if node.answer.kind != "decision" else 1.0
                heapq.heappush(waiting, (-node.weight * share, next(order), node, n, term))

    offer(root)
    used, done, closed = top * 500, 0, 0
    while waiting:
        weight, _n, node, n, term = heapq.heappop(waiting)
        behind_size = 500 * (top + 2)
        if done >= unfolded or used + behind_size > room or node.depth > 40:
            closed += 1
            continue
        behind = term.why()
        child = node.opened[n] = _Node(behind, -weight, node.depth + 1)
        used += len(_rows(child, top, "").encode())
        done += 1
        offer(child)
    hint = _("{n:,} terms make this number; the largest come first. Each opens to what made its value.").format(
        n=len(answer.terms)
    )
    said = ""
    if closed:
        said = _(
            "{opened:,} numbers are opened here; {closed:,} more could be: answer.terms[0].why(), "
            "or pellucid why --open."
        ).format(opened=done, closed=closed)
    return _section(_("Single terms"), f'<div class="terms">{_rows(root, top, "")}</div>{_cut(said)}', escape(hint))


def _rows(node: _Node, top: int, prefix: str) -> str:
    answer = node.answer
    rows = list(enumerate(answer.terms[:top], start=1))
    biases = sorted(answer.constants, key=lambda term: -abs(term.contribution))
    largest = max((abs(term.contribution) for term in (*(term for _n, term in rows), *biases)), default=0.0)
    lines = []
    for n, term in rows:
        name = f"{prefix}{n}"
        line = _term(name, term, largest, answer.kind)
        child = node.opened.get(n - 1)
        if child is None:
            lines.append(f'<div class="row leaf">{line}</div>')
        else:
            about = f'<p class="quiet">{escape(sentence(child.answer))}</p>'
            lines.append(
                f'<details><summary class="row">{line}</summary><div class="inside">{about}'
                f"{_rows(child, top, name + '.')}</div></details>"
            )
    if len(answer.terms) > len(rows):
        amount, rest = others(answer, rows), len(answer.terms) - len(rows)
        lines.append(_plain_row("…", amount, largest, _("all other {n:,} terms").format(n=rest)))
    for term in biases[:top]:
        name = _("constant: {name}").format(name=term.address or term.source)
        lines.append(_plain_row("k", term.contribution, largest, name))
    if len(biases) > top:
        amount = sum(term.contribution for term in biases[top:])
        lines.append(_plain_row("k", amount, largest, _("all other {n:,} constants").format(n=len(biases) - top)))
    if answer.kind == "sum":
        lines.append(f'<p class="sum">{escape(balance(answer, brief=bool(prefix)).plain)}</p>')
    return "".join(lines)


def _term(name: str, term: Term, largest: float, kind: str) -> str:
    product = "" if kind == "decision" else f"= {number(term.coefficient)} × {number(term.value)}"
    amount = term.value if kind == "decision" else term.contribution
    return (
        f'<span class="no">{name}</span>{_cell(amount, largest)}<span class="product">{product}</span>'
        f'<span class="where"><code>{escape(term.address)}</code> '
        f'<span class="quiet">{escape(term.source)}</span></span>'
    )


def _plain_row(name: str, amount: float, largest: float, text: str) -> str:
    return (
        f'<div class="row leaf"><span class="no">{name}</span>{_cell(amount, largest)}<span class="product"></span>'
        f'<span class="where quiet">{escape(text)}</span></div>'
    )


# ---- pieces


def _section(title: str, body: str, hint: str = "") -> str:
    said = f'<p class="hint">{hint}</p>' if hint else ""
    return f"<section><h2>{escape(title)}</h2>{said}{body}</section>"


def _cut(said: str) -> str:
    return f'<p class="cut">{escape(said)}</p>' if said else ""


def _cell(amount: float, largest: float, kind: str = "") -> str:
    drawn = f'<i style="--v:{_share(amount, largest):.3f}"></i>'
    return (
        f'<span class="bar {_side(amount)} {kind}" aria-hidden="true">{drawn}</span>'
        f'<span class="n {_side(amount)}">{signed(amount)}</span>'
    )


def _token(text: str) -> str:
    """Readable tokens; their signs for spaces stand back."""
    return escape(text).replace("␣", '<span class="sp">␣</span>')


def _side(amount: float) -> str:
    return "for" if amount > 0 else "against" if amount < 0 else "none"


def _share(amount: float, largest: float) -> float:
    share = abs(amount) / largest if largest else 0.0
    return min(share, 1.0) if math.isfinite(share) else 0.0
