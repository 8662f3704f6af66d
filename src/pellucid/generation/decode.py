"""Writing, token by token."""

import builtins
import codecs
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal, Protocol

import torch
from torch import Tensor

from pellucid.errors import PellucidError
from pellucid.generation.healing import Options, Speller, common_root, find_covers, weigh
from pellucid.generation.reader import Reader
from pellucid.generation.sampling import Sampling, draw, sampled_distribution
from pellucid.language import _
from pellucid.networks.decoder import Decoder


class TokenSpeller(Speller, Protocol):
    """What writing needs of a tokenizer."""

    @property
    def vocab_size(self) -> int: ...
    def show(self, id: int) -> str: ...


@dataclass(frozen=True)
class Alternative:
    """Another token that could have stood here."""

    id: int
    shown: str
    probability: float  # the model's own, as `Token.probability`


@dataclass(frozen=True)
class Window:
    """What the model no longer sees, because the text has grown longer than its context."""

    tokens: int  # how many at the beginning of what it saw until now
    text: str  # what they say
    kept: int  # how many it still sees


@dataclass(frozen=True)
class Token:
    """One token that the model wrote."""

    id: int
    text: str  # what the text grows by now: never half a character, never the beginning of a stop string
    bytes: bytes
    shown: str  # readable: a piece of a character as its bytes
    probability: float
    """The model's own: softmax of the raw logits, before temperature and every filter. For the first token after a
    healed prompt it is conditional on the prompt's bytes: renormalised over the tokens that spell them (`healing`)."""
    raw_probability: float  # never renormalised: differs from `probability` only where the prompt was healed
    sampled_probability: float  # with which it was drawn
    rank: int  # 1: no other token had a higher `probability`
    alternatives: tuple[Alternative, ...]  # the most probable tokens here, best first; this one may be among them
    index: int  # from 0 in each sample
    sample: int  # from 0
    healed: builtins.bytes = b""  # the end of the prompt, which this token spells (again) before it goes on
    forgotten: Window | None = None  # what the model has ceased to see just before it wrote this token
    finish: Literal["end", "stop", "length"] | None = None
    """Why this token is its sample's last: the end token, a stop string, or max_tokens."""


@dataclass(frozen=True)
class Limits:
    """What `generate` was asked for, checked."""

    max_tokens: int
    stop: tuple[str, ...]
    samples: int
    end_ids: frozenset[int]
    start_id: int | None
    heal: bool
    alternatives: int
    fixed: int

    def __post_init__(self) -> None:
        for option, value, least in (
            ("--max-tokens", self.max_tokens, 1),
            ("--samples", self.samples, 1),
            ("--alternatives", self.alternatives, 0),
        ):
            if value < least:
                raise PellucidError(
                    _("{option} {value} makes no sense.").format(option=option, value=value),
                    option,
                    _("It must be at least {least}.").format(least=least),
                )
        if "" in self.stop:
            raise PellucidError(_("A stop string is empty."), "--stop", _("Leave it out, or say at what to stop."))


def generate(
    network: Decoder,
    tokenizer: TokenSpeller,
    prompt: str | Sequence[int],
    sampling: Sampling | None = None,
    *,
    max_tokens: int = 256,
    stop: str | Sequence[str] = (),
    samples: int = 1,
    end_ids: Collection[int] = (),
    start_id: int | None = None,
    heal: bool = True,
    unprompted: bool = False,
    alternatives: int = 5,
    fixed: int = 0,
    cached: bool = True,
    quick: Decoder | None = None,
) -> Iterator[Token]:
    """Continue `prompt`. Yields each token as soon as it is drawn; the texts of a sample's tokens add up to its text.

    A sample ends with an end token (yielded last, it has no text of its own), where a stop string appears (which is not
    emitted, not even in part), after `max_tokens` (a token that only spells the prompt again
    does not count), or when the caller stops asking. Samples follow each other; sample n of
    seed s is the same text as sample 0 of seed s + n.

    Where prompt and text together grow longer than the network's context, it goes on seeing the last three quarters of
    the context. A prompt that is too long leaves a quarter free too (or `max_tokens`, if that is less).
    `Token.forgotten` says each time what is no longer seen.

    Args:
        network: The decoder.
        tokenizer: Its tokenizer.
        prompt: Text, or ids (which are healed as text is, unless `heal` is False).
        sampling: How to draw; None: the defaults of `Sampling`.
        max_tokens: Most tokens to write in each sample.
        stop: Strings at which to stop.
        samples: How many texts to write.
        end_ids: Tokens that end a text.
        start_id: Stands before a text that begins with nothing: the end token of the document before, or a begin token.
        heal: Take the prompt's last tokens back, and admit what begins with the same bytes: see `healing`.
        unprompted: Admit an empty prompt: write a document from its start.
        alternatives: How many alternatives each token brings along.
        fixed: So many ids at the beginning of the prompt are no text (a begin token): not healed.
        cached: False reads the whole text anew for each token.
        quick: The int8 copy of `network`, for reading one token at a time.

    Raises:
        PellucidError: at once when an argument makes no sense; when the prompt is empty and `unprompted` is False.
    """
    stop = (stop,) if isinstance(stop, str) else tuple(stop)
    limits = Limits(max_tokens, stop, samples, frozenset(end_ids), start_id, heal, alternatives, fixed)
    ids = tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
    if len(ids) <= fixed and not unprompted:
        raise PellucidError(
            _("The prompt is empty."), "", _("Say what to continue, or allow it to begin with nothing (unprompted).")
        )
    if not ids and start_id is None:
        raise PellucidError(
            _("This model has no token to begin with, so it cannot write without a prompt."), "", _("Give a prompt.")
        )
    context = network.config.context
    room = max(1, min(max_tokens, context // 4))
    # Spare tokens: one to begin with, and healing's other spellings of the prompt's end.
    reader = Reader(network, len(ids) + max_tokens + 64, cached, quick)
    return _samples(reader, tokenizer, ids, sampling or Sampling(), limits, context - room)


def _samples(
    reader: Reader, tokenizer: TokenSpeller, ids: list[int], sampling: Sampling, limits: Limits, most: int
) -> Iterator[Token]:
    forgotten = None
    if len(ids) > most:
        ids, forgotten = _forget(tokenizer, ids, most)
    healed = _heal(reader, tokenizer, ids, limits) if limits.heal and ids else None
    for sample in range(limits.samples):
        once = replace(sampling, seed=sampling.seed + sample)
        yield from _write(reader, tokenizer, ids, healed, once, limits, sample, forgotten)


def _write(
    reader: Reader,
    tokenizer: TokenSpeller,
    prompt: list[int],
    healed: Options | None,
    sampling: Sampling,
    limits: Limits,
    sample: int,
    forgotten: Window | None,
) -> Iterator[Token]:
    generator = torch.Generator().manual_seed(sampling.seed)
    outlet = Outlet(limits.stop)
    ids = list(prompt) or [_begin(limits)]
    last = limits.max_tokens - 1
    for index in count():
        if healed is not None and index == 0:
            token, ids = _healed_step(tokenizer, healed, sampling, limits, generator)
            last += token.bytes == token.healed  # it says nothing new, so it does not count
        else:
            if len(ids) > reader.context:
                ids, forgotten = _forget(tokenizer, ids, max(1, reader.context * 3 // 4))
            token = _step(reader, tokenizer, ids, sampling, limits, generator)
            ids.append(token.id)
        finish: Literal["end", "stop", "length"] | None = "length" if index == last else None
        if token.id in limits.end_ids:
            finish, text = "end", outlet.finish()
        else:
            text = outlet.add(token.bytes.removeprefix(token.healed), last=finish is not None)
            finish = "stop" if outlet.stopped else finish
        yield replace(token, text=text, index=index, sample=sample, forgotten=forgotten, finish=finish)
        forgotten = None
        if finish:
            return


def _step(
    reader: Reader,
    tokenizer: TokenSpeller,
    ids: list[int],
    sampling: Sampling,
    limits: Limits,
    generator: torch.Generator,
) -> Token:
    logits_V = reader.logits(ids)[0]
    known_V = logits_V[: tokenizer.vocab_size]  # networks are often padded with ids that mean nothing
    drawn_V = sampled_distribution(known_V, sampling, ids)
    id = draw(drawn_V.cpu(), generator)
    normaliser = logits_V.logsumexp(0)
    best = known_V.topk(min(limits.alternatives, len(known_V)))
    probability = (logits_V[id] - normaliser).exp().item()
    return Token(
        id=id,
        text="",
        bytes=tokenizer.token_bytes(id),
        shown=tokenizer.show(id),
        probability=probability,
        raw_probability=probability,
        sampled_probability=drawn_V[id].item(),
        rank=int((logits_V > logits_V[id]).sum()) + 1,
        alternatives=_alternatives(tokenizer, best.indices, (best.values - normaliser).exp()),
        index=0,
        sample=0,
    )


def _heal(reader: Reader, tokenizer: TokenSpeller, ids: list[int], limits: Limits) -> Options | None:
    """The ways to spell the prompt's end; None where there is none."""
    covers = find_covers(tokenizer, ids, limits.fixed, limits.end_ids)
    if limits.start_id is None:
        covers = [cover for cover in covers if cover.before]
    if not covers:
        return None
    root = common_root(covers, ids)
    return weigh(reader, covers, ids, root, limits.start_id if root == 0 else None)


def _healed_step(
    tokenizer: TokenSpeller, healed: Options, sampling: Sampling, limits: Limits, generator: torch.Generator
) -> tuple[Token, list[int]]:
    """Draw one of the prompt's covers. Returns its last token, and all the ids that now stand for the prompt and it."""
    probabilities_N = (healed.logs - healed.total).exp().float()
    drawn_N = sampled_distribution(healed.logs - healed.total, replace(sampling, repetition_penalty=1.0))
    option = draw(drawn_N.cpu(), generator)
    id, cover = int(healed.ids[option]), healed.covers[int(healed.owners[option])]
    best = probabilities_N.topk(min(limits.alternatives, len(probabilities_N)))
    token = Token(
        id=id,
        text="",
        bytes=tokenizer.token_bytes(id),
        shown=tokenizer.show(id),
        probability=probabilities_N[option].item(),
        raw_probability=healed.raw[option].item(),
        sampled_probability=drawn_N[option].item(),
        rank=int((probabilities_N > probabilities_N[option]).sum()) + 1,
        alternatives=_alternatives(tokenizer, healed.ids[best.indices], best.values),
        index=0,
        sample=0,
        healed=cover.rest,
    )
    start = [] if cover.before or limits.start_id is None else [limits.start_id]
    return token, [*start, *cover.before, id]


def _alternatives(tokenizer: TokenSpeller, ids: Tensor, probabilities: Tensor) -> tuple[Alternative, ...]:
    pairs = zip(ids.tolist(), probabilities.tolist(), strict=True)
    return tuple(Alternative(id, tokenizer.show(id), probability) for id, probability in pairs)


def _forget(tokenizer: TokenSpeller, ids: list[int], kept: int) -> tuple[list[int], Window]:
    """The last `kept` ids, and what is lost."""
    lost = b"".join(tokenizer.token_bytes(id) for id in ids[:-kept])
    return ids[-kept:], Window(len(ids) - kept, lost.decode(errors="replace"), kept)


def _begin(limits: Limits) -> int:
    assert limits.start_id is not None, "generate refuses an empty prompt without it"
    return limits.start_id


class Outlet:
    """Bytes in, text out: never half a character; what may be the beginning of a stop string waits until it is not."""

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = stop
        self._held = ""
        self.stopped = False  # a stop string has appeared

    def add(self, data: bytes, last: bool = False) -> str:
        """What can be said now that `data` has come; all that is left if it is the `last`."""
        self._held += self._decoder.decode(data, final=last)
        places = [place for place in map(self._held.find, self._stop) if place >= 0]
        if places:
            text, self._held, self.stopped = self._held[: min(places)], "", True
            return text
        held = 0 if last else max((_overlap(self._held, stop) for stop in self._stop), default=0)
        text = self._held[: len(self._held) - held]
        self._held = self._held[len(text) :]
        return text

    def finish(self) -> str:
        """Whatever is still held back."""
        return self.add(b"", last=True)


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` are the beginning of `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
