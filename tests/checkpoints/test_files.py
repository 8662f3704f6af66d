"""Files: whole or not at all, refused by name when damaged, and a whole folder at every moment of a swap."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from pellucid.checkpoints import files
from pellucid.checkpoints.files import (
    read_json,
    read_tensors,
    replace_folder,
    whole_folder,
    write_json,
    write_tensors,
)
from pellucid.errors import PellucidError


def make_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(6, 4, generator=generator)
    return {"rows.0": matrix[:2], "rows.1": matrix[2:], "turned": matrix.t(), "step": torch.tensor([7])}


def test_tensors_come_back_and_safetensors_reads_them(tmp_path: Path) -> None:
    write_tensors(tmp_path / "model.safetensors", make_tensors(), {"format": "pt", "b": "ü", "a": "1"})
    found = read_tensors(tmp_path)
    assert found.keys() == make_tensors().keys()
    for name, tensor in make_tensors().items():
        assert torch.equal(found[name], tensor)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "b": "ü", "a": "1"}
        assert torch.equal(file.get_tensor("turned"), make_tensors()["turned"])
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_the_same_tensors_give_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    program = (
        "import sys, torch; from pellucid.checkpoints.files import write_tensors; "
        "write_tensors(sys.argv[1], {c: torch.arange(3.0) for c in 'hello'}, {c: c for c in 'pellucid'})"
    )
    for name in ("one", "two"):
        subprocess.run([sys.executable, "-c", program, str(tmp_path / name)], check=True)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_opened_as_float32_unless_said_otherwise(tmp_path: Path, dtype: torch.dtype) -> None:
    write_tensors(
        tmp_path / "model.safetensors", {"x": torch.ones(2, dtype=dtype), "n": torch.ones(2, dtype=torch.int)}
    )
    assert {name: tensor.dtype for name, tensor in read_tensors(tmp_path).items()} == {
        "x": torch.float32,
        "n": torch.int32,
    }
    assert read_tensors(tmp_path, None)["x"].dtype == dtype
    assert read_tensors(tmp_path, torch.bfloat16)["x"].dtype == torch.bfloat16


def test_what_was_read_can_be_written_over_without_touching_the_file(tmp_path: Path) -> None:
    write_tensors(tmp_path / "model.safetensors", make_tensors())
    before = (tmp_path / "model.safetensors").read_bytes()
    found = read_tensors(tmp_path)
    found["rows.0"].zero_()
    write_tensors(tmp_path / "model.safetensors", {"other": torch.zeros(3)})
    assert torch.equal(found["rows.1"], make_tensors()["rows.1"])
    write_tensors(tmp_path / "model.safetensors", make_tensors())
    assert (tmp_path / "model.safetensors").read_bytes() == before


def shards(folder: Path) -> None:
    tensors = {name: tensor.contiguous().clone() for name, tensor in make_tensors().items()}
    save_file({name: tensors[name] for name in ("rows.0", "step")}, folder / "model-1.safetensors")
    save_file({name: tensors[name] for name in ("rows.1", "turned")}, folder / "model-2.safetensors")
    index = {"rows.0": 1, "step": 1, "rows.1": 2, "turned": 2}
    weight_map = {name: f"model-{n}.safetensors" for name, n in index.items()}
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def test_shards_are_read_together(tmp_path: Path) -> None:
    shards(tmp_path)
    found = read_tensors(tmp_path)
    assert all(torch.equal(found[name], tensor) for name, tensor in make_tensors().items())


def test_incomplete_shards_are_refused_by_name(tmp_path: Path) -> None:
    shards(tmp_path)
    save_file({"rows.1": torch.zeros(1)}, tmp_path / "model-2.safetensors")
    with pytest.raises(PellucidError, match="tensor turned is missing"):
        read_tensors(tmp_path)
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(PellucidError, match=r"shard model-2\.safetensors is missing"):
        read_tensors(tmp_path)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    index["weight_map"]["step"] = "../model-1.safetensors"
    write_json(tmp_path / "model.safetensors.index.json", index)
    with pytest.raises(PellucidError, match=r"shard \.\./model-1\.safetensors"):
        read_tensors(tmp_path)
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": [1]})
    with pytest.raises(PellucidError, match="weight_map"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("length", [0, 4, 30, 100, -1])
def test_a_file_cut_short_is_damaged(tmp_path: Path, length: int) -> None:
    path = tmp_path / "model.safetensors"
    write_tensors(path, make_tensors())
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(PellucidError, match=r"model\.safetensors is damaged") as caught:
        read_tensors(tmp_path)
    assert str(path) in caught.value.where


@pytest.mark.parametrize("place", [0, 7, 9, 20])
def test_a_damaged_header_is_damaged(tmp_path: Path, place: int) -> None:
    path = tmp_path / "model.safetensors"
    write_tensors(path, make_tensors())
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(PellucidError, match=r"model\.safetensors is damaged"):
        read_tensors(tmp_path)


def test_a_pickle_is_refused_by_name_and_a_missing_file_too(tmp_path: Path) -> None:
    with pytest.raises(PellucidError, match=r"no model\.safetensors"):
        read_tensors(tmp_path)
    torch.save(make_tensors(), tmp_path / "pytorch_model.bin")
    with pytest.raises(PellucidError, match=r"pytorch_model\.bin is a pickle") as caught:
        read_tensors(tmp_path)
    assert "save_pretrained" in caught.value.fix


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"[1]", b"\xff\xfe", b'"text"'])
def test_damaged_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(PellucidError, match=r"config\.json is damaged"):
        read_json(tmp_path / "config.json")


def test_a_missing_json_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PellucidError, match=r"no config\.json"):
        read_json(tmp_path / "config.json")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "a.json", {"春": 1})
    write_tensors(tmp_path / "model.safetensors", make_tensors())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PellucidError, match=r"a\.json cannot be written.*No space left"):
        write_json(tmp_path / "a.json", {"x": 2})
    with pytest.raises(PellucidError, match=r"model\.safetensors cannot be written.*No space left"):
        write_tensors(tmp_path / "model.safetensors", {"x": torch.zeros(2)})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


class KilledError(BaseException):
    """Stands for kill -9: nothing of ours catches it."""


def make_folder(path: Path, text: str) -> Path:
    path.mkdir()
    for n in range(3):
        (path / f"{n}.txt").write_text(text)
    return path


def content(folder: Path | None) -> set[str]:
    return {path.read_text() for path in folder.iterdir()} if folder else set()


def test_a_swap_killed_anywhere_leaves_one_whole_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop before the n-th change to the disk, for every n, twice in a row; then an undisturbed swap must succeed."""
    real = {"rename": Path.rename, "unlink": os.unlink, "rmdir": os.rmdir}
    left = [0]

    def counted(name: str):
        def act(*arguments, **named):
            if left[0] == 0:
                raise KilledError
            left[0] -= 1
            return real[name](*arguments, **named)

        return act

    monkeypatch.setattr(Path, "rename", counted("rename"))
    monkeypatch.setattr(os, "unlink", counted("unlink"))
    monkeypatch.setattr(os, "rmdir", counted("rmdir"))
    kills = 0
    for first in range(20):
        for second in range(20):
            root = tmp_path / f"{first}-{second}"
            root.mkdir()
            final = make_folder(root / "last", "0")
            newest, killed = "0", []
            for n, changes in enumerate((first, second), start=1):
                left[0] = -1
                shutil.rmtree(root / "next", ignore_errors=True)
                temporary = make_folder(root / "next", str(n))
                left[0] = changes
                try:
                    replace_folder(temporary, final)
                    newest = str(n)
                    killed.append(False)
                except KilledError:
                    killed.append(True)
                    assert content(whole_folder(final)) in ({newest}, {str(n)})
                    assert len(list(whole_folder(final).iterdir())) == 3
                    newest = content(whole_folder(final)).pop()
            left[0] = -1
            shutil.rmtree(root / "next", ignore_errors=True)
            replace_folder(make_folder(root / "next", "new"), final)
            assert content(whole_folder(final)) == {"new"}
            assert sorted(path.name for path in root.iterdir()) == ["last"]
            kills += sum(killed)
            if not any(killed):
                break
        if not killed[0]:
            break
    assert kills > 10


def test_a_folder_never_written_is_not_found(tmp_path: Path) -> None:
    assert whole_folder(tmp_path / "last") is None
    replace_folder(make_folder(tmp_path / "next", "1"), tmp_path / "last")
    assert whole_folder(tmp_path / "last") == tmp_path / "last"
    assert not (tmp_path / "next").exists()
    assert files.whole_folder(str(tmp_path / "last")) == tmp_path / "last"
