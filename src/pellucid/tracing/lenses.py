"""Lenses: attention maps, the logit lens, the most active neurons, and the texts that activate one most."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.tracing.addresses import Numbers
from pellucid.tracing.edits import edit
from pellucid.tracing.layers import find_layers, is_attention
from pellucid.tracing.rules import operation
from pellucid.tracing.rules.attention import ATTENTION, attention_weights
from pellucid.tracing.rules.operation import Unexplained
from pellucid.tracing.tape import Call, Place, Scope

if TYPE_CHECKING:
    from pellucid.tracing.text import TextTrace
    from pellucid.tracing.trace import Trace


# ---- attention maps


@dataclass(frozen=True)
class AttentionMap:
    """Who looks at whom in one call of one module: probabilities, whatever kernel computed them."""

    path: str
    call: int
    weights: Tensor = field(repr=False)  # (B, H, queries, positions), each row a distribution
    first_query: int  # the position of the first query: the tokens before it were read in earlier calls
    first_key: int  # the position of the first key: earlier ones are outside a sliding window


def attention_maps(trace: Trace, path: str | None = None) -> list[AttentionMap]:
    """Every attention that was computed, in order; `path`: only in this module and what is inside it.

    Fused kernels keep no probabilities: they are computed again from the recorded queries and keys.

    Raises:
        PellucidError: when there is none, or its dropout was on, which is not recorded.
    """
    maps = []
    by_scope: dict[int, tuple[Scope | None, list[Call]]] = {}
    for call in trace.tape.calls:
        inside = path is None or (call.scope is not None and f"{call.scope.path}.".startswith(f"{path}."))
        if inside and call.phase == "forward" and is_attention(trace.roles, call):
            by_scope.setdefault(id(call.scope), (call.scope, []))[1].append(call)
    for scope, calls in by_scope.values():
        name, number = (scope.path, scope.call) if scope is not None else ("", 0)
        for weights, first_key in _blocks(trace, scope, calls):
            queries, positions = weights.shape[-2:]
            first_query = first_key + positions - queries if first_key or queries < positions else 0
            maps.append(AttentionMap(name, number, weights, first_query, first_key))
    if not maps:
        raise PellucidError(
            _("No attention was recorded here."), path or "", _("trace.tree() lists what was recorded.")
        )
    return maps


def attention_over(trace: Trace, path: str) -> Tensor:
    """One module's attention in all its calls together, (H, T, T): also token by token, with a cache, as in generation.

    A position that was read again (a prompt's end, taken back) has what it looked at last.

    Raises:
        PellucidError: when there is none, or it is of a batch.
    """
    maps = attention_maps(trace, path)
    if any(found.weights.shape[0] != 1 for found in maps):
        raise PellucidError(_("This is a batch."), path, _("Use attention_maps, which keeps its texts apart."))
    length = max(found.first_query + found.weights.shape[2] for found in maps)
    whole = maps[0].weights.new_zeros(maps[0].weights.shape[1], length, length)
    for found in maps:
        _batch, _heads, queries, positions = found.weights.shape
        rows = slice(found.first_query, found.first_query + queries)
        whole[:, rows] = 0
        whole[:, rows, found.first_key : found.first_key + positions] = found.weights[0]
    return whole


def _blocks(trace: Trace, scope: Scope | None, calls: list[Call]) -> Iterable[tuple[Tensor, int]]:
    """The probabilities of each attention in one module's call, and the position of the first key.

    Attention computed block by block of queries, each seeing more positions than the last, is one.
    """
    batch = scope.inputs[0].shape[0] if scope is not None and scope.inputs and scope.inputs[0].shape else 1
    row: list[Tensor] = []
    for call in calls:
        if call.name in ATTENTION:
            try:
                with torch.no_grad():
                    yield (
                        attention_weights(operation(trace.tape, trace.roles, call, 0, torch.float32)),
                        _first(call.args[1]),
                    )
            except Unexplained as stopped:
                raise PellucidError(
                    _("This attention's dropout was on: what it drew is not recorded."),
                    scope.path if scope is not None else "",
                    _("Switch dropout off: module.eval()."),
                ) from stopped
            continue
        p = trace.tape.read(call.args[0], call.time).float()
        p = p.unflatten(0, (batch, -1)) if p.shape[0] % batch == 0 else p[None]
        if row and p.shape[:2] == row[-1].shape[:2] and p.shape[-1] == row[-1].shape[-1] + p.shape[-2]:
            row.append(p)
            continue
        if row:
            yield _joined(row), 0
        row = [p]
    if row:
        yield _joined(row), 0


def _joined(blocks: list[Tensor]) -> Tensor:
    positions = blocks[-1].shape[-1]
    return torch.cat([nn.functional.pad(p, (0, positions - p.shape[-1])) for p in blocks], dim=-2)


def _first(k: Place) -> int:
    """The position of the first key: not 0 where a sliding window has cut a cache that has room for more."""
    in_a_cache = len(k.shape) == 4 and k.strides[1] > k.shape[2] * k.strides[2] > 0
    return k.offset // k.dtype.itemsize // k.strides[2] if in_a_cache else 0


# ---- logit lens


@dataclass(frozen=True)
class LensRow:
    """What the network would say if a layer were its last."""

    layer: str
    ids: tuple[int, ...]  # the most probable ones, best first
    tokens: tuple[str, ...]  # the same, readable
    probabilities: tuple[float, ...]
    final: float  # the probability of what the network says in the end
    rank: int  # of that: 1 is the best


@dataclass(frozen=True)
class LogitLens:
    """The last norm and the head applied to every layer's output at one position (nostalgebraist 2020)."""

    position: int
    final: str
    rows: tuple[LensRow, ...]

    def __str__(self) -> str:
        width = max(len(row.layer) for row in self.rows)
        lines = [_("what each layer would say; the end says {token}").format(token=self.final)]
        for row in self.rows:
            best = "  ".join(f"{t} {p:.1%}" for t, p in zip(row.tokens, row.probabilities, strict=True))
            lines.append(f"{row.layer:{width}}  {row.final:7.2%} (#{row.rank:<5}) {best}")
        return "\n".join(lines)


def logit_lens(
    trace: Trace, position: int = -1, n: int = 3, *, norm: str | None = None, head: str | None = None
) -> LogitLens:
    """What every layer would say if it were the last.

    Args:
        trace: A trace of one text; where it was read in parts, the last one counts.
        position: After which token.
        n: How many of the most probable outputs.
        norm: The path of the norm between the last layer and the head; None: found by its name, or by its class's.
        head: The path of the module that makes the logits; None: the last linear module after the layers.

    Raises:
        PellucidError: when there are no layers, the norm or the head is not to be found or not all there is between
            the last layer and the logits, or the trace is of a batch.
    """
    again = trace.tape.again
    module = again.module if again is not None else None
    layers = list({scope.path: scope for scope in find_layers(trace.tape)}.values())  # each in its last call
    if module is None or not layers:
        raise PellucidError(
            _("The logit lens needs the recorded module, and layers in it."),
            "",
            _("Use pl.trace or pl.record(module)."),
        )
    trace._unchanged()
    stack = re.split(r"\b\d", layers[-1].path)[0]  # of an encoder and a decoder, the decoder's
    layers = [scope for scope in layers if scope.path.startswith(stack)]
    norm = norm or _after(
        trace, layers, lambda scope: "norm" in f"{scope.path} {scope.kind}".lower() or "ln_f" in scope.path
    )
    head = head or _after(trace, layers, lambda scope: scope.kind == "Linear")
    if norm is None or head is None:
        raise PellucidError(
            _("The last norm or the head is not to be found."), "", _('Name both: logit_lens(norm="...", head="...").')
        )
    show = trace.tokenizer.show if hasattr(trace, "tokenizer") else str
    rows = []
    with torch.no_grad():
        outputs = [_one_text(trace, scope)[:, position] for scope in layers]
        normed = [module.get_submodule(norm)(x) for x in outputs]
        logits = [module.get_submodule(head)(x)[0].double() for x in normed]
        ended = next(scope for scope in reversed(trace.tape.scopes) if scope.path == head)
        recorded = _one_text(trace, ended)[0, position]
        rounding = max(1e-3, 16 * torch.finfo(recorded.dtype).eps) * recorded.abs().max().item()
        if not torch.allclose(logits[-1], recorded.double(), atol=rounding):
            raise PellucidError(
                _("There is more between the last layer and the logits than {norm} and {head}.").format(
                    norm=norm, head=head
                ),
                head,
                _('Name both: logit_lens(norm="...", head="...").'),
            )
        said = int(logits[-1].argmax())
        for scope, row in zip(layers, logits, strict=True):
            p = row.softmax(0)
            best = p.topk(min(n, len(p)))
            ids = tuple(best.indices.tolist())
            rank = int((row > row[said]).sum()) + 1
            rows.append(
                LensRow(scope.path, ids, tuple(map(show, ids)), tuple(best.values.tolist()), p[said].item(), rank)
            )
    return LogitLens(position, show(said), tuple(rows))


def _one_text(trace: Trace, scope: Scope) -> Tensor:
    """A module's result, (1, T, numbers)."""
    x = trace.tape.read(scope.outputs[0], scope.end)
    if x.dim() > 3 or (x.dim() == 3 and x.shape[0] != 1):
        raise PellucidError(_("This is a batch."), scope.path, _("Trace one text."))
    return x.reshape(1, -1, x.shape[-1])


def _after(trace: Trace, layers: Sequence[Scope], wanted: Any) -> str | None:
    """The path of the last module after the layers, in none of them, that is what is wanted."""
    begun = layers[-1].end
    found = [scope.path for scope in trace.tape.scopes if scope.start >= begun and wanted(scope)]
    return found[-1] if found else None


# ---- neurons


@dataclass(frozen=True)
class Neuron:
    """One neuron where it is most active in a text."""

    layer: int
    neuron: int
    position: int
    token: str
    activation: float


def active_neurons(trace: TextTrace, n: int = 10, layer: int | None = None) -> list[Neuron]:
    """The neurons that a text activates most, each once, at the token where it is most active.

    A neuron's activation is what its activation function gives: what `trace.neuron(layer, neuron)` asks about.

    Args:
        trace: A trace of one text, read at once.
        n: How many.
        layer: Only of this layer; None: of all.

    Raises:
        PellucidError: when no neurons are to be found.
    """
    count = len({scope.path for scope in find_layers(trace.tape)})
    found: list[Neuron] = []
    for number in range(count) if layer is None else (layer,):
        numbers = activations(trace, number)
        values = trace.tape.read(numbers.place, numbers.time)[0].float()
        best, positions = values.max(0)
        top = best.topk(min(n, len(best)))
        for activation, neuron in zip(top.values.tolist(), top.indices.tolist(), strict=True):
            position = int(positions[neuron])
            found.append(Neuron(number, neuron, position, trace.tokens[position], activation))
    return heapq.nlargest(n, found, key=lambda neuron: neuron.activation)


def activations(trace: TextTrace, layer: int) -> Numbers:
    """What the activation function of a layer's feed-forward network gave, (B, T, neurons)."""
    (numbers, _weight), *_more = trace.neuron(layer, 0, 0).seeds
    found = trace.tape.writer(numbers.place, numbers.time)
    assert found is not None
    return Numbers(found[0].outs[found[1]], numbers.time)


class Reader(Protocol):
    """What is needed of a model to read texts: `pl.LanguageModel` has it."""

    network: Any
    tokenizer: Any

    def trace(self, text: str) -> TextTrace: ...


@dataclass(frozen=True, order=True)
class ActivatingText:
    """A text, and where in it a neuron is most active."""

    activation: float
    number: int  # of the text, in order
    position: int
    tokens: tuple[str, ...] = field(repr=False)

    def __str__(self) -> str:
        near = range(max(0, self.position - 12), min(len(self.tokens), self.position + 8))
        shown = "".join(f"»{self.tokens[i]}«" if i == self.position else self.tokens[i] for i in near)
        return f"{self.activation:8.3f}  #{self.number}  {shown}"


def top_texts(model: Reader, texts: Iterable[str], layer: int, neuron: int, k: int = 10) -> list[ActivatingText]:
    """The texts that activate a neuron most, best first, each with the token where it does.

    The texts may come from a generator: only the best `k` are kept. Of a text longer than the context its beginning is
    read.

    Args:
        model: A language model.
        texts: The corpus.
        layer: From 0.
        neuron: From 0.
        k: How many.

    Raises:
        PellucidError: when there is no such neuron, or no text.
    """
    tokenizer, network = model.tokenizer, model.network
    encoded = ((n, ids) for n, text in enumerate(texts) if (ids := [*tokenizer.prefix, *tokenizer.encode(text)]))
    best: list[ActivatingText] = []
    address = None
    seen: list[Tensor] = []
    device = next(network.parameters()).device
    for n, ids in encoded:
        ids = ids[: network.config.context]
        if address is None:
            trace = model.trace(tokenizer.decode(ids[:4]) or "a")
            (numbers, _weight), *_more = trace.neuron(layer, neuron, 0).seeds
            address = trace.addresses.name(numbers).partition("[")[0]
        seen.clear()
        with torch.no_grad(), edit(network, {f"{address}[0,:,{neuron}]": seen.append}):
            network(torch.tensor([ids], device=device), last_only=True)
        activation, position = (x.item() for x in seen[-1].float().max(0))
        if len(best) < k or activation > best[0].activation:
            found = ActivatingText(activation, n, int(position), tuple(map(tokenizer.show, ids)))
            (heapq.heappush if len(best) < k else heapq.heapreplace)(best, found)
    if not best:
        raise PellucidError(_("There is no text to read."), "", _("Give a text of at least one character."))
    return sorted(best, reverse=True)
