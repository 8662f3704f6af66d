import contextlib
import datetime
import json
import string

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import csv, parquet

from pellucid.data import tables
from pellucid.data.encoding import fit
from pellucid.errors import PellucidError


@pytest.fixture
def written(tmp_path):
    """Writes a file and says where."""

    def write(content, name="a.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return path

    return write


def kinds(table):
    return {column.name: column.kind for column in table.columns}


# reading


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters(written, delimiter):
    rows = [["height", "sex"], ["170", '"M, or ""m"""' if delimiter == "," else "M"], ["160", "F"], ["150", "F"]]
    table = tables.read(written("\n".join(delimiter.join(row) for row in rows)))
    assert kinds(table) == {"height": "number", "sex": "category"}
    assert table.column("height").values.tolist() == [170, 160, 150]
    assert table.column("sex").values[0] == ('M, or "m"' if delimiter == "," else "M")
    assert any("separated" in note for note in table.notes) == (delimiter != ",")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_encodings_and_line_ends(written, encoding, end):
    text = end.join(["身高,性别", *["170,男生同学", "160,女生同学"] * 20]) + end
    table = tables.read(written(text.encode(encoding)))
    assert kinds(table) == {"身高": "number", "性别": "category"}
    assert table.column("性别").categories == ["女生同学", "男生同学"]
    assert len(table) == 40


def test_values_with_line_ends_and_strange_ones_in_them(written):
    table = tables.read(written('a,b\n1,"x\ny\u2028\x0bz"\n2,w\n3,w\n'))
    assert table.column("b").values.tolist() == ["x\ny\u2028\x0bz", "w", "w"]


def test_a_value_longer_than_a_block_of_the_reader(written):
    long = "word " * 300_000
    table = tables.read(written(f"a,b\n1,{long}\n2,short\n"))
    assert table.column("b").values[0] == long.strip()


def test_blank_lines_before_the_header(written):
    assert tables.read(written("\n\nx,y\n1,2\n3,4\n")).column("y").values.tolist() == [2, 4]


def test_decimal_comma_is_recognised_and_said(written):
    table = tables.read(written("height;weight;n\n170,5;1.060,25;3\n1.165,125;55;4\n"))
    assert table.column("height").values.tolist() == [170.5, 1165.125]
    assert table.column("weight").values.tolist() == [1060.25, 55]
    assert any("decimal comma: height, weight" in note for note in table.notes)


def test_one_sure_decimal_comma_settles_the_others(written):
    table = tables.read(written("a;b\n1,234;0,5\n2,345;1\n"))
    assert table.column("a").values.tolist() == [1.234, 2.345]


def test_numbers_as_people_write_them(written):
    table = tables.read(written("a\n+5\n -3 \n1e3\n.5\n5.\n"))
    assert table.column("a").values.tolist() == [5, -3, 1000, 0.5, 5]


@pytest.mark.parametrize("spelling", ["", "NA", "N/A", "null", "?", "-", " "])
def test_missing_values(written, spelling):
    table = tables.read(written(f"a,b,y\n1,x,1\n{spelling},{spelling},2\n3,z,3\n4,z,4\n5,x,5\n"))
    assert [table.column(name).missing for name in ("a", "b", "y")] == [1, 1, 0]
    assert np.isnan(table.column("a").values[1])
    assert table.column("b").values[1] is None
    assert table.column("b").categories == ["x", "z"]
    assert any("missing in: a (1), b (1)" in note for note in table.notes)


def test_nan_is_a_missing_input(written):
    table = tables.read(written("a,b\n1,x\nNaN,nan\n3,y\n4,y\n5,x\n"))
    assert table.column("a").missing == 1
    assert table.column("b").missing == 1


def test_what_columns_hold(tmp_path):
    n = 60
    words = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "by", "the", "river"]
    raw = {
        "id": list(range(n)),
        "age": [20 + i % 7 for i in range(n)],
        "city": [f"city {i % 25}" for i in range(n)],
        "smoker": [i % 3 == 0 for i in range(n)],
        "review": [" ".join(words[(i + j) % 12] for j in range(8)) + f" {i}" for i in range(n)],
        "surname": [f"Mac{i}" for i in range(n)],
        "born": [datetime.date(2000, 1, 1 + i % 28) for i in range(n)],
        "when": [f"2020-01-{1 + i % 28:02} 10:00" for i in range(n)],
        "same": [3] * n,
        "nothing": [None] * n,
        "zip": [f"0{1000 + i % 5}" for i in range(n)],
        "sloppy": [*[str(i * 1.5) for i in range(n - 1)], "12 kg"],
        "nested": [[1, 2]] * n,
        "photo": [{"bytes": b"x", "path": None}] * n,
        "file": [f"{i}.JPG" for i in range(n)],
    }
    parquet.write_table(pa.table(raw), tmp_path / "a.parquet")
    table = tables.read(tmp_path / "a.parquet")
    assert kinds(table) == {
        **dict.fromkeys(["id", "surname", "born", "when", "same", "nothing", "sloppy", "nested"], "ignored"),
        **dict.fromkeys(["city", "smoker", "zip"], "category"),
        "age": "number",
        "review": "text",
        "photo": "picture",
        "file": "picture",
    }
    assert table.column("smoker").categories == ["false", "true"]
    assert "12 kg" in table.column("sloppy").why
    assert "Texts: review." in table.notes
    assert any(note.startswith("Left out (dates") and "born, when" in note for note in table.notes)
    assert any(note.startswith("Left out (the same value") for note in table.notes)


def test_labels_of_a_hugging_face_data_set_get_their_names(tmp_path):
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "x": {"dtype": "int64", "_type": "Value"}}
    about = json.dumps({"info": {"features": features}}).encode()
    raw = pa.table({"label": [0, 1, 1, -1], "x": [1, 2, 3, 4]}).replace_schema_metadata({b"huggingface": about})
    parquet.write_table(raw, tmp_path / "a.parquet")
    assert tables.read(tmp_path / "a.parquet").column("label").values.tolist() == ["cat", "dog", "dog", None]
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    with pa.OSFile(str(tmp_path / "set" / "data.arrow"), "wb") as sink, pa.ipc.new_stream(sink, raw.schema) as writer:
        writer.write_table(raw)
    assert tables.is_table(tmp_path / "set")
    assert tables.read(tmp_path / "set").column("label").categories == ["cat", "dog"]


def test_categories_of_a_dictionary_column(tmp_path):
    raw = pa.table({"c": pa.array(["a", "b", "a", None]).dictionary_encode(), "x": [1, 2, 3, 5]})
    parquet.write_table(raw, tmp_path / "a.parquet")
    assert tables.read(tmp_path / "a.parquet").column("c").categories == ["a", "b"]


def test_json_lines_of_different_keys_and_mixed_values(written):
    table = tables.read(written('{"a": 1, "b": true}\n{"a": 2.5, "c": "x"}\n{"c": 3, "b": false}\n', "a.jsonl"))
    assert table.column("a").values[:2].tolist() == [1, 2.5]
    assert table.column("a").missing == 1
    assert table.column("b").values.tolist() == ["true", None, "false"]
    assert table.column("c").values.tolist() == [None, "x", "3"]


def test_nested_values_and_huge_integers_of_json(written):
    rows = [{"a": 10**400, "b": [1], "c": "x"}, {"a": 2, "b": {"k": "v"}, "c": "x"}, {"a": 3, "b": "s", "c": "y"}]
    table = tables.read(written("\n".join(map(json.dumps, rows)), "a.jsonl"))
    assert kinds(table) == {"a": "number", "b": "ignored", "c": "category"}
    assert table.column("a").values.tolist() == [np.inf, 2, 3]


CELLS = [
    "1",
    "2.5",
    "a",
    "",
    "NaN",
    "inf",
    "1,5",
    '"x"',
    '"',
    "01",
    "2020-01-01",
    "é",
    "?",
    "1e400",
    "\r",
    "\u2028",
    "1.234",
]


@given(st.lists(st.lists(st.sampled_from(CELLS), min_size=1, max_size=4), max_size=8), st.sampled_from(",;\t"))
def test_whatever_the_file_it_is_a_table_or_one_clear_error(tmp_path_factory, rows, delimiter):
    path = tmp_path_factory.getbasetemp() / "whatever.csv"
    path.write_text("\n".join(delimiter.join(row) for row in [["x", "y", "z"], *rows]))
    try:
        table = tables.read(path)
    except PellucidError:
        return
    for name in table.names:
        with contextlib.suppress(PellucidError):
            found = tables.target(table, name)
            assert np.isfinite(fit(table, found, found.rows).encode(table)).all()


WORDS = st.text(string.ascii_lowercase + 'é春, ";', min_size=1, max_size=8).map(lambda word: f"w{word}w")


@st.composite
def columns(draw):
    n = draw(st.integers(1, 12))
    numbers = st.none() | st.floats(-1e9, 1e9) | st.integers(-1000, 1000).map(float)
    kinds = {"x": numbers, "whole": st.none() | st.integers(-99, 99), "c": st.none() | WORDS, "b": st.booleans()}
    return {name: draw(st.lists(kind, min_size=n, max_size=n)) for name, kind in kinds.items()}


@given(columns())
def test_csv_parquet_json_lines_and_memory_give_the_same_table(tmp_path_factory, raw):
    folder = tmp_path_factory.mktemp("same")
    types = {"x": pa.float64(), "whole": pa.int64(), "c": pa.string(), "b": pa.bool_()}
    arrow = pa.table({name: pa.array(values, types[name]) for name, values in raw.items()})
    parquet.write_table(arrow, folder / "a.parquet")
    csv.write_csv(arrow, folder / "a.csv")
    lines = [json.dumps(dict(zip(raw, row, strict=True))) for row in zip(*raw.values(), strict=True)]
    (folder / "a.jsonl").write_text("\n".join(lines))
    found = [tables.read(folder / name) for name in ("a.parquet", "a.csv", "a.jsonl")] + [tables.from_columns(raw)]
    for table in found[1:]:
        for column, other in zip(found[0].columns, table.columns, strict=True):
            assert (column.name, column.kind, column.missing) == (other.name, other.kind, other.missing)
            assert column.categories == other.categories
            if column.missing < len(table):
                np.testing.assert_array_equal(column.values, other.values)


# bad tables


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"),
        (b"\n \n", "empty"),
        (b"a,b\n", "no rows"),
        (b"a,b", "no rows"),
        (b"a,\0\n1,2\n", "not a text file"),
        (b"170,60\n160,50\n", "should name the columns, but it holds the number 170"),
        (b"5.1,3.5,setosa\n4.9,3.0,setosa\n", "holds the number 5.1"),
        (b"a,b,a\n1,2,3\n", "Two columns are called a"),
        (b"a;b\n1,234;2\n2,345;3\n", "1,234 in column a can be read in two ways"),
    ],
)
def test_csv_files_that_are_refused(written, content, what):
    with pytest.raises(PellucidError, match=what) as error:
        tables.read(written(content))
    assert "a.csv" in error.value.where
    assert error.value.fix


@pytest.mark.parametrize(("content", "row"), [("a,b\n1,2\n3\n5,6\n", 2), ("a,b\n1,2\n3,4\n5,6,7\n", 3)])
def test_a_row_of_another_length_is_named(written, content, row):
    with pytest.raises(PellucidError, match="The header has 2 columns, this row has") as error:
        tables.read(written(content))
    assert f"row {row} " in error.value.where


@pytest.mark.parametrize("header", ["name,2019,2020", "0,1,2", "1,2,3"])
def test_years_and_counted_columns_are_names(written, header):
    assert tables.read(written(f"{header}\nx,5,6\ny,7,8\n")).names == header.split(",")


def test_a_column_without_a_name(written):
    table = tables.read(written(",x\n0,5\n1,6\n2,9\n"))
    assert kinds(table) == {"column 1": "ignored", "x": "number"}
    assert any("column 1 without a name" in note for note in table.notes)


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.xlsx", "folder", "nowhere.csv"])
def test_other_files_that_are_refused(written, tmp_path, name):
    if name == "folder":
        (tmp_path / name).mkdir()
    elif name != "nowhere.csv":
        written(b"\x07not a table", name)
    with pytest.raises(PellucidError):
        tables.read(tmp_path / name)
    if name == "a.parquet":
        with pytest.raises(PellucidError, match="empty"):
            tables.read(written(b"", name))


def test_parquet_without_rows_and_with_a_name_twice(tmp_path):
    parquet.write_table(pa.table({"a": pa.array([], pa.int64())}), tmp_path / "a.parquet")
    with pytest.raises(PellucidError, match="no rows"):
        tables.read(tmp_path / "a.parquet")
    parquet.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), tmp_path / "b.parquet")
    with pytest.raises(PellucidError, match="Two columns are called a"):
        tables.read(tmp_path / "b.parquet")


# targets


def test_a_line_through_two_points():
    table = tables.from_rows([{"height": 170, "weight": 60}, {"height": 160, "weight": 50}])
    found = tables.target(table, "weight")
    assert (found.kind, found.values.tolist(), found.rows.tolist()) == ("number", [60, 50], [0, 1])


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0, 1, 1, 0], "category"),
        ([-1, 1, 1, -1], "category"),
        ([i % 10 for i in range(200)], "category"),
        ([i % 10 for i in range(20)], "number"),
        ([i % 10 for i in range(200)] + [11], "number"),
        ([i % 10 + 0.5 for i in range(200)], "number"),
        ([i % 30 for i in range(3000)], "number"),
        (["a", "b", "b", "a"], "category"),
        ([True, False, True, False], "category"),
        ([f"a text of some words, number {i}" for i in range(9)], "text"),
        ([f"word{i}" for i in range(9)], "text"),
    ],
)
def test_numbers_or_classes(values, kind):
    table = tables.from_columns({"x": list(range(len(values))), "y": values})
    found, why = tables.kind_of_target(table, "y")
    assert found == kind
    assert why.startswith("y is ")


def test_classes_of_numbers_are_in_their_order_and_written_as_they_were():
    table = tables.from_columns({"x": list(range(240)), "y": [float(i % 12) for i in range(240)]})
    found = tables.target(table, "y")
    assert found.classes == [str(i) for i in range(12)]
    assert found.values.tolist() == [i % 12 for i in range(240)]


def test_asking_for_numbers_gives_numbers():
    table = tables.from_columns({"x": [1, 2, 3, 4], "y": [0, 1, 1, 0]})
    assert tables.target(table, "y", kind="number").kind == "number"
    assert tables.target(table, "x", kind="number").kind == "number"
    with pytest.raises(PellucidError, match="Only one example of: 1, 2, 3, 4"):
        tables.target(table, "x", kind="category")


def test_rows_without_a_target_are_left_out_and_said():
    table = tables.from_columns({"x": [1, 2, 3, 4, 5], "y": ["a", None, "b", "a", "b"]})
    found = tables.target(table, "y")
    assert (found.rows.tolist(), found.values.tolist()) == ([0, 2, 3, 4], [0, 1, 0, 1])
    assert found.notes == ["1 rows without a y were left out."]


def test_a_truth_table_may_have_a_class_with_one_example():
    table = tables.from_columns({"a": [0, 0, 1, 1], "b": [0, 1, 0, 1], "and": [0, 0, 0, 1]})
    assert tables.target(table, "and").classes == ["0", "1"]


@pytest.mark.parametrize(
    ("content", "what", "where"),
    [
        ("x,z\n1,2\n", "no column y", "a.csv"),
        ("x,y\n1,5\n2,5\n3,5\n", "y is 5 in every row", "a.csv"),
        ("x,y\n1,r\n2,r\n3,r\n", "y is r in every row", "a.csv"),
        ("x,y\n1,1.5\n2,inf\n3,5\n", "y holds inf", "row 2 "),
        ("x,y\n1,1.5\n2,3\n3,-Infinity\n", "y holds -inf", "row 3 "),
        ("x,y\n1,1.5\n2,\n3,NaN\n", "y holds nan", "row 3 "),
        ("x,y\n1,1.5\n2,1e39\n3,2\n", r"y holds 1e\+39", "row 2 "),
        ("x,y\n1,a\n2,b\n3,a\n", "Only one example of: b", "row 2 "),
        ("x,y\n1,\n2,\n", "y is empty", "a.csv"),
        ("x,y\n1,2020-01-01\n2,2020-01-02\n", "holds dates", "a.csv"),
        ("x,y\n1,alpha\n2,beta\n3,gamma\n", "y is text", "a.csv"),
    ],
)
def test_targets_that_are_refused(written, content, what, where):
    table = tables.read(written(content))
    with pytest.raises(PellucidError, match=what) as error:
        tables.target(table, "y")
    assert where in error.value.where
    assert error.value.fix or "empty" in what


def test_the_nearest_name_is_suggested(written):
    table = tables.read(written("height,weight\n1,2\n3,4\n"))
    with pytest.raises(PellucidError, match="Did you mean weight") as error:
        tables.target(table, "wieght")
    assert "height, weight" in error.value.fix


def test_the_classes_of_a_trained_network_are_kept():
    table = tables.from_columns({"x": [1, 2], "y": ["b", "b"]})
    assert tables.target(table, "y", "category", ["a", "b"]).values.tolist() == [1, 1]
    with pytest.raises(PellucidError, match="b is none of the classes"):
        tables.target(table, "y", "category", ["a", "c"])
