"""Every example runs, offline, and prints what it promises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pellucid as pl

EXAMPLES = Path(__file__).parents[1] / "examples"
PRINTS = {
    "pictures.py": ("pictures that decided nothing", "across rather than down", "pixel by pixel the same"),
    "failing.py": ("memorising", "learned nothing yet", "not a finite number", "try a larger network", "silent for"),
    "sizing.py": ("1,070,794 parameters, 49,418 neurons", "4096 × 256 + 256", "minutes", "fits: True"),
    "train_on_your_text.py": ("bits per byte", "The "),
    "tokens_with_probabilities.py": ("rank", "least expected:"),
    "why.py": ("a sum of", "by token:", "as a term of the sum", "attention doubled"),
    "who_looks_at_whom.py": ("layer 1: at whom each character looks most", "bits per byte", "rather than"),
    "a_transformers_folder.py": ("opens it", "for ' of' after 'The value'"),
}


def test_every_example_is_listed():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(PRINTS)


@pytest.mark.parametrize("name", PRINTS)
def test_an_example_runs(name, tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    for text in PRINTS[name]:
        assert text in done.stdout


@pytest.mark.slow
def test_characters_out_of_order_look_at_each_other(tmp_path):
    """A minute of Tang poems, then 汉字的序顺并不定一影阅响读 in the characters of the poems."""
    poems = Path(__file__).parents[1] / "cache" / "tang.jsonl"
    if not poems.exists():
        pytest.skip("run `python tests/fetch.py` first, as `make test-all` does")
    pl.train(poems, tmp_path / "run", minutes=1)
    sentences = "漢字的序順並不定一影閱響讀", "漢字的順序並不一定影響閱讀"
    command = [sys.executable, str(EXAMPLES / "who_looks_at_whom.py"), str(tmp_path / "run"), *sentences]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    trace = pl.open(tmp_path / "run").trace(sentences[0])
    for layer in range(len(trace.flow().layers)):
        looks = trace.attention(layer)
        torch.testing.assert_close(looks.sum(-1), torch.ones(looks.shape[:2]))
        assert f"layer {layer}: at whom each character looks most" in done.stdout
    assert all(f"│ {character} " in done.stdout for character in sentences[0])
    assert all(f"{sentence}: " in done.stdout for sentence in sentences)
