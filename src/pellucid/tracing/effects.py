"""Effects: what becomes of a number when something is taken away or changed, measured by running again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.tracing.addresses import Numbers
from pellucid.tracing.edits import Change, Editor, Edits, eagerly, replaced
from pellucid.tracing.layers import Flow, is_attention
from pellucid.tracing.recorder import _visible
from pellucid.tracing.tape import Call, Place, Tape

if TYPE_CHECKING:
    from pellucid.tracing.answers import Question, Term
    from pellucid.tracing.trace import Trace


@dataclass(frozen=True)
class Again:
    """What ran while it was recorded."""

    module: nn.Module | None
    run: Callable[[], Any] | None = None  # runs it again; None: not known

    @classmethod
    def of(cls, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Again:
        """A run of `module` that is about to begin: the random numbers that it will draw are known as well."""
        random = torch.get_rng_state()
        on_devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

        def run() -> None:
            torch.set_rng_state(random)
            for device, state in enumerate(on_devices):
                torch.cuda.set_rng_state(state, device)
            with _disable_current_modes():  # the copies are no part of the run
                given, given_by_name = _copies(inputs), _copies(named)
            with torch.no_grad():
                module(*given, **given_by_name)

        return cls(module, run)


def _copies(x: Any) -> Any:
    if isinstance(x, Tensor):
        return x.clone()
    if type(x) in (list, tuple):
        return type(x)(_copies(y) for y in x)
    return {name: _copies(y) for name, y in x.items()} if type(x) is dict else x


class Replay:
    """Follows a recording while the same runs again: takes numbers away as they are made, and reads the target."""

    def __init__(self, tape: Tape, question: Question | Target, gone: Iterable[Numbers] = ()) -> None:
        self._tape, self._question = tape, question
        self._read: list[Tensor | None] = [None] * len(question.seeds)
        self._gone: dict[int, list[tuple[int, Place]]] = {}
        self._held: dict[int, Tensor] = {}  # by storage on the tape: a tensor over the same storage of this run
        self.leaves: list[Numbers] = []  # of what is to go: what no operation has made
        for numbers in gone:
            found = _maker(tape, numbers)
            if found is None:
                self.leaves.append(numbers)
            else:
                self._gone.setdefault(found[0].time, []).append((found[1], numbers.place))
        self._wanted = {numbers.place.storage for numbers, _ in question.seeds}

    def before(self, time: int) -> None:
        """The call numbered `time` is about to run."""
        for n, (numbers, _weights) in enumerate(self._question.seeds):
            if numbers.time == time and self._read[n] is None:
                self._read[n] = self._at(numbers.place)

    def after(self, time: int, op: Any, outs: Sequence[Tensor | None]) -> None:
        """It has run, and given `outs`."""
        if time >= len(self._tape.calls) or self._tape.calls[time].op is not op:
            raise PellucidError(
                _("Run again, it took another way."),
                str(op),
                _("What is taken away decides what runs; so its effect is no difference of two like runs."),
            )
        call = self._tape.calls[time]
        for out, place in zip(outs, call.outs, strict=False):
            if out is not None and place is not None and place.storage in self._wanted:
                self._held[place.storage] = _over(out, place, self._tape.whole(place.storage))
        for k, place in self._gone.get(time, ()):
            out, whole = outs[k], call.outs[k]
            if out is not None:
                _over(out, whole, place).zero_()

    def value(self) -> float:
        """The target, once all has run."""
        self.before(len(self._tape.calls))
        question = self._question
        rows = [
            (read if read is not None else self._at(numbers.place)).double()
            for read, (numbers, _) in zip(self._read, question.seeds, strict=True)
        ]
        if question.measure is not None:
            return question.measure(rows)
        parts = [(row * weights.double()).sum().item() for row, (_, weights) in zip(rows, question.seeds, strict=True)]
        return sum(parts) + sum(amount for _, amount in question.constants)

    def _at(self, place: Place) -> Tensor:
        held = self._held.get(place.storage)
        if held is None:
            return self._tape.read(place, 0)
        return _over(held, self._tape.whole(place.storage), place).clone()


def _maker(tape: Tape, numbers: Numbers) -> tuple[Call, int] | None:
    """The call that made numbers, and which of its results they are in."""
    found = tape.writer(numbers.place.at((0,) * len(numbers.place.shape)), numbers.time)
    return (found[0], found[1]) if found is not None else None


def _over(x: Tensor, whole: Place, place: Place) -> Tensor:
    """The part of a storage that is `place` on the tape, where `x` is `whole` on it."""
    apart = (place.offset - whole.offset) // whole.dtype.itemsize
    return x.detach().as_strided(place.shape, place.strides, int(x.storage_offset()) + apart)


@contextlib.contextmanager
def _without(tape: Tape, leaves: Iterable[Numbers]) -> Iterator[None]:
    """Inputs and parameters with some of their numbers set to zero, and afterwards byte for byte as before."""
    kept: list[tuple[Tensor, Tensor]] = []
    try:
        for numbers in leaves:
            place, storage = numbers.place, tape._held[numbers.place.storage]
            empty = torch.empty(0, dtype=place.dtype, device=storage.device)
            x = empty.set_(storage, place.offset // place.dtype.itemsize, place.shape, place.strides)
            kept.append((x, x.clone()))
            x.zero_()
        yield
    finally:
        for x, before in reversed(kept):
            x.copy_(before)


def measure(
    tape: Tape,
    question: Question | Target,
    gone: Sequence[Numbers] = (),
    changes: Mapping[str, Change] | None = None,
    run: Callable[[], Any] | None = None,
) -> float:
    """The target of a question when the recorded run is run again without some numbers, or with changes.

    Weights, buffers and random generators are afterwards what they were.

    Raises:
        PellucidError: when it is not known how to run again, or another way is taken.
    """
    run = run or (tape.again.run if tape.again is not None else None)
    if run is None:
        raise _not_known()
    replay = Replay(tape, question, gone)
    module = tape.again.module if tape.again is not None else None
    editor = Editor(replay)
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices))
        stack.enter_context(eagerly())
        stack.enter_context(_without(tape, replay.leaves))
        edits = None
        if module is not None:
            buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
            stack.enter_context(replaced(module, buffers))
            stack.enter_context(_visible(dict(module.named_modules()), Tape()))
            if changes:
                edits = Edits(module, changes)
                stack.enter_context(edits.on(editor))
        torch.clear_autocast_cache()
        with editor:
            run()
        value = replay.value()
    if edits is not None:
        edits.all_happened()
    return value


def _not_known() -> PellucidError:
    return PellucidError(
        _("It is not known how this recording was run."),
        "",
        _("Use pl.trace, or give a function that runs the same again: run=..."),
    )


@dataclass(frozen=True)
class Effect:
    """What a change did to a number: measured by running again, not computed."""

    question: str
    changed: tuple[str, ...]  # addresses
    before: float
    after: float
    exact: float | None = None  # what that contributes to the sum, if it was taken away; None: there is no sum

    @property
    def change(self) -> float:
        """How far the number moved."""
        return self.after - self.before

    def __str__(self) -> str:
        moved = _("{question}: {before:.6g} → {after:.6g}, measured {change:+.6g}").format(
            question=self.question, before=self.before, after=self.after, change=self.change
        )
        if self.exact is None:
            return moved
        return f"{moved}; " + _("as a term of the sum {exact:+.6g}").format(exact=-self.exact)


class Checkable:
    """An answer that can be checked by taking its terms away."""

    asked: Any
    kind: Any
    terms: Sequence[Term]
    question: str
    value: float

    def ablate(self, k: int = 1, run: Callable[[], Any] | None = None) -> Effect:
        """Take away (set to zero) the values of the k largest terms, and run again.

        The sum is exact at the recorded values. Whether a number would move as far as its terms say is another
        question: what is taken away also goes into coefficients (norms, attention, gates) and into other terms.

        Args:
            k: How many terms.
            run: Runs once more what was recorded; None: what `pl.trace` ran.

        Raises:
            PellucidError: when there are no terms, or it cannot be run again, or does not give the same.
        """
        terms = self.terms[:k]
        if terms and self.asked is None:
            raise _not_known()
        if not terms:
            raise PellucidError(
                _("There are no terms to take away."), self.question, _("Ask about a number that is a sum.")
            )
        tape, question = self.asked
        if isinstance(question, Numbers):
            question = Target(self.question, ((question, torch.ones(())),))
        before = _same_again(tape, question, self.value, run)
        after = measure(tape, question, [term.why().asked[1] for term in terms], run=run)
        addresses = tuple(term.address for term in terms)
        exact = sum(term.contribution for term in terms) if self.kind == "sum" else None  # a decision is none
        return Effect(self.question, addresses, before, after, exact)


@dataclass(frozen=True)
class Target:
    """One number, to be measured."""

    name: str
    seeds: tuple[tuple[Numbers, Tensor], ...]
    constants: tuple[tuple[str, float], ...] = ()
    measure: Callable[[list[Tensor]], float] | None = None


def ablate_part(
    trace: Trace,
    question: Question,
    part: str | None = None,
    *,
    head: int | None = None,
    token: int | None = None,
    run: Callable[[], Any] | None = None,
) -> Effect:
    """Take away what a module, one of its heads, or an input token gives: see `Trace.ablate`."""
    tape = trace.tape
    flow = trace.flow(question)
    before = _same_again(tape, question, flow.value, run)
    if token is not None:
        address = _embedded(trace, token)
        exact = flow.tokens[token].item() if flow.tokens is not None else None
        after = measure(tape, question, changes={address: 0}, run=run)
        return Effect(question.name, (address,), before, after, exact)
    if part is None:
        raise PellucidError(_("Say what to take away."), "", _("Name a module, or give token=..."))
    if head is None:
        after = measure(tape, question, changes={part: 0}, run=run)
        return Effect(question.name, (part,), before, after, _exact(flow, part))
    gone = _head(trace, part, head)
    after = measure(tape, question, gone, run=run)
    return Effect(question.name, (f"{part}, head {head}",), before, after, _exact(flow, part, head))


def effect(
    trace: Trace, changes: Mapping[str, Change], question: Question | Target, run: Callable[[], Any] | None
) -> Effect:
    """What changes do to a number: see `Trace.effect`."""
    before = _same_again(trace.tape, question, None, run)
    return Effect(question.name, tuple(changes), before, measure(trace.tape, question, changes=changes, run=run))


def _same_again(tape: Tape, question: Question | Target, value: float | None, run: Callable[[], Any] | None) -> float:
    before = measure(tape, question, run=run)
    if value is not None and abs(before - value) > 1e-5 * (1 + abs(value)):
        raise PellucidError(
            _("Run again, it gives {again:.6g}, not {value:.6g}.").format(again=before, value=value),
            question.name,
            _("Its state or its inputs have changed since: record again."),
        )
    return before


def _exact(flow: Flow, part: str, head: int | None = None) -> float | None:
    groups = [group for layer in flow.layers for group in layer.groups if group.name == part]
    if head is None:
        return sum(group.amount for group in groups) if groups else None
    heads = [group.heads[head].sum().item() for group in groups if group.heads is not None]
    return sum(heads) if heads else None


def _head(trace: Trace, part: str, head: int) -> list[Numbers]:
    """The results of one head's attention, in every call of a module."""
    found = []
    heads = 0
    for scope in trace.tape.scopes:
        if scope.path != part:
            continue
        batch = scope.inputs[0].shape[0] if scope.inputs else 1
        for call in trace.tape.calls[scope.start : scope.end]:
            if call.scope is None or not call.scope.within(scope) or not is_attention(trace.roles, call):
                continue
            out = call.outs[0]
            heads = out.shape[1] if len(out.shape) == 4 else out.shape[0] // batch
            rows = (
                [out.narrow(1, head)]
                if len(out.shape) == 4 and head < heads
                else [out.narrow(0, b * heads + head) for b in range(batch) if head < heads]
            )
            found += [Numbers(row, call.time + 1) for row in rows]
    if not found:
        raise PellucidError(
            _("There is no attention head {head} in {part}.").format(head=head, part=part),
            part,
            _("It has {n}.").format(n=heads) if heads else _("trace.tree() lists what there is."),
        )
    return found


def _embedded(trace: Trace, token: int) -> str:
    """The address of an input token's embedding."""
    start = 0
    calls = [call for call in trace.tape.calls if call.name == "embedding" and call.scope is not None]
    path = next((c.scope.path for c in calls if c.scope is not None and trace.roles.of(c.args[1], c.time).data), None)
    for scope in trace.tape.scopes:
        if scope.path == path:
            length = scope.inputs[0].shape[-1]
            if start <= token < start + length:
                return f"{path}#{scope.call}[..., {token - start}, :]"
            start += length
    raise PellucidError(_("There is no input token {n}.").format(n=token), "", _("There are {n}.").format(n=start))
