"""The tape: every tensor operation of a run, and every number that it read or wrote.

A number is known by its storage, its byte offset there and a time, not by a tensor: so views, which only look at a
storage in another way, need no entry and no rule. A write in place is undone from a copy of what it overwrote.
"""

from __future__ import annotations

import bisect
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.multiprocessing.reductions import StorageWeakRef

from pellucid.errors import PellucidError
from pellucid.language import _

FORWARD, BACKWARD, UPDATE = "forward", "backward", "update"


class Place(NamedTuple):
    """Where a tensor's numbers lie: its geometry over a storage, without the storage."""

    storage: int  # serial number on the tape
    offset: int  # bytes
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # elements
    dtype: torch.dtype

    def at(self, index: tuple[int, ...]) -> Place:
        """The place of one number."""
        step = sum(i * s for i, s in zip(index, self.strides, strict=True))
        return Place(self.storage, self.offset + step * self.dtype.itemsize, (), (), self.dtype)

    def narrow(self, dim: int, start: int, length: int = 1) -> Place:
        """As `Tensor.narrow`."""
        offset = self.offset + start * self.strides[dim] * self.dtype.itemsize
        shape = (*self.shape[:dim], length, *self.shape[dim + 1 :])
        return self._replace(offset=offset, shape=shape)

    def pick(self, index: tuple[int | None, ...]) -> Place:
        """Narrowed to one index in each dimension; None keeps the whole of it. No dimension goes away."""
        place = self
        for dim, i in enumerate(index):
            if i is not None:
                place = place.narrow(dim, i)
        return place

    def expand(self, *shape: int) -> Place:
        """As `Tensor.expand`: dimensions of size 1 are repeated, missing ones put in front."""
        more = len(shape) - len(self.shape)
        sizes, strides = (1,) * more + self.shape, (0,) * more + self.strides
        new = tuple(0 if size == 1 != wanted else s for size, wanted, s in zip(sizes, shape, strides, strict=True))
        return self._replace(shape=tuple(shape), strides=new)

    def transpose(self, a: int, b: int) -> Place:
        """As `Tensor.transpose`."""
        order = list(range(len(self.shape)))
        order[a], order[b] = order[b], order[a]
        return self._replace(shape=tuple(self.shape[i] for i in order), strides=tuple(self.strides[i] for i in order))

    def find(self, number: Place) -> tuple[int, ...] | None:
        """The index at which this place holds `number`; None where it does not."""
        if number.storage != self.storage or number.dtype != self.dtype:
            return None
        left, odd = divmod(number.offset - self.offset, self.dtype.itemsize)
        index = [0] * len(self.shape)
        for dim in sorted(range(len(self.shape)), key=lambda d: -self.strides[d]):
            if self.shape[dim] == 1 or self.strides[dim] == 0:
                continue
            index[dim], left = divmod(left, self.strides[dim])
            if not 0 <= index[dim] < self.shape[dim]:
                return None
        return None if odd or left or 0 in self.shape else tuple(index)

    @property
    def numel(self) -> int:
        """How many numbers."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(eq=False, slots=True)
class Scope:
    """One call of one module."""

    path: str
    call: int  # from 0, of this path
    kind: str  # the module's class
    parent: Scope | None
    start: int  # the tape's time when it began
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)  # one time, once it has

    @property
    def end(self) -> int:
        """The tape's time when it ended; it never does where it raised."""
        return self.ended[0] if self.ended else 1 << 60

    def within(self, other: Scope | None) -> bool:
        """Whether this call happened inside `other`, or is it."""
        scope: Scope | None = self
        while scope is not None and scope is not other:
            scope = scope.parent
        return scope is other


@dataclass(eq=False, slots=True)
class Call:
    """One operation: its tensors are places."""

    time: int
    op: OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outs: tuple[Any, ...]  # places written, None for what is no tensor
    scope: Scope | None
    phase: str

    @property
    def name(self) -> str:
        """The operation without overload and without the underscore of in-place ones: "add", "addmm"."""
        return self.op._schema.name.split("::")[1].removesuffix("_")

    def operands(self) -> Iterator[Place]:
        """Every tensor it reads."""
        yield from places((self.args, *self.kwargs.values()))


class Write(NamedTuple):
    """What a call in place has overwritten."""

    time: int
    place: Place
    before: Tensor | None  # None where no copy was kept


class LostError(LookupError):
    """A value that the tape no longer has: the storage was changed without a copy."""


def _storage(tensor: Tensor) -> Any:
    try:
        return tensor.untyped_storage()
    except NotImplementedError:
        raise PellucidError(
            _("A tensor of the layout {layout} cannot be recorded.").format(layout=tensor.layout),
            "",
            _("Use a dense one: nn.Embedding(..., sparse=False), for example."),
        ) from None


def places(x: Any) -> Iterator[Place]:
    """The places in nested arguments."""
    if isinstance(x, Place):
        yield x
    elif isinstance(x, (list, tuple)):
        for y in x:
            yield from places(y)


def substitute(x: Any, put: Any) -> Any:
    """Nested arguments with each place replaced by `put(place)`."""
    if isinstance(x, Place):
        return put(x)
    if isinstance(x, (list, tuple)):
        return type(x)(substitute(y, put) for y in x)
    return x


class Tape:
    """The recorded calls in order, and the storages they worked on.

    A time is a call's number: "before `t`" means after calls 0 to t - 1.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.scopes: list[Scope] = []
        self.parameters: dict[int, list[tuple[Place, str]]] = defaultdict(list)  # by storage: parameters and buffers
        self.gradients: dict[
            int, tuple[Place, int]
        ] = {}  # by a parameter's storage: its gradient, and when it was whole
        self.incoming: list[tuple[int, Place]] = []  # what a node of a backward pass was given, and when
        # by a parameter's storage: each step of an optimiser: when it began, the gradient, the settings
        self.steps: dict[int, list[tuple[int, Place, dict[str, Any]]]] = defaultdict(list)
        self.again: Any = None  # what ran, and how to run it again: `edits.Again`
        self.switched: dict[str, float] = {}  # modules run in a visible form: how much it changed their results
        self.kept_bytes = 0
        self._storages: dict[int, int] = {}  # address of the storage's own record to serial number
        self._first: list[Place] = []
        self._held: list[Any] = []  # by serial number: a storage, or None where it is computed again
        self._guards: list[StorageWeakRef] = []  # keep addresses from being used again
        self._makers: dict[int, Call] = {}  # of storages that are computed again
        self._writes: dict[int, list[Write]] = defaultdict(list)
        self._writers: dict[int, list[tuple[int, int]]] = defaultdict(list)  # (call, output) by storage
        self._watched: list[tuple[Tensor, int]] = []  # with its storage
        self._versions: list[int] = []  # of what is watched, when the recording ended
        self._rebuilt: OrderedDict[tuple[int, int], Any] = OrderedDict()

    # ---- while recording

    def place(self, tensor: Tensor) -> Place:
        """Where `tensor` lies; holds its storage from now on."""
        storage = _storage(tensor)
        address = storage._cdata
        serial = self._storages.get(address)
        dtype = tensor.dtype
        offset: Any = tensor.storage_offset()  # an int; a symbol only where something is compiled
        if offset:
            offset *= dtype.itemsize
        if serial is not None:
            return Place(serial, offset, tuple(tensor.shape), tensor.stride(), dtype)
        serial = self._storages[address] = len(self._held)
        self._held.append(storage)
        place = Place(serial, offset, tuple(tensor.shape), tensor.stride(), dtype)
        self._first.append(place)
        return place

    def known(self, tensor: Tensor) -> bool:
        """Whether the tape has met this tensor's storage."""
        return _storage(tensor)._cdata in self._storages

    def hold(self, x: Any) -> Any:
        """Nested arguments with places instead of tensors."""
        if isinstance(x, Tensor):
            return self.place(x)
        if isinstance(x, (list, tuple)):
            return tuple([self.place(y) if isinstance(y, Tensor) else self.hold(y) for y in x])
        return x

    def add(self, call: Call) -> None:
        """Append a call; it has run already."""
        self.calls.append(call)
        for k, out in enumerate(call.outs):
            if out is not None:
                self._writers[out.storage].append((len(self.calls) - 1, k))

    def overwrite(self, time: int, place: Place, before: Tensor | None) -> None:
        """Note that the call about to run writes to `place`, which held `before`."""
        self._writes[place.storage].append(Write(time, place, before))
        if before is not None:
            self.kept_bytes += before.nbytes

    def watch(self, tensor: Tensor, place: Place) -> None:
        """Notice if `tensor`, which lies at `place`, is changed after the recording."""
        if not tensor.is_inference():
            same = tensor if tensor.is_leaf else tensor.detach()  # whose graph is not to be kept alive
            self._watched.append((same, place.storage))

    def settle(self) -> None:
        """From now on a change of a watched tensor counts as one after the recording."""
        self._versions = [tensor._version for tensor, _ in self._watched]

    def drop(self, call: Call) -> None:
        """Let go of a call's only output: it is computed again when asked for, from operands that are kept."""
        serial = call.outs[0].storage
        storage = self._held[serial]
        self._guards.append(StorageWeakRef(storage))
        self.kept_bytes -= storage.nbytes()
        self._held[serial], self._makers[serial] = None, call

    def can_be_made_again(self, call: Call) -> bool:
        """Whether nothing but `call` ever wrote to its output's storage."""
        serial = call.outs[0].storage
        return len(self._writers[serial]) == 1 and serial not in self._writes and self._held[serial] is not None

    # ---- afterwards

    def read(self, place: Place, before: int) -> Tensor:
        """The numbers at `place` as they were before call `before`: a tensor over the tape's own memory, not to write.

        Raises:
            LostError: when they were overwritten and no copy was kept, or changed after the recording.
        """
        later = [write for write in self._writes.get(place.storage, ()) if write.time >= before]
        if later and place.numel == 1 and all(write.place.dtype == place.dtype for write in later):
            number = place.at((0,) * len(place.shape))  # one number: no storage is rebuilt for it
            found = next(((w, i) for w in later if (i := w.place.find(number)) is not None), None)
            if found is not None and found[0].before is not None:
                return found[0].before[found[1]].expand(place.shape)
            later = later if found is not None else []
        if later:
            storage = self._undo(place.storage, later)
        else:
            storage = self._held[place.storage]
            if storage is None:
                storage = self._make(place.storage)
        empty = torch.empty(0, dtype=place.dtype, device=storage.device)
        return empty.set_(storage, place.offset // place.dtype.itemsize, place.shape, place.strides)

    def writer(self, number: Place, before: int) -> tuple[Call, int, tuple[int, ...]] | None:
        """Who wrote `number` last before `before`: the call, which of its outputs, and where in it."""
        writers = self._writers.get(number.storage, [])
        for n in range(bisect.bisect_left(writers, (before, -1)) - 1, -1, -1):
            time, k = writers[n]
            index = self.calls[time].outs[k].find(number)
            if index is not None:
                return self.calls[time], k, index
        return None

    def version(self, storage: int, before: int) -> int:
        """How many times `storage` has been written to before `before`."""
        return bisect.bisect_left(self._writers.get(storage, []), (before, -1))

    def name_of(self, place: Place) -> tuple[str, Place] | None:
        """The parameter or buffer that holds `place`, and where all of it lies."""
        for whole, name in self.parameters.get(place.storage, ()):
            if whole.find(place.at((0,) * len(place.shape))) is not None:
                return name, whole
        return None

    def bytes_of(self, storage: int) -> int:
        """The size of a storage."""
        held = self._held[storage]
        if held is not None:
            return held.nbytes()
        out = self._makers[storage].outs[0]
        return out.numel * out.dtype.itemsize

    def whole(self, storage: int) -> Place:
        """A place that covers a storage: in the shape in which it was first met, or as one row."""
        place = self._first[storage]
        numbers = self.bytes_of(storage) // place.dtype.itemsize
        return place if place.numel == numbers else Place(storage, 0, (numbers,), (1,), place.dtype)

    def input_name(self, storage: int) -> str:
        """What a storage that nothing on the tape has made is called."""
        known = self.parameters.get(storage)
        if known:
            return known[0][1]
        for scope in self.scopes:
            for i, place in enumerate(scope.inputs):
                if place.storage == storage:
                    return f"{scope.path}:in.{i}"
            for i, place in enumerate(scope.outputs):
                if place.storage == storage:
                    return f"{scope.path}:out.{i}"
        return f"outside.{storage}"

    @property
    def storages(self) -> int:
        """How many storages it has met."""
        return len(self._first)

    def device(self, storage: int) -> torch.device:
        """Where a storage lives."""
        held = self._held[storage]
        return held.device if held is not None else self.device(next(self._makers[storage].operands()).storage)

    def changed(self) -> set[int]:
        """Storages of watched tensors that were written to after the recording."""
        watched = zip(self._watched, self._versions, strict=False)  # while recording there are no versions yet
        return {serial for (tensor, serial), version in watched if tensor._version != version}

    def _undo(self, serial: int, later: list[Write]) -> Any:
        key = (serial, later[0].time)
        if key in self._rebuilt:
            self._rebuilt.move_to_end(key)
            return self._rebuilt[key]
        if any(write.before is None for write in later):
            raise LostError(f"storage {serial} was overwritten without a copy")
        storage = self._held[serial].clone()
        for write in reversed(later):
            place = write.place
            assert write.before is not None
            old = torch.empty(0, dtype=place.dtype, device=storage.device)
            old.set_(storage, place.offset // place.dtype.itemsize, place.shape, place.strides).copy_(write.before)
        return self._remember(key, storage)

    def _make(self, serial: int) -> Any:
        key = (serial, -1)
        if key in self._rebuilt:
            self._rebuilt.move_to_end(key)
            return self._rebuilt[key]
        call = self._makers[serial]
        with torch.no_grad():
            made = call.op(
                *substitute(call.args, lambda p: self.read(p, call.time)),
                **{name: substitute(x, lambda p: self.read(p, call.time)) for name, x in call.kwargs.items()},
            )
        return self._remember(key, made.untyped_storage())

    def _remember(self, key: tuple[int, int], storage: Any) -> Any:
        self._rebuilt[key] = storage
        while len(self._rebuilt) > 1 and sum(s.nbytes() for s in self._rebuilt.values()) > 2**28:
            self._rebuilt.popitem(last=False)
        return storage
