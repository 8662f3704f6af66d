"""Texts with a category, on real ones: mails and reviews, from a table to the words that decided."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import pellucid as pl

CACHE = Path(__file__).parents[1] / "cache"

pytestmark = pytest.mark.slow


def present(name: str) -> Path:
    assert (CACHE / name).exists(), "run `python tests/fetch.py` first, as `make test-all` does"
    return CACHE / name


def finished(run: Path) -> dict:
    return json.loads((run / "journal.jsonl").read_text().splitlines()[-1])


def assert_words_decide(model: pl.Model, text: str) -> None:
    """The parts spell the beginning of the text, and add up to the difference of the logits."""
    found = model.why([text])
    logits = model.trace([text]).value(":out")[0].double()
    assert found.value == pytest.approx((logits.max() - logits.min()).item(), abs=1e-4)
    assert abs(found.residue) < 1e-4
    assert text.startswith("".join(part.name for part in found.parts[1:-1]))


def test_spam_is_told_from_mail(tmp_path):
    model = pl.train(present("spam.jsonl"), tmp_path / "run", target="label")
    evidence = finished(tmp_path / "run")
    assert 1 - evidence["error"] >= 0.97
    assert 1 - model.evaluate().accuracy == pytest.approx(
        evidence["error"], abs=0.003
    )  # trained in bf16, opened in fp32
    text = "Congratulations! Click here to claim your FREE money now, 100% guaranteed, no risk. Remove me."
    assert model.predict(text)[0].value == "spam"
    assert_words_decide(model, text)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run").eval()
    given = AutoTokenizer.from_pretrained(tmp_path / "run")(text, return_tensors="pt")
    with torch.no_grad():
        p_K = theirs(**given).logits[0].softmax(0)
    assert list(model.predict(text)[0].probabilities.values()) == pytest.approx(p_K.tolist(), abs=1e-4)


def test_chinese_reviews_are_read_as_well_as_a_linear_model_does(tmp_path):
    model = pl.train(present("chinese-reviews.jsonl"), tmp_path / "run", target="label")
    ended = finished(tmp_path / "run")
    assert ended["error"] <= ended["evidence"]["linear_model"] + 0.01
    for text, label in (
        ("很好看的一本书，值得推荐，非常喜欢。", "positive"),
        ("太差了，质量不好，很失望，不推荐。", "negative"),
    ):
        assert model.predict(text)[0].value == label
        assert_words_decide(model, text)


def test_minilm_knows_which_sentences_mean_the_same():
    model = pl.open(present("minilm"))
    cat = "A cat sits on the mat."
    assert model.similarity(cat, "The kitten is resting on a rug.") >= 0.6
    assert model.similarity(cat, "Stock prices fell sharply today.") <= 0.15
    with pytest.raises(pl.PellucidError, match="encoder without classes"):
        model.predict(cat)
