"""Networks made by the user's own code: `module:function`, imported and called."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from pellucid.errors import PellucidError
from pellucid.language import _


def called(module: str, name: str) -> tuple[Any, ...]:
    """What the function `name` of a module, or of a .py file, gives: a network and its example inputs.

    Raises:
        PellucidError: when there is no such module or function, or the user's code raises.
    """
    place = f"{module}:{name}"
    with _answering(place):
        home = _imported(module, place)
        try:
            found = reduce(getattr, name.split("."), home)
        except AttributeError:
            raise PellucidError(
                _("{module} has no {name}.").format(module=module, name=name),
                place,
                _("It has {names}.").format(names=", ".join(_public(home)[:12])),
            ) from None
        is_network = hasattr(found, "named_parameters") and not isinstance(found, type)
        made = found() if callable(found) and not is_network else found
    return made if made and isinstance(made, tuple) else (made,)


def _imported(module: str, place: str) -> ModuleType:
    """The module of this name, or in this file; what lies in the working directory can be imported."""
    if not module.endswith(".py"):
        with _from_here():
            return import_module(module)
    path = Path(module)
    if not path.is_file():
        raise PellucidError(_("There is no {name} here.").format(name=path.name), place, _("Look at its name."))
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None, "its name ends in .py"
    assert spec.loader is not None
    made = module_from_spec(spec)
    sys.modules[path.stem] = made  # where dataclasses and pickles look for their module
    with _from_here(path.parent):
        spec.loader.exec_module(made)
    return made


@contextmanager
def _from_here(folder: Path | None = None) -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, str(folder or Path.cwd()))
    try:
        yield
    finally:
        sys.path[:] = before


def _public(home: ModuleType) -> list[str]:
    """The names that a module has of its own, then those that it took from others."""
    names = [name for name in vars(home) if not name.startswith("_")]
    return sorted(names, key=lambda name: getattr(vars(home)[name], "__module__", None) != home.__name__)


@contextmanager
def _answering(place: str) -> Iterator[None]:
    """The user's code may raise anything: whatever it is, it is theirs, and they are told what and where."""
    try:
        yield
    except PellucidError:
        raise
    except (Exception, SystemExit) as error:
        raise PellucidError(
            _("{name} raised {error}.").format(name=place, error=f"{type(error).__name__}: {error}"),
            _line(error),
            _("Call it from Python first: it must give a torch.nn.Module, or a tuple of it and its example inputs."),
        ) from error


def _line(error: BaseException) -> str:
    """The file and line that raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
