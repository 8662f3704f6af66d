"""What an answer and a flow have in common: they print, show in notebooks, become plain data, and pages to share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pellucid.tracing.layers import Flow
    from pellucid.tracing.text import Candidate


@dataclass(frozen=True)
class Context:
    """Where a question was asked: what a reader wants to see around its answer."""

    flow: Callable[[], Flow]
    tokens: tuple[str, ...] = ()  # what the model had read
    candidates: tuple[Candidate, ...] = ()  # what could come next, best first
    asked: tuple[Candidate, ...] = ()  # the tokens that the question is about
    model: str = ""


class Shown:
    """Can be printed, shown in a notebook, saved as a page, and turned into plain data."""

    __slots__ = ()

    def __str__(self) -> str:
        from pellucid.tracing.display import as_text

        return as_text(self)

    def __repr__(self) -> str:
        from pellucid.tracing.display import one_line

        return one_line(self)

    def show(self, top: int = 8) -> None:
        """Print it in colour, `top` rows of each kind."""
        from pellucid.tracing.display import show

        show(self, top=top)

    def to_dict(self, top: int = 8) -> dict[str, Any]:
        """Plain data, ready for JSON: the schema is in `tracing.plain`. Of an answer, `top` terms."""
        from pellucid.tracing.plain import plain

        return plain(self, top)

    def save(self, path: str | Path, top: int = 8, limit: int = 2_000_000) -> None:
        """Write one page of HTML that needs nothing else: neither a server, nor the network, nor Pellucid.

        Args:
            path: Where to; a file that is there is replaced only if it is such a page itself.
            top: Terms to show at each level.
            limit: Bytes that the page may have; what is left out is counted on it.

        Raises:
            PellucidError: when there is another file, or it cannot be written.
        """
        from pellucid.tracing.page import save

        save(self, path, top, limit)

    def _repr_html_(self) -> str:
        from pellucid.tracing.page import fragment

        return fragment(self)
