"""Asking as people do: with the string that could come next, of one token or several."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.tracing.answers import NO_TERMS, Answer
from pellucid.tracing.shown import Shown
from pellucid.tracing.text import Speller, TextTrace

ABOUT = ("choice", "logit", "log-probability", "probability", "loss")


@dataclass(frozen=True, repr=False)
class TokenByToken(Shown):
    """Why a string of several tokens comes next: an answer for each of its tokens, given those before it."""

    text: str
    answers: tuple[Answer, ...]
    probabilities: tuple[float, ...]  # of each token, given those before it

    @property
    def probability(self) -> float:
        """The product of the tokens' probabilities."""
        return math.prod(self.probabilities)


def ask(
    read: Callable[[list[int]], TextTrace],
    tokenizer: Speller,
    prompt: list[int],
    next_token: str | int | None = None,
    rather_than: str | int | None = None,
    about: str = "choice",
    convention: str = "values",
    model: str = "",
) -> Answer | TokenByToken:
    """Have a prompt read, and ask about what comes next: see `Model.why`.

    A string of several tokens is asked about token by token; a string to compare it with, at the first token in which
    the two differ. Elsewhere the comparison is with the most probable other token.
    """
    wanted = ids_of(tokenizer, next_token)
    other = ids_of(tokenizer, rather_than)
    trace = read([*prompt, *wanted[:-1]])
    if about not in ABOUT or about == "loss":
        question = trace.loss() if about == "loss" else about
        return _in_model(trace.why(question, convention=convention), model)
    differ = next((n for n, id in enumerate(wanted) if other[n : n + 1] != [id]), len(wanted) - 1) if wanted else 0
    if other and wanted[: len(other)] == other and len(wanted) == len(other):
        raise PellucidError(_("Both tokens are the same."), str(rather_than), _("Name another one."))
    answers = []
    for n, id in enumerate(wanted or [None]):
        rival = other[n] if n == differ and n < len(other) else None
        answer = _one(trace, id, rival, len(prompt) - 1 + n, about, convention)
        if rival is not None and len(other) > 1:
            answer = replace(
                answer,
                notes=(*answer.notes, _("{text!r} begins to differ with {token}").format(
                    text=rather_than, token=tokenizer.show(rival)
                )),
            )  # fmt: skip
        answers.append(_in_model(answer, model))
    if isinstance(next_token, str) and answers:
        answers[0] = _perhaps_with_space(answers[0], trace, next_token, wanted[0], len(prompt) - 1)
    if len(answers) == 1:
        return answers[0]
    probabilities = tuple(trace.candidate(id, len(prompt) - 1 + n).probability for n, id in enumerate(wanted))
    return TokenByToken(str(next_token), tuple(answers), probabilities)


def ids_of(tokenizer: Speller, text: str | int | None) -> list[int]:
    """The ids of a string, or of one token given by its id; none for None.

    Raises:
        PellucidError: when the string is empty or cannot be spelled, or there is no such id.
    """
    if text is None:
        return []
    if isinstance(text, int):
        if not 0 <= text < tokenizer.vocab_size:
            raise PellucidError(
                _("There is no token {id}.").format(id=text),
                "",
                _("The vocabulary has {n:,} tokens.").format(n=tokenizer.vocab_size),
            )
        return [text]
    missing = tokenizer.unspellable(text)
    if missing or not text:
        raise PellucidError(
            _("The vocabulary cannot spell {text!r}.").format(text="".join(sorted(missing)) or text),
            "",
            _("The vocabulary has {n:,} tokens.").format(n=tokenizer.vocab_size),
        )
    return tokenizer.encode(text)


def _one(trace: TextTrace, id: int | None, rival: int | None, position: int, about: str, convention: str) -> Answer:
    if about == "choice":
        return trace.why(next_token=id, rather_than=rival, position=position, convention=convention)
    token = trace.candidates(1, position)[0].id if id is None else id
    if about == "logit":
        return trace.why(trace.logit(token, position), position=position, convention=convention)
    sum_of = trace.why(trace.log_probability(token, position), position=position, convention=convention)
    if about == "log-probability":
        return sum_of
    shown = trace.tokenizer.show(token)
    return replace(
        sum_of,
        question=_("the probability of {token}").format(token=shown),
        kind="not a sum",
        value=trace.candidate(token, position).probability,
        operation="softmax",
        terms=NO_TERMS,
        constants=(),
        residue=0.0,
        budget=0.0,
    )


def _in_model(answer: Answer, model: str) -> Answer:
    return replace(answer, context=replace(answer.context, model=model)) if answer.context else answer


def _perhaps_with_space(answer: Answer, trace: TextTrace, text: str, id: int, position: int) -> Answer:
    """Say so where the same word with a space before it was far more to be expected."""
    if text[:1].isspace() or trace.tokenizer.unspellable(f" {text}"):
        return answer
    other = trace.candidate(trace.tokenizer.encode(f" {text}")[0], position)
    if other.id == id or other.probability < 10 * trace.candidate(id, position).probability:
        return answer
    note = _("{token}, with a space before it, is far more probable ({p:.1%}): it is another token.").format(
        token=other.shown, p=other.probability
    )
    return replace(answer, notes=(*answer.notes, note))
