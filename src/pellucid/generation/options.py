"""What a user may say about sampling. The docstrings of the fields are the command line's help."""

import math
from dataclasses import dataclass

from pellucid.errors import PellucidError
from pellucid.language import _


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn. Applied in the order of the fields, which is that of `transformers`.

    Raises:
        PellucidError: when a value makes no sense.
    """

    repetition_penalty: float = 1.0
    """Logits of tokens already in the text are divided by this where positive, else multiplied (Keskar et al. 2019)."""
    temperature: float = 0.8
    """Logits are divided by this: below 1 plays safe, above 1 dares; 0 always takes the most probable token."""
    top_k: int | None = None
    """Draw only from this many of the most probable tokens; 0 or nothing: from all."""
    top_p: float | None = None
    """Draw only from the fewest tokens that together have at least this probability (Holtzman et al. 2019)."""
    min_p: float | None = None
    """Draw only from tokens at least this share as probable as the most probable one."""
    greedy: bool = False
    """Always take the most probable token, like temperature 0."""
    seed: int = 0
    """One seed gives one text; another seed, another text."""

    def __post_init__(self) -> None:
        above_0, at_least_0 = _("It must be more than 0."), _("It must not be negative.")
        share = _("It must be more than 0 and at most 1.")
        for name, good, fix in (
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, above_0),
            ("temperature", 0 <= self.temperature < math.inf, at_least_0),
            ("top_k", self.top_k is None or self.top_k >= 0, at_least_0),
            ("top_p", self.top_p is None or 0 < self.top_p <= 1, share),
            ("min_p", self.min_p is None or 0 <= self.min_p <= 1, _("It must be at least 0 and at most 1.")),
            ("seed", 0 <= self.seed < 2**63, at_least_0),
        ):
            if not good:
                option = "--" + name.replace("_", "-")
                value = getattr(self, name)
                raise PellucidError(
                    _("{option} {value} makes no sense.").format(option=option, value=value), option, fix
                )
