"""`pellucid why`: what an answer comes from."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from pellucid.cli.app import app
from pellucid.cli.opening import OPENING, Opening
from pellucid.errors import PellucidError
from pellucid.language import _

if TYPE_CHECKING:
    from pellucid.model import Model


@app.command
def why(
    run: str,
    prompt: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    next_token: Annotated[
        str | None, Parameter(name=("--next-token", "--token", "--class"), allow_leading_hyphen=True)
    ] = None,
    rather_than: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    about: str = "choice",
    open: str | None = None,
    convention: str = "values",
    top: int = 8,
    json: bool = False,
    save: str | None = None,
    opening: Opening = OPENING,
) -> None:
    """Show what an answer comes from: the parts that add up to it, each of which opens to its own.

    Parameters
    ----------
    run
        A run, any folder of a supported family that transformers wrote, or a .gguf file.
    prompt
        What the model reads: a text, a row as `height=170,sex=F`, a picture; `-` reads it from standard input.
    next_token
        The token to ask about: its text (most begin with a space: `" Paris"`), or `id:42`; or a class. Left out: the
        most probable one. A string of several tokens is asked about token by token.
    rather_than
        The one to compare it with. Left out: the most probable one besides.
    about
        `choice`: this token rather than that one. Or `logit`, `log-probability`, `probability`, `loss`, or the address
        of any number, as `blocks.0.attention[0,-1,7]`.
    open
        Open single terms: `1.2.1` is the first term's second term's first one, `2c` the coefficient of the second.
    convention
        Who gets the credit where two values are multiplied: `values`, `gates` or `half`.
    top
        How many rows to show of each kind.
    json
        Print one JSON object.
    save
        Write a page that shows it all, to open in any browser: `--save why.html`.
    """
    if prompt == "-":
        prompt = sys.stdin.read()
    if not prompt:
        raise PellucidError(
            _("There is nothing to ask about."),
            "PROMPT",
            _("Give a text (or a row, or a picture), or `-` for standard input."),
        )
    if top < 1:
        raise PellucidError(
            _("{option} {value} makes no sense.").format(option="--top", value=top),
            "--top",
            _("It must be more than 0."),
        )
    from pellucid.model import Model

    model = opening.open_any(run)
    if isinstance(model, Model):
        _why_answer(model, prompt, next_token, rather_than, about, open, convention, top, json, save)
        return
    from pellucid.tracing import display, page, plain

    path = plain.steps(open) if open else []
    answer = model.why(
        prompt, next_token=_token(next_token), rather_than=_token(rather_than), about=about, convention=convention
    )
    if path and isinstance(answer, plain.TokenByToken):
        raise PellucidError(
            _("{text!r} is {n} tokens.").format(text=answer.text, n=len(answer.answers)),
            "--open",
            _("Put all of them but one into the prompt, and ask about that one."),
        )
    if save:
        page.save(answer, save, top)
    if json:
        import json as json_

        print(json_.dumps(plain.report(answer, prompt, top, path), ensure_ascii=False, allow_nan=False))
        return
    display.show(answer, top=top, path=path)
    if save:
        print(_("Written: {path}").format(path=save), file=sys.stderr)


def _token(text: str | None) -> str | int | None:
    """A token as the command line names it: its text, or `id:42`."""
    number = (text or "").removeprefix("id:")
    return int(number) if number != text and number.isdecimal() else text


def _why_answer(
    model: Model,
    given: str,
    value: str | None,
    rather_than: str | None,
    about: str,
    open: str | None,
    convention: str,
    top: int,
    json: bool,
    save: str | None,
) -> None:
    """Of a network that answers: why this class or number, by the parts of its input; or why any number of it."""
    import json as json_

    from pellucid.tracing import display, plain

    if about not in ("choice", "logit"):
        answer = model.trace(given).why(about, convention=convention)
        if save:
            answer.save(save, top)
        if json:
            print(json_.dumps(answer.to_dict(top), ensure_ascii=False, allow_nan=False))
        else:
            display.show(answer, top=top, path=plain.steps(open) if open else [])
    else:
        found = model.why(given, value=value, rather_than=rather_than)
        if save:
            found.save(save, top)
        if json:
            print(json_.dumps(found.json(), ensure_ascii=False))
        elif open:
            display.show(found.answer, top=top, path=plain.steps(open))
        else:
            found.show(top)
    if save:
        print(_("Written: {path}").format(path=save), file=sys.stderr)
