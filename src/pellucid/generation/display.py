"""Tokens for a terminal, coloured by how probable they were, and for programs, as JSON."""

import base64
import json
from dataclasses import asdict
from typing import Protocol

from rich.table import Table
from rich.text import Text

from pellucid.generation.decode import Token
from pellucid.language import _

# From a surprise to a matter of course; numbers of the 256 colours, readable on light and dark.
SHADES = ((0.02, "color(196)"), (0.1, "color(208)"), (0.3, "color(178)"), (0.7, "color(71)"), (1.0, "color(33)"))


class Probable(Protocol):
    """A token that someone gave a probability: a `Token`, or a `ScoredToken` of an evaluation."""

    @property
    def shown(self) -> str: ...
    @property
    def probability(self) -> float: ...


def coloured(text: str, probability: float) -> Text:
    """`text` in the colour of `probability`."""
    return Text(text, style=next(style for most, style in SHADES if probability <= most or most == 1.0))


def legend() -> Text:
    """What the colours mean, on one line."""
    line = Text(_("probability:"))
    for most, style in SHADES:
        line.append(f" ≤ {most:.0%} ", style=style)
    return line


def table(tokens: list[Token]) -> Table:
    """One row a token: its probability, the one it was drawn with, its rank, and what else could have stood there."""
    rows = Table(box=None, header_style="bold", pad_edge=False)
    for heading in (_("token"), _("probability"), _("drawn with"), _("rank"), _("alternatives")):
        rows.add_column(heading, justify="left" if heading in (_("token"), _("alternatives")) else "right")
    for token in tokens:
        others = Text("  ").join(
            Text.assemble(coloured(other.shown, other.probability), f" {percent(other.probability)}")
            for other in token.alternatives
            if other.id != token.id
        )
        rows.add_row(
            coloured(token.shown, token.probability),
            percent(token.probability),
            percent(token.sampled_probability),
            str(token.rank),
            others,
        )
    return rows


def percent(probability: float) -> str:
    """A probability for a reader: 12.3 %, or 0.0041 % where one digit would show nothing."""
    return f"{probability:.1%}" if probability >= 0.0005 or probability == 0 else f"{100 * probability:.2g}%"


def to_json(token: Token) -> str:
    """The token as one line of JSON; its bytes in base64."""
    fields = asdict(token)
    for name in ("bytes", "healed"):
        fields[name] = base64.b64encode(fields[name]).decode()
    return json.dumps(fields, ensure_ascii=False)
