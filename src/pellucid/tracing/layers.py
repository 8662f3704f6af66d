"""Reading a flow: by layer, by attention and feed-forward network, by head and by token."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.tracing.flow import Seed, Swept, sweep, view, where
from pellucid.tracing.recorder import facts
from pellucid.tracing.roles import Roles
from pellucid.tracing.rules import operation
from pellucid.tracing.rules.attention import ATTENTION, attention_weights
from pellucid.tracing.rules.operation import Operation, inner
from pellucid.tracing.shown import Shown
from pellucid.tracing.tape import Call, Scope, Tape

_NUMBERED = re.compile(r"(^|\.)\d+$")
# What scales and adds up, but mixes nothing: a module of these alone is no part of its own.
SCALING = {
    "mean", "sum", "var", "var_mean", "linalg_vector_norm", "native_layer_norm", "_fused_rms_norm", "native_group_norm",
    "native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit_no_training", "native_dropout", "bernoulli",
    "clone", "copy", "empty_like", "arange",
}  # fmt: skip


@dataclass(frozen=True)
class Group:
    """One part of a layer, and what it contributes to the target."""

    name: str  # the part's module
    amount: float
    positions: Tensor | None = None  # (T,) or (B, T) by the token at whose position it was written; None: unreadable
    heads: Tensor | None = None  # attention: (H, T) or (B, H, T) by head and by the token looked at; None: unreadable
    constant: float = 0.0  # attention: of `amount`, what its biases add


@dataclass(frozen=True)
class Layer:
    """One layer: what its parts add, beside what passes it by. With the constants that enter later: the target."""

    name: str
    groups: tuple[Group, ...]
    past: float  # what is in the stream when the layer begins, and goes past it
    constant: float  # what enters inside the layer from no data
    later: float  # what reaches the target without this layer: constants, and for an encoder the decoder's own tokens
    residue: float


@dataclass(frozen=True, repr=False)
class Flow(Shown):
    """What everything contributes to a target: each layer is one way to cut it."""

    target: str
    value: float
    layers: tuple[Layer, ...]
    tokens: Tensor | None  # (T,) or (B, T) by input token, of the first embedding; None where there is none
    inputs: dict[str, Tensor]  # by input that is no token: contributions, of the input's shape
    constants: dict[str, float]  # by name: biases, shifts, positions
    stopped: dict[str, float]  # where no rule goes on: the contribution that ends there
    residue: float
    convention: str
    notes: tuple[str, ...] = ()
    token_names: tuple[str, ...] = ()


def flow(
    tape: Tape,
    roles: Roles,
    target: str,
    value: float,
    seeds: list[Seed],
    *,
    dtype: torch.dtype = torch.float32,
    convention: str = "values",
) -> Flow:
    """The whole flow of a target Σ seeds."""
    with torch.no_grad():
        swept = sweep(tape, roles, seeds, dtype=dtype, convention=convention)
        inputs: dict[str, Tensor] = {}
        stopped: defaultdict[str, float] = defaultdict(float)
        ends = 0.0
        embedded: dict[int, Tensor] = {}
        for call, k, w, reason in swept.ends:
            values = tape.read(call.outs[k], call.time + 1).to(dtype)
            amount = inner(w, values)
            ends += amount
            if reason == "embedding" and w.dim() > 1:
                embedded[call.time] = (w * values).sum(-1)
            else:
                stopped[f"{where(call)}{call.name}"] += amount
        by_token = _by_token(tape, embedded)
        tokens = by_token.pop(next(iter(by_token))) if by_token else None
        inputs.update(by_token)
        for serial, flat in swept.weights.items():
            whole = tape.whole(serial)
            if whole.numel:
                given = next((p for scope in tape.scopes for p in scope.inputs if p.storage == serial), whole)
                if view(flat, given).count_nonzero() != flat.count_nonzero():  # not the only input in this storage
                    given = whole
                w, values = view(flat, given), tape.read(given, 0).to(dtype)
                inputs[tape.input_name(serial)] = torch.where(w == 0, 0.0, w * values)
                ends += inner(w, values)
        constants = dict(sorted(swept.constants.items(), key=lambda item: -abs(item[1])))
        reading = _Reading(tape, roles, swept, value, dtype, convention)
        layers = tuple(layer for scopes in _together(tape) if (layer := reading.layer(scopes)) is not None)
    notes = () if layers else ("no layers",)
    residue = value - ends - sum(constants.values())
    return Flow(target, value, layers, tokens, inputs, constants, dict(stopped), residue, convention, notes)


def _by_token(tape: Tape, embedded: dict[int, Tensor]) -> dict[str, Tensor]:
    """Contributions by token, for each module that embeds: those of its calls one after the other.

    What is embedded side by side (words and their types) is added up; what is not (a translation and its original)
    stands for itself.
    """
    paths = {scope.path if (scope := tape.calls[time].scope) is not None else "" for time in embedded}
    rows: dict[str, list[Tensor]] = {path: [] for path in sorted(paths)}
    like = next(iter(embedded.values()), torch.zeros(0))
    for call in tape.calls[: max(embedded, default=-1) + 1]:
        path = call.scope.path if call.scope is not None else ""
        if call.name == "embedding" and path in rows and call.phase == "forward":
            made = embedded.get(call.time)  # else: nothing of the target comes from it
            rows[path].append(made if made is not None else like.new_zeros(call.outs[0].shape[:-1]))
    found: dict[str, Tensor] = {}
    first = {path: n for n, path in enumerate(dict.fromkeys(scope.path for scope in tape.scopes))}
    for path in sorted(rows, key=lambda path: first.get(path, -1)):
        parent = path.rpartition(".")[0]
        for n, row in enumerate(_joined(rows[path])):
            key = f"{parent}#{n}" if n else parent
            beside = found.get(key)
            if beside is None or beside.shape != row.shape:
                found[path if beside is not None else key] = row
            else:
                found[key] = beside + row
    return found


def _joined(rows: list[Tensor]) -> list[Tensor]:
    """Rows of one batch one after the other; a row of its own where batches differ."""
    rows = [row.squeeze(0) if row.dim() > 1 and row.shape[0] == 1 else row for row in rows]
    one = all(row.shape[:-1] == rows[0].shape[:-1] for row in rows)
    return [torch.cat([row.to(rows[-1].dtype) for row in rows], -1)] if one else rows


def find_layers(tape: Tape) -> list[Scope]:
    """The calls of the modules that stand in a list one after the other, in the order in which they ran.

    Of lists within lists, the outer one, unless what its members are given goes past parts of theirs (a stage of a
    ResNet is not a layer, its blocks are).
    """
    passed = _passed(tape)
    has_parts = {id(scope.parent) for scope in tape.scopes}
    numbered = [
        scope for scope in tape.scopes if _NUMBERED.search(scope.path) and scope.ended and id(scope) in has_parts
    ]
    looked_into = {id(outer) for scope in numbered if id(scope) in passed for outer in _above(scope)}
    layers: list[Scope] = []
    chosen: set[int] = set()
    for scope in numbered:
        if id(scope) not in looked_into and not any(id(outer) in chosen for outer in _above(scope)):
            chosen.add(id(scope))
            layers.append(scope)
    return layers


def _together(tape: Tape) -> list[list[Scope]]:
    """The calls of each layer: again for each token that is written; within one call, each is a layer."""
    counts: defaultdict[tuple[int, str], int] = defaultdict(int)
    calls: defaultdict[tuple[str, int], list[Scope]] = defaultdict(list)
    for scope in find_layers(tape):
        key = (id(scope.parent), scope.path)
        calls[scope.path, counts[key]].append(scope)
        counts[key] += scope.parent is not None
    return list(calls.values())


def _above(scope: Scope) -> Iterator[Scope]:
    """The calls that a call is inside of."""
    while scope.parent is not None:
        scope = scope.parent
        yield scope


def _passed(tape: Tape) -> set[int]:
    """Calls of modules (by id) to whose input something is added within them: it goes past some of their parts."""
    passed = set()
    for call in tape.calls:
        if call.name != "add" or call.scope is None:
            continue
        given = {(p.storage, p.shape) for p in call.operands()}
        for scope in (call.scope, *_above(call.scope)):
            if scope.outputs and any(
                (p.storage, p.shape) in given and p.shape == scope.outputs[0].shape for p in scope.inputs
            ):
                passed.add(id(scope))
    return passed


class _Reading:
    """Reads layers off a sweep."""

    def __init__(
        self, tape: Tape, roles: Roles, swept: Swept, value: float, dtype: torch.dtype, convention: str
    ) -> None:
        self.tape, self.roles, self.swept, self.value = tape, roles, swept, value
        self.dtype, self.convention = dtype, convention
        self.passed = _passed(tape)
        self.inside: defaultdict[int, list[Scope]] = defaultdict(list)
        for scope in tape.scopes:
            self.inside[id(scope.parent)].append(scope)
        self.mixing: set[int] = set()  # calls of modules that do more than scale each number: no norm, no activation
        for call in tape.calls:
            if call.scope is not None and not facts(call.op).pointwise and call.name not in SCALING:
                self.mixing.update(id(scope) for scope in (call.scope, *_above(call.scope)))

    def layer(self, scopes: list[Scope]) -> Layer | None:
        """What a layer's parts contribute, from the weights of its results; None where nothing goes through it."""
        seeds = [seed for scope in scopes for seed in self._seeds(scope)]
        if not seeds:
            return None
        own = {id(scope) for scope in scopes}
        parts = {id(part): part for scope in scopes for part in self._parts(scope)}

        def home(call: Call) -> Scope | None:
            """The part that a call is in, or else the layer."""
            chain = () if call.scope is None else (call.scope, *_above(call.scope))
            return next((scope for scope in chain if id(scope) in parts or id(scope) in own), None)

        def stop(call: Call) -> bool:
            scope = home(call)
            return scope is None or id(scope) in parts

        start = scopes[0].start
        back = self._sweep(seeds, start, stop)
        past = 0.0
        found: defaultdict[str, list[_Piece]] = defaultdict(list)
        since: dict[int, int] = {}
        for call, k, w in reversed(back.stopped):
            products = w * self._values(call, k)
            part = home(call)
            if part is None:
                past += products.sum().item()
                continue
            outer = next(scope for scope in _above(part) if id(scope) in own)
            piece = _Piece(part, outer, call, k, w, products, since.get(id(outer), outer.start))
            since[id(outer)] = part.end
            found[part.path].append(piece)
        groups = [self._group(path, pieces) for path, pieces in found.items()]
        for call, k, w, _ in back.ends:
            groups.append(Group(f"{where(call)}{call.name}", inner(w, self._values(call, k))))
        for serial, flat in back.weights.items():
            place = self.tape.whole(serial)
            past += inner(view(flat, place), self.tape.read(place, start).to(self.dtype))
        constant = sum(back.constants.values())
        here = sum(inner(w, self.tape.read(place, time).to(self.dtype)) for place, time, w in seeds)
        residue = here - sum(group.amount for group in groups) - past - constant
        return Layer(scopes[0].path, tuple(groups), past, constant, self.value - here, residue)

    def _sweep(self, seeds: list[Seed], since: int, stop: Callable[[Call], bool]) -> Swept:
        return sweep(self.tape, self.roles, seeds, since=since, stop=stop, dtype=self.dtype, convention=self.convention)

    def _values(self, call: Call, k: int) -> Tensor:
        return self.tape.read(call.outs[k], call.time + 1).to(self.dtype)

    def _parts(self, scope: Scope) -> Iterator[Scope]:
        """The modules that a layer calls and that do more than scale; one that adds to its input is looked into."""
        for child in self.inside[id(scope)]:
            if id(child) in self.passed and self.inside[id(child)]:
                yield from self._parts(child)
            elif id(child) in self.mixing:
                yield child

    def _seeds(self, scope: Scope) -> list[Seed]:
        """A layer's results with their weights in the target."""
        seeds, seen = [], set()
        for place in scope.outputs:
            if not place.dtype.is_floating_point or not place.numel or place.storage in seen:
                continue
            found = self.tape.writer(place.at((0,) * len(place.shape)), scope.end)
            if found is not None and found[0].time >= scope.start and (found[0].time, found[1]) in self.swept.at:
                seen.add(place.storage)
                seeds.append((place, scope.end, view(self.swept.at[found[0].time, found[1]], place)))
        return seeds

    def _group(self, path: str, pieces: list[_Piece]) -> Group:
        amount = sum(piece.products.sum().item() for piece in pieces)
        positions = [row for piece in pieces if (row := piece.by_position()) is not None]
        looked = [row for piece in pieces if (row := self._heads(piece)) is not None]
        heads = None
        if looked and all(row.shape[:-1] == looked[0].shape[:-1] for row in looked):
            length = max(row.shape[-1] for row in looked)
            heads = torch.stack([F.pad(row, (0, length - row.shape[-1])) for row in looked]).sum(0)
        return Group(
            path,
            amount,
            _joined(positions)[0] if len(positions) == len(pieces) and len(_joined(positions)) == 1 else None,
            heads,
            amount - heads.sum().item() if heads is not None else 0.0,
        )

    def _heads(self, piece: _Piece) -> Tensor | None:
        """By head and by what it looks at, where the piece comes out of attention."""
        seed = (piece.call.outs[piece.k], piece.call.time + 1, piece.w)
        back = self._sweep([seed], piece.since, lambda call: is_attention(self.roles, call))
        found = None
        for call, k, w in back.stopped:
            op = operation(self.tape, self.roles, call, k, self.dtype, self.convention)
            heads = by_head_and_source(op, w, piece.tokens // w.shape[-2] if w.shape[-2] else 0)
            if heads is None or (found is not None and found.shape != heads.shape):
                return None
            found = heads if found is None else found + heads
        return found


@dataclass
class _Piece:
    """What one call of one part of a layer brings."""

    part: Scope
    layer: Scope
    call: Call
    k: int
    w: Tensor
    products: Tensor
    since: int  # what was there at this time is given to it

    @property
    def tokens(self) -> int:
        """Of all sequences together: results of the layer's, of whatever width."""
        return math.prod(self._lead)

    def by_position(self) -> Tensor | None:
        """Added up over the width of each token."""
        lead = self._lead
        if len(lead) not in (1, 2) or self.products.numel() % max(1, self.tokens) or self.products.dim() < 2:
            return None
        readable = self.products.shape[-2] in (lead[-1], self.tokens)
        return self.products.reshape(*lead, -1).sum(-1) if readable else None

    @property
    def _lead(self) -> tuple[int, ...]:
        return self.layer.outputs[0].shape[:-1] if self.layer.outputs else ()


def is_attention(roles: Roles, call: Call) -> bool:
    """Whether a call mixes values by probabilities: fused attention, or a product with what a softmax made."""
    return call.name in ATTENTION or (call.name == "bmm" and roles.of(call.args[0], call.time).level == 2)


def by_head_and_source(op: Operation, w: Tensor, batch: int = 1) -> Tensor | None:
    """What each head brings from each position it looks at, (H, S) or (B, H, S): Σ over queries of p · (w · v)."""
    if op.call.name in ATTENTION:
        p, v = attention_weights(op), op.value(op.args[2])
        if v.shape[1] != p.shape[1]:
            v = v.repeat_interleave(p.shape[1] // v.shape[1], 1)
    else:
        if not batch or w.shape[0] % batch:
            return None
        p, v, w = (x.unflatten(0, (batch, -1)) for x in (op.value(op.args[0]), op.value(op.args[1]), w))
    found = (p * (w @ v.mT)).sum(2)
    return found[0] if len(found) == 1 else found
