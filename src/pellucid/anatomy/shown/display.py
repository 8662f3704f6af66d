"""An anatomy in a terminal: the three words by kind, the tree, compute and memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console, RenderableType
from rich.console import Group as Lines
from rich.table import Table
from rich.text import Text

from pellucid.anatomy import counts
from pellucid.anatomy.compare import Comparison
from pellucid.anatomy.explain import Formula
from pellucid.anatomy.findings import linear_stacks, unread_masks, unused
from pellucid.anatomy.memory import formats, serving, sharding
from pellucid.anatomy.memory.sizes import as_bytes
from pellucid.anatomy.reading.tensors import is_bare
from pellucid.anatomy.report import Anatomy
from pellucid.anatomy.shown.formula_display import comparison, formula
from pellucid.anatomy.shown.tensors_display import tensor_lines
from pellucid.anatomy.shown.tree_display import makeup, tree_lines
from pellucid.anatomy.shown.words import add, by_kind, cut, heading, share, short, table
from pellucid.anatomy.tree import Convolution, Linear, walk
from pellucid.language import _, translated

FORMATS = ("fp32", "bf16", "int8", "int4")
STATE = ("weights", "gradients", "optimiser")  # the parts of a training's memory that only the parameters decide


def show(answer: Any, console: Console | None = None, depth: int | None = None, length: int | None = None) -> None:
    """Print an anatomy, or an answer about one."""
    (console or Console(highlight=False)).print(rendered(answer, depth, length))


def rendered(answer: Any, depth: int | None = None, length: int | None = None) -> RenderableType:
    """What `rich` prints; what is none of ours prints itself."""
    if isinstance(answer, Formula):
        return formula(answer)
    if isinstance(answer, Comparison):
        return comparison(answer)
    if isinstance(answer, Anatomy):
        return Lines(*lines(answer, depth, length))
    return answer


def lines(anatomy: Anatomy, depth: int | None = None, length: int | None = None) -> Iterator[RenderableType]:
    """All that is known of a network by its shapes.

    Args:
        anatomy: The network.
        depth: How far its tree is unfolded; None: as far as is still readable.
        length: Tokens of the text that compute and memory are told for; its context when left out.
    """
    if is_bare(anatomy.tree):
        yield from tensor_lines(anatomy)
        return
    lengths = _lengths(anatomy, length)
    yield from _headline(anatomy)
    yield heading(_("parameters, neurons and dimensions"))
    yield _by_kind(anatomy)
    for sentence in _relations(anatomy, lengths):
        yield Text(sentence)
    yield heading(_("the tree, all copies counted"))
    yield from tree_lines(anatomy.tree, depth)
    yield heading(_title(lengths))
    yield from _compute(anatomy, lengths)
    yield heading(_("memory"))
    yield _memory(anatomy, lengths)
    for finding in _findings(anatomy):
        yield Text(f"• {finding}", style="yellow")
    yield Text()
    yield _options(anatomy)


# ---- the headline


def _headline(anatomy: Anatomy) -> Iterator[Text]:
    entry, counted = anatomy.entry, anatomy.parameters
    title = Text(anatomy.title, style="bold")
    if entry:
        title.append(f"  {anatomy.name}, {entry.year}", style="dim")
    yield title
    for note in anatomy.notes:
        yield Text(note, style="dim")
    both = _("{n:,} parameters, {neurons:,} neurons")
    if counted.total >= 10_000:
        both = _("{n:,} parameters ({short}), {neurons:,} neurons")
    said = both.format(n=counted.total, short=short(counted.total), neurons=anatomy.neurons.total)
    yield Text(said, style="bold")
    if entry:
        yield Text(published(anatomy))
    if entry and entry.note:
        yield Text(_("Note: {note}").format(note=translated(entry.note)), style="dim")
    if any(0 < visit.times < visit.copies for visit in walk(anatomy.tree)):
        said = _("active: {n:,} ({share}) of the parameters meet one token; its router leaves the other experts out")
        yield Text(said.format(n=counted.active, share=share(counted.active, counted.total)))
    if counted.fixed:
        said = _("fixed: {fixed:,} of the parameters stay as they are in training; {n:,} are trainable")
        yield Text(said.format(fixed=counted.fixed, n=counted.trainable))
    if counted.buffers:
        said = _("buffers: {n:,} numbers are saved with it and are no parameters")
        yield Text(said.format(n=counted.buffers))
    if anatomy.context:
        yield Text(_("context: up to {n:,} tokens").format(n=anatomy.context))


def published(anatomy: Anatomy) -> str:
    """The published total beside the counted one, where there is one; in any case whose network it is."""
    entry, total = anatomy.entry, anatomy.parameters.total
    assert entry is not None
    if entry.published is None:
        return _("configuration: {source}").format(source=entry.source)
    said = _("published: {published} ({source})").format(published=entry.published, source=entry.source)
    if entry.published_total is not None:
        difference = total - entry.published_total
        if not difference and entry.published == f"{total:,}":
            return said + _("; the count is the same")
        if not difference:
            return said + _("; exactly {n:,}, and so is the count").format(n=entry.published_total)
        return said + _("; exactly {n:,}, the count is {difference:+,} ({share:+.2%})").format(
            n=entry.published_total, difference=difference, share=difference / entry.published_total
        )
    if entry.published_size is None:
        return said
    value, rounding = entry.published_size
    if abs(total - value) <= rounding:
        return said + _("; the count rounds to it")
    return said + _("; the count is {share:+.1%}").format(share=total / value - 1)


# ---- the three words


def _by_kind(anatomy: Anatomy) -> Table:
    total = anatomy.parameters.total
    rows = table(_("kind"), "", (_("parameters"), "right"), (_("share"), "right"), (_("neurons"), "right"))
    for kind, name, n, neurons, tied_to in by_kind(anatomy):
        own = f"{n:,}" if n else _("tied") if tied_to else "–"
        word = "" if kind in name else kind  # as --explain takes it
        add(rows, name, word, own, share(n, total) if n else "", f"{neurons:,}" if neurons else "–")
    whole = "100 %" if total else ""
    add(rows, _("in all"), "", f"{total:,}", whole, f"{anatomy.neurons.total:,}", style="bold")
    return rows


def _relations(anatomy: Anatomy, lengths: dict[str, int]) -> Iterator[str]:
    """How the three words hang together, in this network's own numbers."""
    visits = list(walk(anatomy.tree))
    layers = [visit for visit in visits if isinstance(visit.leaf, Linear) and visit.leaf.tensors]
    dense = max(layers, key=lambda visit: (visit.kind != "head", visit.leaf.parameters), default=None)
    if dense is not None:
        leaf = dense.leaf
        assert isinstance(leaf, Linear)
        if leaf.bias:
            said = _(
                "A dense layer from n to m dimensions has m neurons and m × (n + 1) parameters. {path}, {n} → {m}: "
                "{m:,} neurons, {m} × ({n} + 1) = {total:,} parameters, and {m:,} dimensions flow on."
            )
        else:
            said = _(
                "A dense layer without bias from n to m dimensions has m neurons and m × n parameters. {path}, "
                "{n} → {m}: {m:,} neurons, {m} × {n} = {total:,} parameters, and {m:,} dimensions flow on."
            )
        yield said.format(path=cut(dense.path), n=leaf.inputs, m=leaf.outputs, total=leaf.parameters)
    windows = [visit for visit in visits if isinstance(visit.leaf, Convolution) and visit.leaf.tensors]
    convolution = max(windows, key=lambda visit: visit.leaf.parameters, default=None)
    if convolution is not None:
        leaf = convolution.leaf
        said = _(
            "A convolution has a neuron at each place of its output, and all of a channel share their weights. {path}, "
            "{figure}: {dimensions} = {neurons:,} neurons, {formula} = {total:,} parameters."
        )
        yield said.format(
            path=cut(convolution.path),
            figure=makeup(leaf),
            dimensions=" × ".join(map(str, leaf.output)),
            neurons=leaf.neurons,
            formula=" + ".join(" × ".join(map(str, shape)) for shape in leaf.tensors.values()),
            total=leaf.parameters,
        )
    yield _apart(anatomy, lengths)


def _apart(anatomy: Anatomy, lengths: dict[str, int]) -> str:
    """What some books call neurons."""
    neurons, n = anatomy.neurons, anatomy.activations(**dict.fromkeys(lengths, 1))
    said = _(
        "Some books count otherwise, so these stand apart: activations (units), every number that a layer writes, are "
        "{n:,} for one {input}"
    ).format(n=n, input=_("token") if lengths else _("input"))
    if neurons.maps != neurons.total:
        said += _("; with each feature map as one, {maps:,} for {neurons:,} neurons").format(
            maps=neurons.maps, neurons=neurons.total
        )
    if neurons.active < neurons.total:
        said += _("; {active:,} neurons are active for a token").format(active=neurons.active)
    return said + _(".")


# ---- compute and memory


def _lengths(anatomy: Anatomy, length: int | None) -> dict[str, int]:
    """How many tokens the text has; nothing for a network that reads none."""
    met = {visit.positions for visit in walk(anatomy.tree)}
    return {name: length or anatomy.context or 1 for name in ("token", "source") if name in met}


def _title(lengths: dict[str, int]) -> str:
    n = lengths.get("token", 0)
    if n == 1:
        return _("compute, for one token")
    return _("compute, for a text of {n:,} tokens").format(n=n) if n else _("compute, for one input")


def _compute(anatomy: Anatomy, lengths: dict[str, int]) -> Iterator[RenderableType]:
    """By operation, and by the rule of thumb for texts: a picture's convolutions use a parameter many times."""
    length = lengths.get("token", 0)
    n = counts.multiplied(anatomy.tree)
    columns = [_("multiply-adds"), "FLOPs", *([_("rule"), _("FLOPs by it"), _("difference")] if length else [])]
    rows = table("", *((column, "right") for column in columns))
    steps = [
        (_("forward pass"), anatomy.forward(**lengths).total, "2N", 2 * n * length),
        (_("training step"), anatomy.training_step(fused=True, recompute=False, **lengths).total, "6N", 6 * n * length),
    ]
    if length > 1 and serving.cache(anatomy.tree).parts:
        token = anatomy.generated_token(length - 1, lengths.get("source", 0)).total
        steps.append((_("token no. {n:,}").format(n=length), token, "2N", 2 * n))
    for name, work, rule, flops in steps:
        beside = [rule, short(flops, "G"), f"{flops / (2 * work) - 1:+.1%}"] if length and work else []
        add(rows, name, short(work, "G"), short(2 * work, "G"), *beside)
    yield rows
    if length:
        said = _("N = {n:,}: the parameters that multiply a token; the rule leaves attention's products out.")
        yield Text(said.format(n=n), style="dim")


def _memory(anatomy: Anatomy, lengths: dict[str, int]) -> Table:
    tree, length, source = anatomy.tree, lengths.get("token", 1), lengths.get("source", 1)
    rows = table("", "")
    sizes = {name: formats.weights(tree, name).total for name in FORMATS}
    for n, (name, size) in enumerate(sizes.items()):
        if size < min(list(sizes.values())[:n], default=size + 1):  # few bits are for the matrices of dense layers
            add(rows, _("weights in {format}").format(format=name), as_bytes(size))
    if token := serving.token_bytes(tree):
        add(rows, _("keys and values of a token in bf16"), as_bytes(token))
    if token and length > 1:
        cache = serving.cache(tree, 1, length, source=source).total
        add(rows, _("keys and values of {n:,} tokens").format(n=length), as_bytes(cache))
    training = sharding.train(tree, 1, length, source=source, precision="autocast")
    add(rows, _("training: weights, gradients, AdamW's state"), as_bytes(sum(training[name] for name in STATE)))
    add(rows, _("training: activations of one example, bf16"), as_bytes(training["activations"]))
    return rows


# ---- what remains to be said


def _findings(anatomy: Anatomy) -> Iterator[str]:
    yield from map(str, linear_stacks(anatomy.tree))
    for path in unused(anatomy.tree):
        yield _("{path} has parameters, and never runs.").format(path=path)
    for path in unread_masks(anatomy.tree):
        yield _("{path}: the numbers of its mask are not known; what it hides is counted as seen.").format(path=path)


def _options(anatomy: Anatomy) -> Text:
    """Where each figure opens."""
    sizes = anatomy.parameters.by_kind
    largest = max(sizes, key=sizes.__getitem__)
    return Text(
        _(
            "Open any figure: --explain {part}, --explain 'neurons {part}', --explain multiply-adds; memory and cost: "
            "--serve, --train; --what-if, --compare, --depth, --save anatomy.html"
        ).format(part=largest),
        style="dim",
    )
