"""A training step seen through: what an optimiser made of a gradient, and which tokens a gradient came from."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.tracing.addresses import Numbers
from pellucid.tracing.answers import Answer, Term, Terms
from pellucid.tracing.flow import sweep
from pellucid.tracing.recorder import facts
from pellucid.tracing.rules import operation, shares
from pellucid.tracing.rules.operation import Share, Unexplained
from pellucid.tracing.rules.steps import STEPS
from pellucid.tracing.tape import BACKWARD, UPDATE, Call, LostError, Place, Scope, Tape

if TYPE_CHECKING:
    from pellucid.tracing.trace import Trace

# what an optimiser's state is called in PyTorch, and by people
STATES = {
    "exp_avg": "momentum", "momentum_buffer": "momentum", "momentum": "momentum", "grad_avg": "mean gradient",
    "exp_avg_sq": "second moment", "square_avg": "second moment", "sum": "sum of squares",
}  # fmt: skip


def trained(trace: Trace, number: Numbers, convention: str) -> Answer | None:
    """Where a number is an optimiser's or a gradient's: the answer in training's own words."""
    return updated(trace, number, convention) or gradient(trace, number, convention)


def updated(trace: Trace, number: Numbers, convention: str = "values") -> Answer | None:
    """One number of a parameter after an optimiser's step, as the sum of what the step was made of.

    The same terms for fused, foreach and plain optimisers: the value before the step, weight decay, momentum, gradient.
    What divides them (a second moment) is part of their coefficients and is named in the notes.

    Returns:
        None when it is no number that an optimiser has written.

    Raises:
        PellucidError: when no copies were kept of what the step has overwritten.
    """
    tape = trace.tape
    found = tape.writer(number.place, number.time)
    steps = tape.steps.get(number.place.storage, [])
    if found is None or found[0].phase != UPDATE or not steps:
        return None
    scope = found[0].scope
    assert scope is not None
    start, gradient, settings = next(step for step in reversed(steps) if step[0] <= found[0].time)
    try:
        ends, constants, dtype = _unfolded(
            trace, number, lambda call: call.time >= scope.start and _number_by_number(call), convention
        )
        parts = [_Part(Numbers(place, time), weight) for place, time, weight in ends]
        step = _Step(scope, start, gradient, settings)
        terms = [term for part in parts for term in _terms(trace, part, number, step, convention)]
        value = tape.read(number.place, number.time).item()
    except Unexplained:
        return None
    except LostError as lost:
        known = tape.name_of(number.place)
        raise PellucidError(
            _("No copies were kept of what this step has overwritten."),
            trace.addresses.name(number),
            _("Record with updates=[{name!r}].").format(name=known[0] if known else "..."),
        ) from lost
    terms = sorted((t for t in terms if t.coefficient), key=lambda term: -abs(term.contribution))
    fixed = tuple(Term(name, "", 1.0, amount, amount, constant=True) for name, amount in constants.items())
    sizes = torch.tensor([term.contribution for term in terms], dtype=torch.float64)
    residue = value - sizes.sum().item() - sum(constants.values())
    budget = 8 * torch.finfo(dtype).eps * (sizes.abs().sum().item() + abs(value)) + 1e-30
    address = trace.addresses.name(number)
    answer = Answer(
        address, address, "sum", value, scope.kind, Terms(sizes, terms.__getitem__), fixed, residue, budget, convention,
        tuple(_notes(trace, number, scope, settings)),
    )  # fmt: skip
    if not abs(residue) <= budget:
        return replace(answer, kind="unexplained", notes=(*answer.notes, f"{scope.kind} does not add up"))
    return answer


@dataclass(frozen=True)
class _Part:
    number: Numbers
    weight: float


@dataclass(frozen=True)
class _Step:
    """An optimiser's step of one parameter."""

    scope: Scope
    start: int  # time
    gradient: Place
    settings: dict[str, Any]


def _unfolded(
    trace: Trace, number: Numbers, inside: Callable[[Call], bool], convention: str
) -> tuple[list[tuple[Place, int, float]], dict[str, float], torch.dtype]:
    """Follow a number back through the calls that are `inside`: where it ends, with weights."""
    tape = trace.tape
    one = torch.ones((), dtype=torch.float64)
    waiting: dict[tuple[int, Place], tuple[int, float]] = {}  # by writer and place: when to read it, its weight
    ends: dict[tuple[int, Place], tuple[int, float]] = {}
    constants: defaultdict[str, float] = defaultdict(float)
    dtype = number.place.dtype

    def add(place: Place, time: int, weight: float) -> None:
        found = tape.writer(place, time)
        open_ = found is not None and inside(found[0])
        where, key = (waiting if open_ else ends), (found[0].time if found else -1, place)
        where[key] = (time, weight + (where[key][1] if key in where else 0.0))

    add(number.place, number.time, 1.0)
    while waiting:
        key = max(waiting, key=lambda key: key[0])
        time, weight = waiting.pop(key)
        found = tape.writer(key[1], time)
        assert found is not None
        call, k, index = found
        if torch.finfo(call.outs[k].dtype).eps > torch.finfo(dtype).eps:
            dtype = call.outs[k].dtype
        try:
            with torch.no_grad():
                parts = list(shares(operation(tape, trace.roles, call, k, torch.float64, convention), one, index))
        except Unexplained:
            if key[1] == number.place and time == number.time:
                raise
            ends[key] = (time, weight)
            continue
        for part in parts:
            if not isinstance(part, Share):
                constants[part.name] += weight * part.amount
                continue
            for at in part.weights.nonzero().tolist():
                add(part.place.at(tuple(at)), call.time, weight * part.weights[tuple(at)].item())
    return [(place, time, weight) for (_writer, place), (time, weight) in ends.items()], constants, dtype


def _number_by_number(call: Call) -> bool:
    if call.name.endswith("_like"):  # state that begins as zeros
        return False
    plain = call.name.startswith("_foreach_") or call.name in STEPS or call.name in ("clone", "copy", "stack")
    return plain or facts(call.op).pointwise


def _terms(trace: Trace, part: _Part, number: Numbers, step: _Step, convention: str) -> list[Term]:
    tape, at = trace.tape, part.number
    value = tape.read(at.place, at.time).item()
    address = trace.addresses.name(at)

    def term(source: str, weight: float) -> Term:
        return Term(
            source, address, weight, value, weight * value,
            _open=lambda: trained(trace, at, convention) or trace.unfolding.number(at, convention),
        )  # fmt: skip

    found = tape.writer(at.place, at.time)
    inside = found is not None and found[0].time >= step.start
    if at.place == number.place and not inside:
        lost, settings = part.weight - 1.0, step.settings
        decay = lost
        if settings.get("l2") and step.scope.kind != "Muon":  # whose gradients go through the orthogonalisation
            decay = -settings["lr"] * settings["weight_decay"]
        return [term(_("before the step"), 1.0), term(_("weight decay"), decay), term("L2", lost - decay)]
    if at.place.storage == step.gradient.storage:
        return [term(_("gradient"), part.weight)]
    if inside and found is not None and found[0].name == "_foreach_sign":
        return [term("L1", part.weight)]
    known = tape.name_of(at.place)
    if known is not None and known[0].startswith(step.scope.path):
        what = known[0].rpartition(".")[2]
        return [term(STATES.get(what, what), part.weight)]
    if step.scope.kind == "Muon" and inside:
        return [term(_("orthogonalised momentum"), part.weight)]
    return [term(trace.addresses.source(at), part.weight)]


def _notes(trace: Trace, number: Numbers, scope: Scope, settings: dict[str, Any]) -> list[str]:
    """The step's settings, and the state that its coefficients were computed from."""
    tape = trace.tape
    notes = [", ".join(f"{name} = {x:g}" for name, x in settings.items() if not isinstance(x, bool))]
    parameter = tape.name_of(number.place)
    if parameter is None:
        return notes
    index = parameter[1].find(number.place)
    for known in list(tape.parameters.values()):
        for place, name in known:
            what = name.rpartition(".")[2]
            if name == f"{scope.path}.{parameter[0]}.{what}" and index is not None:
                at = place.at(index) if place.shape == parameter[1].shape else place.at((0,) * len(place.shape))
                value = tape.read(at, scope.end).item()
                notes.append(f"{STATES.get(what, what)} after the step = {value:.6g}")
    return notes


# ---- which tokens a gradient came from


def gradient(trace: Trace, number: Numbers, convention: str = "values") -> Answer | None:
    """One number of a parameter's gradient by example and position, through clipping, accumulation and casts.

    Returns:
        None when it is no number of a gradient that an optimiser has read, or that was left after a backward pass.
    """
    tape = trace.tape
    now = tape.version(number.place.storage, number.time)
    if not any(
        place.find(number.place) is not None and tape.version(place.storage, time) == now
        for place, time in tape.gradients.values()
    ):
        return None
    try:
        ends, constants, dtype = _unfolded(trace, number, lambda call: call.name in _SCALING, convention)
        parts: list[tuple[Call, Share]] = []
        for place, time, weight in ends:
            writer = tape.writer(place, time)
            if writer is None:
                return None
            call, k, index = writer
            dtype = max(dtype, call.outs[k].dtype, key=lambda t: torch.finfo(t).eps)
            op = operation(tape, trace.roles, call, k, torch.float64, convention)
            with torch.no_grad():
                found = list(shares(op, torch.tensor(weight, dtype=torch.float64), index))
            if not all(isinstance(part, Share) for part in found):
                return None
            parts += [(call, part) for part in found if isinstance(part, Share)]
        value = tape.read(number.place, number.time).item()
        values = [tape.read(part.place, call.time).double() for call, part in parts]
    except (Unexplained, LostError):
        return None
    flat = torch.cat([(part.weights * v).flatten() for (_call, part), v in zip(parts, values, strict=True)])
    order = flat.abs().argsort(descending=True, stable=True)
    starts = torch.tensor([0, *(v.numel() for v in values)]).cumsum(0)
    first = _first_examples(tape, (call for call, _part in parts))

    def make(n: int) -> Term:
        at = int(order[n])
        which = int((starts[1:] <= at).sum())
        call, part = parts[which]
        i = at - int(starts[which])
        index = tuple(int(j) for j in torch.unravel_index(torch.tensor(i), part.weights.shape))
        one = Numbers(part.place.at(index), call.time)
        factor = Numbers(part.factor.at(index), call.time) if part.factor is not None else None
        coefficient, x = part.weights[index].item(), values[which][index].item()
        return Term(
            _labelled(trace, call, i, part.weights.numel(), first), trace.addresses.name(one), coefficient, x,
            coefficient * x, trace.addresses.name(factor) if factor is not None else None,
            _open=lambda: trace.unfolding.number(one, convention),
            _open_factor=None if factor is None else lambda: trace.unfolding.number(factor, convention),
        )  # fmt: skip

    address = trace.addresses.name(number)
    residue = value - flat.sum().item()
    budget = 8 * torch.finfo(dtype).eps * (flat.abs().sum().item() + abs(value)) + 1e-30
    if constants or not abs(residue) <= budget:
        return None
    rounding = f"computed in {str(dtype).removeprefix('torch.')}: the residue is the kernel's rounding"
    notes = (rounding,) if dtype in (torch.bfloat16, torch.float16) else ()
    return Answer(
        address, address, "sum", value, "gradient", Terms(flat[order], make), (), residue, budget, convention, notes
    )


_SCALING = (
    "mul", "div", "add", "neg", "_to_copy", "clone", "copy", "_foreach_mul", "_foreach_div", "_foreach_add",
)  # fmt: skip


def _labelled(trace: Trace, call: Call, i: int, n: int, first: dict[Scope, int]) -> str:
    """Where a term of a gradient comes from, for people."""
    root = _root(call.scope)
    name = call.scope.path if call.scope is not None and call.scope.path else call.name
    if root is None or call.name not in _GATHER or call.scope is None or call.scope.kind in _RECURRENT:
        return name
    lead, ids = _inputs(trace.tape, root)
    each, left = divmod(n, math.prod(lead))
    if left or not each:
        return name
    where = [int(x) for x in torch.unravel_index(torch.tensor(i // each), lead)]
    label = _("example {n}").format(n=first[root] + where[0])
    if len(where) > 1:
        label = _("example {n}, position {position}").format(n=first[root] + where[0], position=where[1])
    tokenizer = getattr(trace, "tokenizer", None)
    if ids is not None and tokenizer is not None:
        label += f" {tokenizer.show(int(ids[tuple(where)]))}"
    return label


def _first_examples(tape: Tape, calls: Iterable[Call]) -> dict[Scope, int]:
    """Examples are counted over all forward passes that took part."""
    first, examples = {}, 0
    for root in sorted({root for call in calls if (root := _root(call.scope))}, key=lambda root: root.start):
        first[root] = examples
        examples += _inputs(tape, root)[0][0]
    return first


@dataclass(frozen=True)
class Source:
    """What one place of one example contributes to a gradient."""

    example: int | None  # from 0, over all micro-batches; None where it cannot be read off
    position: int | None  # None: all of the example
    token: int | None  # the id that the model read there
    contribution: float
    shown: str = ""  # the token, readable


@dataclass(frozen=True)
class Sources:
    """Which tokens a gradient came from: value = Σ contributions + residue."""

    address: str
    value: float  # the number itself; of a whole tensor: its length, along its own direction
    sources: tuple[Source, ...]  # largest contribution first
    residue: float
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        lines = [f"{self.address} = {self.value:.6g}"]
        lines += [
            f"{s.contribution:+12.4g}  {_('example')} {s.example}, {_('position')} {s.position}  {s.shown}"
            for s in self.sources[:12]
        ]
        return "\n".join(lines)


def by_token(trace: Trace, address: str, show: Callable[[int], str] | None = None) -> Sources:
    """This weight moved because of these tokens: a gradient by example and position.

    Args:
        trace: Of a forward and a backward pass.
        address: A parameter's gradient, "fc.weight:grad": one number of it, or all of it. All of it is looked at along
            its own direction g / |g|, so that the contributions add up to its length |g|.
        show: Makes a token's id readable; None: the trace's tokenizer, if it has one.

    Raises:
        PellucidError: when there is no such gradient.
    """
    tape = trace.tape
    numbers = trace.find(address)
    show = show or getattr(getattr(trace, "tokenizer", None), "show", None)
    recorded = tape.read(numbers.place, numbers.time).double()
    length = recorded.norm().item()
    weights = torch.ones_like(recorded) if recorded.dim() == 0 else recorded / (length or 1.0)
    value = recorded.item() if recorded.dim() == 0 else length
    swept = sweep(tape, trace.roles, [(numbers.place, numbers.time, weights)], stop=_gathers, dtype=torch.float64)
    first = _first_examples(tape, (call for call, _k, _w in swept.stopped))
    amounts: defaultdict[tuple[int | None, int | None, int | None], float] = defaultdict(float)
    for call, k, w in swept.stopped:
        root = _root(call.scope)
        lead, ids = _inputs(tape, root) if root is not None else ((), None)
        for part in shares(operation(tape, trace.roles, call, k, torch.float64), w):
            if not isinstance(part, Share):
                amounts[None, None, None] += part.amount
                continue
            products = part.weights * tape.read(part.place, call.time).double()
            table = _by_position(tape, call, part.place, products, lead) if root is not None else None
            if table is None or root is None:
                amounts[None, None, None] += products.sum().item()
                continue
            placed = table.shape == lead
            for n, row in enumerate(table.tolist()):
                for t, amount in enumerate(row):
                    token = int(ids[n, t]) if ids is not None and placed else None
                    amounts[first[root] + n, t if placed else None, token] += amount
    amounts[None, None, None] += sum(swept.constants.values())
    for call, k, w, _reason in swept.ends:
        amounts[None, None, None] += (w * tape.read(call.outs[k], call.time + 1)).sum().item()
    sources = [
        Source(example, position, token, amount, show(token) if show is not None and token is not None else "")
        for (example, position, token), amount in amounts.items()
        if amount
    ]
    sources.sort(key=lambda source: -abs(source.contribution))
    notes = (_("Part of it could not be told apart by example."),) if amounts[None, None, None] else ()
    return Sources(address, value, tuple(sources), value - sum(s.contribution for s in sources), notes)


_PRODUCTS = ("mm", "addmm", "bmm")
_GATHER = (
    *_PRODUCTS, "mv", "sum", "embedding_dense_backward", "native_layer_norm_backward", "_fused_rms_norm_backward",
    "native_group_norm_backward", "native_batch_norm_backward", "cudnn_batch_norm_backward", "convolution_backward",
)  # fmt: skip
_RECURRENT = ("LSTM", "GRU", "RNN")  # time may come first inside


def _gathers(call: Call) -> bool:
    """Whether it adds up over examples."""
    return call.phase == BACKWARD and call.name in _GATHER


def _root(scope: Scope | None) -> Scope | None:
    while scope is not None and scope.parent is not None:
        scope = scope.parent
    return scope


def _inputs(tape: Tape, root: Scope) -> tuple[tuple[int, ...], Tensor | None]:
    """How many examples a forward pass was given, of how many positions, and the ids of tokens."""
    for place in root.inputs:
        if not place.dtype.is_floating_point and len(place.shape) == 2:
            return place.shape, tape.read(place, root.start)
    shape = root.inputs[0].shape if root.inputs else (1,)
    return (shape[:2] if len(shape) == 3 else shape[:1]) or (1,), None


def _by_position(tape: Tape, call: Call, place: Place, products: Tensor, lead: tuple[int, ...]) -> Tensor | None:
    """The products of a gradient that is added up over examples, (examples, positions) or (examples, 1)."""
    if call.scope is not None and call.scope.kind in _RECURRENT:
        return None
    if call.name in _PRODUCTS:
        if products.dim() == 3 and products.shape[0] > 1:
            return None
        left, right = call.args[-2:] if call.name == "addmm" else call.args[:2]
        other = right if left == place else left
        # a product with a weight mixes features, one with an activation adds up over examples
        rows_first = (left == place) == _is_weight(tape, other, call.time)
        products = products.reshape(products.shape[-2:])
        products = products if rows_first else products.mT
    rows = products.flatten(1).sum(1) if products.dim() > 1 else products
    if len(rows) == math.prod(lead):
        return rows.reshape(lead[0], -1)
    if products.shape[: len(lead)] == lead:
        return products.flatten(len(lead)).sum(-1) if products.dim() > len(lead) else products
    return rows.reshape(-1, 1) if len(rows) == lead[0] else None


def _is_weight(tape: Tape, place: Place, time: int) -> bool:
    """Whether it is a parameter, perhaps in another format."""
    while place.storage not in tape.parameters:
        found = tape.writer(place.at((0,) * len(place.shape)), time)
        if found is None or found[0].name not in ("_to_copy", "clone"):
            return False
        place, time = found[0].args[0], found[0].time
    return True
