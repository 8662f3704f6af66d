"""Reading a flow: by layer, by attention and feed-forward network, by head and by token."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.tracing.flow import Seed, Swept, sweep, view, where
from pellucid.tracing.roles import Roles
from pellucid.tracing.rules import operation
from pellucid.tracing.rules.attention import ATTENTION, attention_weights
from pellucid.tracing.rules.operation import Operation
from pellucid.tracing.shown import Shown
from pellucid.tracing.tape import Call, Scope, Tape


@dataclass(frozen=True)
class Group:
    """One part of a layer, and what it contributes to the target."""

    name: str  # the part's module
    amount: float
    positions: Tensor | None = None  # (T,) by the token at whose position it was written; None where unreadable
    heads: Tensor | None = None  # attention: (H, T) by head and by the token looked at
    constant: float = 0.0  # attention: of `amount`, what its biases add


@dataclass(frozen=True)
class Layer:
    """One layer: what its parts add, beside what passes it by. With the constants that enter later: the target."""

    name: str
    groups: tuple[Group, ...]
    past: float  # what is in the stream when the layer begins, and goes past it
    constant: float  # what enters inside the layer from no data
    later: float  # constants that enter after this layer
    residue: float


@dataclass(frozen=True, repr=False)
class Flow(Shown):
    """What everything contributes to a target: each layer is one way to cut it."""

    target: str
    value: float
    layers: tuple[Layer, ...]
    tokens: Tensor | None  # (T,) by input token; None where there is no embedding
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
        tokens, batch = None, 1
        stopped: defaultdict[str, float] = defaultdict(float)
        ends = 0.0
        for call, k, w, reason in swept.ends:
            product = w * tape.read(call.outs[k], call.time + 1).to(dtype)
            amount = product.sum().item()
            ends += amount
            if reason == "embedding" and product.dim() > 1:
                by_token = product.sum(-1)
                batch = by_token.shape[0] if by_token.dim() > 1 else 1
                by_token = by_token.reshape(-1, by_token.shape[-1]).sum(0) if batch == 1 else by_token
                tokens = by_token if tokens is None or tokens.shape != by_token.shape else tokens + by_token
            else:
                stopped[f"{where(call)}{call.name}"] += amount
        inputs = {}
        for serial, flat in swept.weights.items():
            whole = tape.whole(serial)
            if not whole.numel:
                continue
            given = next((p for scope in tape.scopes for p in scope.inputs if p.storage == serial), whole)
            if view(flat, given).count_nonzero() != flat.count_nonzero():  # not the only input in this storage
                given = whole
            products = view(flat, given) * tape.read(given, 0).to(dtype)
            inputs[tape.input_name(serial)] = products
            ends += products.sum().item()
        constants = dict(sorted(swept.constants.items(), key=lambda item: -abs(item[1])))
        layers = tuple(
            layer
            for scope in find_layers(tape)
            if (layer := _layer(tape, roles, scope, swept, batch, value, dtype, convention)) is not None
        )
    notes = () if layers else ("no layers",)
    residue = value - ends - sum(constants.values())
    return Flow(target, value, layers, tokens, inputs, constants, dict(stopped), residue, convention, notes)


def find_layers(tape: Tape) -> list[Scope]:
    """The calls of the modules that stand in a list one after the other, in the order in which they ran."""
    numbered = [scope for scope in tape.scopes if re.search(r"(^|\.)\d+$", scope.path) and scope.ended]
    kinds: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for scope in numbered:
        kinds[scope.path.rpartition(".")[0], scope.kind].add(scope.path)
    layers = []
    for scope in numbered:
        parent = scope.parent
        while parent is not None and not re.search(r"(^|\.)\d+$", parent.path):
            parent = parent.parent
        nested = parent is not None and len(kinds[parent.path.rpartition(".")[0], parent.kind]) > 0
        has_parts = any(other.parent is scope for other in tape.scopes)
        if has_parts and not nested:
            layers.append(scope)
    return layers


def _layer(
    tape: Tape,
    roles: Roles,
    scope: Scope,
    whole: Swept,
    batch: int,
    value: float,
    dtype: torch.dtype,
    convention: str,
) -> Layer | None:
    seeds = _seeds(tape, scope, whole)
    if not seeds:
        return None
    parts = _parts(tape, scope)

    def part_of(call: Call) -> Scope | None:
        return next((part for part in parts if call.scope is not None and call.scope.within(part)), None)

    inner = sweep(
        tape,
        roles,
        seeds,
        since=scope.start,
        stop=lambda call: part_of(call) is not None,
        dtype=dtype,
        convention=convention,
    )
    groups: list[Group] = []
    past = sum(_amount(tape, call, k, w, dtype) for call, k, w, _ in inner.ends)
    seen = set()
    for call, k in inner.stopped:
        out = call.outs[k]
        part = part_of(call)
        if out.storage not in inner.weights or part is None or out.storage in seen:
            continue
        seen.add(out.storage)
        w = view(inner.weights.pop(out.storage), out)
        if w.any():
            groups.append(_group(tape, roles, part, call, k, w, batch, dtype, convention))
    for serial, flat in inner.weights.items():
        place = tape.whole(serial)
        past += (view(flat, place) * tape.read(place, scope.start).to(dtype)).sum().item()
    constant = sum(inner.constants.values())
    at_layer = sum((w * tape.read(place, time).to(dtype)).sum().item() for place, time, w in seeds)
    groups.reverse()
    residue = at_layer - sum(group.amount for group in groups) - past - constant
    return Layer(scope.path, tuple(groups), past, constant, value - at_layer, residue)


def _parts(tape: Tape, scope: Scope) -> list[Scope]:
    """The modules that a layer calls. One that is given two tensors (to add them) is looked into."""
    parts = []
    for child in tape.scopes:
        if child.parent is scope:
            inner = [other for other in tape.scopes if other.parent is child]
            adds = any(len(other.inputs) > 1 for other in (child, *inner) if other.kind.endswith("Output"))
            parts.extend(_parts(tape, child) if adds and inner else [child])
    return parts


def _seeds(tape: Tape, scope: Scope, swept: Swept) -> list[Seed]:
    """A scope's results with their weights in the target."""
    seeds, seen = [], set()
    for place in scope.outputs:
        if not place.dtype.is_floating_point or not place.numel or place.storage in seen:
            continue
        found = tape.writer(place.at((0,) * len(place.shape)), scope.end)
        if found is not None and found[0].time >= scope.start and (found[0].time, found[1]) in swept.at:
            seen.add(place.storage)
            seeds.append((place, scope.end, view(swept.at[found[0].time, found[1]], place)))
    return seeds


def _amount(tape: Tape, call: Call, k: int, w: Tensor, dtype: torch.dtype) -> float:
    return (w * tape.read(call.outs[k], call.time + 1).to(dtype)).sum().item()


def _group(
    tape: Tape,
    roles: Roles,
    part: Scope,
    call: Call,
    k: int,
    w: Tensor,
    batch: int,
    dtype: torch.dtype,
    convention: str,
) -> Group:
    out = call.outs[k]
    products = w * tape.read(out, call.time + 1).to(dtype)
    amount = products.sum().item()
    positions = products.sum(-1).reshape(batch, -1)[0] if products.dim() > 1 and batch == 1 else None
    inner = sweep(
        tape,
        roles,
        [(out, call.time + 1, w)],
        since=part.start,
        stop=lambda inner: is_attention(roles, inner),
        dtype=dtype,
        convention=convention,
    )
    heads, looked = None, 0.0
    for attention, result in inner.stopped:
        given = inner.weights.get(attention.outs[result].storage)
        if given is None:
            continue
        by_head = by_head_and_source(
            operation(tape, roles, attention, result, dtype, convention), view(given, attention.outs[result]), batch
        )
        if by_head is not None:
            heads = by_head if heads is None else heads + by_head
            looked += by_head.sum().item()
    return Group(part.path, amount, positions, heads, amount - looked if heads is not None else 0.0)


def is_attention(roles: Roles, call: Call) -> bool:
    """Whether a call mixes values by probabilities: fused attention, or a product with what a softmax made."""
    if call.name in ATTENTION:
        return True
    return call.name in ("bmm", "baddbmm") and roles.of(call.args[0], call.time).level == 2


def by_head_and_source(op: Operation, w: Tensor, batch: int = 1) -> Tensor | None:
    """What each head brings from each position it looks at, (H, S): Σ over queries of p · (w · v)."""
    if op.call.name in ATTENTION:
        p, v = attention_weights(op), op.value(op.args[2])
        if v.shape[1] != p.shape[1]:
            v = v.repeat_interleave(p.shape[1] // v.shape[1], 1)
    elif op.args[0].shape[0] % batch == 0:
        p, v, w = (x.unflatten(0, (batch, -1)) for x in (op.value(op.args[0]), op.value(op.args[1]), w))
    else:
        return None
    return (p * (w @ v.mT)).sum((0, 2)) if batch == 1 else (p * (w @ v.mT)).sum(2)
