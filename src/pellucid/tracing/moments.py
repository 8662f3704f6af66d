"""Two moments: the same question at two checkpoints, or to two models of one shape, and the difference term by term."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.tracing.answers import Answer, Question, Term
from pellucid.tracing.layers import Flow
from pellucid.tracing.trace import Trace


@dataclass(frozen=True)
class TermDifference:
    """How one term differs: its change is what its coefficient and its value have changed, and nothing else.

    Of a change c₂v₂ − c₁v₁ the coefficient's part is (c₂ − c₁)(v₁ + v₂)/2 and the value's (v₂ − v₁)(c₁ + c₂)/2: each
    factor is changed first once and last once, and the mean taken.
    """

    source: str
    address: str
    before: float
    after: float
    by_coefficient: float
    by_value: float
    constant: bool = False
    _terms: tuple[Term | None, Term | None] = field(default=(None, None), repr=False, compare=False)

    @property
    def change(self) -> float:
        """Its contribution after, less that before."""
        return self.after - self.before

    def why(self) -> Difference:
        """The difference of the values behind the two terms.

        Raises:
            LookupError: when one of the two sums lacks the term, or nothing is behind it.
        """
        before, after = self._terms
        if before is None or after is None:
            raise LookupError(f"{self.source} is a term at one of the two moments only")
        return difference(before.why(), after.why())

    def why_factor(self) -> Difference:
        """The difference of the coefficients, where they are recorded numbers.

        Raises:
            LookupError: when they are not.
        """
        before, after = self._terms
        if before is None or after is None:
            raise LookupError(f"{self.source} is a term at one of the two moments only")
        return difference(before.why_factor(), after.why_factor())


@dataclass(frozen=True)
class Difference:
    """Why a number is different: after − before = Σ changes + residue."""

    question: str
    before: float
    after: float
    changes: tuple[TermDifference, ...]  # largest first, constants among them
    residue: float  # the difference of the two sums' own rounding
    kinds: tuple[str, str]
    _flows: Callable[[], tuple[Flow, Flow]] | None = field(default=None, repr=False, compare=False)

    @property
    def change(self) -> float:
        """The number after, less the number before."""
        return self.after - self.before

    @property
    def by_coefficient(self) -> float:
        """What all changed coefficients (weights, norm scales, probabilities) add up to."""
        return sum(change.by_coefficient for change in self.changes)

    @property
    def by_value(self) -> float:
        """What all changed values add up to, constants included."""
        return sum(change.by_value for change in self.changes)

    @cached_property
    def flow(self) -> FlowDifference:
        """The same difference by layer, attention, feed-forward network and token.

        Raises:
            LookupError: for what a term opens to: it is asked of the whole question.
        """
        if self._flows is None:
            raise LookupError("ask for the flow of the whole question")
        return flow_difference(*self._flows())

    def __str__(self) -> str:
        lines = [
            _("{question}: {before:.6g} → {after:.6g}, changed by {change:+.6g}").format(
                question=self.question, before=self.before, after=self.after, change=self.change
            ),
            f"{_('change'):>12} {_('coefficient'):>12} {_('value'):>12}",
        ]
        lines += [
            f"{c.change:+12.5f} {c.by_coefficient:+12.5f} {c.by_value:+12.5f}  {c.address or c.source}"
            for c in self.changes[:10]
        ]
        if len(self.changes) > 10:
            rest = self.changes[10:]
            lines.append(
                f"{sum(c.change for c in rest):+12.5f} {sum(c.by_coefficient for c in rest):+12.5f} "
                f"{sum(c.by_value for c in rest):+12.5f}  " + _("all {n:,} other terms").format(n=len(rest))
            )
        return "\n".join([*lines, f"{self.residue:+12.5g} {'':25}  {_('rounding')}"])


@dataclass(frozen=True)
class Part:
    """How much a part of the network, or a token, contributes at two moments."""

    name: str
    before: float
    after: float

    @property
    def change(self) -> float:
        return self.after - self.before


@dataclass(frozen=True)
class LayerDifference:
    """One layer at two moments: its parts, what passes it, the constants: their changes add up to the whole's."""

    name: str
    parts: tuple[Part, ...]  # its modules, "past", "constant", "later"

    @property
    def change(self) -> float:
        """Of the target: Σ changes of the parts."""
        return sum(part.change for part in self.parts)


@dataclass(frozen=True)
class FlowDifference:
    """Two flows to the same target."""

    before: float
    after: float
    layers: tuple[LayerDifference, ...]
    tokens: Tensor | None  # (T,) change of each input token's contribution
    inputs: dict[str, Tensor]  # change of each other input's contributions
    constants: tuple[Part, ...]  # largest change first
    stopped: tuple[Part, ...]
    residue: float

    @property
    def change(self) -> float:
        """Of the target."""
        return self.after - self.before


def compare(
    before: Trace,
    after: Trace,
    question: str | Callable[[Any], Question] | None = None,
    *,
    convention: str = "values",
    **tokens: Any,
) -> Difference:
    """Why is the answer to a question different at another moment, or in another model of the same shape?

    Args:
        before: What one of them did.
        after: What the other did.
        question: An address, or a function that asks a trace: ``lambda trace: trace.neuron(3, 12)``. None, with traces
            of a text: why `next_token` rather than `rather_than`, by default the best two of `after`.
        convention: As for `Trace.why`.
        tokens: `next_token`, `rather_than` and `position`, as for `TextTrace.why`.

    Raises:
        PellucidError: when the question makes no sense, or the two are not of one shape.
    """
    ask = _asker(after, question, tokens)
    asked = [ask(before), ask(after)]
    first, second = (trace.why(q, convention=convention) for trace, q in zip((before, after), asked, strict=True))

    def flows() -> tuple[Flow, Flow]:
        return before.flow(asked[0], convention=convention), after.flow(asked[1], convention=convention)

    return difference(first, second, flows)


def difference(before: Answer, after: Answer, flows: Callable[[], tuple[Flow, Flow]] | None = None) -> Difference:
    """The difference of two answers to one question, term by term."""
    if {before.kind, after.kind} - {"sum", "leaf"}:
        kind = next(answer.kind for answer in (before, after) if answer.kind not in ("sum", "leaf"))
        raise PellucidError(
            _("Only sums can be compared term by term; this is: {kind}.").format(kind=kind),
            before.question,
            _("Ask about a logit, a difference of logits, a log-probability, a loss or a neuron."),
        )
    terms: dict[tuple[str, bool], list[list[Term]]] = defaultdict(lambda: [[], []])
    for n, answer in enumerate((before, after)):
        for term in (*answer.terms, *answer.constants):
            terms[term.address or term.source, term.constant][n].append(term)
    changes = [_change(*pair) for pair in terms.values()]
    if not changes and before.value != after.value:  # a parameter or an input itself
        changes = [
            TermDifference(before.address, before.address, before.value, after.value, 0.0, after.value - before.value)
        ]
        return Difference(before.question, before.value, after.value, tuple(changes), 0.0, (before.kind, after.kind))
    changes.sort(key=lambda change: -abs(change.change))
    residue = after.residue - before.residue
    return Difference(
        before.question, before.value, after.value, tuple(changes), residue, (before.kind, after.kind), flows
    )


def flow_difference(before: Flow, after: Flow) -> FlowDifference:
    """The difference of two flows, layer by layer and token by token."""
    if [layer.name for layer in before.layers] != [layer.name for layer in after.layers]:
        raise PellucidError(
            _("The two have not the same layers."), before.target, _("Compare models of one shape, on one input.")
        )
    layers = []
    for old, new in zip(before.layers, after.layers, strict=True):
        parts = _parts(
            {group.name: group.amount for group in old.groups}, {group.name: group.amount for group in new.groups}
        )
        rows = [(name, getattr(old, name), getattr(new, name)) for name in ("past", "constant", "later", "residue")]
        layers.append(LayerDifference(old.name, (*parts, *(Part(*row) for row in rows))))
    return FlowDifference(
        before.value,
        after.value,
        tuple(layers),
        _tensors(before.tokens, after.tokens),
        {
            name: change
            for name, old in before.inputs.items()
            if (change := _tensors(old, after.inputs.get(name))) is not None
        },
        tuple(sorted(_parts(before.constants, after.constants), key=lambda part: -abs(part.change))),
        tuple(_parts(before.stopped, after.stopped)),
        after.residue - before.residue,
    )


def _change(before: list[Term], after: list[Term]) -> TermDifference:
    """The change of the terms at one address."""
    some = (before or after)[0]
    was, now = (sum(term.contribution for term in terms) for terms in (before, after))
    if len(before) == len(after) == 1:
        (old,), (new,) = before, after
        by_coefficient = (new.coefficient - old.coefficient) * (old.value + new.value) / 2
        return TermDifference(
            some.source, some.address, was, now, by_coefficient, now - was - by_coefficient, some.constant, (old, new)
        )
    # at one moment only (its coefficient was zero there), or several of one address: not told apart
    by_coefficient = now - was if len(before) != len(after) else 0.0
    return TermDifference(
        some.source, some.address, was, now, by_coefficient, now - was - by_coefficient, some.constant
    )


def _asker(
    after: Any, question: str | Callable[[Any], Question] | None, tokens: dict[str, Any]
) -> Callable[[Any], str | Question]:
    if callable(question):
        return question
    if isinstance(question, str):
        return lambda trace: question
    if question is not None or not hasattr(after, "choice"):
        raise PellucidError(
            _("A question holds the numbers of one trace."),
            "question",
            _("Give an address, or a function that asks each trace: lambda trace: trace.loss()."),
        )
    position = tokens.get("position", -1)
    best = [candidate.id for candidate in after.candidates(2, position)]
    a = best[0] if tokens.get("next_token") is None else after.token(tokens["next_token"])
    b = tokens.get("rather_than")
    b = next(id for id in best if id != a) if b is None else after.token(b)
    return lambda trace: trace.choice(a, b, position)


def _parts(before: dict[str, float], after: dict[str, float]) -> list[Part]:
    names = dict.fromkeys((*before, *after))
    return [Part(name, before.get(name, 0.0), after.get(name, 0.0)) for name in names]


def _tensors(before: Tensor | None, after: Tensor | None) -> Tensor | None:
    if before is None or after is None or before.shape != after.shape:
        return None
    return after.to(torch.float64) - before.to(torch.float64)
