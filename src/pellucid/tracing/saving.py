"""A trace in files: its numbers in safetensors, what happened to them in JSON. Nothing in them can run a program."""

from __future__ import annotations

import math
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from pellucid.checkpoints.files import PICKLES, read_file, read_json, replace_folder, write_json, write_tensors
from pellucid.data.tokenizer import Tokenizer
from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.tracing.tape import Call, Place, Scope, Tape, Write

if TYPE_CHECKING:
    from pellucid.tracing.trace import Trace

FORMAT = "pellucid.trace/1"
EVENTS, NUMBERS = "trace.json", "trace.safetensors"
SIGNATURES = (b"PK\x03\x04", b"\x80")  # of what torch.save and pickle write


def save_trace(trace: Trace, path: str | Path) -> None:
    """See `Trace.save`."""
    final = Path(path)
    if final.exists() and not (final / EVENTS).is_file():
        raise PellucidError(
            _("{name} is there already, and is no trace.").format(name=final.name), str(final), _("Name a new folder.")
        )
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    except OSError as error:
        raise PellucidError(
            _("{name} cannot be written: {why}.").format(name=final.name, why=error.strerror),
            str(final),
            _("Free some disk space, or name a folder that you may write to."),
        ) from error
    try:
        temporary.chmod(0o755)
        _write(trace, temporary)
        replace_folder(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_trace(path: str | Path) -> Trace:
    """A trace that `Trace.save` wrote: on the same machine, `why` gives the same answers to the last bit.

    Raises:
        PellucidError: when there is none, it is damaged, or it is a pickle: these can run programs, and are not opened.
    """
    from pellucid.tracing.text import TextTrace
    from pellucid.tracing.trace import Trace

    folder = Path(path)
    if folder.is_file():
        with folder.open("rb") as file:
            start = file.read(4)
        if start.startswith(SIGNATURES) or any(folder.match(pattern) for pattern in PICKLES):
            raise PellucidError(
                _("{name} is a pickle: opening it could run any program that its author put in.").format(
                    name=folder.name
                ),
                str(folder),
                _("Record the trace again, and write it with trace.save(folder)."),
            )
    if not (folder / EVENTS).is_file():
        raise PellucidError(
            _("There is no trace here."), str(folder), _("Name a folder that trace.save(folder) wrote.")
        )
    events = read_json(folder / EVENTS)
    if events.get("format") != FORMAT:
        raise PellucidError(
            _("This trace is in the format {found!r}, not {known!r}.").format(found=events.get("format"), known=FORMAT),
            str(folder / EVENTS),
            _("Open it with the version of Pellucid that wrote it."),
        )
    try:
        tape = _tape(events, read_file(folder / NUMBERS, None))
        text = events["text"]
        if text is None:
            return Trace(tape)
        return TextTrace(tape, Tokenizer.open(folder), text["head"], text["embedding"])
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise PellucidError(
            _("{name} is damaged: {why}.").format(name=EVENTS, why=f"{type(error).__name__}: {error}"),
            str(folder / EVENTS),
            _("Copy or download it again."),
        ) from error


# ---- to files


def _write(trace: Trace, folder: Path) -> None:
    from pellucid.tracing.text import TextTrace

    tape, text = trace.tape, None
    if isinstance(trace, TextTrace):
        if not isinstance(trace.tokenizer, Tokenizer):
            raise PellucidError(
                _("Only traces with a tokenizer of Pellucid's can be saved."), type(trace.tokenizer).__name__
            )
        text = {"head": trace._head, "embedding": trace._embedding}
        trace.tokenizer.save(folder, "")
    for call in tape.calls:
        try:
            _operation(call.op._schema.name, call.op._overloadname)
        except ValueError as error:
            raise PellucidError(
                _("This trace cannot be saved."), call.scope.path if call.scope else "", str(error)
            ) from None
    numbers: dict[str, Tensor] = {}
    copies: list[Any] = []
    made: dict[str, int] = {}
    for serial, storage in enumerate(tape._held):
        if storage is None:
            made[str(serial)] = tape._makers[serial].time
        elif storage.nbytes():
            numbers[f"storage.{serial}"] = _bytes(storage)
    for serial, writes in tape._writes.items():
        for write in writes:
            name = None
            if write.before is not None:
                name = f"before.{serial}.{len(copies)}"
                numbers[name] = write.before.contiguous()
            copies.append([serial, write.time, encode(write.place), name])
    scopes = {id(scope): n for n, scope in enumerate(tape.scopes)}
    events = {
        "format": FORMAT,
        "torch": torch.__version__,
        "text": text,
        "storages": [encode(place) for place in tape._first],
        "made": made,
        "copies": copies,
        "parameters": [[encode(place), name] for known in tape.parameters.values() for place, name in known],
        "gradients": {str(serial): [encode(place), time] for serial, (place, time) in tape.gradients.items()},
        "incoming": [[time, encode(place)] for time, place in tape.incoming],
        "steps": {str(serial): encode(steps) for serial, steps in tape.steps.items()},
        "switched": tape.switched,
        "scopes": [
            [
                *(scope.path, scope.call, scope.kind, scopes.get(id(scope.parent)), scope.start),
                *(encode(scope.inputs), encode(scope.outputs), scope.ended),
            ]
            for scope in tape.scopes
        ],
        "calls": [
            [
                *(call.op._schema.name, call.op._overloadname, encode(call.args), encode(call.kwargs)),
                *(encode(call.outs), scopes.get(id(call.scope)), call.phase),
            ]
            for call in tape.calls
        ],
    }
    write_tensors(folder / NUMBERS, numbers)
    write_json(folder / EVENTS, events)


def _bytes(storage: Any) -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def encode(x: Any) -> Any:
    """Arguments as JSON: what JSON has no word for becomes an object with its kind as the only key."""
    if isinstance(x, Place):
        return {"place": [x.storage, x.offset, list(x.shape), list(x.strides), encode(x.dtype)]}
    if isinstance(x, (list, tuple)):
        return [encode(y) for y in x]
    if isinstance(x, dict):
        return {"named": {name: encode(y) for name, y in x.items()}}
    if x is None or isinstance(x, (bool, int, str)):
        return x
    if isinstance(x, float):
        return x if math.isfinite(x) else {"float": str(x)}
    if isinstance(x, complex):
        return {"complex": [x.real, x.imag]}
    if isinstance(x, torch.device):
        return {"device": str(x)}
    if isinstance(x, (torch.dtype, torch.layout, torch.memory_format)):
        return {"torch": str(x).removeprefix("torch.")}
    return {"lost": type(x).__name__}  # a generator, a stream: only operations that are never run again have them


# ---- from files


def _tape(events: dict[str, Any], numbers: dict[str, Tensor]) -> Tape:
    tape = Tape()
    tape._first = [decode(place) for place in events["storages"]]
    empty = torch.empty(0).untyped_storage()
    for serial in range(len(tape._first)):
        held = numbers.pop(f"storage.{serial}", None)
        # a copy, because it is aligned as torch's own results are: kernels round by where vectors begin
        tape._held.append(held.clone().untyped_storage() if held is not None else empty)
    for path, number, kind, parent, start, inputs, outputs, ended in events["scopes"]:
        above = None if parent is None else tape.scopes[parent]
        tape.scopes.append(Scope(path, number, kind, above, start, decode(inputs), decode(outputs), ended))
    for name, overload, args, kwargs, outs, scope, phase in events["calls"]:
        within = None if scope is None else tape.scopes[scope]
        call = Call(
            len(tape.calls), _operation(name, overload), tuple(decode(args)), decode(kwargs), tuple(decode(outs)),
            within, phase,
        )  # fmt: skip
        tape.add(call)
    for serial, time in events["made"].items():
        tape._held[int(serial)], tape._makers[int(serial)] = None, tape.calls[time]
    for serial, time, place, name in events["copies"]:
        tape._writes[serial].append(Write(time, decode(place), None if name is None else numbers[name]))
    for place, name in events["parameters"]:
        place = decode(place)
        tape.parameters[place.storage].append((place, name))
    for serial, (place, time) in events["gradients"].items():
        tape.gradients[int(serial)] = decode(place), time
    tape.incoming = [(time, decode(place)) for time, place in events["incoming"]]
    for serial, steps in events["steps"].items():
        tape.steps[int(serial)] = list(decode(steps))
    tape.switched = events["switched"]
    return tape


def _operation(name: str, overload: str) -> OpOverload:
    """An operation by its name. Explaining may run it again, so it must be arithmetic of torch's own, and no file's."""
    namespace, _separator, short = name.partition("::")
    if namespace in ("aten", "prims") and short != "from_file":
        found = getattr(getattr(getattr(torch.ops, namespace), short), overload)
        if isinstance(found, OpOverload):
            return found
    raise ValueError(f"{name}.{overload} is no operation of torch's own")


def decode(x: Any) -> Any:
    """What `encode` made JSON of; lists become tuples, as on the tape."""
    if isinstance(x, list):
        return tuple(decode(y) for y in x)
    if not isinstance(x, dict):
        return x
    ((kind, given),) = x.items()
    match kind:
        case "place":
            storage, offset, shape, strides, dtype = given
            return Place(storage, offset, tuple(shape), tuple(strides), decode(dtype))
        case "named":
            return {name: decode(y) for name, y in given.items()}
        case "float":
            return float(given)
        case "complex":
            return complex(*given)
        case "device":
            return torch.device(given)
        case "torch":
            found = getattr(torch, given)
            if not isinstance(found, (torch.dtype, torch.layout, torch.memory_format)):
                raise ValueError(f"no type {given}")
            return found
        case "lost":
            return None
    raise ValueError(f"no kind {kind!r}")
