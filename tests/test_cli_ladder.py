"""`pellucid ladder` as its user meets it."""

import json

import pytest

from pellucid.cli.app import run

ARGUMENTS = ["ladder", "--sizes", "8x1,16x1,24x1", "--steps", "4", "--vocab", "300", "--context", "32", "--batch", "4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three sizes that have hardly begun to learn."""
    made = tmp_path_factory.mktemp("ladder") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pellucid.training.run.seconds_per_step", lambda task, plan: 0.01)
        assert run([*ARGUMENTS, "--precision", "fp32", "--threads", "1", "--evaluations", "1", "--out", str(made)]) == 0
    return made


def test_the_folder_alone_shows_the_ladder_again(folder, tmp_path, capsys):
    picture = tmp_path / "ladder.svg"
    assert run(["ladder", "--out", str(folder), "--save", str(picture)]) == 0
    told = capsys.readouterr()
    assert "24x1" in told.out
    assert "1/3" not in told.err  # nothing was trained
    assert picture.read_text().startswith("<?xml")


def test_it_speaks_chinese(folder, capsys):
    assert run(["ladder", "--out", str(folder), "--language", "zh"]) == 0
    told = capsys.readouterr().out
    run(["--language", "en", "--version"])
    assert "对 32x2 的预测" in told
    assert "Forecast" not in told


def test_json_is_one_object(folder, capsys):
    assert run(["ladder", "--out", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [rung["name"] for rung in found["rungs"]] == ["8x1", "16x1", "24x1"]
    assert found["next"]["name"] == "32x2"
    assert found["fit"]["noise"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--save", "ladder.txt"], "ladder.txt"),
        (["--save", "nowhere/ladder.svg"], "no such folder"),
        (["--sizes", "16x1,24x1"], "Too few sizes"),
        (["--minutes", "3"], "Another ladder"),
        (["--depth", "3"], "--depth"),
    ],
)
def test_a_slip_is_said_in_three_lines_and_changes_nothing(folder, capsys, arguments, said):
    before = (folder / "ladder.json").read_text()
    assert run(["ladder", "--out", str(folder), *arguments]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert len(told.splitlines()) <= 3
    assert (folder / "ladder.json").read_text() == before
