"""`pellucid generate` and `pellucid chat`: what a language model writes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from pellucid.cli.app import app
from pellucid.cli.opening import OPENING, Opening
from pellucid.errors import PellucidError
from pellucid.generation.options import Sampling
from pellucid.language import _

if TYPE_CHECKING:
    from pellucid.generation.decode import Token
    from pellucid.language_model import LanguageModel


@app.command
def generate(
    run: str,
    prompt: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    max_tokens: int = 256,
    stop: list[str] | None = None,
    samples: int = 1,
    heal: Annotated[bool, Parameter(negative="--no-heal")] = True,
    from_nothing: bool = False,
    show: Literal["text", "probabilities"] = "text",
    json: bool = False,
    sampling: Annotated[Sampling, Parameter(name="*")] = Sampling(),  # noqa: B008
    opening: Opening = OPENING,
) -> None:
    """Continue a text, token by token.

    Parameters
    ----------
    run
        A run, any folder of a GPT-1, GPT-2, Llama, Mistral, Qwen2 or Qwen3 that transformers wrote, or a .gguf file.
    prompt
        The text to continue; `-` reads it from standard input.
    max_tokens
        Most tokens to write.
    stop
        A string at which to stop; may be given several times.
    samples
        How many texts to write.
    heal
        Take back the prompt's last token where training would have seen it as part of a longer one.
    from_nothing
        Write a document from its start, without a prompt.
    show
        `probabilities` colours the text by the probability of each token, and lists what else could have stood there.
    json
        Print one JSON object a token.
    """
    if prompt == "-":
        prompt = sys.stdin.read()
    if not prompt and not from_nothing:
        raise PellucidError(
            _("There is no prompt to continue."), "PROMPT", _("Give a text, `-` for standard input, or --from-nothing.")
        )
    model = opening.open(run)
    tokens = model.generate(
        prompt or "",
        sampling=sampling,
        max_tokens=max_tokens,
        stop=stop or (),
        samples=samples,
        heal=heal,
        unprompted=from_nothing,
    )
    if opening.int8:
        _say_int8_cost(model, prompt or "")
    _write(tokens, "json" if json else show, prompt or "", samples)


@app.command
def chat(
    run: str,
    /,
    *,
    max_tokens: int = 1024,
    sampling: Annotated[Sampling, Parameter(name="*")] = Sampling(),  # noqa: B008
    opening: Opening = OPENING,
) -> None:
    """Talk with a model. One that has no chat template continues your text instead.

    Parameters
    ----------
    run
        A run, any folder of a supported family that transformers wrote, or a .gguf file.
    max_tokens
        Most tokens in an answer.
    """
    model = opening.open(run)
    if not model.chats:
        print(_("base model: continuing your text"), file=sys.stderr)
    print(_("End with an empty line or Ctrl-D."), file=sys.stderr)
    messages: list[dict[str, str]] = []
    while text := _ask():
        messages.append({"role": "user", "content": text})
        answer = _write(model.chat(messages, sampling=sampling, max_tokens=max_tokens), "text", "", 1)
        messages.append({"role": "assistant", "content": answer})


def _write(tokens: Iterator[Token], show: str, prompt: str, samples: int) -> str:
    """Print tokens as they come; return their text."""
    if show == "json":
        from pellucid.generation.display import to_json

        for token in tokens:
            print(to_json(token), flush=True)
        return ""
    if show == "probabilities":
        return _write_coloured(tokens, prompt)
    written, sample = [], -1
    for token in _say_forgotten(tokens):
        if token.sample != sample:
            sample = token.sample
            print(("" if sample == 0 else "\n") + (f"--- {sample + 1} ---\n" if samples > 1 else "") + prompt, end="")
        print(token.text, end="", flush=True)
        written.append(token.text)
    print()
    return "".join(written)


def _write_coloured(tokens: Iterator[Token], prompt: str) -> str:
    from rich.console import Console

    from pellucid.generation.display import coloured, legend, table

    console, written = Console(highlight=False), []
    console.print(legend())
    console.print(prompt, end="", markup=False, style="dim")
    for token in _say_forgotten(tokens):
        console.print(coloured(token.text, token.probability), end="", soft_wrap=True)
        written.append(token)
    console.print("\n")
    console.print(table(written))
    return "".join(token.text for token in written)


def _say_forgotten(tokens: Iterator[Token]) -> Iterator[Token]:
    """Say what of the prompt the model does not see before it writes; what it ceases to see meanwhile, at the end."""
    slid = 0
    for token in tokens:
        if token.forgotten and token.index == 0:
            text = token.forgotten.text
            text = text if len(text) <= 60 else f"{text[:30]} … {text[-30:]}"
            _aside(
                _(
                    "[the model does not see the prompt's first {n:,} tokens, {text!r}; it sees the last {kept:,}]"
                ).format(n=token.forgotten.tokens, text=text, kept=token.forgotten.kept)
            )
        elif token.forgotten:
            slid += token.forgotten.tokens
        yield token
        if token.finish and slid:
            _aside(
                _("[while it wrote, the model ceased to see the first {n:,} of the tokens that it saw]").format(n=slid),
                new_line=True,
            )
            slid = 0


def _aside(text: str, new_line: bool = False) -> None:
    """A remark that does not belong to the text, on standard error."""
    sys.stdout.flush()
    print(("\n" if new_line and sys.stdout.isatty() else "") + text, file=sys.stderr)


def _say_int8_cost(model: LanguageModel, text: str) -> None:
    cost = model.int8_cost(text)
    print(
        _(
            "[int8 weights: on the {n} tokens of the prompt log-probabilities change by {change:.4f} on average, "
            "bits per byte from {exact:.4f} to {int8:.4f}]"
        ).format(
            n=cost.tokens, change=cost.log_probability_change, exact=cost.bits_per_byte, int8=cost.int8_bits_per_byte
        ),
        file=sys.stderr,
    )


def _ask() -> str:
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return ""
