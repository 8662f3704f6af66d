"""`pellucid probe`: what each layer of an encoder holds."""

from __future__ import annotations

import json as json_
import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from pellucid.cli.app import app
from pellucid.errors import PellucidError
from pellucid.language import _

if TYPE_CHECKING:
    from rich.table import Table

    from pellucid.experiments.probes import Probes, Score, Sentence


@app.command
def probe(
    run: str,
    /,
    *,
    data: str | None = None,
    target: str | None = None,
    column: Annotated[str | None, Parameter(name="--text")] = None,
    sentence: str | None = None,
    against: tuple[str, ...] = (),
    layers: str | None = None,
    texts: int = 1000,
    length: int = 64,
    words: int = 50,
    positions: int = 24,
    seeds: int = 5,
    save: str | None = None,
    json: bool = False,
) -> None:
    """What each layer of an encoder holds: words, positions, the meaning of a text; or one sentence, layer by layer.

    Parameters
    ----------
    run
        A run of texts with labels, or the folder of a BERT.
    data
        A table of texts and their classes, to train and judge linear probes on. The network stays as it is.
    target
        The column of the classes.
    column
        The column of the texts.
    sentence
        A sentence to look at instead: which of its tokens are alike in each layer.
    against
        A sentence to compare it with; may be given several times.
    layers
        Which layers, as `0,3,6`; 0 is the embedding. All, when left out.
    texts
        How many texts to read, at most.
    length
        How many tokens of a text to read, at most.
    words
        How many of the commonest words to tell apart, at most.
    positions
        How many of the first positions to tell apart, at most.
    seeds
        How often to share the texts out anew, for the spread.
    save
        Draw it: a .png, .svg or .pdf.
    json
        Print one JSON object.
    """
    if (data is None) == (sentence is None):
        raise PellucidError(
            _("Probe with texts, or look at one sentence."),
            "--data, --sentence",
            _("Use one of them: --data FILE --target COLUMN, or --sentence TEXT."),
        )
    chosen = None if layers is None else _numbers(layers)
    from pellucid.experiments import probes

    if save:
        probes.check_picture(save)
    found: Probes | Sentence
    if sentence is not None:
        found = probes.sentence_by_layer(run, sentence, against, layers=chosen)
    else:
        if target is None:
            raise PellucidError(
                _("Which column holds the classes of the texts?"), "--target", _("Name it: --target COLUMN")
            )
        found = probes.probe(
            *(run, str(data), target, column),
            layers=chosen, texts=texts, length=length, words=words, positions=positions, seeds=seeds,
        )  # fmt: skip
    if save:
        found.save(save)
    if json:
        print(json_.dumps(found.json(), ensure_ascii=False))
    elif isinstance(found, probes.Sentence):
        _show_sentence(found)
    else:
        _show_probes(found)
    if save:
        print(_("Written: {path}").format(path=save), file=sys.stderr)


def _numbers(layers: str) -> list[int]:
    try:
        return [int(part) for part in layers.replace("，", ",").split(",")]
    except ValueError:
        raise PellucidError(
            _("{layers!r} are no layers.").format(layers=layers), "--layers", _("Use numbers, as 0,3,6.")
        ) from None


def _show_probes(found: Probes) -> None:
    from rich.table import Table

    from pellucid.experiments.probes import QUESTIONS, names

    for note in found.notes:
        _print(f"• {note}")
    said = _("{texts:,} texts; {words} words, {positions} positions, {classes} classes to tell apart")
    _print(
        said.format(texts=found.texts, words=len(found.words), positions=found.positions, classes=len(found.classes))
    )
    _print(_("right on held-out texts, ± over ways of sharing the texts out"))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(_("layer"))
    for name in names().values():
        table.add_column(name, justify="right")
    alone = [found.tokens_alone.get(question) for question in QUESTIONS]
    table.add_row(_("chance"), *(f"{found.chance[question]:.1%}" for question in QUESTIONS), style="dim")
    table.add_row(_("shuffled labels"), *(_said(found.shuffled(question)) for question in QUESTIONS), style="dim")
    table.add_row(_("tokens alone"), *(_said(score) if score else "–" for score in alone), style="dim")
    for layer, scores in found.layers.items():
        table.add_row(str(layer), *(_said(scores[question]) for question in QUESTIONS))
    _print(table)
    for line in found.summary():
        _print(line)


def _said(score: Score) -> str:
    return f"{score.accuracy:.1%} ± {score.spread:.1%}"


def _show_sentence(found: Sentence) -> None:
    from rich.table import Table
    from rich.text import Text

    layers = list(found.nearest)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in (_("token"), *(_("layer {n}").format(n=layer) for layer in layers)):
        table.add_column(heading)
    for place, token in enumerate(found.tokens):
        cells = (f"{name} {value:.2f}" for name, value in (found.nearest[layer][place] for layer in layers))
        table.add_row(Text(token, "bold"), *map(Text, cells))
    _print(_("the most similar other token in each layer, and its cosine"))
    _print(table)
    if found.others:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for heading in (_("compared with"), *(_("layer {n}").format(n=layer) for layer in layers)):
            table.add_column(heading)
        for number, said in enumerate(found.others):
            cells = (f"{found.alike[layer][number]:.2f}" for layer in layers)
            table.add_row(Text(f"({number + 1}) {said}"), *cells)
        _print("")
        _print(table)


def _print(shown: str | Table) -> None:
    """A table is as wide as it must be: a terminal that is narrower breaks its lines, and no figure is lost."""
    from rich.console import Console

    console = Console(highlight=False)
    if not isinstance(shown, str):
        console.width = max(console.width, console.measure(shown, options=console.options.update(width=1000)).maximum)
    console.print(shown, markup=False, soft_wrap=True)
