"""A trace: a finished tape, and the questions that can be asked of it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.tracing import shortforms
from pellucid.tracing.addresses import Addresses, Numbers
from pellucid.tracing.answers import Answer, Question
from pellucid.tracing.edits import Change
from pellucid.tracing.effects import Again, Effect, ablate_part, effect
from pellucid.tracing.layers import Flow, flow
from pellucid.tracing.lenses import AttentionMap, LogitLens, attention_maps, attention_over, logit_lens
from pellucid.tracing.recorder import recording
from pellucid.tracing.roles import Roles
from pellucid.tracing.rules import CONVENTIONS
from pellucid.tracing.saving import save_trace
from pellucid.tracing.shown import Context
from pellucid.tracing.tape import Tape
from pellucid.tracing.training import Sources, by_token, trained
from pellucid.tracing.why import Why


class Trace:
    """What ran while it was recorded. Every number in it has an address, and can be asked why."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape

    # ---- what there is

    def find(self, address: str) -> Numbers:
        """The numbers at an address: see `addresses`.

        Raises:
            PellucidError: when there are none; it names what is near.
        """
        return self.addresses.find(address)

    def value(self, address: str) -> Tensor:
        """A copy of the numbers at an address."""
        numbers = self.find(address)
        return self.tape.read(numbers.place, numbers.time).clone()

    def __getitem__(self, address: str) -> Tensor:
        return self.value(address)

    def _ipython_key_completions_(self) -> list[str]:
        """What may stand between the brackets, for tab completion."""
        return self.addresses.all()

    def tree(self) -> str:
        """Every recorded call of a module and what it gave, indented, with the operations that it ran itself."""
        own: dict[int, Counter[str]] = {}
        for call in self.tape.calls:
            own.setdefault(id(call.scope), Counter())[call.name] += 1
        lines = []
        for scope in self.tape.scopes:
            depth = scope.path.count(".") + 1 if scope.path else 0
            shapes = ", ".join(str(list(place.shape)) for place in scope.outputs)
            ran = ", ".join(
                f"/{name}.0-{n - 1}" if n > 1 else f"/{name}.0" for name, n in own.get(id(scope), {}).items()
            )
            lines.append(f"{'  ' * depth}{scope.path or '(root)'}#{scope.call}  {scope.kind}  {shapes}  {ran}".rstrip())
        return "\n".join(lines)

    @property
    def notes(self) -> list[str]:
        """What was done otherwise so that it can be seen, and how much it changed."""
        return [
            _("{name} ran in its visible form; its results differ by at most {difference:.2g}").format(
                name=name or "the module", difference=difference
            )
            for name, difference in self.tape.switched.items()
        ]

    def save(self, path: str | Path) -> None:
        """Write the tape to a folder, from which `load_trace` gives back a trace with the same answers.

        Raises:
            PellucidError: when something else is there, or the disk is full.
        """
        save_trace(self, path)

    # ---- why

    def why(self, question: str | Question | Numbers, *, convention: str = "values") -> Answer:
        """The terms that add up to a number.

        Args:
            question: An address of one number, or a question made by one of the methods that name what people ask for.
            convention: Who gets the credit for a product of two values that both depend on the input: "values" (what
                is weighted, not the weights: probabilities, sigmoid gates and norm scales are coefficients; of an
                activation times another value each half), "gates" (the other factor), or "half" (half each).

        Raises:
            PellucidError: when there is no such number, or it was changed since.
        """
        asked = self._question(question, convention)
        stepped = None if isinstance(question, Question) else trained(self, asked.seeds[0][0], convention)
        answer = stepped or self.unfolding.answer(asked, convention)
        return replace(answer, context=Context(cache(lambda: self.flow(asked, convention=convention))))

    def flow(self, question: str | Question | Numbers, *, convention: str = "values", exact: bool = False) -> Flow:
        """What every input, layer and constant contributes to a number: see `layers.Flow`.

        Args:
            question: As for `why`.
            convention: As for `why`.
            exact: Compute in float64; slower.
        """
        asked = self._question(question, convention)
        value = sum(amount for _, amount in asked.constants)
        widest = torch.float64 if exact else torch.float32
        for numbers, weights in asked.seeds:
            recorded = self.tape.read(numbers.place, numbers.time)
            value += (recorded.double() * weights.double()).sum().item()
            widest = torch.promote_types(widest, recorded.dtype)
        seeds = [(numbers.place, numbers.time, weights) for numbers, weights in asked.seeds]
        found = flow(self.tape, self.roles, asked.name, value, seeds, dtype=widest, convention=convention)
        if not asked.constants:
            return found
        own = dict(asked.constants)
        later = sum(own.values())
        return replace(
            found, constants=own | found.constants, residue=found.residue - later,
        )  # fmt: skip

    def ablate(
        self,
        question: str | Question | Numbers,
        part: str | None = None,
        *,
        head: int | None = None,
        token: int | None = None,
        run: Callable[[], Any] | None = None,
    ) -> Effect:
        """Take something away and run again: how far does a number really move, beside what the flow says of it?

        Args:
            question: As for `why`.
            part: The path of a module whose results are set to zero, or an address in it.
            head: Only this head of the module's attention.
            token: Rather than a part: the position of an input token, whose embedding is set to zero.
            run: Runs once more what was recorded; None: what `trace` ran.

        Raises:
            PellucidError: when there is no such part, or it is not known how to run again.
        """
        return ablate_part(self, self._question(question, "values"), part, head=head, token=token, run=run)

    def effect(
        self,
        changes: Mapping[str, Change],
        question: str | Question | Numbers,
        run: Callable[[], Any] | None = None,
    ) -> Effect:
        """Run again with `changes` (see `edits.edit`) and measure a number before and after.

        Raises:
            PellucidError: when a change cannot be made, or it is not known how to run again.
        """
        return effect(self, changes, self._question(question, "values"), run)

    def compare_conventions(self, question: str | Question | Numbers) -> dict[str, Flow]:
        """The flow under each convention: all of them add up, and they need not agree."""
        return {convention: self.flow(question, convention=convention) for convention in CONVENTIONS}

    def by_token(self, address: str) -> Sources:
        """Which tokens a gradient ("fc.weight:grad", or one number of it) came from: see `training.by_token`."""
        return by_token(self, address)

    # ---- lenses

    def attention_maps(self, path: str | None = None) -> list[AttentionMap]:
        """Every attention that was computed, fused or not: see `lenses.attention_maps`."""
        return attention_maps(self, path)

    def attention_over(self, path: str) -> Tensor:
        """One module's attention in all its calls together, (H, T, T): see `lenses.attention_over`."""
        return attention_over(self, path)

    def logit_lens(
        self, position: int = -1, n: int = 3, *, norm: str | None = None, head: str | None = None
    ) -> LogitLens:
        """What every layer would say if it were the last: see `lenses.logit_lens`."""
        return logit_lens(self, position, n, norm=norm, head=head)

    def _question(self, question: str | Question | Numbers, convention: str) -> Question:
        if convention not in CONVENTIONS:
            raise PellucidError(
                _("There is no convention {name!r}.").format(name=convention),
                "convention",
                _("Use one of {names}.").format(names=", ".join(CONVENTIONS)),
            )
        self._unchanged()
        if isinstance(question, str) and shortforms.is_short(question):
            question = shortforms.read(question, self)
        if isinstance(question, Question):
            return question
        numbers = self.find(question) if isinstance(question, str) else question
        name = question if isinstance(question, str) else self.addresses.name(numbers)
        if numbers.place.shape != ():
            raise PellucidError(
                _("These are {n:,} numbers; why can be asked of one.").format(n=numbers.place.numel),
                name,
                _("Add an index: their shape is {shape}.").format(shape=list(numbers.place.shape)),
            )
        return Question(name, ((numbers, torch.ones((), dtype=torch.float64)),))

    def _unchanged(self) -> None:
        changed = self.tape.changed()
        if changed:
            serial = next(iter(changed))
            known = self.tape.parameters.get(serial)
            raise PellucidError(
                _("{name} was changed after the recording.").format(
                    name=known[0][1] if known else _("A result of the recorded modules")
                ),
                "",
                _("Ask before changing it, or record again."),
            )

    @cached_property
    def roles(self) -> Roles:
        """What is data, and what a coefficient."""
        return Roles(self.tape)

    @cached_property
    def addresses(self) -> Addresses:
        """The names of the numbers."""
        return Addresses(self.tape)

    @cached_property
    def unfolding(self) -> Why:
        """What unfolds single numbers."""
        return Why(self.tape, self.roles, self.addresses)


def trace(module: nn.Module, *inputs: Any, budget: float | None = None, **named: Any) -> Trace:
    """Run a module once and record it.

    Args:
        module: Any module. It runs without gradients; to record a backward pass, use `record`.
        inputs: What it is called with.
        budget: Bytes that the recording may take; None: half of the free memory.
        named: What it is called with, by name.

    Raises:
        PellucidError: when the recording takes more than the budget.
    """
    tape = Tape()
    tape.again = Again.of(module, inputs, named)
    with torch.no_grad(), recording(module, tape, budget):
        module(*inputs, **named)
    return Trace(tape)


@contextlib.contextmanager
def record(
    module: nn.Module | None = None, *, budget: float | None = None, updates: Collection[str] | None = None
) -> Iterator[Trace]:
    """Record whatever runs within: forward and backward passes, an optimiser's steps, generation.

    Args:
        module: Whose parts give the numbers their addresses.
        budget: Bytes that the recording may take; None: half of the free memory.
        updates: Names of the parameters whose optimiser's step can be asked about: copies of them and of their
            optimiser's state are kept. None: all, up to 50 million parameters. `step_memory` says what it will take.

    Raises:
        PellucidError: when the recording takes more than the budget, or there is no such parameter.
    """
    trace = Trace(Tape())
    trace.tape.again = Again(module)
    with recording(module, trace.tape, budget, updates):
        yield trace
