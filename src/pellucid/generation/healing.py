"""Healing the prompt's end: what follows the prompt's *bytes*, wherever the tokenizer would cut them.

A prompt may end inside what training saw as one token: after "中华人民" a model that learned "中华人民共和国" as one
token has seen nothing but exceptions. So the last tokens are taken back, and every token is admitted that writes the
same bytes and reaches the prompt's end or goes past it.

The bytes of a prompt can be *covered* in several ways: some tokens, then one token that starts before the prompt's end
and reaches it. Different covers are different token sequences, so their probabilities add up:

    P(bytes) = Σ over covers (t1 … tk):  P(t1) · P(t2 | t1) · … · P(tk | t1 … tk-1)

and P(cover | bytes) is that cover's share of the sum: the model's own softmax, renormalised over what the bytes admit.
Only covers count whose tokens but the last are the tokenizer's own encoding of the bytes that they write: a trained
model gives other spellings next to no probability. Sources: Phan et al. 2024, "Exact Byte-Level Probabilities from
Tokenized Language Models"; Vieira et al. 2024, "From Language Models over Tokens to Language Models over Characters".

How far back? As far as a token of the vocabulary can start that still reaches the end: each place where a character of
the prompt or one of its tokens begins is tried, and kept if the vocabulary has a token that begins with all the bytes
from there on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pellucid.generation.reader import Reader

LOOK_BACK = 256  # bytes; no tokenizer in use has longer tokens, but for runs of one character
NEGLIGIBLE = 1e-6  # covers that cannot have more than this share of the probability are not followed up


class Speller(Protocol):
    """What healing needs of a tokenizer."""

    def encode(self, text: str) -> list[int]: ...
    def token_bytes(self, id: int) -> bytes: ...
    def ids_starting_with(self, prefix: bytes) -> list[int]: ...


@dataclass(frozen=True)
class Covers:
    """Ways to cover a prompt that have all tokens but the last in common."""

    before: tuple[int, ...]  # the tokens before the one that reaches the prompt's end
    rest: bytes  # what the prompt says after them
    last: tuple[int, ...]  # the tokens that begin with that


@dataclass(frozen=True)
class Options:
    """Every cover of a prompt, and how probable the model finds it: an entry for each in four tensors (N,)."""

    covers: list[Covers]
    owners: Tensor  # which of `covers` the option belongs to
    ids: Tensor  # its last token
    logs: Tensor  # the logarithm of its probability, all of its tokens after the first `root` ones together
    raw: Tensor  # the probability of its last token alone: softmax of the raw logits

    @property
    def total(self) -> float:
        """The logarithm of the probability of the prompt's bytes after the first `root` tokens."""
        return self.logs.logsumexp(0).item()


def probability_of(
    reader: Reader,
    tokenizer: Speller,
    prompt: str,
    continuation: str,
    start_id: int | None = None,
    never: frozenset[int] = frozenset(),
    prefix: Sequence[int] = (),
) -> float:
    """The probability that the text goes on with `continuation` after `prompt`, whatever follows: P(both) / P(prompt).

    Both are sums over covers, so it does not depend on where the tokenizer would cut the text at the prompt's end or at
    the continuation's. Only as much of the prompt is looked at as fits into the context.

    Args:
        reader: Reads with the network.
        tokenizer: Its tokenizer.
        prompt: What stands there.
        continuation: What may follow.
        start_id: Stands before a text that begins with nothing. None: the first token of the text is taken as given.
        never: Tokens that are no text.
        prefix: Ids before the prompt (a begin token).
    """
    ids, whole = ([*prefix, *tokenizer.encode(text)] for text in (prompt, prompt + continuation))
    surplus = len(whole) + 1 - reader.capacity
    if surplus > 0:
        ids, whole, prefix = ids[surplus:], whole[surplus:], ()
    given, both = (find_covers(tokenizer, text, len(prefix), never) for text in (ids, whole))
    root = min(_shared(ids, whole), common_root(given, ids), common_root(both, whole))
    if root == 0 and start_id is None:
        root = 1
        given, both = ([c for c in covers if c.before[:1] == (whole[0],)] for covers in (given, both))
    start = start_id if root == 0 else None
    of_both = weigh(reader, both, whole, root, start).total
    return math.exp(of_both - weigh(reader, given, ids, root, start).total) if ids[root:] else math.exp(of_both)


def find_covers(
    tokenizer: Speller, ids: Sequence[int], fixed: int = 0, never: frozenset[int] = frozenset()
) -> list[Covers]:
    """All covers of a prompt that the tokenizer encodes as `ids`.

    Args:
        tokenizer: Spells the tokens.
        ids: The prompt.
        fixed: So many tokens at the beginning are never taken back.
        never: Tokens that are no text: not admitted.
    """
    first = _tail(tokenizer, ids, fixed)
    tail = b"".join(tokenizer.token_bytes(id) for id in ids[first:])
    found = []
    for start, before in _starts(tokenizer, ids[first:], tail).items():
        last = tuple(id for id in tokenizer.ids_starting_with(tail[start:]) if id not in never)
        if last:
            found.append(Covers((*ids[:first], *before), tail[start:], last))
    return found


def weigh(reader: Reader, covers: list[Covers], ids: Sequence[int], root: int, start: int | None = None) -> Options:
    """How probable the model finds each cover of the prompt `ids`, given its first `root` tokens.

    Args:
        reader: Reads with the network.
        covers: All begin with the first `root` tokens of `ids`.
        ids: The prompt as the tokenizer encodes it.
        root: How many tokens are given.
        start: Stands before the first token if not None; needed where `root` is 0.
    """
    prefix = [] if start is None else [start]
    on_path = {cover.before for cover in covers if cover.before == tuple(ids[: len(cover.before)])}
    end = max(map(len, on_path), default=root)
    rows_TV = reader.logits([*prefix, *ids[:end]], last=end - root + 1).log_softmax(-1)
    steps = rows_TV[:-1].gather(1, torch.tensor(ids[root:end], device=rows_TV.device).view(-1, 1)).double()
    path = [0.0, *steps.cumsum(0).flatten().tolist()]
    weighed = []
    total = -math.inf
    # the prompt's own path first: next to it nearly every other spelling is negligible
    for owner, cover in sorted(enumerate(covers), key=lambda pair: pair[1].before not in on_path):
        fork = next((n for n, (a, b) in enumerate(zip(cover.before, ids, strict=False)) if a != b), len(cover.before))
        fork = min(fork, end)
        log, row_V = path[fork - root], rows_TV[fork - root]
        if fork < len(cover.before):
            log += row_V[cover.before[fork]].item()
            if log < total + math.log(NEGLIGIBLE) or len(prefix) + len(cover.before) > reader.capacity:
                continue
            others_TV = reader.logits([*prefix, *cover.before], last=len(cover.before) - fork).log_softmax(-1)
            for row_V, id in zip(others_TV[:-1], cover.before[fork + 1 :], strict=True):
                log += row_V[id].item()
            row_V = others_TV[-1]
        last = torch.tensor(cover.last, device=row_V.device)
        weighed.append((torch.full_like(last, owner), last, log + row_V[last].double(), row_V[last].exp()))
        total = torch.cat([logs for _owner, _last, logs, _raw in weighed]).logsumexp(0).item()
    return Options(covers, *(torch.cat(parts) for parts in zip(*weighed, strict=True)))


def common_root(covers: list[Covers], ids: Sequence[int]) -> int:
    """How many tokens of `ids` all `covers` begin with."""
    return min((_shared(cover.before, ids) for cover in covers), default=len(ids))


def _tail(tokenizer: Speller, ids: Sequence[int], fixed: int) -> int:
    """The index of the token from which on places are tried: `LOOK_BACK` bytes back, where a character begins."""
    first, length = len(ids), 0
    while first > fixed and length < LOOK_BACK:
        first -= 1
        length += len(tokenizer.token_bytes(ids[first]))
    while first > fixed and _continues(tokenizer.token_bytes(ids[first])):
        first -= 1
    return first


def _starts(tokenizer: Speller, ids: Sequence[int], tail: bytes) -> dict[int, tuple[int, ...]]:
    """Each place in `tail` where a last token may start, and the tokens before it."""
    starts: dict[int, tuple[int, ...]] = {}
    place = 0
    for n, id in enumerate(ids):
        starts[place] = tuple(ids[:n])
        place += len(tokenizer.token_bytes(id))
    text = tail.decode(errors="replace")
    if tokenizer.encode(text) != list(ids):
        return (
            starts  # not the tokenizer's own encoding: only its own boundaries are known to be in the model's language
        )
    place = 0
    for n, character in enumerate(text):
        if place not in starts and tokenizer.ids_starting_with(tail[place:]):
            starts[place] = tuple(tokenizer.encode(text[:n]))
        place += len(character.encode())
    return starts


def _continues(data: bytes) -> bool:
    """Whether `data` begins inside a character (in UTF-8)."""
    return bool(data) and 0x80 <= data[0] < 0xC0


def _shared(a: Sequence[int], b: Sequence[int]) -> int:
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
