"""`pellucid why`: what it prints, what it refuses, and how soon it answers."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from pydoc_data.topics import topics

import pytest
from rich.cells import cell_len

import pellucid as pl
from pellucid import language
from pellucid.cli import app as cli
from pellucid.training import run as running

PROMPT = "The class"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("why") / "run"
    (folder.parent / "text.txt").write_text(topics["lambda"] + topics["objects"] + topics["naming"], "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "seconds_per_step", lambda task, plan: 0.01)
        pl.train(
            folder.parent / "text.txt", folder, steps=6, evaluations=1,
            width=32, depth=2, heads=2, context=32, vocab=300, batch=4, threads=1,
        )  # fmt: skip
    return folder


@pytest.fixture
def why(run, capsys, monkeypatch):
    """Ask in this process: exit code, standard output, standard error."""
    monkeypatch.setenv("COLUMNS", "80")

    def ask(*arguments: str) -> tuple[int, str, str]:
        code = cli.run(["why", str(run), *arguments])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return ask


def test_the_first_view_fits_the_screen(why):
    code, out, error = why(PROMPT)
    assert (code, error) == (0, "")
    assert max(map(cell_len, out.splitlines())) <= 80
    for heading in ("could come next", "what each token contributes", "past this layer", "constants", "single terms"):
        assert heading in out
    assert re.search(r"Σ 32 terms .* = .*residue", out.replace("\n", " "))


def test_both_names_of_the_option_and_ids(why, run):
    expected = why(PROMPT, "--next-token", "e", "--rather-than", "a")
    assert expected[1].startswith("why e rather than a")
    assert why(PROMPT, "--token", "e", "--rather-than", "a") == expected
    id = pl.open(run).tokenizer.encode("e")[0]
    assert why(PROMPT, "--token", f"id:{id}", "--rather-than=a") == expected


def test_opening_a_term_shows_what_is_behind_it(why):
    code, out, _error = why(PROMPT, "--open", "2.1", "--top", "3")
    assert code == 0
    numbers = re.findall(r"^[│├└─ ]*([\d.]+)  ?[ ▐█▕]*│", out, re.M)
    assert numbers[:2] == ["1", "2"]
    assert "2.1" in numbers
    assert any(number.startswith("2.1.") for number in numbers)
    assert "past this layer" not in out


def test_json_holds_everything(why, run):
    code, out, error = why(PROMPT, "--json", "--open", "1.1", "--token", "e")
    assert (code, error) == (0, "")
    data = json.loads(out)
    (answer,), (flow,) = data["answers"], data["flows"]
    assert answer["terms"][0]["opened"]["terms"][0]["opened"]["kind"] in ("sum", "leaf")
    assert sum(token["contribution"] for token in flow["tokens"]) == pytest.approx(
        flow["value"] - flow["residue"] - sum(c["contribution"] for c in flow["constants"]), abs=1e-6
    )
    assert data["tokens"] == pl.open(run).trace(PROMPT).tokens
    assert 0 < data["probability"] < 1


def test_several_tokens_are_asked_one_by_one(why):
    code, out, _error = why(PROMPT, "--token", "xq", "--json")
    data = json.loads(out)
    assert code == 0
    assert len(data["answers"]) == 2
    assert data["probability"] == pytest.approx(
        data["answers"][0]["asked"][0]["probability"] * data["answers"][1]["asked"][0]["probability"]
    )
    code, out, _error = why(PROMPT, "--token", "xq")
    assert "'xq' is 2 tokens" in out
    assert "the product" in out


def test_a_probability_is_answered_with_the_exact_questions(why):
    code, out, _error = why(PROMPT, "--about", "probability")
    assert code == 0
    assert "a probability is not a sum" in out.replace("\n", " ")
    assert "--about log-probability" in out.replace("\n", " ")
    code, out, _error = why(PROMPT, "--about", "log-probability")
    assert code == 0
    assert "entropy" in out


def test_a_page_is_written_and_said(why, tmp_path):
    path = tmp_path / "why.html"
    code, out, error = why(PROMPT, "--save", str(path))
    assert (code, f"Written: {path}" in error) == (0, True)
    assert path.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert "single terms" in out
    code, out, error = why(PROMPT, "--save", str(path), "--json")
    assert code == 0
    json.loads(out)


@pytest.mark.parametrize(("arguments", "message"), [
    ([""], "nothing to ask about"), ([PROMPT, "--token", "id:99999"], "no token 99999"),
    ([PROMPT, "--convention", "whim"], "whim"),
    (["word " * 40], "the model sees 32"), ([PROMPT, "--open", "1.x"], "no path"), ([PROMPT, "--open", "9999"], "9999"),
    ([PROMPT, "--about", "nowhere"], "nothing at this address"), ([PROMPT, "--top", "0"], "--top"),
    ([PROMPT, "--open", "1c"], "nothing behind"), ([PROMPT, "--token", "e", "--rather-than", "e"], "same"),
    ([PROMPT, "--token", "xq", "--open", "1"], "2 tokens"), ([PROMPT, "--save", "why.txt"], ".html"),
    ([PROMPT, "--token", ""], "cannot spell"),
])  # fmt: skip
def test_a_slip_gets_one_clear_message(why, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, error = why(*arguments)
    assert (code, out) == (2, "")
    assert message in error
    assert "Traceback" not in error
    assert len(error.splitlines()) <= 3
    assert list(tmp_path.iterdir()) == []


def test_it_speaks_chinese(why):
    try:
        code, out, _error = why(PROMPT, "--language", "zh")
    finally:
        language.use("en")
    assert code == 0
    assert "绕过该层" in out
    assert max(map(cell_len, out.splitlines())) <= 80


def test_the_first_answer_is_soon_there(run):
    """Four seconds on the machine that the figures are from; here with room for busy neighbours."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    begin = time.perf_counter()
    command = [sys.executable, "-X", "importtime", "-m", "pellucid", "why", str(run), PROMPT]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert time.perf_counter() - begin < 40
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "torch" in loaded
    # each of them would take half a second or more
    assert not loaded & {"torch._dynamo", "sympy", "transformers", "pandas", "pyarrow", "pellucid.training.loop"}
