"""The documents say what the program does."""

import re
from pathlib import Path

import pytest

from pellucid.data import compress
from pellucid.training.verdict import THRESHOLDS, State

DOCS = Path(__file__).parents[1] / "docs"


def rows(name: str) -> list[list[str]]:
    """The cells of every table row of a page, heads and rules left out."""
    lines = (DOCS / name).read_text("utf-8").splitlines()
    tables = [line.strip("|").split("|") for line in lines if line.startswith("|") and not line.startswith("| ---")]
    return [[cell.strip() for cell in row] for row in tables]


def test_every_term_has_both_languages_and_both_meanings():
    terms = rows("glossary.md")
    assert len(terms) > 50
    for row in terms:
        assert len(row) == 4, row
        assert all(row), row
    chinese = re.compile("[\u4e00-\u9fff]")
    assert all(chinese.search(row[3]) for row in terms)


def test_every_verdict_is_explained():
    explained = {row[0] for row in rows("figures.md")}
    assert set(State.__args__) <= explained


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("the first 2 % of the steps", THRESHOLDS["start"].value == 0.02),
        ("is not 2 % below the unigram loss", THRESHOLDS["learned"].value == 0.02),
        ("lower the loss by 1 % or more", THRESHOLDS["worth"].value == 0.01),
        ("the training loss is 10 % above", THRESHOLDS["diverged"].value == 0.1),
        ("fewer than 3 evaluations", THRESHOLDS["level_points"].value == 3),
        ("from half the fall per doubling", THRESHOLDS["least"].value == 0.5),
        ("the median of the last tenth of the steps", THRESHOLDS["window"].value == 0.1),
        ("the first 2 MiB of the held-out part", compress.MOST_HELD_OUT == 2 << 20),
        ("the last 8 MiB of the training", compress.MOST_TRAINING == 8 << 20),
    ],
)
def test_the_documented_limits_are_the_program_s(said, value):
    assert said in " ".join((DOCS / "figures.md").read_text("utf-8").split())
    assert value
