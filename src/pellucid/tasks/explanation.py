"""Why an answer: the parts of an input, in the user's own words and units, that add up to a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.tracing.answers import Answer, Question

if TYPE_CHECKING:
    from torch import Tensor

    from pellucid.tracing.layers import Flow
    from pellucid.tracing.trace import Trace

ONE = torch.ones((), dtype=torch.float64)


@dataclass(frozen=True)
class Part:
    """One part of the input and what it adds."""

    name: str  # a column, a word, a region
    given: Any  # what stands there: 170, "M"; None where the name says it all
    amount: float

    @property
    def coefficient(self) -> float | None:
        """What one unit of it adds here, where it is a number and not 0: amount = coefficient x given."""
        return self.amount / self.given if isinstance(self.given, float) and self.given else None


@dataclass(frozen=True)
class Explanation:
    """A number that the network computed for one input: the sum of what the parts of the input add and of constants."""

    asked: str  # in words: "weight", "7 rather than 1"
    value: float
    parts: tuple[Part, ...]  # in the input's order; those of words that follow each other spell the text
    trace: Trace  # of the run that is explained: any other number of it can be asked why
    question: Question
    threshold: float | None = None  # what a step neuron compares the value with: value > threshold is yes
    maps: dict[str, Tensor] | None = None  # arrays worth a picture, such as contributions by pixel (C, H, W)
    notes: tuple[str, ...] = ()
    beside: tuple[Any, ...] = ()  # what helps to understand it: shown by a terminal as it is, on a page by `html()`

    @cached_property
    def flow(self) -> Flow:
        """What every input, layer and constant contributes."""
        return self.trace.flow(self.question, exact=True)

    @property
    def constants(self) -> dict[str, float]:
        """What comes from no part of the input, by name: biases, positions, and where no rule goes on."""
        return self.flow.constants | self.flow.stopped

    @property
    def residue(self) -> float:
        """Value minus all parts and constants: the arithmetic's rounding."""
        return self.value - sum(part.amount for part in self.parts) - sum(self.constants.values())

    @cached_property
    def answer(self) -> Answer:
        """The same number by the terms that its last operation added up, each of which can be asked again."""
        return self.trace.why(self.question)

    def json(self) -> dict[str, Any]:
        return {
            "asked": self.asked,
            "value": self.value,
            "threshold": self.threshold,
            "parts": [{"name": p.name, "given": p.given, "amount": p.amount} for p in self.parts],
            "constants": self.constants,
            "residue": self.residue,
            "notes": list(self.notes),
            "beside": [one.json() for one in self.beside],
        }

    def save(self, path: str | Path, top: int = 8) -> None:
        """Write a page of HTML that shows layers, inputs and terms: see `Answer.save`."""
        from pellucid.tracing.page import save

        save(self.answer, path, top, beside="".join(one.html() for one in self.beside))

    def show(self, top: int = 8) -> None:
        """Print it: the largest parts, all others together, the constants, the sum."""
        from rich.console import Console

        Console(highlight=False).print(_rendered(self, top), *self.beside, sep="\n")


def explained(
    asked: str,
    trace: Trace,
    question: Question,
    parts: Sequence[Part],
    **more: Any,
) -> Explanation:
    """An explanation of a question that was asked of a trace; its value is read off the tape."""
    value = sum(amount for _name, amount in question.constants)
    for numbers, weight in question.seeds:
        value += (trace.tape.read(numbers.place, numbers.time).double() * weight).sum().item()
    return Explanation(asked, value, tuple(parts), trace, question, **more)


def one_number(trace: Trace, address: str) -> Question:
    """The question of why the number at an address is what it is."""
    return Question(address, ((trace.find(address), ONE),))


def difference(trace: Trace, name: str, address: str, other: str) -> Question:
    """The question of why one number is larger than another: of their difference."""
    return Question(name, ((trace.find(address), ONE), (trace.find(other), -ONE)), together=True)


def two_classes(
    classes: Sequence[str], probabilities: Sequence[float], value: str | None, rather_than: str | None
) -> tuple[int, int]:
    """The indices of the class that is asked about and of the one it is compared with: the most probable, if left out.

    Raises:
        PellucidError: when there is no such class, or both are the same.
    """
    for name in (value, rather_than):
        if name is not None and name not in classes:
            raise PellucidError(
                _("There is no class {name!r}.").format(name=name),
                "",
                _("The classes are: {classes}.").format(classes=", ".join(list(classes)[:30])),
            )
    if value is not None and value == rather_than:
        raise PellucidError(
            _("{name!r} rather than itself: there is no difference to explain.").format(name=value),
            "--rather-than",
            _("Name another class."),
        )
    ranked = sorted(range(len(classes)), key=lambda k: -probabilities[k])
    first = classes.index(value) if value is not None else next(k for k in ranked if classes[k] != rather_than)
    other = classes.index(rather_than) if rather_than is not None else next(k for k in ranked if k != first)
    return first, other


def _rendered(found: Explanation, top: int) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from pellucid.tracing.display import bar, number, signed

    largest = max([abs(part.amount) for part in found.parts] + [abs(c) for c in found.constants.values()], default=0.0)
    ranked = sorted(found.parts, key=lambda part: -abs(part.amount))
    rows = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for justify in ("left", "right", "left", "left"):
        rows.add_column(justify=justify)
    for part in ranked[:top]:
        given = "" if part.given is None else number(part.given) if isinstance(part.given, float) else str(part.given)
        times = f"{given} × {number(part.coefficient)}" if part.coefficient is not None else given
        rows.add_row(Text(part.name), Text(signed(part.amount)), bar(part.amount, largest), Text(times, style="dim"))
    others = ranked[top:]
    if others:
        together = sum(part.amount for part in others)
        name = _("{n} other parts").format(n=len(others))
        rows.add_row(Text(name, style="dim"), Text(signed(together)), bar(together, largest), "")
    constant = sum(found.constants.values())
    rows.add_row(Text(_("constants"), style="dim"), Text(signed(constant)), bar(constant, largest), "")
    lines: list[Any] = [Text(f"{found.asked} = {number(found.value)}", style="bold"), rows, _balance(found, constant)]
    if found.threshold is not None:
        said = _("{value} > {threshold}: yes") if found.value > found.threshold else _("{value} ≤ {threshold}: no")
        lines.append(Text(said.format(value=number(found.value), threshold=number(found.threshold)), style="bold"))
    return Group(*lines, *(Text(note, style="dim") for note in found.notes))


def _balance(found: Explanation, constant: float) -> Any:
    from rich.text import Text

    from pellucid.tracing.display import number, signed

    said = _("parts {parts}, constants {constants}, residue {residue}: together {value}")
    parts = sum(part.amount for part in found.parts)
    return Text(
        said.format(
            parts=signed(parts), constants=signed(constant), residue=f"{found.residue:.1g}", value=number(found.value)
        ),
        style="dim",
    )
