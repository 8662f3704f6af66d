"""Chat templates: how a model that has learned to chat wants a conversation written down."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from pellucid.errors import PellucidError
from pellucid.language import _


def render(
    template: str,
    messages: Sequence[Mapping[str, str]],
    special_names: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> str:
    """The conversation as the model's text, up to where its answer begins.

    Args:
        template: Jinja. It is code from a file, so it runs in Jinja's immutable sandbox.
        messages: Each ``{"role": ..., "content": ...}``.
        special_names: How bos_token, eos_token and their like are written.
        folder: The model's, for messages.

    Raises:
        PellucidError: when the template is broken, or refuses the messages.
    """
    # Chatting alone needs it: writing should not wait for its import.
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # The settings and helpers that templates in the field rely on: those of transformers.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, **how: json.dumps(value, ensure_ascii=False, **how)
    environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    conversation = [dict(message) for message in messages]
    try:
        return environment.from_string(template).render(
            messages=conversation, add_generation_prompt=True, **(special_names or {})
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise PellucidError(
            _("The model's chat template does not accept this conversation: {why}.").format(why=error),
            str(folder or ""),
            _("Roles are usually system (first), then user and assistant in turn."),
        ) from error


def _refuse(message: str) -> NoReturn:
    raise ValueError(message)
