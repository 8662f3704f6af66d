"""`pellucid train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pellucid.cli.app import app
from pellucid.errors import PellucidError, StoppedError
from pellucid.language import _
from pellucid.training.options import TrainOptions


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
    """Train a network on a text, a table, pictures or pairs of texts; it says which it takes the data for, and why.

    Parameters
    ----------
    source
        A text file or a folder of them; a table (.csv, .tsv, .jsonl, .parquet, a Hugging Face data set on disk) with
        `--target COLUMN`, or `--text COLUMN` to write on like it; a folder of class folders of pictures. Left out: a
        demo text.
    out
        The new folder of the run.
    resume
        The folder of a run to go on with.
    dry_run
        Print the plan and the forecast, and stop.
    options
        What the plan should not decide itself.
    """
    given = [options.spelt(name) for name in options.given()] + ["--dry-run"] * dry_run
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
