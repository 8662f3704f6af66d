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


def receptive_field(trace: Trace, path: str, row: int, column: int) -> Box:
    """The pixels that can have changed the numbers at one place of a module's maps.

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
    wanted: dict[int, tuple[Place, Box]] = {}
    here = Box(row, row + 1, column, column + 1) if len(place.shape) == 4 else _whole(place)
    _want(wanted, place, here)
    for call in reversed(trace.tape.calls[: numbers.time]):
        for out in call.outs:
            if out is None or out.storage not in wanted:
                continue
            reader, box = wanted[out.storage]
            if out.numel >= reader.numel:  # else the rest is from before
                del wanted[out.storage]
            if _geometry(reader) != _geometry(out):
                box = _whole(out)
            for operand in call.operands():
                if operand.storage not in trace.tape.parameters:
                    _want(wanted, operand, _before(call, operand, out, box))
    if picture.storage not in wanted:
        return Box(0, 0, 0, 0)
    reader, box = wanted[picture.storage]
    return box if _geometry(reader) == _geometry(picture) else _whole(picture)


def _before(call: Call, given: Place, out: Place, box: Box) -> Box:
    """Which places of an operand a box of an operation's result depends on."""
    whole = _whole(given)
    if len(given.shape) != 4 or len(out.shape) != 4:
        return whole
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
        return box
    else:
        return whole
    rows, columns = (
        (
            min(max(first * stride[d] - padding[d], 0), given.shape[2 + d]),
            max(min((last - 1) * stride[d] - padding[d] + dilation[d] * (kernel[d] - 1) + 1, given.shape[2 + d]), 0),
        )
        for d, (first, last) in enumerate((box[:2], box[2:]))
    )
    return Box(*rows, *columns)


def _each_place(call: Call, arguments: dict[str, Any]) -> bool:
    return facts(call.op).pointwise or (call.name in EACH_PLACE and not arguments.get("training"))


def _want(wanted: dict[int, tuple[Place, Box]], place: Place, box: Box) -> None:
    if place.storage in wanted:
        other, more = wanted[place.storage]
        if _geometry(other) != _geometry(place):
            place, box = (place, _whole(place)) if place.numel > other.numel else (other, _whole(other))
        elif more.height and more.width and box.height and box.width:
            tops, lefts = (box.top, more.top), (box.left, more.left)
            box = Box(min(tops), max(box.bottom, more.bottom), min(lefts), max(box.right, more.right))
        else:
            box = max(box, more, key=lambda b: b.height * b.width)
    wanted[place.storage] = place, box


def _geometry(place: Place) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two places of one storage with the same rows and columns."""
    return place.shape[-2:], place.strides[-2:]


def _whole(place: Place) -> Box:
    height, width = (1, 1, *place.shape)[-2:]
    return Box(0, height, 0, width)


def _two(x: int | tuple[int, ...]) -> tuple[int, int]:
    numbers = (x, x) if isinstance(x, int) else x
    return numbers[0], numbers[-1]
