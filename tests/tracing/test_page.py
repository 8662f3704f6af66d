"""The page to share: one file, complete without a network and without a running program; looked at in a browser."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

import pellucid as pl
from pages import Page
from pellucid import language
from pellucid.language_model import LanguageModel
from pellucid.tracing import display, page
from tracing.zoo import byte_model

NASTY = '<script>alert("x")</script> & 曉\n'


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return byte_model("llama", 3, 512, Path("shakespeare"))


@pytest.fixture(scope="module")
def answer(model: LanguageModel):
    return model.why(NASTY, next_token="a", rather_than="b")


def test_the_page_is_one_well_formed_file_that_asks_for_nothing(answer, tmp_path):
    answer.save(tmp_path / "why.html")
    text = (tmp_path / "why.html").read_text("utf-8")
    read = Page(text)
    assert [tag for tag, _attributes in read.seen].count("script") == 1  # ours; the prompt's is text
    for tag, attributes in read.seen:
        assert tag not in ("link", "img", "iframe", "object")
        assert not {"src", "href", "onclick", "onload"} & attributes.keys()
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttpRequest", text)
    assert "default-src 'none'" in text
    assert len(text.encode()) <= 2_000_000
    assert list(tmp_path.iterdir()) == [tmp_path / "why.html"]


def test_what_the_page_says_is_what_the_answer_says(answer):
    words = " ".join(Page(page.page(answer)).words)
    assert "shakespeare" in words
    assert display.sentence(answer).split("e^")[0].strip() in words
    for term in answer.terms[:8]:
        assert term.address in words
        assert display.signed(term.contribution) in words
    flow = answer.context.flow()
    for layer in flow.layers:
        for amount in (*(part.amount for part in layer.groups), layer.past):
            assert display.signed(amount) in words
        for part in layer.groups:
            if part.heads is not None:
                assert display.signed(part.heads[0].sum().item()) in words
    assert display.flow_balance(flow).plain in words
    behind = answer.terms[0].why()
    assert behind.terms[0].address in words  # opened beforehand


def test_a_small_limit_is_kept_and_what_is_left_out_is_counted(model):
    answer = model.why("In the beginning was the word. " * 6)
    large, small = page.page(answer), page.page(answer, limit=120_000)
    assert len(small.encode()) <= 120_000 < len(large.encode())
    Page(small)
    opened = int(re.search(r"([\d,]+) numbers are opened here; [\d,]+ more could be", small)[1].replace(",", ""))
    assert opened < int(re.search(r"([\d,]+) numbers are opened here", large)[1].replace(",", ""))
    assert "positions, the strongest" in large  # of 186 positions, 24 have a column
    assert "are left out to keep this page small" in small
    assert len(page.page(answer, limit=60_000).encode()) <= 60_000
    with pytest.raises(pl.PellucidError, match="does not fit into 20,000 bytes"):
        page.page(answer, limit=20_000)


def test_a_long_text_is_whole_and_readable(model):
    text = "To be, or not to be: that is the question.\n" * 10
    words = "".join(Page(page.page(model.why(text))).words)
    assert text.replace("\n", "⏎") in words  # no gaps between tokens


def test_only_pages_of_ours_are_replaced(answer, tmp_path):
    path = tmp_path / "why.html"
    path.write_text("<p>my diary</p>")
    with pytest.raises(pl.PellucidError, match="no page of Pellucid's"):
        answer.save(path)
    assert path.read_text() == "<p>my diary</p>"
    path.unlink()
    answer.save(path)
    first = path.read_bytes()
    answer.save(path)
    assert path.read_bytes() == first  # the same answer, the same bytes
    for wrong in (tmp_path / "why.txt", tmp_path / "nowhere" / "why.html", tmp_path):
        with pytest.raises(pl.PellucidError):
            answer.save(wrong)
    assert list(tmp_path.iterdir()) == [path]


def test_a_flow_and_several_tokens_have_pages(model, answer, tmp_path):
    answer.context.flow().save(tmp_path / "flow.html")
    assert "past this layer" in " ".join(Page((tmp_path / "flow.html").read_text("utf-8")).words)
    several = model.why("x", next_token="abc")
    several.save(tmp_path / "several.html")
    words = " ".join(Page((tmp_path / "several.html").read_text("utf-8")).words)
    assert "the product" in words
    assert words.count("Single terms") == 3
    assert (tmp_path / "several.html").stat().st_size <= 2_000_000


def test_any_module_has_a_page(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2), nn.Softmax(-1))
    trace = pl.trace(net, torch.randn(1, 1, 4, 4))
    for address in ("3[0,1]", "4[0,1]", "0.weight[0,0,0,0]"):
        Page(page.page(trace.why(address)))
    picture = page.page(trace.why("3[0,1]"))
    flow = trace.flow("3[0,1]")
    assert picture.count("aspect-ratio") == 1
    drawn = re.findall(r'<i class="\w+" style="--c:[\d.]+" title="([^"]+)"></i>', picture)
    assert drawn == [display.signed(amount) for amount in flow.inputs[":in.0"].flatten().tolist()]  # one square a pixel
    assert "not a sum" in " ".join(Page(page.page(trace.why("4[0,1]"))).words)


def test_notebooks_get_a_small_view(answer):
    text = answer._repr_html_()
    read = Page(text)
    assert "details" in [tag for tag, _attributes in read.seen]
    assert "script" not in [tag for tag, _attributes in read.seen]
    assert len(text) < 300_000
    assert "<details" in answer.context.flow()._repr_html_()


def test_the_page_speaks_chinese(answer):
    try:
        language.use("zh")
        text = page.page(answer)
    finally:
        language.use("en")
    assert '<html lang="zh">' in text
    words = " ".join(Page(text).words)
    for said in ("注意力", "前馈", "绕过该层", "常数", "各项", "约定"):
        assert said in words


# ---- in a browser: CI installs one, and nowhere is this skipped but where there is none

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: .ci/run installs it")


def browse(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={path.parent / 'profile'}"]
    return subprocess.run([*command, *options, path.as_uri()], capture_output=True, text=True, timeout=120, check=True)


@needs_browser
def test_a_browser_shows_it_and_asks_the_network_for_nothing(answer, tmp_path):
    path = tmp_path / "why.html"
    answer.save(path)
    log = tmp_path / "net.json"
    shown = browse(path, "--dump-dom", f"--log-net-log={log}").stdout
    read = Page(shown[shown.index("<html") :].replace("<br/>", "<br>"))
    words = " ".join(read.words)
    assert display.signed(answer.terms[0].contribution) in words
    assert [tag for tag, _attributes in read.seen].count("script") == 1  # the prompt's is text
    tools = next(attributes for tag, attributes in read.seen if attributes.get("class") == "tools")
    assert "hidden" not in tools  # our script has run
    asked = set(re.findall(r'"url":"((?:https?|wss?):[^"]*)"', log.read_text("utf-8", "replace")))
    assert not {url for url in asked if "why" in url}
    path.write_text(re.sub(r"<script>.*</script>", "", path.read_text("utf-8"), flags=re.S), "utf-8")
    still = browse(path, "--dump-dom").stdout
    assert display.signed(answer.terms[0].contribution) in still
    assert 'class="tools" hidden' in still  # without the script its buttons stay away, and the rest is there


@needs_browser
def test_a_browser_refuses_what_the_page_does_not_bring_along(answer, tmp_path):
    """The page's own policy: even a script within it could not fetch anything."""
    path = tmp_path / "why.html"
    other = tmp_path / "other.js"
    other.write_text("document.title = 'taken over'")
    text = page.page(answer).replace("</body>", f'<script src="{other.as_uri()}"></script></body>')
    path.write_text(text, "utf-8")
    assert "taken over" not in browse(path, "--dump-dom", "--allow-file-access-from-files").stdout.split("<body")[0]
