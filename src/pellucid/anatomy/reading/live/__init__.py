"""Any torch module read into the tree of shapes: its example runs once, on tensors that have a shape and no numbers.

What a layer is does not depend on how it was written: a product of data with a parameter is a dense layer, a window of
parameters moved over data a convolution, and scores made of data by data, softmax and one more product an attention.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.utils._pytree import tree_leaves, tree_map

from pellucid.anatomy import tree
from pellucid.anatomy.reading import records
from pellucid.anatomy.reading.live import masks
from pellucid.anatomy.reading.live.layers import join
from pellucid.anatomy.reading.live.modules import alone, layers, remembers
from pellucid.anatomy.reading.live.watch import Seen, watched
from pellucid.anatomy.reading.records import Claim, Record
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
    seen = _seen(module, example_inputs, kwargs) if example_inputs or kwargs else None
    owned = dict(module.named_parameters())
    left = _left(module, {id(parameter): name for name, parameter in owned.items()}, seen)
    sizes = {name: parameter.numel() for name, parameter in owned.items()}
    fixed = {name for name, parameter in owned.items() if not parameter.requires_grad}
    return records.tree([*(seen.records if seen else ()), *left], sizes, fixed)


def _check(module: nn.Module) -> None:
    """Refuse what has no shapes, or others than it shows."""
    if isinstance(module, torch.jit.ScriptModule):
        raise PellucidError(
            _("{name} is TorchScript, whose operations cannot be watched.").format(name=module.original_name),
            "",
            _("Give the module that it was made from."),
        )
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


def _seen(module: nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Seen:
    """Run the example without numbers; or, where that is not enough, with them."""
    tensors = [*module.parameters(), *module.buffers()]
    try:
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        made: dict[int, Tensor] = {}
        known = [*module.buffers(), *(x for x in tree_leaves((inputs, kwargs)) if isinstance(x, Tensor))]
        with torch.inference_mode(False), _as_it_was(module), fake:
            _swap(module, lambda tensor: _without_numbers(tensor, fake, made))
            given, named = tree_map(
                lambda x: _without_numbers(x, fake, made) if isinstance(x, Tensor) else x, (inputs, kwargs)
            )
            numbers = [(made[id(x)], own) for x in known if (own := masks.own(x)) is not None]
            return watched(module, given, named, numbers)
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
            for inner in module.modules():  # it may count its calls in one
                inner._buffers.update({name: b.clone() for name, b in inner._buffers.items() if b is not None})
            return watched(module, inputs, kwargs)
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
        own: list[dict[str, Any]] = [inner._parameters, inner._buffers]
        for held in own:
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


# what did not run, or only as arithmetic


def _left(module: nn.Module, names: dict[int, str], seen: Seen | None) -> Iterator[Record]:
    """The parameters that no record has, in the layers that their modules' types say, and the buffers."""
    found = seen or Seen([], {}, {})
    met = {claim.name for record in found.records for claim in record.claims}
    end = max((record.at for record in found.records), default=0) + 1
    for at, (path, owner) in enumerate(module.named_modules(), end):
        own = {name: names[id(p)] for name, p in owner._parameters.items() if p is not None}
        by_type = layers(owner)
        used = seen is not None and any(name in met or name in found.touched for name in own.values())
        if used and any(layer.leaf.product for layer in by_type):
            by_type = alone(owner)  # but not as such a module would use them
        for name, leaf, parameters in by_type:
            if seen is not None and own[parameters[0]] in met:
                continue
            claims = tuple(Claim(own[name], 0, owner._parameters[name].numel()) for name in parameters)
            touched = [found.touched[claim.name] for claim in claims if claim.name in found.touched]
            first, numbers = min(touched, default=(at, 0))
            positions = max(1, numbers // (prod(leaf.output) or 1)) if leaf.output else 1
            yield Record(join(path, name), leaf, positions, claims, first, runs=1 if touched or seen is None else 0)
        met |= set(own.values())
        if not remembers(owner):
            for name, buffer in owner._buffers.items():
                if buffer is not None and name not in owner._non_persistent_buffers_set:
                    yield Record(join(path, name), tree.Buffer(tuple(buffer.shape)), at=found.called.get(path, at))
