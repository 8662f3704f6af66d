"""The `pellucid` command: its languages, its exit codes, and what it says when something goes wrong."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from io import TextIOWrapper
from types import FrameType

from cyclopts import App, CycloptsError, Parameter, UnknownCommandError, UnusedCliTokensError

from pellucid import __version__, language
from pellucid.errors import PellucidError
from pellucid.language import _

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
    with _noticing_ctrl_c() as pressed:
        return _run(arguments, pressed)


@contextmanager
def _noticing_ctrl_c() -> Iterator[list[int]]:
    """Libraries in the middle of their import may turn a KeyboardInterrupt into an error of theirs: it is kept here."""
    pressed: list[int] = []

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        signal.default_int_handler(number, frame)

    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return
    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _run(arguments: list[str], pressed: list[int]) -> int:
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
        if pressed:
            print(_("Stopped."), file=sys.stderr)
            return 130
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


COMMANDS = "anatomy asking ladder look playground predicting probe sets step sweep training writing"
for name in COMMANDS.split():
    import_module(f"pellucid.cli.{name}")  # registers its commands with `app`
