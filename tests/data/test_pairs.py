import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from pellucid.data.pairs import read, read_labelled, read_lines
from pellucid.errors import PellucidError

PAIRS = [
    ("one dog", "un perro"),
    ("two cats", "dos gatos"),
    ("one  dog", "el perro"),
    ("a hound", "un perro"),
    ("?", "-"),
]


@pytest.fixture
def table(tmp_path):
    def write(**columns):
        parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
        return tmp_path / "a.parquet"

    return write


def test_two_columns(table):
    found = read(table(en=[en for en, _es in PAIRS], es=[es for _en, es in PAIRS]), "es")
    assert list(zip(found.sources, found.targets, strict=True)) == PAIRS
    assert found.notes == []


def test_pairs_that_share_a_side_stay_together(table):
    found = read(table(en=[en for en, _es in PAIRS], es=[es for _en, es in PAIRS]), "es")
    groups = found.groups.tolist()
    assert groups[0] == groups[2] == groups[3]
    assert len({*groups}) == 3


def test_empty_sides_are_left_out_and_said(table):
    found = read(table(en=["a", None, "c", " "], es=["x", "y", "", "z"]), "es")
    assert (found.sources, found.targets) == (["a"], ["x"])
    assert found.notes == ["3 pairs with an empty side were left out."]
    with pytest.raises(PellucidError, match="No row has both"):
        read(table(en=["a", ""], es=["", "y"]), "es")


def test_the_source_is_chosen_or_asked_for(table):
    path = table(n=[1, 2, 3], en=["a", "b", "c"], es=["x", "y", "z"])
    found = read(path, "es")
    assert found.sources == ["a", "b", "c"]
    assert found.notes == ["The text is read from column en."]
    path = table(fr=["p", "q", "r"], en=["a", "b", "c"], es=["x", "y", "z"])
    assert read(path, "es", "fr").sources == ["p", "q", "r"]
    with pytest.raises(PellucidError, match="Several columns hold text") as error:
        read(path, "es")
    assert "fr, en" in error.value.fix


@pytest.mark.parametrize(
    ("target", "column", "what"),
    [
        ("de", None, "no column de"),
        ("es", "de", "no column de"),
        ("es", "es", "both the text and the target"),
        ("es", "n", "n holds int64, not text"),
        ("n", "es", "n holds int64, not text"),
    ],
)
def test_columns_that_are_refused(table, target, column, what):
    path = table(n=[1, 2, 3], es=["x", "y", "z"])
    with pytest.raises(PellucidError, match=what):
        read(path, target, column)


def test_a_table_with_no_other_text(table):
    with pytest.raises(PellucidError, match="No column beside es holds text"):
        read(table(n=[1, 2, 3], es=["x", "y", "z"]), "es")


@given(st.lists(st.tuples(*[st.text("ab ", max_size=4)] * 2).filter(any), min_size=1, max_size=9))
def test_parallel_files_keep_the_whole_pairs(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("pairs")
    for side, name in enumerate(("a.txt", "b.txt")):
        (folder / name).write_text("".join(f"{line[side]}\n" for line in lines))
    whole = [(a.strip(), b.strip()) for a, b in lines if a.strip() and b.strip()]
    if not whole:
        with pytest.raises(PellucidError):
            read_lines(folder / "a.txt", folder / "b.txt")
        return
    found = read_lines(folder / "a.txt", folder / "b.txt")
    assert list(zip(found.sources, found.targets, strict=True)) == whole
    assert bool(found.notes) == (len(whole) < len(lines))


def test_parallel_files_of_unequal_length(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n")
    (tmp_path / "b.txt").write_text("uno\ndos")
    with pytest.raises(PellucidError, match="unequal length: 3 lines here, 2 lines there"):
        read_lines(tmp_path / "a.txt", tmp_path / "b.txt")
    with pytest.raises(PellucidError, match="no such file"):
        read_lines(tmp_path / "a.txt", tmp_path / "c.txt")


REVIEWS = ["good film", "bad film", "good  film", "I liked it", "awful", ""]


def test_texts_with_labels(table):
    found = read_labelled(table(text=REVIEWS, label=["pos", "neg", "neg", "pos", None, "neg"]), "label")
    assert found.texts == ["good film", "bad film", "good  film", "I liked it"]
    assert (found.labels.tolist(), found.classes, found.column) == ([1, 0, 0, 1], ["neg", "pos"], "text")
    assert found.groups.tolist() == [0, 1, 0, 2]
    assert found.notes == [
        "1 rows without a text were left out.",
        "1 rows without a label were left out.",
        "1 texts stand there again with another label.",
    ]


def test_labels_that_are_numbers_or_truth_values(table):
    assert read_labelled(table(text=REVIEWS[:4], label=[1, 0, 0, 1]), "label").classes == ["0", "1"]
    assert read_labelled(table(text=REVIEWS[:4], label=[10, 9, 9, 10]), "label").classes == ["9", "10"]
    assert read_labelled(table(text=REVIEWS[:4], label=[True, False, False, True]), "label").classes == [
        "false",
        "true",
    ]


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        (["pos"] * 4, "label is pos in every row"),
        (["pos", "neg", "neg", "neg"], "Only one example of: pos"),
        ([None] * 4, "label is empty"),
    ],
)
def test_labels_that_are_refused(table, labels, what):
    with pytest.raises(PellucidError, match=what):
        read_labelled(table(text=REVIEWS[:4], label=pa.array(labels, pa.string())), "label")


def test_the_row_is_named_though_rows_without_text_were_left_out(table):
    with pytest.raises(PellucidError, match="Only one example of: pos") as error:
        read_labelled(table(text=["", *REVIEWS[:4]], label=["pos", "neg", "neg", "pos", "neg"]), "label")
    assert error.value.where.endswith("row 4")


def test_classes_of_a_trained_network(table):
    path = table(text=REVIEWS[:2], label=["pos", "neg"])
    assert read_labelled(path, "label", classes=["pos", "neg"]).labels.tolist() == [0, 1]
    with pytest.raises(PellucidError, match="neg is none of the classes"):
        read_labelled(path, "label", classes=["pos", "other"])
