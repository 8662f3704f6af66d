"""A second recorder that shares nothing with the tape: it clones every operand and result of every call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes


@dataclass
class Seen:
    """One call as it was seen."""

    op: Any
    before: list[Tensor]  # every operand
    after: list[Tensor]  # the same, once it has run
    results: list[Tensor | None]  # what is new, then every operand that was written to

    def undeclared(self) -> list[int]:
        """Which operands have changed although the operation does not say that it writes to them."""
        declared = set(_written(self.op, self.args, self.kwargs))
        pairs = enumerate(zip(self.before, self.after, strict=True))
        return [i for i, (a, b) in pairs if i not in declared and not _same(a, b)]

    args: Any = ()
    kwargs: Any = None


class Witness(TorchDispatchMode):
    """Sees what runs, and to which call of a tape it belongs."""

    def __init__(self, tape: Any) -> None:
        super().__init__()
        self.tape = tape
        self.seen: dict[int, Seen] = {}
        self.all: list[Seen] = []

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operands = list(_tensors((args, tuple(kwargs.values()))))
        with _disable_current_modes():
            before = [x.detach().clone() for x in operands]
        time = len(self.tape.calls)
        out = op(*args, **kwargs)
        with _disable_current_modes():
            after = [x.detach().clone() for x in operands]
            returned = out if isinstance(out, (list, tuple)) else (out,)
            fresh = [result.alias_info is None for result in op._schema.returns]
            fresh = fresh if len(fresh) == len(returned) else fresh * len(returned)
            made = [x for x, new in zip(returned, fresh, strict=False) if new]
            new = [x.detach().clone() if isinstance(x, Tensor) else None for x in made]
        found = Seen(op, before, after, new, _shapes(args), {name: _shapes(x) for name, x in kwargs.items()})
        with _disable_current_modes():
            changed = sorted({*_written(op, found.args, found.kwargs), *found.undeclared()})
        found.results = [*new, *(after[i] for i in changed)]
        self.all.append(found)
        if len(self.tape.calls) > time:
            assert len(self.tape.calls) == time + 1
            self.seen[time] = found
        return out


def _written(op: Any, args: Any, kwargs: Any) -> Iterator[int]:
    """Positions, among all operands, of those that an operation says it writes to."""
    n = 0
    names = [argument.name for argument in op._schema.arguments]
    given = [*zip(names, args, strict=False), *kwargs.items()]
    writes = {a.name for a in op._schema.arguments if a.alias_info is not None and a.alias_info.is_write}
    for name, x in given:
        for _ in _tensors(x):
            if name in writes:
                yield n
            n += 1


def _tensors(x: Any) -> Iterator[Any]:
    if isinstance(x, (Tensor, _Stand)):
        yield x
    elif isinstance(x, (list, tuple)):
        for y in x:
            yield from _tensors(y)


class _Stand:
    """Stands for a tensor, whose memory is not to be held."""


def _shapes(x: Any) -> Any:
    if isinstance(x, Tensor):
        return _Stand()
    return tuple(_shapes(y) for y in x) if isinstance(x, (list, tuple)) else x


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())
