"""Translation, on real pairs: verses in English and Spanish, paragraphs in English and Chinese."""

import json
from pathlib import Path

import pytest
import torch
from sacrebleu import corpus_bleu

import pellucid as pl

CACHE = Path(__file__).parents[1] / "cache"

pytestmark = pytest.mark.slow

# Steps, not minutes: so the result does not depend on what else the machine does.
SMALL = {"width": 128, "depth": 2, "threads": 1, "evaluations": 5}
STEPS, STEPS_CHINESE = 1400, 240


def present(name: str) -> Path:
    assert (CACHE / name).exists(), "run `python tests/fetch.py` first, as `make test-all` does"
    return CACHE / name


def finished(run: Path) -> dict:
    return json.loads((run / "journal.jsonl").read_text("utf-8").splitlines()[-1])


@pytest.fixture(scope="module")
def verses(tmp_path_factory):
    """A translator of verses: its folder."""
    folder = tmp_path_factory.mktemp("runs") / "verses"
    pl.train(present("verses.jsonl"), folder, text="en", target="es", steps=STEPS, **SMALL)
    return folder


def test_verses_are_translated_better_than_word_by_word(verses):
    end = finished(verses)
    ours, copied, by_word = (
        100 - missed
        for missed in (
            end["missed_bleu"],
            end["evidence"]["missed_bleu_copy"],
            end["evidence"]["missed_bleu_words"],
        )
    )
    print(f"BLEU on unseen verses: {ours:.1f}, word by word {by_word:.1f}, copied {copied:.1f}")
    assert copied < 1
    assert ours > by_word + 5
    assert any("word by word BLEU" in sentence for sentence in end["sentences"])


def test_bleu_is_what_sacrebleu_says_of_what_is_written(verses, tmp_path):
    model = pl.open(verses)
    rows = [json.loads(line) for line in (CACHE / "verses.jsonl").read_text("utf-8").splitlines()[::1000]]
    path = tmp_path / "some.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    said = [answer.value for answer in model.predict(path)]
    report = model.evaluate(path)
    assert report.pairs == len(rows)
    assert report.score.bleu == pytest.approx(corpus_bleu(said, [[row["es"] for row in rows]]).score)


def test_why_a_word_of_a_verse_and_what_it_looks_at(verses):
    found = pl.open(verses).why("And Moses said unto the people, Fear ye not.", value="Moisés")
    assert abs(found.residue) < 1e-3 * max(1.0, abs(found.value))
    amounts = {part.name: part.amount for part in found.parts if part.given == "in the text"}
    assert max(amounts, key=amounts.__getitem__) == "Moses"
    (alignment,) = found.beside
    row = alignment.weights[alignment.written.index("Moisés")]
    assert torch.isclose(row.sum(), torch.tensor(1.0), atol=1e-4)
    assert "Moses" in [alignment.read[n] for n in row.topk(3).indices]


def test_paragraphs_become_chinese(tmp_path):
    """So few pairs of a manual full of names of programs: copying is ahead in BLEU, and the verdict says so."""
    model = pl.train(
        present("paragraphs.jsonl"), tmp_path / "run", text="en", target="zh", steps=STEPS_CHINESE, **SMALL
    )
    end = finished(tmp_path / "run")
    assert "tok:zh" in model.evaluate().signature
    assert end["loss"] < 0.75 * end["evidence"]["simple_loss"]
    ahead = end["missed_bleu"] > end["evidence"]["missed_bleu_copy"]
    assert any(sentence.startswith("Still ahead of it") for sentence in end["sentences"]) == ahead
    (answer,) = model.predict("Please install this package.")
    assert any("\u4e00" <= character <= "\u9fff" for character in answer.value)
