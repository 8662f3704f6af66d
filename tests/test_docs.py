"""The documents say what the program does."""

import contextlib
import io
import re
from pathlib import Path

import pytest

import pellucid as pl
from pellucid.cli import app as cli
from pellucid.data import compress
from pellucid.training.verdict import THRESHOLDS, State

DOCS = Path(__file__).parents[1] / "docs"
CACHE = Path(__file__).parents[1] / "cache"


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
        ("is not 2 % below that of the simplest guess", THRESHOLDS["learned"].value == 0.02),
        ("below a thousandth of the simplest guess", THRESHOLDS["solved"].value == 0.001),
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


@pytest.mark.parametrize("page", ["anatomy.md", "anatomy.zh.md"])
class TestAnatomy:
    def test_the_code_prints_what_stands_below_it(self, page):
        found = re.findall(r"```python\n(.*?\n)```\n```\n(.*?)```\n", (DOCS / page).read_text("utf-8"), flags=re.DOTALL)
        assert found
        for code, said in found:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(code, {})
            assert printed.getvalue() == said

    def test_the_commands_run_and_say_what_stands_below_them(self, page, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        blocks = re.findall(r"```\n(\$ .*?)```", (DOCS / page).read_text("utf-8"), flags=re.DOTALL)
        lines = [line for block in blocks for line in block.splitlines()]
        inline = re.findall(r"`(pellucid anatomy --[a-z0-9 -]+)`", (DOCS / page).read_text("utf-8"))
        commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")] + inline
        assert len(commands) >= 6
        printed = ""
        for command in commands:
            assert cli.run(command.split()[1:]) == 0, command
            printed += " ".join(capsys.readouterr().out.split()) + " "
        for line in lines:
            assert line.startswith("$ ") or " ".join(line.split()) in printed

    def test_the_table_of_networks_is_what_is_counted(self, page):
        counted = {match[1]: row for row in rows(page) if (match := re.search(r"`([^`]+)`", row[0]))}
        assert len(counted) == 6
        for name, (_, parameters, said, _) in counted.items():
            network = pl.anatomy(name)
            assert parameters == f"{network.parameters.total:,}"
            neurons = network.neurons.by_kind
            head = neurons["head"] if "50,257" in said else 0
            numbers = [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", said)]
            assert numbers[0] == network.neurons.total - head
            assert not head or numbers[1] == head


NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def run_why(real: bool) -> None:
    """Run the blocks of why.md, those with a real model or those before, and hold what they print against the page."""
    page = (DOCS / "why.md").read_text("utf-8")
    found = re.findall(r"```python\n(.*?\n)```\n(?:\n```text\n(.*?)\n```\n)?", page, flags=re.DOTALL)
    first = next(n for n, (code, _) in enumerate(found) if "smollm2" in code)
    assert 0 < first < len(found)
    namespace: dict = {"pl": pl}
    for code, said in found[first:] if real else found[:first]:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        done = printed.getvalue().rstrip()
        assert NUMBER.sub("#", done) == NUMBER.sub("#", said)
        numbers = [[float(x) for x in NUMBER.findall(text)] for text in (done, said)]
        assert numbers[0] == pytest.approx(numbers[1], rel=0.01, abs=0.02)  # as well as two machines agree


def test_why_md_prints_what_it_says():
    run_why(real=False)


@pytest.mark.slow
def test_why_md_prints_what_it_says_of_a_real_model(monkeypatch):
    if not (CACHE / "smollm2-135m.gguf").exists():
        pytest.skip("run `python tests/fetch.py` first, as `make test-all` does")
    monkeypatch.chdir(CACHE)
    run_why(real=True)
