"""Edits: numbers set, scaled, zeroed, added to or patched from another trace while a module runs."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import difflib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.tracing.addresses import _PATTERN
from pellucid.tracing.recorder import _tensors, _visible, facts
from pellucid.tracing.tape import Tape

if TYPE_CHECKING:
    from pellucid.tracing.effects import Replay

# What becomes of the numbers at an address: a number or tensor sets them, a function is given them and returns the new
# ones (None: it only looks), a trace gives its own numbers at the same address.
Change = Any


class HasNetwork(Protocol):
    """A model."""

    @property
    def network(self) -> nn.Module: ...


@contextlib.contextmanager
def edit(module: nn.Module | HasNetwork, changes: Mapping[str, Change]) -> Iterator[Edits]:
    """Change numbers of a module while it runs; afterwards it is what it was.

    Args:
        module: The module, or a model that has one as its `network`.
        changes: By address: ``path[#call][:in|:out][.item][index]`` (a module's input or result),
            ``path/op.k[...]`` (an operation in it) or a parameter's name. Without ``#call`` every call is meant,
            without an index all the numbers; an index may have fewer dimensions than the numbers, slices and ``...``.
            The change: a number or tensor sets them, 0 takes them away, ``lambda x: 2 * x`` scales, ``lambda x: x + v``
            adds to them, a trace patches in the numbers that it recorded at the same address and call. A function
            that returns None only looks.

    Yields:
        How often each change was made.

    Raises:
        PellucidError: when an address cannot be, a change has another shape, or, at the end, a change never happened.
    """
    network = module if isinstance(module, nn.Module) else module.network
    edits = Edits(network, changes)
    with edits.on():
        yield edits
    edits.all_happened()


class Edits:
    """Changes to a module's numbers, and how often each was made."""

    def __init__(self, module: nn.Module, changes: Mapping[str, Change]) -> None:
        self._module = module
        self._modules = dict(module.named_modules())
        self._tensors = named_tensors(module)
        self._edits = [self._parse(address, change) for address, change in changes.items()]
        self._calls: Counter[str] = Counter()
        self._editor: Editor | None = None

    @property
    def done(self) -> dict[str, int]:
        """How often each change was made, by address."""
        return {edit.address: edit.done for edit in self._edits}

    @contextlib.contextmanager
    def on(self, editor: Editor | None = None) -> Iterator[None]:
        """Make the changes to what runs within. `editor`: one that is on already."""
        self._editor = editor or Editor()
        self._editor.edits = [edit for edit in self._edits if edit.op is not None]
        with contextlib.ExitStack() as stack:
            stack.enter_context(eagerly())
            parameters = [edit for edit in self._edits if edit.parameter]
            if self._editor.edits and editor is None:
                stack.enter_context(_visible(self._modules, Tape()))
            stack.enter_context(replaced(self._module, self._new_values(parameters)))
            stack.enter_context(self._hooks(lazily=editor is None))
            yield

    def all_happened(self) -> None:
        """Complain about a change that was never made.

        Raises:
            PellucidError: naming it, and what is near.
        """
        for edit in self._edits:
            if edit.done:
                continue
            calls = self._calls[edit.path]
            if not calls:
                fix = _("{path} was not called.").format(path=edit.path or _("The module"))
            elif edit.call is not None and edit.call >= calls:
                fix = _("{path} was called {n} times only.").format(path=edit.path or "the module", n=calls)
            elif edit.op is not None and self._editor is not None:
                ran = {f"{path}/{op}.{n - 1}" for (path, _call, op), n in self._editor.counts.items()}
                near = difflib.get_close_matches(f"{edit.path}/{edit.op}.{edit.k}", sorted(ran), 4, 0.4)
                fix = _("Near to it: {names}.").format(names=", ".join(near))
            else:
                fix = _("trace.tree() lists what there is.")
            raise PellucidError(_("This edit never happened."), edit.address, fix)

    def _new_values(self, edits: Iterable[_Edit]) -> dict[str, Tensor]:
        new: dict[str, Tensor] = {}
        with torch.no_grad():
            for edit in edits:
                old = new.get(edit.path, self._tensors[edit.path].detach())
                new[edit.path] = edit.applied(old, 0)
        return new

    @contextlib.contextmanager
    def _hooks(self, lazily: bool) -> Iterator[None]:
        names = {id(inner): name for name, inner in self._modules.items()}
        wanted = {edit.path for edit in self._edits if not edit.parameter}
        inside = any(edit.op is not None for edit in self._edits)
        editor = self._editor
        assert editor is not None

        def enter(inner: nn.Module, args: Any, kwargs: Any) -> Any:
            path = names[id(inner)]
            # on top of a recorder that was switched on before this call: it is to see what is changed
            if inside and lazily and not editor.scopes:
                editor.__enter__()
            editor.scopes.append((path, self._calls[path]))
            self._calls[path] += 1
            return self._changed(path, "in", (args, kwargs)) if path in wanted else None

        def leave(inner: nn.Module, args: Any, out: Any) -> Any:
            path = names[id(inner)]
            if not editor.scopes or editor.scopes[-1][0] != path:
                return None  # it failed before it entered
            try:
                return self._changed(path, "out", out) if path in wanted else None
            finally:
                editor.scopes.pop()
                if inside and lazily and not editor.scopes:
                    editor.__exit__(None, None, None)

        handles = []
        for path, inner in self._modules.items() if wanted else ():
            if inside or path in wanted:
                handles.append(inner.register_forward_pre_hook(enter, prepend=True, with_kwargs=True))
                handles.append(inner.register_forward_hook(leave, prepend=True, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _changed(self, path: str, side: str, x: Any) -> Any:
        """A module's arguments or result with the changes made; None where there are none."""
        assert self._editor is not None
        call = self._editor.scopes[-1][1]
        changed = None
        with self._editor.paused():
            for edit in self._edits:
                if edit.op is None and edit.path == path and edit.side == side and edit.call in (None, call):
                    tensors = _tensors(changed if changed is not None else x)
                    if edit.item >= len(tensors):
                        raise PellucidError(
                            _("There are {n} tensors here, counted from 0.").format(n=len(tensors)), edit.address
                        )
                    new = edit.applied(tensors[edit.item], call)
                    if new is not tensors[edit.item]:
                        changed = _with_item(changed if changed is not None else x, edit.item, new)
        return changed

    def _parse(self, address: str, change: Change) -> _Edit:
        front, bracket, inside = address.strip().partition("[")
        found = _PATTERN.match(front)
        if found is None or (bracket and not inside.endswith("]")):
            raise self._unknown(address)
        path, side = found["path"], found["side"]
        if side in ("grad", "updated"):
            raise PellucidError(
                _("Only what a module computes going forward can be edited."), address, _("Use :in or :out.")
            )
        parameter = path in self._tensors and found["op"] is None
        if not parameter and (path not in self._modules or not (path or found["op"] or side)):
            raise self._unknown(address)
        return _Edit(
            address,
            path,
            int(found["call"]) if found["call"] else None,
            found["op"],
            int(found["k"] or 0),
            side or "out",
            int(found["item"] or 0),
            _index(address, inside[:-1]) if bracket else (),
            change,
            parameter,
        )

    def _unknown(self, address: str) -> PellucidError:
        names = [*self._modules, *self._tensors]
        near = difflib.get_close_matches(address.partition("[")[0].partition("/")[0], names, n=4, cutoff=0.4)
        return PellucidError(
            _("There is nothing at this address."),
            address,
            _("Near to it: {names}.").format(names=", ".join(near)) if near else _("trace.tree() lists what there is."),
        )


@dataclass
class _Edit:
    address: str
    path: str
    call: int | None  # None: every call
    op: str | None
    k: int
    side: str
    item: int
    index: tuple[Any, ...]
    change: Change
    parameter: bool
    done: int = 0

    def applied(self, x: Tensor, call: int) -> Tensor:
        """`x` with the change made, in a new tensor; `x` itself where the change only looked."""
        new = self._new(x, call)
        if new is None:
            return x
        changed = x.clone()
        changed[self.index] = new
        return changed

    def apply(self, x: Tensor, call: int) -> None:
        """Make the change in `x` itself."""
        new = self._new(x, call)
        if new is not None:
            x[self.index] = new

    def _new(self, x: Tensor, call: int) -> Tensor | None:
        try:
            old = x[self.index]
        except IndexError:
            raise PellucidError(
                _("The index {index} does not fit.").format(index=self.address.partition("[")[2][:-1]),
                self.address,
                _("The numbers there have the shape {shape}.").format(shape=list(x.shape)),
            ) from None
        self.done += 1
        new = self.change
        if hasattr(new, "tape"):
            new = new.value(self._whole(call))[self.index]
        elif callable(new):
            new = new(old.clone())
            if new is None:
                return None
        new = torch.as_tensor(new, dtype=x.dtype, device=x.device)
        try:
            return new.expand(old.shape)
        except RuntimeError:
            raise PellucidError(
                _("The change has the shape {shape}.").format(shape=list(new.shape)),
                self.address,
                _("The numbers there have the shape {shape}.").format(shape=list(old.shape)),
            ) from None

    def _whole(self, call: int) -> str:
        """The address in this call, without the index."""
        if self.parameter:
            return self.path
        op = f"/{self.op}.{self.k}" if self.op else ""
        return f"{self.path}#{call}{op}:{self.side}.{self.item}"


def _index(address: str, inside: str) -> tuple[Any, ...]:
    """An index as Python has it."""
    index: list[Any] = []
    try:
        for part in filter(None, (part.strip() for part in inside.split(","))):
            if part == "...":
                index.append(...)
            elif ":" in part:
                index.append(slice(*(int(x) if x.strip() else None for x in part.split(":"))))
            else:
                index.append(int(part))
    except (ValueError, TypeError):
        raise PellucidError(
            _("The index {index} does not fit.").format(index=inside),
            address,
            _("Write numbers, slices such as 2:5 or :, and ... between commas."),
        ) from None
    return tuple(index)


def _with_item(x: Any, n: int, new: Tensor) -> Any:
    """Nested results with the n-th tensor replaced."""
    left = n

    def put(y: Any) -> Any:
        nonlocal left
        if isinstance(y, Tensor):
            left -= 1
            return new if left == -1 else y
        if isinstance(y, Mapping):
            same: Any = copy.copy(y)
            for key, inner in y.items():
                if (other := put(inner)) is not inner:
                    same[key] = other
            return same
        if isinstance(y, (list, tuple)):
            items = [put(inner) for inner in y]
            return type(y)(*items) if hasattr(y, "_fields") else type(y)(items)
        if hasattr(y, "__dataclass_fields__"):
            return dataclasses.replace(y, **{name: put(inner) for name, inner in vars(y).items()})
        return y

    return put(x)


def eagerly() -> contextlib.AbstractContextManager[Any]:
    """Without what was compiled, which hooks do not see into."""
    loaded = "torch._dynamo" in sys.modules  # else nothing is compiled, and loading it would take a second
    return torch.compiler.set_stance("force_eager") if loaded else contextlib.nullcontext()


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters, tied ones under each of their names, and buffers."""
    return dict([*module.named_parameters(remove_duplicate=False), *module.named_buffers()])


@contextlib.contextmanager
def replaced(module: nn.Module, new: Mapping[str, Tensor]) -> Iterator[None]:
    """Let other tensors stand for parameters and buffers, tied ones everywhere; the own ones are never written to."""
    tensors = named_tensors(module)
    stands_for = {id(tensors[name]): tensor for name, tensor in new.items()}
    own: list[tuple[nn.Module, str, Tensor]] = []
    try:
        for inner in module.modules() if new else ():
            for name, tensor in (*inner._parameters.items(), *inner._buffers.items()):
                if tensor is not None and id(tensor) in stands_for:
                    own.append((inner, name, tensor))
        for inner, name, tensor in own:
            other = stands_for[id(tensor)]
            if isinstance(tensor, nn.Parameter) and not isinstance(other, nn.Parameter):
                other = stands_for[id(tensor)] = nn.Parameter(other, requires_grad=tensor.requires_grad)
            setattr(inner, name, other)
        yield
    finally:
        for inner, name, tensor in own:
            setattr(inner, name, tensor)


class Editor(TorchDispatchMode):
    """Counts operations as a tape does, and changes what they give."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # as the recorder's

    def __init__(self, replay: Replay | None = None) -> None:
        super().__init__()
        self.edits: list[_Edit] = []
        self.scopes: list[tuple[str, int]] = []  # the modules' calls that are running
        self.counts: Counter[tuple[str, int, str]] = Counter()
        self.time = 0
        self._replay = replay
        self._pauses = 0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What runs within is the editing itself, and not counted."""
        self._pauses += 1
        try:
            yield
        finally:
            self._pauses -= 1

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        known = facts(op)
        if self._pauses or known.view:
            return op(*args, **kwargs)
        if known.composite and torch.is_inference_mode_enabled():
            with self:
                out = op.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        name = op._schema.name.split("::")[1].removesuffix("_")
        path, call = self.scopes[-1] if self.scopes else ("", 0)
        k = self.counts[path, call, name]
        mine = [
            edit
            for edit in self.edits
            if self.scopes and (edit.path, edit.op, edit.k) == (path, name, k) and edit.call in (None, call)
        ]
        if self._replay is not None:
            self._replay.before(self.time)
        for edit in mine:
            if edit.side == "in":
                args, kwargs = self._given(edit, args, kwargs, call, bool(known.writes))
        out = op(*args, **kwargs)
        returned = out if isinstance(out, (list, tuple)) else (out,)
        fresh = known.fresh if len(known.fresh) == len(returned) else known.fresh * len(returned)
        outs = [x if isinstance(x, Tensor) else None for x, new in zip(returned, fresh, strict=False) if new]
        if not known.writes and _aliases(args, kwargs, outs):
            return out
        for i, argument in known.writes:
            outs.extend(_tensors((args[i] if i < len(args) else kwargs.get(argument),)))
        self.counts[path, call, name] += 1
        for edit in mine:
            if edit.side == "out":
                target = outs[edit.item] if edit.item < len(outs) else None
                if target is None:
                    raise PellucidError(
                        _("There are {n} tensors here, counted from 0.").format(n=len(outs)), edit.address
                    )
                with torch.no_grad():
                    edit.apply(target, call)
        if self._replay is not None:
            self._replay.after(self.time, op, outs)
        self.time += 1
        return out

    def _given(self, edit: _Edit, args: Any, kwargs: Any, call: int, in_place: bool) -> Any:
        tensors = _tensors((args, kwargs))
        if edit.item >= len(tensors):
            raise PellucidError(_("There are {n} tensors here, counted from 0.").format(n=len(tensors)), edit.address)
        with torch.no_grad():
            if in_place:
                edit.apply(tensors[edit.item], call)
                return args, kwargs
            return _with_item((args, kwargs), edit.item, edit.applied(tensors[edit.item], call))


def _aliases(args: Any, kwargs: Any, outs: Sequence[Tensor | None]) -> bool:
    """As the recorder's: whether a call made nothing new."""
    if not outs or any(out is None for out in outs):
        return False
    storages = {x.untyped_storage()._cdata for x in _tensors((args, kwargs))}
    return all(out is not None and out.untyped_storage()._cdata in storages for out in outs)
