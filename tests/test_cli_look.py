"""`pellucid look` on the real network and real photographs."""

from pathlib import Path

import pytest

from pellucid.cli.app import run

CACHE = Path(__file__).parents[1] / "cache"
NETWORK, COFFEE = str(CACHE / "efficientnet-lite0"), str(CACHE / "photographs" / "coffee.png")


@pytest.mark.slow
def test_look_says_what_it_is_and_which_parts_spoke_for_it(capsys, tmp_path):
    page = tmp_path / "coffee.html"
    arguments = ["look", NETWORK, COFFEE, "--rather-than", "cup", "--layer", "bn0", "--layer", "bn1", "--no-dreams"]
    assert run([*arguments, "--save", str(page)]) == 0
    said = capsys.readouterr().out
    assert "espresso 9" in said
    assert "espresso rather than cup" in said
    assert "bn0: sees 3 × 3 pixels" in said
    assert "bn1: sees 224 × 224 pixels" in said
    assert page.read_text("utf-8").count("data:image/") == 1 + 3 + 4 + 32


@pytest.mark.slow
def test_look_names_mistakes_and_writes_nothing(capsys, tmp_path):
    page = tmp_path / "page.html"
    for arguments, said in (
        ([NETWORK, COFFEE, "--target", "coffee"], "There is no class 'coffee'."),
        ([NETWORK, str(CACHE / "photographs")], "These are 8 pictures."),
        ([NETWORK, str(tmp_path / "none.png")], "no such file"),
        ([str(CACHE / "minilm"), COFFEE], ""),
        ([NETWORK, COFFEE, "--layer", "fc", "--no-dreams"], "fc gives no maps."),
    ):
        assert run(["look", *arguments, "--save", str(page)]) == 2
        assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
