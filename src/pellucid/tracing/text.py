"""A trace of a language model: numbers are asked for by the tokens they are about."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.tracing.addresses import Numbers
from pellucid.tracing.answers import Answer, Question
from pellucid.tracing.layers import Flow, is_attention
from pellucid.tracing.lenses import Neuron, active_neurons, attention_maps
from pellucid.tracing.rules.attention import ATTENTION
from pellucid.tracing.tape import Call, Place, Tape
from pellucid.tracing.trace import Trace


class Speller(Protocol):
    """What a trace needs of a tokenizer."""

    @property
    def vocab_size(self) -> int: ...
    def encode(self, text: str) -> list[int]: ...
    def show(self, id: int) -> str: ...
    def unspellable(self, text: str) -> set[str]: ...


@dataclass(frozen=True)
class Candidate:
    """A token that could come next."""

    id: int
    shown: str
    probability: float
    logit: float


class TextTrace(Trace):
    """A trace of a language model.

    Args:
        tape: The recorded calls.
        tokenizer: The model's.
        head: The path of the module whose results are the logits.
        embedding: The path of the module that is given the ids.
    """

    def __init__(self, tape: Tape, tokenizer: Speller, head: str = "head", embedding: str = "embedding") -> None:
        super().__init__(tape)
        self.tokenizer = tokenizer
        self._head, self._embedding = head, embedding

    @cached_property
    def ids(self) -> list[int]:
        """Every id that the model read, in order."""
        ids: list[int] = []
        for scope in self.tape.scopes:
            if scope.path == self._embedding:
                ids += self.tape.read(scope.inputs[0], scope.start).reshape(-1).tolist()
        return ids

    @property
    def tokens(self) -> list[str]:
        """The same, readable."""
        return [self.tokenizer.show(id) for id in self.ids]

    def candidates(self, n: int = 5, position: int = -1) -> list[Candidate]:
        """The most probable next tokens after a position, best first."""
        row = self._value(self._row(position))
        return [self.candidate(id, position) for id in row.topk(min(n, len(row))).indices.tolist()]

    def candidate(self, id: int, position: int = -1) -> Candidate:
        """What the model thinks of a token after a position."""
        row = self._value(self._row(position)).double()
        return Candidate(id, self.tokenizer.show(id), row.softmax(0)[id].item(), row[id].item())

    def why(
        self,
        question: str | Question | Numbers | None = None,
        *,
        next_token: str | int | None = None,
        rather_than: str | int | None = None,
        position: int = -1,
        convention: str = "values",
    ) -> Answer:
        """As `Trace.why`; or, by tokens: why this next token rather than that one.

        Args:
            question: An address or a question. Without one, `next_token` is asked about.
            next_token: A token, as text or id; None: the most probable one.
            rather_than: The other one; None: the most probable one besides.
            position: After which of the tokens.
            convention: As for `Trace.why`.
        """
        asked: tuple[int, ...] = ()
        if question is None:
            asked = self._pair(next_token, rather_than, position)
            question = self.choice(*asked, position)
        answer = super().why(question, convention=convention)
        if answer.context is None or not self._rows:
            return answer
        context = replace(
            answer.context,
            tokens=tuple(self.tokens[: position + 1 or None]),
            candidates=tuple(self.candidates(5, position)),
            asked=tuple(self.candidate(id, position) for id in asked),
        )
        return replace(answer, context=context)

    def flow(
        self,
        question: str | Question | Numbers | None = None,
        *,
        next_token: str | int | None = None,
        rather_than: str | int | None = None,
        position: int = -1,
        convention: str = "values",
        exact: bool = False,
    ) -> Flow:
        """As `Trace.flow`; or by tokens, as `why`."""
        if question is None:
            question = self.choice(next_token, rather_than, position)
        found = super().flow(question, convention=convention, exact=exact)
        return replace(found, token_names=tuple(self.tokens))

    # ---- questions

    def choice(
        self, next_token: str | int | None = None, rather_than: str | int | None = None, position: int = -1
    ) -> Question:
        """Why `next_token` rather than `rather_than`: the difference of their logits."""
        a, b = self._pair(next_token, rather_than, position)
        row = self._row(position)
        one = torch.ones((), dtype=torch.float64)
        name = _("why {a} rather than {b}").format(a=self.tokenizer.show(a), b=self.tokenizer.show(b))
        return Question(name, ((row.at((a,)), one), (row.at((b,)), -one)), together=True)

    def logit(self, token: str | int, position: int = -1) -> Question:
        """One token's logit."""
        id = self.token(token)
        name = _("the logit of {token}").format(token=self.tokenizer.show(id))
        return Question(name, ((self._row(position).at((id,)), torch.ones((), dtype=torch.float64)),))

    def log_probability(self, token: str | int, position: int = -1) -> Question:
        """log pₜ = sₜ − Σ pⱼ sⱼ − H(p): what of a probability is a sum."""
        id = self.token(token)
        weights, entropy = self._surprise(self._value(self._row(position)), id)
        name = _("the log-probability of {token}").format(token=self.tokenizer.show(id))
        return Question(
            name,
            ((self._row(position), -weights),),
            (("entropy", -entropy),),
            measure=lambda rows: rows[0].log_softmax(0)[id].item(),
        )

    def loss(self) -> Question:
        """The mean of −log p over the tokens that the trace itself goes on with, in nats."""
        ids = self.ids
        if len(ids) < 2:
            raise PellucidError(_("There is nothing to predict in a single token."), "", _("Trace a longer text."))
        seeds, total = [], 0.0
        for n, id in enumerate(ids[1:]):
            weights, entropy = self._surprise(self._value(self._row(n)), id)
            seeds.append((self._row(n), weights / (len(ids) - 1)))
            total += entropy / (len(ids) - 1)

        def measure(rows: list[Tensor]) -> float:
            return -sum(row.log_softmax(0)[id].item() for row, id in zip(rows, ids[1:], strict=True)) / len(rows)

        return Question(_("the loss"), tuple(seeds), (("entropy", total),), measure=measure)

    def neuron(self, layer: int, neuron: int, position: int = -1) -> Question:
        """One neuron of a layer's feed-forward network: what its activation gave."""
        wide = [
            call
            for call in self._layer_calls(layer)
            if call.name in ("gelu", "silu", "relu", "tanh", "sigmoid") or call.time in self.roles.composed
            if call.outs[0].shape and len(call.outs[0].shape) == 3
        ]
        if not wide:
            raise self._no(_("neurons"), layer)
        call = max(wide, key=lambda call: (call.outs[0].shape[-1], call.time))
        numbers = Numbers(call.outs[0], call.time + 1)
        width = numbers.place.shape[-1]
        if not -width <= neuron < width:
            raise PellucidError(
                _("Layer {layer} has {n:,} neurons.").format(layer=layer, n=width), str(neuron), _("Count from 0.")
            )
        name = _("neuron {neuron} of layer {layer}").format(neuron=neuron, layer=layer)
        return Question(name, ((numbers.at((0, position, neuron)), torch.ones((), dtype=torch.float64)),))

    def score(
        self,
        layer: int,
        head: int,
        query: int,
        key: int,
        rather_than: int | None = None,
        side: str = "key",
    ) -> Question:
        """Why one position looks at another (rather than at a third): q · k, credited to one of its sides.

        Args:
            layer: From 0.
            head: From 0.
            query: The position that looks.
            key: The position that it looks at.
            rather_than: Another one that it could look at; None: the score itself.
            side: "key": what it is about those positions; "query": what it is about the one that looks.
        """
        call = self._attention_call(layer)
        if call.name not in ATTENTION:
            raise self._no(_("fused attention"), layer)
        q, k = call.args[:2]
        group = q.shape[1] // k.shape[1]
        looking = q.pick((0, head, query, None))
        seen = [k.pick((0, head // group, position, None)) for position in (key, rather_than) if position is not None]
        scale = call.kwargs.get("scale") or q.shape[-1] ** -0.5
        signs = (1.0, -1.0)

        def read(place):
            return self.tape.read(place, call.time).double()

        if side == "key":
            seeds = [
                (Numbers(place, call.time), sign * scale * read(looking))
                for place, sign in zip(seen, signs, strict=False)
            ]
        else:
            weights = sum(sign * scale * read(place) for place, sign in zip(seen, signs, strict=False))
            seeds = [(Numbers(looking, call.time), weights)]
        name = _("why head {head} of layer {layer} looks from {query} at {key}").format(
            head=head, layer=layer, query=query, key=key
        )
        return Question(name, tuple(seeds))

    def attention(self, layer: int, head: int | None = None) -> Tensor:
        """The attention probabilities of a layer in its last call, (H, queries, positions), or of one head."""
        scope = self._attention_call(layer).scope
        p = attention_maps(self, scope.path if scope is not None else "")[-1].weights[0]
        return p if head is None else p[head]

    def active_neurons(self, n: int = 10, layer: int | None = None) -> list[Neuron]:
        """The neurons that the text activates most: see `lenses.active_neurons`."""
        return active_neurons(self, n, layer)

    def token(self, token: str | int) -> int:
        """The id of a token, given as id or as text.

        Raises:
            PellucidError: when the text is not one token of the vocabulary.
        """
        if isinstance(token, int):
            if 0 <= token < self.tokenizer.vocab_size:
                return token
            raise PellucidError(
                _("There is no token {id}.").format(id=token),
                "",
                _("The vocabulary has {n:,} tokens.").format(n=self.tokenizer.vocab_size),
            )
        ids = self.tokenizer.encode(token)
        if len(ids) == 1:
            return ids[0]
        parts = " ".join(self.tokenizer.show(id) for id in ids)
        raise PellucidError(
            _("{token!r} is not one token but {n}: {parts}").format(token=token, n=len(ids), parts=parts),
            "",
            _("Ask token by token: model.why(prompt, next_token) does."),
        )

    # ---- where things are

    def _pair(self, next_token: str | int | None, rather_than: str | int | None, position: int) -> tuple[int, int]:
        best = [candidate.id for candidate in self.candidates(2, position)]
        a = best[0] if next_token is None else self.token(next_token)
        b = next(id for id in best if id != a) if rather_than is None else self.token(rather_than)
        if a == b:
            raise PellucidError(_("Both tokens are the same."), self.tokenizer.show(a), _("Name another one."))
        return a, b

    @cached_property
    def _rows(self) -> list[tuple[Place, int, int]]:
        """Where the logits lie: a place with one row a position, which of them, and when."""
        rows = []
        for scope in self.tape.scopes:
            if scope.path == self._head and scope.ended:
                place = scope.outputs[0]
                while len(place.shape) > 2:
                    place = place._replace(shape=place.shape[1:], strides=place.strides[1:])
                if len(place.shape) == 1:
                    place = place._replace(shape=(1, *place.shape), strides=(0, *place.strides))
                rows += [(place, n, scope.end) for n in range(place.shape[0])]
        return rows

    def _row(self, position: int) -> Numbers:
        """The logits after a position, (V,)."""
        try:
            place, n, end = self._rows[position]
        except IndexError:
            raise PellucidError(
                _("There are no logits after position {n}.").format(n=position),
                "",
                _("The trace has {n} of them.").format(n=len(self._rows)),
            ) from None
        one = place.narrow(0, n)
        return Numbers(one._replace(shape=one.shape[1:], strides=one.strides[1:]), end)

    def _value(self, numbers: Numbers) -> Tensor:
        return self.tape.read(numbers.place, numbers.time)

    def _surprise(self, row: Tensor, id: int) -> tuple[Tensor, float]:
        """Weights on the logits, and an entropy, that add up to −log p of a token."""
        log_p = row.double().log_softmax(0)
        p = log_p.exp()
        weights = p.clone()
        weights[id] -= 1
        return weights, -(p * log_p).nan_to_num(0.0).sum().item()

    def _layer_calls(self, layer: int) -> list[Call]:
        paths = [scope.path for scope in self.tape.scopes if scope.path.rpartition(".")[2] == str(layer)]
        return [
            call
            for call in self.tape.calls
            if call.scope is not None and any(f"{call.scope.path}.".startswith(f"{path}.") for path in paths)
        ]

    def _attention_call(self, layer: int) -> Call:
        calls = [call for call in self._layer_calls(layer) if is_attention(self.roles, call)]
        if not calls:
            raise self._no(_("attention"), layer)
        return calls[-1]

    def _no(self, what: str, layer: int) -> PellucidError:
        return PellucidError(
            _("There is no {what} to be found in layer {layer}.").format(what=what, layer=layer),
            "",
            _("trace.tree() lists what was recorded."),
        )
