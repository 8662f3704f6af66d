"""How well texts were translated: BLEU and chrF, as sacrebleu counts them, beside what needs no network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pellucid.language import _

if TYPE_CHECKING:
    from rich.console import Group

SHOWN = 5  # examples


@dataclass(frozen=True)
class Score:
    """What some translations are worth against one reference each."""

    bleu: float  # 0 to 100; Papineni et al. 2002
    chrf: float  # 0 to 100: F-score of character n-grams; Popović 2015


@dataclass(frozen=True)
class Rendering:
    """One text and what it became."""

    source: str
    said: str
    reference: str


@dataclass(frozen=True)
class TranslationReport:
    """Unseen texts, translated and compared."""

    pairs: int
    score: Score
    loss: float  # nats a token
    rivals: dict[str, Score]  # by what they are called
    how: str  # how the translations were searched
    signature: str  # how sacrebleu counted, in its own words
    examples: tuple[Rendering, ...]
    notes: tuple[str, ...] = ()

    def json(self) -> dict[str, Any]:
        return {
            "pairs": self.pairs,
            **asdict(self.score),
            "loss": self.loss,
            "rivals": {name: asdict(score) for name, score in self.rivals.items()},
            "search": self.how,
            "signature": self.signature,
            "examples": [asdict(example) for example in self.examples],
            "notes": list(self.notes),
        }

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        said = _("{n:,} pairs: BLEU {bleu:.1f}, chrF {chrf:.1f}, loss {loss:.4g} nats a token ({how})")
        figures = Table(box=None, padding=(0, 2, 0, 0))
        for name in ("", "BLEU", "chrF"):
            figures.add_column(name, justify="right" if name else "left")
        for name, score in {_("this network"): self.score, **self.rivals}.items():
            figures.add_row(Text(name), f"{score.bleu:.1f}", f"{score.chrf:.1f}")
        lines: list[Any] = [
            Text(said.format(n=self.pairs, loss=self.loss, how=self.how, **asdict(self.score))),
            figures,
        ]
        for example in self.examples:
            lines += [
                Text(""),
                Text(example.source, style="dim"),
                Text(example.said),
                Text(_("reference: {text}").format(text=example.reference), style="dim"),
            ]
        return Group(*lines, *(Text(line, style="dim") for line in (*self.notes, self.signature)))


def score(said: Sequence[str], references: Sequence[str], tokenize: str) -> Score:
    """BLEU and chrF of translations, by sacrebleu.

    Args:
        said: At least one.
        references: As many.
        tokenize: See `tokenizer_for`.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    # a last space is how sacrebleu recognises text that was cut into words before, of which it warns
    given = list(said), [list(references)]
    return Score(BLEU(tokenize=tokenize, force=True).corpus_score(*given).score, CHRF().corpus_score(*given).score)


def signature(tokenize: str) -> str:
    """How BLEU is counted, as sacrebleu writes it."""
    from sacrebleu.metrics.bleu import BLEU

    counted = BLEU(tokenize=tokenize)
    counted.corpus_score(["a"], [["a"]])
    return f"BLEU|{counted.get_signature()}"


def tokenizer_for(texts: Sequence[str]) -> str:
    """What sacrebleu should count as a word: characters in Chinese ("zh") and Japanese ("char"), else words ("13a")."""
    sample = "".join(texts[:200])
    letters = max(1, len(re.findall(r"\w", sample)))
    if len(re.findall(r"[\u3040-\u30ff]", sample)) > letters / 20:
        return "char"
    return "zh" if len(re.findall(r"[\u3400-\u9fff]", sample)) > letters / 4 else "13a"
