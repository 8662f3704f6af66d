"""Receptive fields: which part of a picture a place in a map can have seen."""

from __future__ import annotations

from typing import Any, NamedTuple

from pellucid.tracing.recorder import facts
from pellucid.tracing.tape import Call, Place
from pellucid.tracing.trace import Trace

# They treat each place by itself (norms: by the statistics stored, not by those of a batch).
EACH_PLACE = {
    "native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm", "_native_batch_norm_legit_no_training",
    "native_dropout", "clone", "copy", "_to_copy",
}  # fmt: skip


class Box(NamedTuple):
    """Rows `top` to `bottom` and columns `left` to `right`, the last ones not included."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        """How many rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """How many columns."""
        return self.right - self.left


Seen = tuple[frozenset[int], frozenset[int]]  # rows and columns
NOTHING: Seen = (frozenset(), frozenset())


def receptive_field(trace: Trace, path: str, row: int, column: int) -> Box:
    """The smallest box with all pixels that can have changed the numbers at one place of a module's maps.

    It is read off the operations that ran: exact for convolutions, poolings, padding, and what works place by place;
    of any other operation every place is taken to depend on everything. Whatever the weights are: pixels outside change
    nothing there.

    Args:
        trace: Of a module that was given pictures (B, C, H, W) first.
        path: Of the module, or an address, of maps (B, C, h, w); of other numbers the field is the whole picture.
        row: Of the place in the maps.
        column: Likewise.

    Raises:
        PellucidError: when there is nothing at that path.
    """
    numbers, picture = trace.find(path), trace.find(":in").place
    place = numbers.place
    here = (frozenset([row]), frozenset([column])) if len(place.shape) == 4 else _whole(place)
    wanted: dict[int, tuple[Place, Seen]] = {place.storage: (place, here)}
    for call in reversed(trace.tape.calls[: numbers.time]):
        for out in call.outs:
            if out is None or out.storage not in wanted:
                continue
            reader, seen = wanted[out.storage]
            if out.numel >= reader.numel:  # else the rest is from before
                del wanted[out.storage]
            if _geometry(reader) != _geometry(out):
                seen = _whole(out)
            for operand in call.operands():
                if operand.storage not in trace.tape.parameters:
                    _want(wanted, operand, _before(call, operand, out, seen))
    reader, seen = wanted.get(picture.storage, (picture, NOTHING))
    rows, columns = seen if _geometry(reader) == _geometry(picture) else _whole(picture)
    if not (rows and columns):  # only padding is seen
        return Box(0, 0, 0, 0)
    return Box(min(rows), max(rows) + 1, min(columns), max(columns) + 1)


def _before(call: Call, given: Place, out: Place, seen: Seen) -> Seen:
    """Which rows and columns of an operand those of an operation's result depend on."""
    if not all(seen):
        return NOTHING
    if len(given.shape) != 4 or len(out.shape) != 4:
        return _whole(given)
    arguments = dict(zip((argument.name for argument in call.op._schema.arguments), call.args, strict=False))
    if call.name == "convolution" and not arguments["transposed"]:
        kernel = arguments["weight"].shape[2:]
        stride, padding, dilation = (_two(arguments[name]) for name in ("stride", "padding", "dilation"))
    elif call.name in ("max_pool2d_with_indices", "avg_pool2d"):
        kernel = _two(arguments["kernel_size"])
        stride = _two(arguments.get("stride") or kernel)
        padding, dilation = _two(arguments.get("padding") or 0), _two(arguments.get("dilation") or 1)
    elif call.name == "constant_pad_nd":
        pad = (*arguments["pad"], 0, 0)  # left, right, top, bottom
        kernel, stride, padding, dilation = (1, 1), (1, 1), (pad[2], pad[0]), (1, 1)
    elif _each_place(call, arguments) and given.shape[2:] == out.shape[2:]:
        return seen
    else:
        return _whole(given)
    rows, columns = (
        frozenset(
            at
            for place in places
            for tap in range(kernel[d])
            if 0 <= (at := place * stride[d] - padding[d] + dilation[d] * tap) < given.shape[2 + d]
        )
        for d, places in enumerate(seen)
    )
    return rows, columns


def _each_place(call: Call, arguments: dict[str, Any]) -> bool:
    return facts(call.op).pointwise or (call.name in EACH_PLACE and not arguments.get("training"))


def _want(wanted: dict[int, tuple[Place, Seen]], place: Place, seen: Seen) -> None:
    """Add to what is wanted of a storage."""
    if place.storage in wanted:
        other, more = wanted[place.storage]
        if _geometry(other) != _geometry(place):
            place = max(place, other, key=lambda p: p.numel)
            seen = _whole(place)
        else:
            seen = (seen[0] | more[0], seen[1] | more[1])
    wanted[place.storage] = place, seen


def _geometry(place: Place) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two places of one storage with the same rows and columns."""
    return place.shape[-2:], place.strides[-2:]


def _whole(place: Place) -> Seen:
    height, width = (1, 1, *place.shape)[-2:]
    return frozenset(range(height)), frozenset(range(width))


def _two(x: int | tuple[int, ...]) -> tuple[int, int]:
    numbers = (x, x) if isinstance(x, int) else x
    return numbers[0], numbers[-1]
