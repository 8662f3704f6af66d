"""Who looks at whom: the words that are written against the words that are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import torch

from pellucid.language import _

if TYPE_CHECKING:
    from rich.console import Group
    from torch import Tensor

    from pellucid.data.tokenizer import Tokenizer

SHADES = " ░▒▓█"
NAMED = 2  # source words that are named beside each target word


@dataclass(frozen=True)
class Word:
    """A word of a text, and which tokens spell it."""

    text: str
    tokens: tuple[int, ...]  # their positions


@dataclass(frozen=True)
class Alignment:
    """The attention that writing pays to what was read, by words."""

    read: tuple[str, ...]
    written: tuple[str, ...]
    weights: Tensor  # (written, read), each row adding up to 1
    said: str  # whose attention it is

    @staticmethod
    def of(weights_TS: Tensor, read: Sequence[Word], written: Sequence[Word], said: str) -> Alignment:
        """From weights by token: a read word's tokens are added up, those of a written word are averaged."""
        by_word = torch.stack([weights_TS[:, list(word.tokens)].sum(1) for word in read], 1)
        by_word = torch.stack([by_word[list(word.tokens)].mean(0) for word in written])
        return Alignment(tuple(w.text for w in read), tuple(w.text for w in written), by_word, said)

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        for justify in ("right", "left", "left"):
            table.add_column(justify=justify, no_wrap=True)
        for name, row in zip(self.written, self.weights.tolist(), strict=True):
            cells = "".join(SHADES[min(len(SHADES) - 1, round(p * len(SHADES)))] for p in row)
            best = sorted(range(len(row)), key=lambda s: -row[s])[:NAMED]
            named = ", ".join(f"{self.read[s]} {row[s]:.0%}" for s in best)
            table.add_row(Text(name), Text(cells, style="cyan"), Text(named, style="dim"))
        how = _("a line is a word that is written, a column one of: {words}").format(words=" ".join(self.read))
        return Group(Text(self.said, style="bold underline"), table, Text(how, style="dim"))

    def html(self) -> str:
        """A section for a page (see `tracing.page`)."""
        names = "".join(f'<th scope="col"><span>{escape(name)}</span></th>' for name in self.read)
        rows = "".join(
            f'<tr><th scope="row">{escape(name)}</th>{"".join(map(_square, self.read, row))}</tr>'
            for name, row in zip(self.written, self.weights.tolist(), strict=True)
        )
        table = f'<table class="heads dense"><thead><tr><td></td>{names}</tr></thead><tbody>{rows}</tbody></table>'
        return f'<section><h2>{escape(self.said)}</h2><div class="scroll">{table}</div></section>'

    def json(self) -> dict[str, Any]:
        return {"read": list(self.read), "written": list(self.written), "weights": self.weights.tolist()}


def _square(name: str, weight: float) -> str:
    return f'<td class="for" style="--c:{weight:.2f}" title="{escape(name)} {weight:.1%}"></td>'


def words(tokenizer: Tokenizer, ids: Sequence[int], start: int = 0) -> list[Word]:
    """The words that tokens spell, the first of which stands at position ``start``.

    A word begins at a space, and where letters and other signs meet; in writing without spaces each token is one.
    """
    found: list[tuple[bytes, list[int]]] = []
    for position, id in enumerate(ids, start):
        spelled = tokenizer.token_bytes(id)
        if found and not _begins(found[-1][0], spelled):
            found[-1] = (found[-1][0] + spelled, [*found[-1][1], position])
        else:
            found.append((spelled, [position]))
    return [Word(spelled.decode("utf-8", "replace").strip() or "␣", tuple(tokens)) for spelled, tokens in found]


def _begins(before: bytes, spelled: bytes) -> bool:
    """Whether a token begins a new word after these bytes."""
    try:
        last, first = before.decode()[-1:], spelled.decode()[:1]
    except UnicodeDecodeError:  # in the middle of a character
        return False
    if before.isspace():  # which the word begins with
        return False
    joined = last.isalnum() and first.isalnum()
    return not joined or first > "\u2e80"  # from here on: scripts of East Asia
