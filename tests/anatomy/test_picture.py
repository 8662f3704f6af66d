"""The treemap: areas are in proportion to parameters, pages need nothing else and trust no name."""

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pages import Page
from pellucid import language
from pellucid.anatomy import catalogue, families
from pellucid.anatomy.counts import KINDS
from pellucid.anatomy.report import Anatomy
from pellucid.anatomy.shown.drawing import COLOURS, drawing
from pellucid.anatomy.shown.page import page
from pellucid.anatomy.shown.treemap import Rect, grid, size, squarify, treemap
from pellucid.anatomy.tree import Linear, Norm, Part, Repeat, Sequence, walk
from pellucid.errors import PellucidError

FRAMES = st.builds(Rect, st.floats(-100, 100), st.floats(-100, 100), st.floats(1, 2000), st.floats(1, 2000))
NAMES = st.sampled_from("abcdef")
LEAVES = st.one_of(
    st.builds(Linear, st.integers(1, 999), st.integers(1, 999), st.booleans()),
    st.builds(Norm, st.integers(1, 99), st.booleans()),
)


def parts(children):
    part = st.builds(Part, NAMES, children, st.sampled_from(KINDS))
    return st.lists(part, min_size=1, max_size=5).map(lambda found: Sequence(tuple(found)))


TREES = parts(
    st.recursive(
        LEAVES,
        lambda children: parts(children) | st.builds(Repeat, st.integers(1, 40), children, st.booleans()),
        max_leaves=8,
    )
)
HOSTILE = "<script>alert(1)</script>\"'&"


def network(name):
    entry = catalogue.find(name)
    return Anatomy(name, families.describe(entry.config, name), entry.config, "", entry)


def covers(rects, frame):
    """No overlap, nothing outside, and no gap: rectangles that add up to the frame while no two overlap cover it."""
    scale = max(frame.width, frame.height)
    near = 1e-7 * scale
    assert sum(rect.area for rect in rects) == pytest.approx(frame.area, rel=1e-6)
    for rect in rects:
        assert frame.x - near <= rect.x
        assert rect.x + rect.width <= frame.x + frame.width + near
        assert frame.y - near <= rect.y
        assert rect.y + rect.height <= frame.y + frame.height + near
    for n, a in enumerate(rects):
        for b in rects[:n]:
            across = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
            down = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
            assert min(across, down) <= near


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=25), FRAMES)
def test_squares_are_in_proportion_and_do_not_overlap(values, frame):
    rects = squarify(values, frame)
    covers(rects, frame)
    for value, rect in zip(values, rects, strict=True):
        assert rect.area == pytest.approx(value / sum(values) * frame.area, rel=1e-6)


def test_the_papers_example():
    rects = squarify([6, 6, 4, 3, 2, 2, 1], Rect(0, 0, 6, 4))  # Bruls et al. 2000, figure 4
    assert [(round(r.width, 2), round(r.height, 2)) for r in rects[:4]] == [(3, 2), (3, 2), (1.71, 2.33), (1.29, 2.33)]


@given(st.integers(1, 120), FRAMES)
def test_equal_children_have_equal_areas(n, frame):
    rects = grid(n, frame)
    assert len(rects) == n
    covers(rects, frame)
    assert all(rect.area == pytest.approx(frame.area / n, rel=1e-6) for rect in rects)


@given(TREES, st.sampled_from([1.0, 240.0, 1e9]))
def test_areas_are_parameters(tree, tile):
    frame = Rect(0, 0, 1000, 600)
    total, areas = size(tree), treemap(tree, frame, tile).areas
    assert sum(area.parameters for area in areas) == total
    assert sum(area.rect.area for area in areas) == pytest.approx(frame.area, rel=1e-6)
    for area in areas:
        assert area.rect.area == pytest.approx(area.parameters / total * frame.area, rel=1e-5)
    copies = {}
    for area in areas:
        copies.setdefault((area.path, area.kind, area.leaf), []).append(area.copies)
    met = {}
    for visit in walk(tree):
        if visit.parameters:
            met.setdefault((visit.path, visit.kind, visit.leaf), []).append(visit.copies)
    assert {key: sum(found) for key, found in copies.items()} == {key: sum(found) for key, found in met.items()}
    if len(areas) < 60:
        covers([area.rect for area in areas], frame)


@pytest.mark.parametrize("name", ["gpt3", "resnet-50", "deepseek-v3", "playground", "t5-small", "whisper-tiny"])
@pytest.mark.parametrize("spoken", ["en", "zh"])
def test_a_page_needs_nothing_else(name, spoken):
    anatomy = network(name)
    language.use(spoken)
    try:
        text = page(anatomy)
    finally:
        language.use("en")
    read = Page(text)
    assert not re.search(r"(?:src|href|url)\s*[=(]|https?:", text)
    assert f"{anatomy.parameters.total:,}" in "".join(read.words)
    assert {f"{n:,}" for n in anatomy.parameters.by_kind.values() if n} <= set(read.words)
    areas = [attrs for tag, attrs in read.seen if tag == "rect" and "area" in attrs["class"].split()]
    assert sum(area["tabindex"] == "0" for area in areas) == sum(tag == "svg" for tag, _attrs in read.seen)
    assert ('lang="zh"' in text) == (spoken == "zh")
    assert len(text) < 1_000_000


def test_every_area_says_what_it_is():
    read = Page(page(network("gpt3")))
    assert (
        "blocks.*.feed_forward.up: 12288 × 49152 + 49152 = 604,028,928 parameters, 0.35 %; 49,152 neurons; "
        "there are 96 of these"
    ) in read.words
    assert "too small to be seen" in read.words  # the norms
    assert "shares the table of embedding, counted there" in read.words
    assert "blocks, one of 96: 1,812,099,072 parameters, 1.0 %" in read.words


@pytest.mark.parametrize("name", ["gpt3", "resnet-152", "deepseek-v3", "line"])
def test_a_drawing_is_svg_by_itself(name):
    root = ET.fromstring(drawing(network(name)))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert {element.tag.rpartition("}")[2] for element in root.iter()} <= {"svg", "title", "style", "rect", "text"}
    _x, _y, width, height = map(float, root.attrib["viewBox"].split())
    for rect in root.iter("{http://www.w3.org/2000/svg}rect"):
        if "area" in rect.attrib.get("class", ""):
            assert float(rect.attrib["x"]) + float(rect.attrib["width"]) <= width
            assert float(rect.attrib["y"]) + float(rect.attrib["height"]) <= height


def test_letters_stay_in_their_areas():
    root = ET.fromstring(drawing(network("resnet-50")))
    name = "{http://www.w3.org/2000/svg}"
    areas = [
        [float(r.attrib[side]) for side in ("x", "y", "width", "height")]
        for r in root.iter(f"{name}rect")
        if "area" in r.attrib.get("class", "")
    ]
    labels = [text for text in root.iter(f"{name}text") if text.attrib.get("class")]
    assert len(labels) > 50
    for text in labels:
        x, y, letters = (float(text.attrib[key]) for key in ("x", "y", "font-size"))
        assert any(
            left <= x
            and x + 0.5 * letters * len(text.text) <= left + width
            and top <= y - 0.7 * letters
            and y <= top + height
            for left, top, width, height in areas
        )


def test_names_cannot_write_the_page():
    tree = Sequence(
        (Part(HOSTILE, Repeat(40, Linear(9, 9)), "dense"), Part("head", Linear(9, 1, tied_to=HOSTILE), "head"))
    )
    anatomy = Anatomy(HOSTILE, tree, {"model_type": HOSTILE})
    text = page(anatomy)
    assert "<script>alert" not in text
    assert text.count("<script>") == 1
    Page(text)
    ET.fromstring(drawing(anatomy))


def test_every_kind_has_a_colour_and_what_has_no_parameters_a_page():
    assert set(COLOURS) == set(KINDS)
    anatomy = Anatomy("nothing", Sequence(()))
    Page(page(anatomy))
    ET.fromstring(drawing(anatomy))


@pytest.mark.parametrize("name", ["anatomy.html", "anatomy.svg", "ANATOMY.HTM"])
def test_what_is_ours_is_written_again(tmp_path, name):
    path = tmp_path / name
    network("line").save(path)
    network("playground").save(path)
    assert "Playground" in path.read_text("utf-8")
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("name", "there", "said"),
    [
        ("anatomy.png", None, "a page or as a drawing"),
        ("anatomy", None, "a page or as a drawing"),
        ("anatomy.html", "my page", "not made by Pellucid"),
        ("anatomy.svg", "<svg/>", "not made by Pellucid"),
        ("no/folder/anatomy.svg", None, "cannot be written"),
    ],
)
def test_what_cannot_be_saved(tmp_path, name, there, said):
    path = tmp_path / name
    if there is not None:
        path.write_text(there)
    with pytest.raises(PellucidError, match=said):
        network("line").save(path)
    assert [file.read_text() for file in tmp_path.rglob("*") if file.is_file()] == ([there] if there else [])
