"""What a question about a network may be given: numbers that make sense, else refused by name."""

import math

from pellucid.errors import PellucidError
from pellucid.language import _


def whole(value: int, name: str, least: int = 1) -> int:
    """The value itself.

    Raises:
        PellucidError: when it is no whole number of at least `least`.
    """
    if isinstance(value, int) and value >= least:
        return value
    raise _impossible(value, name, _("Give a whole number of at least {least}.").format(least=least))


def positive(value: float, name: str, least: float = 0, most: float = math.inf) -> float:
    """The value itself.

    Raises:
        PellucidError: when it is not a finite number above 0, or is outside of `least` and `most`.
    """
    if 0 < value < math.inf and least <= value <= most:
        return value
    if most < math.inf:
        fix = _("Give a number above 0, at most {most:g}.").format(most=most)
    else:
        fix = _("Give a number of at least {least:g}.").format(least=least) if least else _("Give a number above 0.")
    raise _impossible(value, name, fix)


def _impossible(value: float, name: str, fix: str) -> PellucidError:
    return PellucidError(_("{value} is not possible for {name}.").format(value=value, name=name), name, fix)
