"""The command line: each command is a thin face of one public function."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Literal

# glibc keeps freed memory instead of handing it back to the system: see docs/performance.md for what it gains
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "68719476736",
    "MALLOC_TOP_PAD_": "268435456",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
COMPUTING = ("train", "generate", "chat", "evaluate")


def main() -> None:
    """Entry point of the `pellucid` command."""
    settle_allocator(sys.argv[1:])
    sys.exit(run(sys.argv[1:]))


def settle_allocator(arguments: list[str]) -> None:
    """On Linux, start this process again with glibc settings that must stand in the environment before Python runs.

    Only for commands that compute, only once, and not at all with PELLUCID_ALLOCATOR=off; settings of the user's stand.
    """
    computing = any(argument in COMPUTING for argument in arguments[:3]) and not {"--help", "-h"} & set(arguments)
    mode = os.environ.get("PELLUCID_ALLOCATOR", "")
    if sys.platform != "linux" or not computing or mode in ("off", "settled"):
        return
    environment = {**ALLOCATOR, **os.environ, "PELLUCID_ALLOCATOR": "settled"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


from cyclopts import App, CycloptsError, Parameter  # noqa: E402  (after the re-start, which should cost nothing)

from pellucid import __version__, language  # noqa: E402
from pellucid.errors import PellucidError  # noqa: E402
from pellucid.language import _  # noqa: E402
from pellucid.training.options import TrainOptions  # noqa: E402

app = App(
    name="pellucid",
    help="Train neural networks you can see through, run them, and ask them why.",
    version=__version__,
    help_format="markdown",
)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code: 0, 2 for a user's mistake, 130 for Ctrl-C."""
    try:
        arguments = _language(arguments)
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except PellucidError as error:
        for part in (error.what, error.where, error.fix):
            if part:
                print(" ".join(part.split()), file=sys.stderr)
        return 130 if type(error).__name__ == "Interrupted" else 2
    except CycloptsError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        print(_("Options: pellucid {command} --help").format(command=" ".join(arguments[:1])), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(_("Stopped."), file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left, as `head` does
        return 0
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
        if argument == "--language" and i + 1 < len(arguments):
            language.use(arguments[i + 1])
            return arguments[:i] + arguments[i + 2 :]
        if argument.startswith("--language="):
            language.use(argument.removeprefix("--language="))
            return arguments[:i] + arguments[i + 1 :]
    return arguments


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
    if resume and (source or out):
        raise PellucidError(_("--resume goes on with a run as it was planned."), "--resume", _("Give it alone."))
    if not (out or resume or dry_run):
        raise PellucidError(_("Where should the model go?"), "--out", _("Name a new folder: --out runs/name"))
    from pellucid.training import run as running
    from pellucid.training.progress import Terminal

    if resume:
        running.resume(resume, Terminal())
        return
    running.start(source, out or "plan", options, Terminal(), dry_run)


if __name__ == "__main__":
    main()
