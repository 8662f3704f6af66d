"""Recording: a dispatch mode that puts every operation on a tape, and hooks that say which module it ran in."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.tracing.tape import BACKWARD, FORWARD, UPDATE, Call, Place, Scope, Tape, places
from pellucid.tracing.updates import optimisers_watched, spread

DROPPED_FROM = 2**16  # bytes: smaller results are not worth computing again

# They write without declaring it: which arguments. A test hunts for more.
UNDECLARED = {
    "aten::native_batch_norm": (3, 4),
    "aten::cudnn_batch_norm": (3, 4),
    "aten::miopen_batch_norm": (3, 4),
}
UNTAGGED = {"aten::_to_copy", "aten::hardswish", "aten::log_sigmoid_forward", "aten::_prelu_kernel"}  # pointwise too
VIEWS = {"aten::_unsafe_view", "aten::detach", "aten::alias", "aten::lift_fresh", "aten::_reshape_alias"}
CALLING = ("_call_impl", "_compiled_call_impl")
COPIED_UP_TO = 50_000_000  # parameters: of larger models, copies for undoing a step are kept only where asked for


@dataclass(frozen=True, slots=True)
class Facts:
    """What recording needs to know of an operation."""

    view: bool  # only looks at a storage in another way, or is no arithmetic at all
    writes: tuple[tuple[int, str], ...]  # arguments that it writes to: position and name
    fresh: tuple[bool, ...]  # of each result: whether it is new, not one of the arguments
    random: bool
    pointwise: bool
    only_training: bool  # writes only where its argument `training` says so
    composite: bool  # arrives whole in inference mode


@cache
def facts(op: OpOverload) -> Facts:
    """What recording needs to know of `op`."""
    schema = op._schema
    moves = torch.Tag.inplace_view in op.tags  # changes a tensor's geometry, and no number
    writes = [
        (i, argument.name)
        for i, argument in enumerate(schema.arguments)
        if (argument.alias_info is not None and argument.alias_info.is_write) or i in UNDECLARED.get(schema.name, ())
    ]
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    return Facts(
        view=op.is_view or moves or op.namespace == "profiler" or schema.name in VIEWS,
        writes=tuple(writes),
        fresh=tuple(result.alias_info is None for result in schema.returns),
        random=torch.Tag.nondeterministic_seeded in op.tags,
        pointwise=torch.Tag.pointwise in op.tags or schema.name in UNTAGGED,
        only_training=schema.name in UNDECLARED,
        composite=torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), key),
    )


_FACTS: dict[int, Facts] = {}  # by id, which costs less than a hash: operations live for ever


class Recorder(TorchDispatchMode):
    """Appends to a tape what runs while it is on."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled while recording, and the wrapper costs more than the tape

    def __init__(self, tape: Tape, budget: float, copied: set[int] | None) -> None:
        super().__init__()
        self.tape = tape
        self.scope: Scope | None = None
        self.updating: Scope | None = None
        self.budget = budget  # bytes
        self.copied = copied  # storages of which copies are kept when the optimiser writes to them; None: of all
        self._scope_of: dict[int, Scope | None] = {}  # by the sequence number of the forward call's autograd node
        self._followed: dict[int, Any] = {}  # by id: nodes of the backward pass, held so that no id is used again
        self.handles: list[Any] = []

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        known = _FACTS.get(id(op)) or _FACTS.setdefault(id(op), facts(op))
        if known.composite and torch.is_inference_mode_enabled():
            with self:
                out = op.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        node = torch._C._current_autograd_node()
        if node is None and torch.is_grad_enabled():
            # An operation's autograd node is made just before the operation runs: the newest one is its own.
            self._scope_of.setdefault(torch.autograd._get_sequence_nr() - 1, self.scope)
        if known.view:
            return op(*args, **kwargs)
        scope, phase = self.updating or self.scope, FORWARD if self.updating is None else UPDATE
        if node is not None:
            scope, phase = self._scope_of.get(node._sequence_nr(), scope), BACKWARD
            self._follow(node)
        tape = self.tape
        held = tape.hold(args)
        held_kwargs = {name: tape.hold(x) for name, x in kwargs.items()} if kwargs else kwargs
        written = self._overwritten(known, args, kwargs, phase) if known.writes else ()
        out = op(*args, **kwargs)
        before = tape.kept_bytes
        if isinstance(out, Tensor):
            outs = [self._result(out)] if known.fresh[0] else []
        else:
            returned = out if isinstance(out, (list, tuple)) else (out,)
            # a list of tensors is one result in the schema
            fresh = known.fresh if len(known.fresh) == len(returned) else known.fresh * len(returned)
            outs = [self._result(x) for x, new in zip(returned, fresh, strict=False) if new]
        if not written and tape.kept_bytes == before and _aliases(held, outs):
            return out
        if phase == UPDATE and self.copied:
            spread(self.copied, held, outs)
        tape.add(Call(len(tape.calls), op, held, held_kwargs, (*outs, *written), scope, phase))
        if tape.kept_bytes > self.budget:
            raise OverBudgetError(scope.path if scope else "")
        return out

    def _follow(self, node: Any) -> None:
        """Note what the nodes after `node` will be given: those are the gradients, whatever the calls name them."""
        if id(node) in self._followed:
            return
        self._followed[id(node)] = node
        for later, _input in node.next_functions:
            if later is not None and id(later) not in self._followed:
                self.handles.append(later.register_prehook(partial(self.given, later)))

    def given(self, node: Any, gradients: tuple[Tensor | None, ...]) -> None:
        now = len(self.tape.calls)
        self.tape.incoming.extend((now, self.tape.place(x)) for x in gradients if x is not None)
        self._follow(node)

    def _overwritten(self, known: Facts, args: Any, kwargs: Any, phase: str) -> list[Place | None]:
        written: list[Place | None] = []
        if known.only_training and not args[5]:
            return written
        for i, name in known.writes:
            target = args[i] if i < len(args) else kwargs.get(name)
            # fused optimisers declare that they write gradients, but do so only to scale them
            if name == "grads" and kwargs.get("grad_scale") is None:
                written += [None] * len(target)
                continue
            for tensor in (target,) if isinstance(target, Tensor) else target or ():
                place = self.tape.place(tensor)
                keep = phase != UPDATE or self.copied is None or place.storage in self.copied
                self.tape.overwrite(len(self.tape.calls), place, tensor.detach().clone() if keep else None)
                written.append(place)
        return written

    def _result(self, x: Any) -> Place | None:
        if not isinstance(x, Tensor):
            return None
        tape = self.tape
        met = tape.storages
        place = tape.place(x)
        if tape.storages > met:
            tape.kept_bytes += x.untyped_storage().nbytes()
        return place


class OverBudgetError(Exception):
    """The tape has grown larger than it may."""


def _aliases(held: Any, outs: list[Place | None]) -> bool:
    """Whether a call made nothing: its results lie in its operands' storages (`_unsafe_view` declares no alias)."""
    storages = {place.storage for place in places(held)}
    return bool(outs) and all(out is not None and out.storage in storages for out in outs)


@contextlib.contextmanager
def recording(
    module: nn.Module | None, tape: Tape, budget: float | None = None, updates: Collection[str] | None = None
) -> Iterator[None]:
    """Put on `tape` whatever runs within: see `record`."""
    modules = dict(module.named_modules()) if module is not None else {}
    names = {id(inner): name for name, inner in modules.items()}
    kept = None
    if module is not None:
        for path, inner in modules.items():
            for held in (inner._parameters, inner._buffers):
                for name, tensor in held.items():
                    if tensor is not None:
                        _name(tape, tensor, path, name)
        kept = _storages_to_copy(module, tape, updates)
    limit = budget if budget is not None else _available() / 2
    recorder = Recorder(tape, limit, kept)
    with contextlib.ExitStack() as stack:
        stack.callback(_finish, tape, modules)
        if "torch._dynamo" in sys.modules:  # else nothing is compiled, and loading it would take a second
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if module is not None:
            stack.enter_context(_visible(modules, tape))
            stack.enter_context(_scopes(modules, recorder))
        stack.enter_context(optimisers_watched(recorder))
        stack.enter_context(_beginnings(recorder))
        torch.clear_autocast_cache()  # a cast of a weight made before would be a leaf without a name
        try:
            stack.enter_context(recorder)
            yield
        except OverBudgetError as over:
            raise _too_much(tape, limit, str(over), names) from None
        finally:
            for handle in recorder.handles:
                handle.remove()


def _name(tape: Tape, tensor: Tensor, path: str, name: str) -> None:
    """Know a parameter or buffer by its name."""
    place = tape.place(tensor)
    tape.parameters[place.storage].append((place, f"{path}.{name}" if path else name))


@contextlib.contextmanager
def _scopes(modules: dict[str, nn.Module], recorder: Recorder) -> Iterator[None]:
    """Know at each call in which module's call it happens."""
    counts: defaultdict[str, int] = defaultdict(int)
    tape = recorder.tape

    def called(inner: nn.Module, path: str, *args: Any, **kwargs: Any) -> Any:
        scope = Scope(path, counts[path], type(inner).__name__, recorder.scope, len(tape.calls))
        counts[path] += 1
        scope.inputs.extend([tape.place(tensor) for tensor in _tensors((args, kwargs))])
        tape.scopes.append(scope)
        for name, parameter in inner._parameters.items():
            if parameter is not None and not tape.known(parameter):  # other data since the recording began
                _name(tape, parameter, path, name)
        recorder.scope = scope
        try:
            out = type(inner)._call_impl(inner, *args, **kwargs)
            for tensor in _tensors(out):
                place = tape.place(tensor)
                scope.outputs.append(place)
                tape.watch(tensor, place)
            return out
        finally:
            scope.ended.append(len(tape.calls))
            recorder.scope = scope.parent

    # An attribute of each module stands before its class's method: two hooks would cost more than a small network.
    before = []
    for path, inner in modules.items():
        if not isinstance(inner, torch.jit.ScriptModule):
            before.append((inner.__dict__, {name: inner.__dict__[name] for name in CALLING if name in inner.__dict__}))
            inner.__dict__.update(_call_impl=partial(called, inner, path), _compiled_call_impl=None)
    try:
        yield
    finally:
        for own, old in before:
            for name in CALLING:
                own.pop(name, None)
            own.update(old)


@contextlib.contextmanager
def _beginnings(recorder: Recorder) -> Iterator[None]:
    """Know which gradients a backward pass begins with."""
    run = getattr(torch.autograd, "_engine_run_backward", None)  # PyTorch has no public hook for it
    if run is None:
        yield
        return

    def begin(outputs: Any, gradients: Any, *args: Any, **kwargs: Any) -> Any:
        for out, gradient in zip(outputs, gradients, strict=True):
            if isinstance(out, Tensor) and out.grad_fn is not None:
                recorder.given(out.grad_fn, (gradient,))
        return run(outputs, gradients, *args, **kwargs)

    torch.autograd._engine_run_backward = begin  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.autograd._engine_run_backward = run


@contextlib.contextmanager
def _visible(modules: dict[str, nn.Module], tape: Tape) -> Iterator[None]:
    """Where a module would run as one opaque kernel, let it run as the operations that it is made of, and say so."""
    lstms = [m for m in modules.values() if isinstance(m, nn.LSTM)]
    fast = [m for m in modules.values() if isinstance(m, (nn.TransformerEncoderLayer, nn.MultiheadAttention))]
    opaque = [*lstms, *(m for m in fast if not m.training)]
    if not opaque:
        yield
        return
    inside = {id(m) for outer in opaque for m in outer.modules() if m is not outer}
    switched: list[Any] = []
    drawn: list[Tensor] = []
    seen: list[tuple[nn.Module, list[Any], Any, list[Tensor], Tensor]] = []

    def enter(inner: nn.Module, args: Any) -> None:
        switched.append(torch.backends.mkldnn.flags(enabled=False))
        switched[-1].__enter__()

    def leave(inner: nn.Module, args: Any, out: Any) -> None:
        switched.pop().__exit__(None, None, None)

    def begin(inner: nn.Module, args: Any) -> None:
        drawn.append(torch.get_rng_state())

    def note(inner: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        copies = [x.detach().clone() if isinstance(x, Tensor) else x for x in args]
        seen.append((inner, copies, kwargs, [x.detach().clone() for x in _tensors(out)], drawn.pop()))

    outer = [m for m in opaque if id(m) not in inside]
    handles = [m.register_forward_pre_hook(begin) for m in outer]
    handles += [m.register_forward_hook(note, with_kwargs=True) for m in outer]
    for lstm in lstms:
        handles.append(lstm.register_forward_pre_hook(enter, prepend=True))
        handles.append(lstm.register_forward_hook(leave, always_call=True))
    on = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        torch.backends.mha.set_fastpath_enabled(on)
    names = {id(inner): name for name, inner in modules.items()}
    for inner, args, kwargs, results, state in seen:
        tape.switched[names[id(inner)]] = _difference(inner, args, kwargs, results, state)


def _difference(module: nn.Module, args: Any, kwargs: Any, seen: list[Tensor], drawn: Tensor) -> float:
    """The largest difference between what a module gives in its own form and what it gave in the visible one."""
    devices = [0] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices), torch.no_grad():
        torch.set_rng_state(drawn)
        plain = _tensors(module.forward(*args, **kwargs))
    pairs = [(a, b) for a, b in zip(plain, seen, strict=False) if a.shape == b.shape and a.is_floating_point()]
    return max(((a - b).abs().max().item() for a, b in pairs if a.numel()), default=0.0)


def _finish(tape: Tape, modules: dict[str, nn.Module]) -> None:
    for inner in modules.values():
        for tensor in (*inner._parameters.values(), *inner._buffers.values()):
            if tensor is None:
                continue
            place = tape.place(tensor)
            tape.watch(tensor, place)
            if tensor.is_leaf and tensor.grad is not None:
                tape.gradients.setdefault(place.storage, (tape.place(tensor.grad), len(tape.calls)))
    tape.settle()
    if tape.kept_bytes < 16 * DROPPED_FROM:
        return
    shown = {place.storage for scope in tape.scopes for place in (*scope.inputs, *scope.outputs)}
    for call in tape.calls:
        known = facts(call.op)
        if (
            known.pointwise
            and not known.writes
            and not known.random
            and len(call.outs) == 1
            and call.outs[0].storage not in shown
            and call.outs[0].numel * call.outs[0].dtype.itemsize >= DROPPED_FROM
            and tape.can_be_made_again(call)
        ):
            tape.drop(call)


def _storages_to_copy(module: nn.Module, tape: Tape, updates: Collection[str] | None) -> set[int] | None:
    """Of which parameters copies are kept when an optimiser writes to them; None: of all."""
    if updates is None:
        known = sum(place.numel for held in tape.parameters.values() for place, _name in held[:1])
        return None if known <= COPIED_UP_TO else set()
    parameters = dict(module.named_parameters(remove_duplicate=False))
    unknown = [name for name in updates if name not in parameters]
    if unknown:
        raise PellucidError(
            _("There is no parameter {name!r}.").format(name=unknown[0]),
            "updates",
            _("Parameters are named as in module.named_parameters()."),
        )
    return {tape.place(parameters[name]).storage for name in updates}


def _tensors(x: Any) -> list[Tensor]:
    """The tensors in a module's arguments or results."""
    if isinstance(x, Tensor):
        return [x]
    if isinstance(x, dict):
        x = x.values()
    elif not isinstance(x, (list, tuple)):
        if isinstance(x, Mapping):
            x = x.values()
        else:
            x = vars(x).values() if hasattr(x, "__dataclass_fields__") else ()
    found: list[Tensor] = []
    for y in x:
        if isinstance(y, Tensor):
            found.append(y)
        elif y is not None:
            found += _tensors(y)
    return found


def _available() -> float:
    """Bytes of memory that are free for use."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") if hasattr(os, "sysconf") else 2**32


def _too_much(tape: Tape, budget: float, path: str, names: dict[int, str]) -> PellucidError:
    done = len({scope.path for scope in tape.scopes if scope.ended}) / max(1, len(names))
    return PellucidError(
        _("Recording this takes more than the {budget:,.0f} MB that it may use.").format(budget=budget / 1e6),
        path,
        _(
            "It was about {done:.0%} through: a part that small of the input would fit, "
            "or allow more with budget=... (bytes)."
        ).format(done=max(done, 0.01)),
    )
