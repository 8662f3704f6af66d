"""Short forms of addresses, for what people ask about: ``neuron(3, 1221)``, ``grad(weight("head", 2, 7))``."""

from __future__ import annotations

import ast
import re
from typing import Any

from pellucid.errors import PellucidError
from pellucid.language import _

_ADDRESS = re.compile(r"^(?P<path>[^:\[]*)(?P<index>\[.*\])?$")


def weight(module: str, *index: int) -> str:
    """The address of a module's weight: of one number of it, with an index."""
    return f"{module}.weight" + (f"[{','.join(map(str, index))}]" if index else "")


def grad(address: str) -> str:
    """The address of a parameter's gradient."""
    return _sided(address, "grad")


def updated(address: str) -> str:
    """The address of a parameter after the optimiser's step."""
    return _sided(address, "updated")


def _sided(address: str, side: str) -> str:
    found = _ADDRESS.match(address)
    if found is None:
        raise PellucidError(
            _("This is no parameter."), address, _('Name one: {side}("fc.weight[0,1]").').format(side=side)
        )
    return f"{found['path']}:{side}{found['index'] or ''}"


def is_short(text: str) -> bool:
    """Whether a text is written as a short form."""
    return re.fullmatch(r"[a-z_]+\(.*\)", text.strip(), re.DOTALL) is not None


def read(text: str, asker: Any) -> Any:
    """What a short form asks: an address, or the question that `asker`'s method of that name makes.

    Raises:
        PellucidError: when there is no such form, or its arguments do not fit.
    """
    known: dict[str, Any] = {"weight": weight, "grad": grad, "updated": updated}
    known |= {name: getattr(asker, name) for name in QUESTIONS if hasattr(asker, name)}

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in known:
            named = {keyword.arg: value(keyword.value) for keyword in node.keywords if keyword.arg}
            return known[node.func.id](*map(value, node.args), **named)
        return ast.literal_eval(node)

    try:
        return value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError) as error:
        raise PellucidError(
            _("This short form cannot be read: {why}.").format(why=error),
            text,
            _("There are {names}.").format(names=", ".join(f"{name}(...)" for name in known)),
        ) from None


QUESTIONS = ("logit", "log_probability", "loss", "neuron", "score", "choice")
