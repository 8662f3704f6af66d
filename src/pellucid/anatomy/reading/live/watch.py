"""Watching a module run: which module calls each operation, and what is known of the tensors."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import zip_longest
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from pellucid.anatomy import tree
from pellucid.anatomy.reading.live import masks
from pellucid.anatomy.reading.live.layers import PRODUCTS, Call, Known, join, rule
from pellucid.anatomy.reading.live.modules import layers
from pellucid.anatomy.reading.records import Claim, Record

SAME = {  # the same numbers, under a shape with the same last dimension if it has one
    "view", "_unsafe_view", "clone", "_to_copy", "detach", "alias", "unsqueeze", "squeeze", "lift_fresh",
}  # fmt: skip


@dataclass
class Seen:
    """What a run showed."""

    records: list[Record]
    touched: dict[str, tuple[int, int]]  # parameters that were read: when first, and how many numbers came of it
    called: dict[str, int]  # modules by path: when first


def watched(
    module: nn.Module,
    inputs: tuple[Any, ...],
    kwargs: dict[str, Any],
    numbers: list[tuple[Tensor, Tensor]] | None = None,
) -> Seen:
    """Run the module once, and say what was seen; `numbers` are those of tensors that stand in the run without any."""
    watch = Watch(module, _tensors((inputs, kwargs)), numbers or [])
    with ExitStack() as stack:
        for path, inner in module.named_modules():
            before = inner.register_forward_pre_hook(watch.entering(path), with_kwargs=True)
            after = inner.register_forward_hook(watch.leaving, always_call=True)
            stack.callback(before.remove)
            stack.callback(after.remove)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(watch)
        out = module(*inputs, **kwargs)
    for tensor in _tensors(out):
        if layer := watch.known(tensor).linear:
            layer.readers += 1
    return Seen(watch.records, watch.touched, watch.called)


@dataclass
class Frame:
    """A call of a module that has not ended."""

    path: str
    module: nn.Module
    rows: int  # positions of what went in
    is_opaque: bool = False  # known by its type: what happens inside is not looked at
    is_activated: bool = False  # its one activation was noted

    @property
    def is_simple(self) -> bool:
        return not self.module._modules and not self.module._parameters


class Watch(TorchDispatchMode):
    """Makes a record of every layer that runs while it is on."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled meanwhile, and the wrapper costs a tenth of the time

    def __init__(self, module: nn.Module, inputs: list[Tensor], numbers: list[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.records: list[Record] = []
        self.touched: dict[str, tuple[int, int]] = {}
        self.called: dict[str, int] = {}
        self.frames: list[Frame] = []
        self.batch = inputs[0].shape[0] if inputs and inputs[0].ndim else 1
        self._now = 0
        self._names: dict[int, str] = {}  # of parameters by their storage, so that views of one are known
        for name, parameter in module.named_parameters():
            self._names.setdefault(parameter.untyped_storage()._cdata, name)
        self._known = WeakIdKeyDictionary()
        self._written: dict[int, int] = {}  # storages that were written to in place: when
        self._filled: set[int] = set()  # those that data were written to
        self._lost: dict[int, int] = {}  # and those that numbers were written to which are not known: when
        for tensor in inputs:
            self._know(tensor, Known(data=True))
        for tensor, own in numbers:
            self._know(tensor, replace(self.known(tensor), numbers=own))

    def known(self, tensor: Tensor) -> Known:
        """What is known of a tensor now."""
        storage = tensor.untyped_storage()._cdata
        known = self._known.get(tensor) or Known(made=self.own(tensor))
        if self._written.get(storage, -1) > known.at:
            known = replace(known, linear=None, scores=None, data=known.data or storage in self._filled)
        if self._lost.get(storage, -1) > known.at:
            known = replace(known, numbers=None)
        return known

    def numbers(self, tensor: Tensor) -> Tensor | None:
        """The numbers of a tensor, if they are known."""
        return self.known(tensor).numbers if isinstance(tensor, FakeTensor) else masks.own(tensor)

    def own(self, tensor: Tensor) -> tuple[Claim, ...]:
        """The numbers of a parameter that a view of it shows."""
        name = self._names.get(tensor.untyped_storage()._cdata)
        if name is None:
            return ()
        shown = prod(n for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
        return (Claim(name, int(tensor.storage_offset()), shown),)

    def add(
        self, path: str, leaf: tree.Layer, positions: int = 1, claims: tuple[Claim, ...] = (), **more: Any
    ) -> Record:
        record = Record(path, leaf, positions, claims, self._now, **more)
        self.records.append(record)
        return record

    # modules

    def entering(self, path: str) -> Callable[..., None]:
        """A hook for the beginning of a module's calls."""

        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            self.called.setdefault(path, self._now)
            tensors = _tensors((args, kwargs))
            if "parametrizations" not in path.split(".") and not any(self.known(tensor).data for tensor in tensors):
                for tensor in tensors:  # learned queries, say: no example went in, so these are its data
                    self._know(tensor, Known(data=True))
            read = next((x for x in tensors if x.is_floating_point() and x.ndim), None)
            rows = prod(read.shape[:-1]) if read is not None else 1
            self.frames.append(Frame(path, module, rows))
            if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
                self.frames[-1].is_opaque = True
                for suffix, leaf, names in layers(module):
                    claims = tuple(claim for name in names for claim in self.own(module._parameters[name]))  # type: ignore[arg-type]
                    self.add(join(path, suffix), leaf, rows, claims, kind="recurrent")
            elif read is not None and "Dropout" in type(module).__name__ and (p := getattr(module, "p", 0.0)):
                self.add(path, tree.Dropout(read.shape[-1], float(p)), rows)
                self._know(read, replace(self.known(read), linear=None))

        return enter

    def leaving(self, module: nn.Module, args: Any, out: Any) -> None:
        """A hook for the end of a module's calls."""
        if self.frames.pop().is_opaque:
            for tensor in _tensors(out):
                self._know(tensor, Known(data=True, sources=frozenset(self.records[-1:])))

    # operations

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = op._schema.name.partition("::")[2]
        if name == "_grouped_mm" and isinstance(args[0], FakeTensor):  # without numbers it takes bf16 only
            out = args[0].new_empty(args[0].shape[0], args[1].shape[-1])
        else:
            out = op(*args, **kwargs)
        if op.namespace == "prim" or any(frame.is_opaque for frame in self.frames):
            return out
        self._now += 1
        given, outs = _tensors((args, kwargs)), _tensors(out)
        name = name if name in PRODUCTS else name.removesuffix("_")
        result = self._result(name, given, outs)
        follows = not result.scores and any(isinstance(x, FakeTensor) for x in outs)
        values = masks.results(op, args, kwargs, self.numbers) if follows else []
        for tensor in given:
            for claim in self.known(tensor).made:
                at, numbers = self.touched.get(claim.name, (self._now, 0))
                self.touched[claim.name] = (at, numbers or (outs[0].numel() if result.data and outs else 0))
        is_layer = rule(name) if outs else None
        if is_layer:
            named = dict(zip((argument.name for argument in op._schema.arguments), args, strict=False)) | kwargs
            with unset_fake_temporarily():
                result = is_layer(self, Call(name, named, given, outs, result))
        for tensor, own in zip_longest(outs, values):
            made = () if result.data else self.own(tensor) or result.made
            self._know(tensor, replace(result, made=made, numbers=own))
        if op._schema.is_mutable and given:
            storage = given[0].untyped_storage()._cdata
            self._written[storage] = self._now
            if not values:
                self._lost[storage] = self._now
            if result.data:
                self._filled.add(storage)
        return out

    def _know(self, tensor: Tensor, known: Known) -> None:
        self._known[tensor] = replace(known, at=self._now)

    def _result(self, name: str, given: list[Tensor], outs: list[Tensor]) -> Known:
        """What is known of the result of any operation."""
        known = [self.known(tensor) for tensor in given]
        if not any(k.data for k in known):
            return Known(made=tuple(dict.fromkeys(claim for k in known for claim in k.made)))
        result = Known(data=True, sources=frozenset[Record]().union(*(k.sources for k in known)))
        scored = [k for k in known if k.scores]
        if len({id(k.scores) for k in scored}) == 1:
            result.scores, result.weights, result.lead = scored[0].scores, scored[0].weights, scored[0].lead
            result.masks = max((k.masks for k in scored), key=len)
        shared = {k.shared for k in known if k.shared}
        result.shared = shared.pop() if len(shared) == 1 else None
        if len(given) == len(outs) == 1:
            before, after = given[0].shape, outs[0].shape
            if name in SAME and before[-1:] == after[-1:]:
                result.linear = known[0].linear
            if name == "expand" and len(before) == 5 and before[2] == 1 < after[2]:
                result.shared = before[1]
            if len(before) == 4 and len(after) == 3 and before[2:] == after[1:]:
                result.lead = tuple(before[:2])
            elif before == after:
                result.lead = known[0].lead
        if result.linear is None and name not in PRODUCTS:
            for k in known:
                if k.linear:
                    k.linear.readers += 1
        return result


def _tensors(values: Any) -> list[Tensor]:
    return [x for x in tree_leaves(values) if isinstance(x, Tensor)]
