"""`pellucid predict` and `pellucid evaluate`: answers of a model, and how good they are."""

from __future__ import annotations

import csv
import io
import json as json_
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from pellucid.cli.app import app
from pellucid.cli.opening import OPENING, Opening
from pellucid.errors import PellucidError
from pellucid.language import _

if TYPE_CHECKING:
    from pellucid.language_model import LanguageModel
    from pellucid.tasks.task import Prediction


MOST_NOTES = 5  # that a terminal shows


@app.command
def predict(
    run: str,
    input: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    save: str | None = None,
    json: bool = False,
    opening: Opening = OPENING,
) -> None:
    """Ask a network that was trained on a table, pictures, labelled texts, pairs of texts or boxes.

    Parameters
    ----------
    run
        A run, or a folder of a BERT, Marian or EfficientNet-lite0.
    input
        One input (a row as `height=170,sex=F`, a text, a picture), a file of them, or a folder; `-`: standard input.
    save
        Write the answers to a file: .csv or .jsonl; or, of boxes, the picture with them: .png or .jpg.
    json
        Print one JSON object an input.
    """
    from pellucid.model import Model

    model = opening.open_any(run)
    if not isinstance(model, Model):
        raise PellucidError(
            _("This network writes text; it does not answer."),
            run,
            _('Use: pellucid generate {folder} "..."').format(folder=run),
        )
    drawn = hasattr(model.task, "draw") and Path(save or "").suffix in (".png", ".jpg")
    if save and not drawn and Path(save).suffix not in (".csv", ".jsonl"):
        raise PellucidError(_("Answers are written as .csv or .jsonl."), save, _("Name such a file."))
    answers = model.predict(sys.stdin.read() if input == "-" else input)
    if drawn and len(answers) > 1:
        raise PellucidError(
            _("One picture can be drawn, and there are {n}.").format(n=len(answers)), str(save), _("Name one of them.")
        )
    if save and drawn:
        model.task.draw(Path(answers[0].input), answers[0].value).save(save)  # type: ignore[attr-defined]
        print(_("Written: {path}").format(path=save), file=sys.stderr)
    elif save:
        _save(answers, Path(save))
        print(_("Written: {path}").format(path=save), file=sys.stderr)
    elif json:
        for answer in answers:
            print(json_.dumps(_plain(answer), ensure_ascii=False))
    else:
        _show(answers)
    notes = list(dict.fromkeys(note for answer in answers for note in answer.notes))
    for note in notes[:MOST_NOTES]:
        print(f"• {note}", file=sys.stderr)
    if len(notes) > MOST_NOTES:
        print(_("• … and {n:,} more of this kind").format(n=len(notes) - MOST_NOTES), file=sys.stderr)


def _plain(answer: Prediction) -> dict[str, Any]:
    """As JSON says it; notes only where there are any."""
    return {name: value for name, value in vars(answer).items() if name != "notes" or value}


def _save(answers: list[Prediction], path: Path) -> None:
    """Write the answers whole or not at all, one an input."""
    from pellucid.checkpoints.whole_file import write_text

    if path.suffix == ".jsonl":
        write_text(path, "".join(json_.dumps(_plain(answer), ensure_ascii=False) + "\n" for answer in answers))
        return
    rows = [_flat(answer) for answer in answers]
    names = list(dict.fromkeys(name for row in rows for name in row))

    lines = io.StringIO()
    writer = csv.DictWriter(lines, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, lines.getvalue())


def _flat(answer: Prediction) -> dict[str, object]:
    """One row of a table: the input's columns, the answer, the probability of each class."""
    row = dict(answer.input) if isinstance(answer.input, dict) else {"input": answer.input}
    value = (
        answer.value if isinstance(answer.value, str | float | int) else json_.dumps(answer.value, ensure_ascii=False)
    )
    return row | {"prediction": value} | {f"p({name})": p for name, p in (answer.probabilities or {}).items()}


def _show(answers: list[Prediction], most: int = 5) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    for answer in answers:
        given = answer.input
        if isinstance(given, dict):
            given = ", ".join(f"{name} {_short(value)}" for name, value in given.items())
        if len(answers) > 1:
            console.print(str(given), markup=False, style="dim", soft_wrap=True)
        best = sorted((answer.probabilities or {}).items(), key=lambda item: -item[1])[:most]
        if best:
            console.print(_(", ").join(f"{name} {p:.1%}" for name, p in best), markup=False, soft_wrap=True)
        elif isinstance(answer.value, list):
            for found in answer.value:
                console.print(_box(found), markup=False, soft_wrap=True)
        else:
            console.print(_short(answer.value), markup=False, soft_wrap=True)


def _box(found: dict[str, Any]) -> str:
    left, top, right, bottom = found["box"]
    return f"{found['name']} {found['score']:.1%}  [{left:g}, {top:g}, {right:g}, {bottom:g}]"


def _short(value: object) -> str:
    if value is None:
        return _("(missing)")
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@app.command
def evaluate(
    run: str,
    source: str | None = None,
    /,
    *,
    column: Annotated[str | None, Parameter(name="--text")] = None,
    show: Literal["summary", "probabilities"] = "summary",
    json: bool = False,
    opening: Opening = OPENING,
) -> None:
    """Measure how good a model is: of a text each token's probability, of classes the figures of each and who is
    taken for whom, of numbers the errors.

    Parameters
    ----------
    run
        A run, or any folder of a supported family that transformers wrote, or a .gguf file.
    source
        Data to measure it on: a text, or what it was trained on. Left out: the run's own test part (not for text).
    column
        The column that holds the text, for tables of texts.
    show
        `probabilities` prints a text coloured by the probability of each token.
    json
        Print one JSON object; with `--show probabilities` it holds every token.
    """
    from pellucid.model import Model

    model = opening.open_any(run)
    if isinstance(model, Model):
        if column or show != "summary":
            raise PellucidError(
                _("Only a language model is measured token by token."),
                "--text" if column else "--show",
                _("Leave it out: this network is for {task}.").format(task=model.task.name),
            )
        from pellucid.tasks.scores import show as show_report

        report = model.evaluate(source)
        if json:
            print(json_.dumps(report.json(), ensure_ascii=False))
        else:
            show_report(report)
    elif source is None:
        raise PellucidError(
            _("Which text should the model be measured on?"), "SOURCE", _("Name a text file, a folder or a table.")
        )
    else:
        _evaluate_text(model, source, column, show, json)


def _evaluate_text(model: LanguageModel, text: str, column: str | None, show: str, json: bool) -> None:
    from pellucid.data.text import read

    corpus = read(text, column)
    documents = [document.text for document in corpus.documents]
    detailed = show == "probabilities"
    found = model.evaluate(documents[0] if len(documents) == 1 else documents, tokens=detailed)
    figures = {
        "loss": found.loss,
        "bits_per_byte": found.bits_per_byte,
        "perplexity": found.perplexity,
        "tokens": found.tokens,
        "bytes": found.bytes,
    }
    if json:
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
