"""Answers and flows as plain data, ready for JSON. The classes below are its schema; a test holds the data to them.

Numbers that JSON does not know (NaN, infinities) are null. Further keys may be added; these keep their meaning.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Literal, TypedDict

from torch import Tensor

from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.tracing.answers import Answer, Term
from pellucid.tracing.asking import TokenByToken
from pellucid.tracing.layers import Flow, Layer
from pellucid.tracing.text import Candidate

Number = float | None
Step = tuple[int, bool]  # of a path into an answer: a term, from 1, and whether its coefficient is opened


class TermDict(TypedDict):
    """coefficient · value = contribution."""

    number: int  # from 1, largest contribution first; 0 for constants
    source: str
    address: str
    coefficient: Number
    value: Number
    contribution: Number
    factor: str | None  # the coefficient's address, where it is a recorded number itself
    opened: AnswerDict | None


class RestDict(TypedDict):
    """The terms that are not listed."""

    count: int
    contribution: Number


class TokenDict(TypedDict):
    """A token that could come next."""

    id: int
    shown: str
    probability: Number
    logit: Number


class AnswerDict(TypedDict):
    """value = Σ terms + other_terms + Σ constants + residue."""

    schema: Literal["pellucid.answer/1"]
    question: str
    address: str
    kind: str  # "sum", "decision", "leaf", "not a sum", "unexplained"
    value: Number
    operation: str
    terms: list[TermDict]
    other_terms: RestDict
    constants: list[TermDict]
    residue: Number
    budget: Number  # what the number format's rounding allows the residue to be
    cancellation: Number  # Σ |terms| / |value|
    convention: str
    margin: Number  # of a decision
    notes: list[str]
    candidates: list[TokenDict]
    asked: list[TokenDict]


class PartDict(TypedDict):
    """A part of a layer."""

    name: str
    contribution: Number
    constant: Number  # of it, what the biases of an attention add
    positions: list[Number] | None  # by the position where it was written
    heads: list[list[Number]] | None  # by head and by the position looked at


class LayerDict(TypedDict):
    """Σ parts + past + constant + later + residue = the flow's value."""

    name: str
    parts: list[PartDict]
    past: Number
    constant: Number
    later: Number
    residue: Number


class NamedDict(TypedDict):
    """A named contribution."""

    name: str
    contribution: Number


class FlowDict(TypedDict):
    """value = Σ tokens + Σ inputs + Σ constants + Σ stopped + residue."""

    schema: Literal["pellucid.flow/1"]
    question: str
    value: Number
    convention: str
    tokens: list[NamedDict]
    inputs: list[NamedDict]
    constants: list[NamedDict]
    stopped: list[NamedDict]
    layers: list[LayerDict]
    residue: Number
    notes: list[str]


class SpelledDict(TypedDict):
    """A string of several tokens: an answer for each; `probability` is the product of theirs."""

    schema: Literal["pellucid.token-by-token/1"]
    text: str
    probability: Number
    probabilities: list[Number]
    answers: list[AnswerDict]


class ReportDict(TypedDict):
    """What `pellucid why --json` prints: one answer, or one for each of several tokens, and its flow."""

    schema: Literal["pellucid.why/1"]
    model: str
    prompt: str
    tokens: list[str]
    probability: Number  # of several tokens: the product; of one: its own; null where no token is asked about
    answers: list[AnswerDict]
    flows: list[FlowDict]


def plain(shown: Any, top: int = 8) -> dict[str, Any]:
    """An `Answer`, a `Flow` or a `TokenByToken` as the dictionaries above."""
    if isinstance(shown, Flow):
        return dict(flow_dict(shown))
    if isinstance(shown, TokenByToken):
        return dict(spelled_dict(shown, top))
    return dict(answer_dict(shown, top))


def answer_dict(answer: Answer, top: int = 8, path: Sequence[Step] = ()) -> AnswerDict:
    """An answer, with the terms on `path` opened."""
    rows = listed(answer, top, path)
    context = answer.context
    return {
        "schema": "pellucid.answer/1",
        "question": answer.question,
        "address": answer.address,
        "kind": answer.kind,
        "value": _number(answer.value),
        "operation": answer.operation,
        "terms": [
            _term(n, term, answer_dict(opened(term, *path[0]), top, path[1:]) if path and path[0][0] == n else None)
            for n, term in rows
        ],
        "other_terms": {
            "count": len(answer.terms) - len(rows),
            "contribution": _number(others(answer, rows)),
        },
        "constants": [_term(0, term) for term in answer.constants],
        "residue": _number(answer.residue),
        "budget": _number(answer.budget),
        "cancellation": _number(answer.cancellation),
        "convention": answer.convention,
        "margin": None if answer.margin is None else _number(answer.margin),
        "notes": list(answer.notes),
        "candidates": [_token(token) for token in context.candidates] if context else [],
        "asked": [_token(token) for token in context.asked] if context else [],
    }


def flow_dict(flow: Flow) -> FlowDict:
    """A flow."""
    return {
        "schema": "pellucid.flow/1",
        "question": flow.target,
        "value": _number(flow.value),
        "convention": flow.convention,
        "tokens": [{"name": name, "contribution": amount} for name, amount in by_token(flow)],
        "inputs": [{"name": name, "contribution": _number(x.sum().item())} for name, x in flow.inputs.items()],
        "constants": [{"name": name, "contribution": _number(x)} for name, x in flow.constants.items()],
        "stopped": [{"name": name, "contribution": _number(x)} for name, x in flow.stopped.items()],
        "layers": [_layer(layer) for layer in flow.layers],
        "residue": _number(flow.residue),
        "notes": list(flow.notes),
    }


def spelled_dict(spelled: TokenByToken, top: int = 8) -> SpelledDict:
    """The answers for a string of several tokens."""
    return {
        "schema": "pellucid.token-by-token/1",
        "text": spelled.text,
        "probability": spelled.probability,
        "probabilities": list(spelled.probabilities),
        "answers": [answer_dict(answer, top) for answer in spelled.answers],
    }


def report(shown: Answer | TokenByToken, prompt: str, top: int = 8, path: Sequence[Step] = ()) -> ReportDict:
    """All that the command line shows."""
    answers = shown.answers if isinstance(shown, TokenByToken) else (shown,)
    contexts = [answer.context for answer in answers if answer.context]
    asked = [token for context in contexts for token in context.asked[:1]]
    return {
        "schema": "pellucid.why/1",
        "model": contexts[0].model if contexts else "",
        "prompt": prompt,
        "tokens": list(contexts[0].tokens) if contexts else [],
        "probability": math.prod(token.probability for token in asked) if asked else None,
        "answers": [answer_dict(answer, top, path) for answer in answers],
        "flows": [flow_dict(context.flow()) for context in contexts],
    }


def by_token(flow: Flow) -> list[tuple[str, float]]:
    """Each input token, readable, with its contribution; a batch's, one after the other."""
    if flow.tokens is None:
        return []
    amounts = flow.tokens.reshape(-1).tolist()
    names = flow.token_names if len(flow.token_names) == len(amounts) else tuple(f"[{n}]" for n in range(len(amounts)))
    return list(zip(names, amounts, strict=True))


# ---- a path into an answer


def steps(path: str) -> list[Step]:
    """ "1.2c.1": the first term, of that the second one's coefficient, of that the first term.

    Raises:
        PellucidError: when it is no such path.
    """
    if not re.fullmatch(r"[1-9]\d{0,8}c?(\.[1-9]\d{0,8}c?)*", path):
        raise PellucidError(
            _("{path!r} is no path into an answer.").format(path=path),
            "--open",
            _("Write the terms' numbers with dots, as in 1.2.1; 2c opens the coefficient of term 2."),
        )
    return [(int(part.removesuffix("c")), part.endswith("c")) for part in path.split(".")]


def listed(answer: Answer, top: int, path: Sequence[Step] = ()) -> list[tuple[int, Term]]:
    """The terms to show, with their numbers: the `top` ones, and the one that is to be opened.

    Raises:
        PellucidError: when there is no such term.
    """
    numbers = list(range(1, min(top, len(answer.terms)) + 1))
    if path:
        n = path[0][0]
        if n > len(answer.terms):
            raise PellucidError(
                _("There is no term {n}: {where} has {count:,}.").format(
                    n=n, where=answer.address or answer.question, count=len(answer.terms)
                ),
                "--open",
                _("It is a {kind}.").format(kind=answer.kind) if not answer.terms else _("Terms are counted from 1."),
            )
        if n not in numbers:
            numbers.append(n)
    return [(n, answer.terms[n - 1]) for n in numbers]


def opened(term: Term, n: int, coefficient: bool) -> Answer:
    """What is behind a term, or behind its coefficient.

    Raises:
        PellucidError: when nothing is.
    """
    try:
        return term.why_factor() if coefficient else term.why()
    except LookupError as error:
        raise PellucidError(
            _("There is nothing behind term {n}.").format(n=f"{n}c" if coefficient else n), "--open", str(error)
        ) from None


def others(answer: Answer, rows: Sequence[tuple[int, Term]]) -> float:
    """What the terms that are not among `rows` add up to."""
    first = [n for n, _term in rows if n <= len(rows)]
    late = [term for n, term in rows if n > len(rows)]
    return answer.rest(len(first)) - sum(term.contribution for term in late) if len(rows) < len(answer.terms) else 0.0


# ---- pieces


def _term(number: int, term: Term, opened: AnswerDict | None = None) -> TermDict:
    return {
        "number": number,
        "source": term.source,
        "address": term.address,
        "coefficient": _number(term.coefficient),
        "value": _number(term.value),
        "contribution": _number(term.contribution),
        "factor": term.factor,
        "opened": opened,
    }


def _token(token: Candidate) -> TokenDict:
    return {
        "id": token.id,
        "shown": token.shown,
        "probability": _number(token.probability),
        "logit": _number(token.logit),
    }


def _layer(layer: Layer) -> LayerDict:
    return {
        "name": layer.name,
        "parts": [
            {
                "name": part.name,
                "contribution": _number(part.amount),
                "constant": _number(part.constant),
                "positions": _list(part.positions),
                "heads": None if part.heads is None else _list(part.heads),
            }
            for part in layer.groups
        ],
        "past": _number(layer.past),
        "constant": _number(layer.constant),
        "later": _number(layer.later),
        "residue": _number(layer.residue),
    }


def _list(x: Tensor | None) -> Any:
    return None if x is None else x.tolist()


def _number(x: float) -> Number:
    return x if math.isfinite(x) else None
