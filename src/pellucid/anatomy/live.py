"""Any torch module read into the tree of shapes: its example runs once, on tensors that have a shape and no numbers.

What a layer is does not depend on how it was written: a product of data with a parameter is a dense layer, a window of
parameters moved over data a convolution, and scores made of data by data, softmax and one more product an attention.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from pellucid.anatomy import records, tree
from pellucid.anatomy.findings import Stack
from pellucid.anatomy.records import Claim, Record
from pellucid.errors import PellucidError
from pellucid.language import _

DEPENDS_ON_NUMBERS = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException)
WRONG_INPUTS = (TypeError, ValueError, RuntimeError, LookupError, AttributeError, AssertionError)


def read(module: nn.Module, *example_inputs: Any, **kwargs: Any) -> tree.Node:
    """The tree of a module, counted for the example as it is given: its batch and its length are in the positions.

    The example runs once in eval mode, on tensors without numbers, so that parameters on the meta device will do and
    nothing is allocated. Only where what is done depends on the numbers (a loop over experts) do they really run. The
    module is left as it was. Parameters that the example does not use are counted, in layers that never run. Without
    example the layers are known by their modules alone: parameters and a dense layer's neurons, no places of a
    convolution, no attention.

    Args:
        module: Any `torch.nn.Module`.
        example_inputs: What its `forward` takes.
        kwargs: What its `forward` takes by name.

    Raises:
        PellucidError: when the module cannot run on this example, its parameters have no shapes yet, or are packed.
    """
    module = getattr(module, "_orig_mod", module)  # torch.compile's
    _check(module)
    seen = _seen(module, example_inputs, kwargs) if example_inputs or kwargs else _Seen([], {}, {})
    owned = {name: parameter for name, parameter in module.named_parameters()}
    names = {id(parameter): name for name, parameter in owned.items()}
    found = [*seen.records, *_left(module, names, seen, ran=bool(example_inputs or kwargs))]
    sizes = {name: parameter.numel() for name, parameter in owned.items()}
    return records.tree(found, sizes, {name for name, parameter in owned.items() if not parameter.requires_grad})


def collapse(module: nn.Module, stack: Stack) -> tuple[Tensor, Tensor | None]:
    """The one layer that a stack of `nn.Linear` is equal to: weight (outputs, inputs) = W2 W1, bias = W2 b1 + b2.

    Raises:
        PellucidError: when a layer of the stack is no `nn.Linear`.
    """
    weight = bias = None
    for path in stack.paths:
        layer = dict(module.named_modules()).get(path)
        if not isinstance(layer, nn.Linear):
            raise PellucidError(_("{path} is no nn.Linear.").format(path=path), type(layer).__name__)
        own = layer.weight.detach().double()
        weight = own if weight is None else own @ weight
        bias = None if bias is None else own @ bias
        if layer.bias is not None:
            bias = layer.bias.detach().double() + (0 if bias is None else bias)
    assert weight is not None
    return weight, bias


def _check(module: nn.Module) -> None:
    """Refuse what has no shapes, or others than it shows."""
    for path, inner in module.named_modules():
        own = {**inner._parameters, **inner._buffers}
        for tensor in own.values():
            if isinstance(tensor, (nn.parameter.UninitializedParameter, nn.parameter.UninitializedBuffer)):
                raise PellucidError(
                    _("{path} has no shape yet.").format(path=path or type(inner).__name__),
                    type(inner).__name__,
                    _("Call the module once with an input, then count it."),
                )
        packed = [
            p for p in inner._parameters.values() if p is not None and not (p.is_floating_point() or p.is_complex())
        ]
        if (
            packed
            or ".quantized." in type(inner).__module__
            or any(t is not None and t.is_quantized for t in own.values())
        ):
            raise PellucidError(
                _("{path} holds its numbers packed: their shapes are not those of the layer.").format(
                    path=path or type(inner).__name__
                ),
                type(inner).__name__,
                _("Count the network before it is quantised."),
            )


# running the example


@dataclass
class _Seen:
    records: list[Record]
    touched: dict[
        str, tuple[float, int]
    ]  # parameters that operations read: when first, and how many numbers came of it
    called: dict[str, float]  # modules by path: when first


def _seen(module: nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> _Seen:
    """Run the example without numbers; or, where that is not enough, with them."""
    tensors = [*module.parameters(), *module.buffers()]
    try:
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        made: dict[int, Tensor] = {}
        with _as_it_was(module), fake:
            _swap(module, lambda tensor: _without_numbers(tensor, fake, made))
            given = tree_map(
                lambda x: _without_numbers(x, fake, made) if isinstance(x, Tensor) else x, (inputs, kwargs)
            )
            return _run(module, *given)
    except DEPENDS_ON_NUMBERS as error:
        if any(tensor.is_meta for tensor in tensors):
            raise PellucidError(
                _(
                    "What {name} does depends on numbers, and it has none: its parameters are on the meta device."
                ).format(name=type(module).__name__),
                str(error).split("\n")[0],
                _("Give it parameters, or count a smaller one."),
            ) from error
    except WRONG_INPUTS as error:
        raise _wrong_inputs(module, inputs, kwargs, error) from error
    try:
        with _as_it_was(module):
            return _run(module, inputs, kwargs)
    except WRONG_INPUTS as error:
        raise _wrong_inputs(module, inputs, kwargs, error) from error


def _without_numbers(tensor: Tensor, fake: FakeTensorMode, made: dict[int, Tensor]) -> Tensor:
    """A tensor of this shape without storage, always on the CPU: so that all are on one device."""
    if id(tensor) not in made:
        with fake:
            new = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")
        made[id(tensor)] = nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new
    return made[id(tensor)]


def _swap(module: nn.Module, new: Callable[[Tensor], Tensor]) -> None:
    for inner in module.modules():
        for held in (inner._parameters, inner._buffers):
            held.update({name: new(tensor) for name, tensor in held.items() if tensor is not None})
        if isinstance(inner, nn.RNNBase):
            inner._flat_weights = [getattr(inner, name, None) for name in inner._flat_weights_names]


@contextmanager
def _as_it_was(module: nn.Module) -> Iterator[None]:
    """In eval mode, without fused paths; afterwards every attribute of every module is what it was before."""
    before = []
    log = logging.getLogger("torch._subclasses.fake_tensor")  # it tells of wrong shapes before it raises
    told, log.disabled = log.disabled, True
    for inner in module.modules():
        own = inner.__dict__
        before.append((own, dict(own), [(own[name], dict(own[name])) for name in ("_parameters", "_buffers")]))
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        for inner in module.modules():
            inner.__dict__["training"] = False
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        log.disabled = told
        for own, attributes, held in before:
            for now, then in ((own, attributes), *held):
                now.clear()
                now.update(then)


def _run(module: nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> _Seen:
    given = [x for x in tree_leaves((inputs, kwargs)) if isinstance(x, Tensor)]
    watch = _Watch(module, given)
    with ExitStack() as stack:
        for path, inner in module.named_modules():
            before = inner.register_forward_pre_hook(watch.entering(path), with_kwargs=True)
            after = inner.register_forward_hook(watch.leaving, with_kwargs=True, always_call=True)
            stack.callback(before.remove)
            stack.callback(after.remove)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(watch)
        out = module(*inputs, **kwargs)
    for tensor in tree_leaves(out):
        if isinstance(tensor, Tensor) and (layer := watch.known(tensor).linear):
            layer.readers += 1
    return _Seen(watch.records, watch.touched, watch.called)


def _wrong_inputs(
    module: nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any], error: Exception
) -> PellucidError:
    def said(value: Any) -> str:
        if isinstance(value, Tensor):
            return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
        return type(value).__name__

    given = [*map(said, inputs), *(f"{name}={said(value)}" for name, value in kwargs.items())]
    try:
        taken = inspect.signature(module.forward).parameters.values()
        signature = f"({', '.join(str(p.replace(annotation=p.empty)) for p in taken)})"
    except ValueError:  # it has none that Python can see
        signature = "(...)"
    return PellucidError(
        _("{name} cannot run on this example: {reason}").format(
            name=type(module).__name__, reason=(str(error).strip() or type(error).__name__).split("\n")[0]
        ),
        _("given: {given}").format(given=", ".join(given)),
        _("It takes forward{signature}.").format(signature=signature),
    )


# what is known of a tensor, and of an operation


@dataclass
class _Known:
    data: bool = False  # depends on the example; else on parameters and constants only
    made: tuple[Claim, ...] = ()  # the parameters that it is made of, if not data
    linear: Record | None = None  # the linear layer that wrote it, if nothing was done to it since
    scores: Record | None = None  # the product of queries and keys that it comes from
    weights: bool = False  # and they have passed a softmax
    sources: frozenset[Record] = frozenset()  # the layers with weights that it comes from, and nothing else since
    lead: tuple[int, ...] = ()  # the dimensions that were merged into its first one: examples and heads
    shared: int | None = None  # heads that were repeated, to be as many as the queries'
    at: int = 0


@dataclass
class _Frame:
    path: str
    module: nn.Module
    rows: int  # positions of what went in
    opaque: bool = False
    activated: bool = False

    @property
    def is_simple(self) -> bool:
        return not self.module._modules and not self.module._parameters


PRODUCTS = {  # the two factors
    "mm": ("self", "mat2"),
    "addmm": ("mat1", "mat2"),
    "bmm": ("self", "mat2"),
    "baddbmm": ("batch1", "batch2"),
    "addbmm": ("batch1", "batch2"),
    "mv": ("self", "vec"),
    "addmv": ("mat", "vec"),
    "dot": ("self", "tensor"),
    "vdot": ("self", "other"),
    "_grouped_mm": ("self", "mat2"),
    "grouped_mm_fallback": ("input", "weight"),
}
ACTIVATIONS = {
    "relu", "gelu", "silu", "sigmoid", "tanh", "hardtanh", "hardswish", "hardsigmoid", "leaky_relu", "elu", "celu",
    "mish", "softplus", "log_sigmoid_forward", "_prelu_kernel", "_softmax", "_log_softmax", "_safe_softmax",
    "threshold", "softshrink", "hardshrink", "glu", "rrelu_with_noise",
}  # fmt: skip
SOFTMAX = {"_softmax", "_safe_softmax"}
NORMS = {"native_layer_norm", "native_group_norm", "_fused_rms_norm"}
SAME = {
    "view",
    "_unsafe_view",
    "clone",
    "_to_copy",
    "detach",
    "alias",
    "unsqueeze",
    "squeeze",
    "contiguous",
    "lift_fresh",
}
COPIES = {"clone", "_to_copy", "mul", "div", "masked_fill", "where"}  # of a parameter: its numbers, masked or scaled
HEADS = ("num_heads", "n_heads", "num_attention_heads", "n_head")


class _Watch(TorchDispatchMode):
    """Makes a record of every layer that runs while it is on."""

    def __init__(self, module: nn.Module, inputs: list[Tensor]) -> None:
        super().__init__()
        self.records: list[Record] = []
        self.touched: dict[str, tuple[float, int]] = {}
        self.called: dict[str, float] = {}
        self.frames: list[_Frame] = []
        self.now = 0
        self.batch = inputs[0].shape[0] if inputs and inputs[0].ndim else 1
        self._names: dict[int, tuple[str, int]] = {}  # by storage: a parameter and its numbers
        for name, parameter in module.named_parameters():
            self._names.setdefault(parameter.untyped_storage()._cdata, (name, parameter.numel()))
        self._known: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._written: dict[int, int] = {}  # storages that were written to in place: when
        self._filled: set[int] = set()  # those that data were written to
        self.leads: dict[Record, tuple[int, ...]] = {}  # of scores: how many examples and heads, where that is known
        for tensor in inputs:
            self._known[tensor] = _Known(data=True)

    # modules

    def entering(self, path: str) -> Callable[..., None]:
        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            self.called.setdefault(path, self.now)
            tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
            known = [self.known(tensor) for tensor in tensors]
            if "parametrizations." not in f"{path}." and not any(k.data for k in known):
                for tensor in tensors:  # learned queries, say: no example went in, so these are its data
                    self._known[tensor] = _Known(data=True, at=self.now)
            floats = [x for x in tensors if x.is_floating_point() and x.ndim]
            rows = floats[0].numel() // max(1, floats[0].shape[-1]) if floats else 1
            self.frames.append(_Frame(path, module, rows))
            if isinstance(module, (nn.RNNBase, nn.RNNCellBase)) and floats:
                self.frames[-1].opaque = True
                steps = floats[0].numel() // module.input_size
                for suffix, leaf, names in _layers(module):
                    claims = [self.known(getattr(module, name)).made for name in names]
                    self._add(
                        _join(path, suffix), leaf, steps, tuple(c for claim in claims for c in claim), kind="recurrent"
                    )
            elif "Dropout" in type(module).__name__ and getattr(module, "p", 0) and floats:
                self._add(path, tree.Dropout(floats[0].shape[-1], module.p), rows)
                self._known[floats[0]] = replace(self.known(floats[0]), linear=None)

        return enter

    def leaving(self, module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        if self.frames and self.frames[-1].module is module and self.frames.pop().opaque:
            source = frozenset(self.records[-1:])
            for tensor in tree_leaves(out):
                if isinstance(tensor, Tensor):
                    self._known[tensor] = _Known(data=True, sources=source, at=self.now)

    # operations

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = op._schema.name.partition("::")[2]
        if name == "_grouped_mm" and isinstance(args[0], FakeTensor):  # without numbers it takes bf16 only
            out = args[0].new_empty(args[0].shape[0], args[1].shape[-1])
        else:
            out = op(*args, **(kwargs or {}))
        if op.namespace == "prim" or any(frame.opaque for frame in self.frames):
            return out
        self.now += 1
        plain = name.removesuffix("_") if name not in PRODUCTS else name
        named = dict(zip((argument.name for argument in op._schema.arguments), args, strict=False)) | (kwargs or {})
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        outs = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        result = self._result(op, plain, given, outs)
        self._touch(result, given, outs)
        if plain in PRODUCTS:
            result = self._product(plain, named, out, result)
        elif plain in ("convolution", "_convolution"):
            result = self._convolution(named, out, result)
        elif "scaled_dot_product" in plain:
            result = self._attention(named, result)
        elif plain in ("embedding", "_embedding_bag", "index", "index_select"):
            result = self._embedding(named, result)
        elif plain in NORMS or "batch_norm" in plain:
            result = self._norm(named, result)
        elif plain in SOFTMAX and result.scores:
            result.weights = True
        elif plain in ACTIVATIONS and result.data:
            self._activation(plain, outs[0])
        elif "pool" in plain or (plain == "mean" and given[0].ndim == 4 and len(named.get("dim") or ()) == 2):
            self._pool(plain, given[0], outs[0])
        elif plain == "add":
            result = self._bias(given, result)
        elif plain == "_trilinear":
            result = self._bilinear(named, out, result)
        for tensor in outs:
            self._known[tensor] = replace(result, made=self._claims(op, tensor, result), at=self.now)
        if op._schema.is_mutable:
            self._write(given, result)
        return out

    def known(self, tensor: Tensor) -> _Known:
        """What is known of a tensor now."""
        storage = tensor.untyped_storage()._cdata
        known = self._known.get(tensor)
        if known is None:
            known = _Known(made=self._own(tensor))
        if self._written.get(storage, -1) > known.at:
            known = replace(known, linear=None, scores=None, data=known.data or storage in self._filled)
        return known

    def _own(self, tensor: Tensor) -> tuple[Claim, ...]:
        """The numbers of a parameter that a view of it shows."""
        owner = self._names.get(tensor.untyped_storage()._cdata)
        if owner is None:
            return ()
        shown = prod(n for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
        return (Claim(owner[0], tensor.storage_offset(), shown),)

    def _result(self, op: Any, name: str, given: list[Tensor], outs: list[Tensor]) -> _Known:
        """What is known of the result of any operation."""
        known = [self.known(tensor) for tensor in given]
        data = any(k.data for k in known)
        result = _Known(data=data, at=self.now)
        if data:
            result.sources = frozenset().union(*(k.sources for k in known))
            scores = {id(k.scores): k for k in known if k.scores}
            if len(scores) == 1 and outs:
                first = next(iter(scores.values()))
                result.scores, result.weights = first.scores, first.weights
            shared = {k.shared for k in known} - {None}
            result.shared = shared.pop() if len(shared) == 1 else None
        else:
            result.made = tuple(dict.fromkeys(claim for k in known for claim in k.made))
        keeps = name in SAME and len(given) == 1 and len(outs) == 1 and outs[0].shape[-1:] == given[0].shape[-1:]
        if keeps:
            result.linear = known[0].linear
        else:
            for k in known:
                if k.linear and name not in PRODUCTS:
                    k.linear.readers += 1
        if len(given) == 1 and len(outs) == 1:
            before, after = given[0].shape, outs[0].shape
            if name == "expand" and len(before) == 5 and before[2] == 1 < after[2]:
                result.shared = before[1]
            if len(before) == 4 and len(after) == 3 and before[2:] == after[1:]:
                result.lead = tuple(before[:2])
            elif before == after:
                result.lead = known[0].lead
        return result

    def _claims(self, op: Any, tensor: Tensor, result: _Known) -> tuple[Claim, ...]:
        if result.data:
            return ()
        return self._own(tensor) or result.made

    def _touch(self, result: _Known, given: list[Tensor], outs: list[Tensor]) -> None:
        """Note which parameters are read here, and how many numbers come of it where they meet data."""
        for tensor in given:
            for claim in self.known(tensor).made:
                at, numbers = self.touched.get(claim.name, (self.now, 0))
                self.touched[claim.name] = (at, numbers or (outs[0].numel() if result.data and outs else 0))

    def _write(self, given: list[Tensor], result: _Known) -> None:
        storage = given[0].untyped_storage()._cdata
        self._written[storage] = self.now
        if result.data:
            self._filled.add(storage)

    def _add(
        self, path: str, leaf: tree.Layer, positions: int = 1, claims: tuple[Claim, ...] = (), **more: Any
    ) -> Record:
        record = Record(path, leaf, positions, claims, self.now, **more)
        self.records.append(record)
        return record

    # layers

    def _product(self, name: str, named: dict[str, Any], out: Tensor, result: _Known) -> _Known:
        a, b = (named.get(key) for key in PRODUCTS[name])
        if a is None or b is None:  # `_grouped_mm` was renamed once
            a, b = [x for x in named.values() if isinstance(x, Tensor)][:2]
        known = self.known(a), self.known(b)
        sizes = _sizes(a, b)
        weight = None
        if known[0].data != known[1].data:
            weight = 0 if known[1].data else 1
        if weight is None or not known[weight].made:
            return self._data_by_data(known, sizes, out, result)
        copies, rows, inner, columns = sizes
        inputs, outputs, positions = (inner, rows, columns) if weight == 0 else (inner, columns, rows)
        data = known[1 - weight]
        one, all_ = inputs * outputs, copies * inputs * outputs
        size = all_ if copies > 1 and any(c.numbers == all_ for c in known[weight].made) else one
        claim = next((c for c in known[weight].made if c.numbers == size), None)
        runs = copies
        if copies == 1 or size == one:
            positions, copies, runs = positions * copies, 1, 1
        elif name in ("_grouped_mm", "grouped_mm_fallback"):  # each row is for one of the copies
            tokens = self.frames[-1].rows
            runs = positions // tokens if positions % tokens == 0 else 1
            positions //= runs
        record = self._add(
            self._path(claim, "linear"),
            tree.Linear(inputs, outputs, bias=False),
            positions,
            (claim,) if claim else (),
            runs=runs,
            copies=copies if claim else 0,
            reads=data.linear if copies == 1 and data.linear and data.linear.leaf.output == (inputs,) else None,
            sources=data.sources,
        )
        if data.linear:
            data.linear.readers += 1
        result = _Known(data=True, linear=record, sources=frozenset([record]), at=self.now)
        added = named.get("self") if name in ("addmm", "baddbmm", "addmv") else None
        return self._biased(record, self.known(added), result) if isinstance(added, Tensor) else result

    def _bias(self, given: list[Tensor], result: _Known) -> _Known:
        """An addition: of a bias, if it is a parameter as wide as the layer that wrote the other summand."""
        known = [self.known(tensor) for tensor in given]
        if len(given) == 2:
            for wrote, added in (known, known[::-1]):
                if wrote.linear and not added.data and added.made:
                    wrote.linear.readers -= 1
                    return self._biased(wrote.linear, added, replace(wrote, at=self.now))
        return result

    def _biased(self, record: Record, added: _Known, result: _Known) -> _Known:
        leaf = record.leaf
        fits = len(added.made) == 1 and added.made[0].numbers == max(1, record.copies) * prod(leaf.output)
        if isinstance(leaf, tree.Linear) and not leaf.bias and fits:
            record.leaf, record.claims = replace(leaf, bias=True), (*record.claims, added.made[0])
            return result
        return replace(result, linear=None, at=self.now)

    def _data_by_data(
        self, known: tuple[_Known, _Known], sizes: tuple[int, int, int, int], out: Tensor, result: _Known
    ) -> _Known:
        copies, rows, inner, columns = sizes
        for k in known:
            if k.linear:
                k.linear.readers += 1
        for which, k in enumerate(known):
            scores = k.scores
            if scores and k.weights and isinstance(scores.leaf, tree.Product):
                queries, keys, width = (rows, inner, columns) if which == 0 else (columns, inner, rows)
                n, *between, d = scores.leaf.factors
                if n == copies and sorted(between) == sorted((queries, keys)):
                    self._heads(scores, n, d, width, queries, keys, known[1 - which].shared)
                    scores.sources |= known[1 - which].sources
                    return _Known(data=True, sources=frozenset([scores]), at=self.now)
        few = result.sources if all(len(k.sources) <= 2 for k in known) else frozenset()
        factors = (copies, rows, columns, inner)
        record = self._add(self._path(None, "product"), tree.Product(factors), sources=few)
        if not result.data:
            return result
        lead = next((k.lead for k in known if k.lead and prod(k.lead) == copies), ())
        self.leads[record] = lead
        shared = known[1].shared or known[0].shared
        return _Known(data=True, scores=record, sources=result.sources, lead=lead, shared=shared, at=self.now)

    def _heads(self, scores: Record, n: int, d: int, width: int, queries: int, keys: int, shared: int | None) -> None:
        """Two products of data with a softmax between are an attention: `n` examples and heads of it."""
        lead = self.leads.pop(scores)
        own = next((h for name in HEADS if isinstance(h := getattr(self.frames[-1].module, name, None), int)), 0)
        if len(lead) == 2:
            heads = lead[1]
        elif own and n % own == 0:
            heads = own
        else:
            heads = n // self.batch if n % self.batch == 0 else n
        scores.leaf = tree.Attention(
            heads,
            shared or heads,
            d,
            value_dim=width if width != d else None,
            keys=keys if keys != queries else None,
            causal=False,  # what a mask hides is in its numbers
        )
        scores.positions, scores.runs = queries, n // heads

    def _attention(self, named: dict[str, Any], result: _Known) -> _Known:
        q, k, v = named["query"], named["key"], named["value"]
        (batch, heads, queries, d), (shared, keys), width = q.shape, k.shape[-3:-1], v.shape[-1]
        leaf = tree.Attention(
            heads,
            self.known(k).shared or shared,
            d,
            value_dim=width if width != d else None,
            keys=keys if keys != queries else None,
            causal=bool(named.get("is_causal")) and keys == queries,
        )
        few = all(len(self.known(x).sources) <= 2 for x in (q, k, v))
        record = self._add(
            self._path(None, "product"), leaf, queries, runs=batch, sources=result.sources if few else frozenset()
        )
        return _Known(data=True, sources=frozenset([record]), at=self.now)

    def _convolution(self, named: dict[str, Any], out: Tensor, result: _Known) -> _Known:
        x, weight, bias = named["input"], named["weight"], named.get("bias")
        known = self.known(weight)
        transposed, groups = named["transposed"], named["groups"]
        *stacked, height, width = (1, 1, *out.shape[2:])
        size = tuple(weight.shape[2:]) if weight.ndim > 3 else (1, *weight.shape[2:])
        inputs, outputs = x.shape[1], out.shape[1]
        places = prod(x.shape[2:]) if transposed else None
        if known.data or not known.made:
            moves = places or prod(out.shape[2:])
            factors = (moves, outputs, inputs // groups, *size)
            self._add(self._path(None, "product"), tree.Product(factors), x.shape[0])
            return result
        claim = next((c for c in known.made if c.numbers == weight.numel()), None)
        added = self.known(bias).made if bias is not None else ()
        leaf = tree.Convolution(
            inputs, outputs, size, prod(stacked) * height, width, bool(added), groups, places=places
        )
        claims = (*((claim,) if claim else ()), *added)
        record = self._add(
            self._path(claim, "convolution"), leaf, x.shape[0], claims, copies=1 if claim else 0, sources=result.sources
        )
        return _Known(data=True, sources=frozenset([record]), at=self.now)

    def _embedding(self, named: dict[str, Any], result: _Known) -> _Known:
        """A table of parameters from which rows are taken."""
        table = named.get("weight", named.get("self"))
        indices = named.get("indices", named.get("index"))
        made = self.known(table).made
        chosen = [i for i in indices if i is not None] if isinstance(indices, (list, tuple)) else [indices]
        plain = len(made) == 1 and table.ndim == 2 and made[0].numbers == table.numel() and len(chosen) == 1
        if not plain or chosen[0].is_floating_point() or named.get("dim", 0):
            return result
        rows, width = table.shape
        record = self._add(self._path(made[0], "embedding"), tree.Embedding(rows, width), chosen[0].numel(), made)
        return _Known(data=True, sources=frozenset([record]), at=self.now)

    def _norm(self, named: dict[str, Any], result: _Known) -> _Known:
        x, weight, bias = named["input"], named.get("weight"), named.get("bias")
        if not result.data or not self.frames:
            return result
        claims = tuple(c for p in (weight, bias) if p is not None for c in self.known(p).made)
        width = claims[0].numbers if claims else prod(named.get("normalized_shape") or x.shape[1:2])
        if len(claims) == 2 and named.get("running_mean") is not None:
            leaf: tree.Layer = tree.BatchNorm(width)
            positions = x.shape[0]
        else:
            leaf, positions = tree.Norm(width, shift=len(claims) == 2, plain=not claims), x.numel() // width
        self._add(self._path(claims[0] if claims else None, "norm"), leaf, positions, claims)
        return result

    def _activation(self, name: str, out: Tensor) -> None:
        """Named by its module where it has one: GELU may be written as a tanh."""
        frame = self.frames[-1]
        if frame.is_simple and len(self.frames) > 1:
            if frame.activated:
                return
            frame.activated = True
            name = type(frame.module).__name__.lower().removesuffix("activation")
        name = name.strip("_").removesuffix("_kernel").removesuffix("_forward").removeprefix("safe_")
        width = out.shape[-1] if out.ndim in (2, 3) else out.numel() // max(1, out.shape[0] if out.ndim else 1)
        self._add(self._path(None, "activation"), tree.Activation(name, width), out.numel() // max(1, width))

    def _pool(self, name: str, given: Tensor, out: Tensor) -> None:
        if out.shape[:2] != given.shape[:2] or (name == "mean" and out.numel() != prod(out.shape[:2])):
            return
        height, width = (1, 1, *out.shape[2:])[-2:]
        kind = "max" if "max" in name else "average"
        rows = prod(out.shape[2:-1]) if out.ndim > 4 else height
        self._add(self._path(None, "pool"), tree.Pool(kind, out.shape[1], rows, width), out.shape[0])

    def _bilinear(self, named: dict[str, Any], out: Tensor, result: _Known) -> _Known:
        """nn.Bilinear: each output is a weighted sum of all products of two entries."""
        weight = named["i2"]
        outputs, first, second = weight.shape[-3:]
        made = self.known(weight).made
        leaf = tree.Linear(first * second, outputs, bias=False)
        record = self._add(self._path(made[0], "linear"), leaf, out.numel() // outputs, made)
        return _Known(data=True, linear=record, sources=frozenset([record]), at=self.now)

    def _path(self, claim: Claim | None, otherwise: str) -> str:
        """Where a layer stands: its module's path, and there the parameter's name if the module has parts."""
        if not self.frames:
            return otherwise
        frame = self.frames[-1]
        if claim is None:
            return frame.path if frame.is_simple and frame.path else _join(frame.path, otherwise)
        for name, parameter in frame.module._parameters.items():
            if parameter is not None and self._own(parameter)[:1] and self._own(parameter)[0].name == claim.name:
                return _join(frame.path, _short(name))
        if isinstance(frame.module, (nn.Linear, nn.Embedding, nn.modules.conv._ConvNd)):
            return frame.path
        owner, _dot, name = claim.name.rpartition(".")
        first = all(claim not in record.claims for record in self.records)
        if first and (owner.startswith(f"{frame.path}.") or not frame.path):
            return _join(owner, _short(name))
        return _join(frame.path, otherwise)


def _sizes(a: Tensor, b: Tensor) -> tuple[int, int, int, int]:
    """Of a product: how many of it, rows, what is summed over, and columns."""
    if a.ndim == 2 and b.ndim == 3:  # grouped: each row with one of several matrices
        return b.shape[0], a.shape[0], b.shape[1], b.shape[2]
    copies = a.shape[0] if a.ndim == 3 else 1
    rows = a.shape[-2] if a.ndim > 1 else 1
    return copies, rows, a.shape[-1], b.shape[-1] if b.ndim > 1 else 1


def _join(path: str, name: str) -> str:
    return f"{path}.{name}".strip(".")


def _short(name: str) -> str:
    """in_proj_weight: in_proj; weight: nothing, the module itself is the layer."""
    return name.removesuffix("weight").strip("_")


# what did not run, or only as arithmetic


def _left(module: nn.Module, names: dict[int, str], seen: _Seen, ran: bool) -> Iterator[Record]:
    """The parameters that no record has, in the layers that their modules' types say, and the buffers."""
    met = {claim.name for record in seen.records for claim in record.claims}
    end = max((record.at for record in seen.records), default=0.0) + 1
    for n, (path, owner) in enumerate(module.named_modules()):
        own = {name: names[id(p)] for name, p in owner._parameters.items() if p is not None}
        if (ran and not set(own.values()) - met) or not own:
            yield from _buffers(path, owner, seen, end + n)
            continue
        claimed = bool(met & set(own.values()))
        for suffix, leaf, attributes in _alone(owner) if claimed and ran else _layers(owner):
            claims = tuple(Claim(own[name], 0, owner._parameters[name].numel()) for name in attributes)
            if claimed and ran and own[attributes[0]] in met:
                continue
            met |= {claim.name for claim in claims}
            at, numbers = min((seen.touched.get(c.name, (end + n, 0)) for c in claims), default=(end + n, 0))
            positions = max(1, numbers // max(1, prod(leaf.output))) if numbers and leaf.output else 1
            runs = 0 if ran and not any(claim.name in seen.touched for claim in claims) else 1
            yield Record(_join(path, suffix), leaf, positions, claims, at, runs=runs)
        yield from _buffers(path, owner, seen, end + n)


def _buffers(path: str, owner: nn.Module, seen: _Seen, at: float) -> Iterator[Record]:
    """What is saved beside parameters, and no batch norm's."""
    if isinstance(owner, nn.modules.batchnorm._NormBase) and owner.affine and owner.track_running_stats:
        if any(record.path == path and isinstance(record.leaf, tree.BatchNorm) for record in seen.records):
            return
        if not seen.records or path not in seen.called:
            return
    for name, buffer in owner._buffers.items():
        if buffer is not None and name not in owner._non_persistent_buffers_set:
            yield Record(_join(path, name), tree.Buffer(tuple(buffer.shape)), at=seen.called.get(path, at))


def _alone(owner: nn.Module) -> list[tuple[str, tree.Layer, tuple[str, ...]]]:
    """Each parameter of a module by itself."""
    return [(name, tree.Lone(tuple(p.shape)), (name,)) for name, p in owner._parameters.items() if p is not None]


def _layers(owner: nn.Module) -> list[tuple[str, tree.Layer, tuple[str, ...]]]:
    """The layers that a module is by its type: a name if it is several, the layer, and the names of its parameters."""
    own = {name: p for name, p in owner._parameters.items() if p is not None}
    names = tuple(name for name in ("weight", "bias") if name in own)
    bias = "bias" in names
    kind = type(owner).__name__
    if isinstance(owner, (nn.RNNBase, nn.RNNCellBase)):
        return _recurrent(owner)
    found: list[tuple[str, tree.Layer, tuple[str, ...]]] = []
    if isinstance(owner, nn.MultiheadAttention) and owner.in_proj_weight is not None:
        biased = tuple(name for name in ("in_proj_weight", "in_proj_bias") if name in own)
        found = [("in_proj", tree.Linear(owner.embed_dim, 3 * owner.embed_dim, len(biased) == 2), biased)]
    elif "weight" not in own:
        pass
    elif isinstance(owner, nn.Linear):
        found = [("", tree.Linear(owner.in_features, owner.out_features, bias), names)]
    elif kind == "Conv1D" and own["weight"].ndim == 2:  # GPT-2's in transformers: a dense layer, its weight transposed
        found = [("", tree.Linear(*own["weight"].shape, bias), names)]
    elif isinstance(owner, nn.modules.conv._ConvNd):
        size = (1, *owner.kernel_size)[-max(2, len(owner.kernel_size)) :]
        layer = tree.Convolution(owner.in_channels, owner.out_channels, size, 0, 0, bias, owner.groups)
        found = [("", layer, names)]
    elif isinstance(owner, (nn.Embedding, nn.EmbeddingBag)):
        found = [("", tree.Embedding(*own["weight"].shape), names)]
    elif isinstance(owner, nn.modules.batchnorm._NormBase) and owner.track_running_stats:
        found = [("", tree.BatchNorm(owner.num_features), names)]
    elif "norm" in kind.lower():
        found = [("", tree.Norm(own["weight"].numel(), shift=bias), names)]
    whole = {
        name for _suffix, leaf, used in found if leaf.parameters == sum(own[n].numel() for n in used) for name in used
    }
    return [layer for layer in found if whole] + [layer for layer in _alone(owner) if layer[2][0] not in whole]


def _recurrent(owner: nn.RNNBase | nn.RNNCellBase) -> list[tuple[str, tree.Layer, tuple[str, ...]]]:
    """A recurrence for each layer and direction."""
    rows = owner.weight_ih.shape[0] if isinstance(owner, nn.RNNCellBase) else owner.weight_ih_l0.shape[0]
    gates = rows // owner.hidden_size
    if isinstance(owner, nn.RNNCellBase):
        suffixes = [""]
    else:
        ways = ("", "_reverse") if owner.bidirectional else ("",)
        suffixes = [f"_l{n}{way}" for n in range(owner.num_layers) for way in ways]
    found: list[tuple[str, tree.Layer, tuple[str, ...]]] = []
    for suffix in suffixes:
        inputs = getattr(owner, f"weight_ih{suffix}").shape[1]
        names = [
            name for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh") if f"{name}{suffix}" in owner._parameters
        ]
        if getattr(owner, "proj_size", 0):  # LSTMP: what the layer reads of itself is made narrower first
            size, narrow, n = owner.hidden_size, owner.proj_size, suffix.strip("_")
            found += [
                (
                    f"{n}.input",
                    tree.Linear(inputs, rows, len(names) == 4),
                    (names[0] + suffix, *(f"bias_ih{suffix}",) * (len(names) == 4)),
                ),
                (
                    f"{n}.output",
                    tree.Linear(narrow, rows, len(names) == 4),
                    (names[1] + suffix, *(f"bias_hh{suffix}",) * (len(names) == 4)),
                ),
                (f"{n}.projection", tree.Linear(size, narrow, bias=False), (f"weight_hr{suffix}",)),
            ]
        else:
            layer = tree.Recurrence(inputs, owner.hidden_size, gates, bias=len(names) == 4)
            found.append((suffix.strip("_"), layer, tuple(name + suffix for name in names)))
    return found
