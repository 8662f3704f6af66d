import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from pellucid.data.text import Corpus, Document, read, split
from pellucid.errors import PellucidError

POEM = "春眠不覺曉，處處聞啼鳥。\n夜來風雨聲，花落知多少。\n床前明月光，疑是地上霜。\n舉頭望明月，低頭思故鄉。\n"
FRENCH = "Les élèves ont mangé à la forêt, près du château où naît l'été. Ça c'était très agréable.\n"


def texts(corpus):
    return [document.text for document in corpus.documents]


def test_the_demo_text_is_there_and_says_what_it_dropped():
    corpus = read(None)
    assert len(corpus.documents) > 40
    assert "contained" in corpus.notes[0]
    assert split(corpus).repeated < 0.05


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030", "big5"])
def test_encodings(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes((POEM * 5).replace("\n", "\r\n").encode(encoding))
    corpus = read(tmp_path / "a.txt")
    assert texts(corpus) == [POEM * 5]
    assert bool(corpus.notes) == (encoding not in ("utf-8", "utf-8-sig"))


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (FRENCH, "latin-1"),
        ("Die Mädchen möchten über die große Straße gehen; schöne Grüße aus München.\n", "latin-1"),
        ("Все счастливые семьи похожи друг на друга, каждая несчастливая по-своему.\n", "cp1251"),
        ("Все счастливые семьи похожи друг на друга, каждая несчастливая по-своему.\n", "koi8-r"),
        ("Zażółć gęślą jaźń, śpiąca królewna łatwo źle żyła w mieście Łódź.\n", "cp1250"),
        ("吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。\n", "shift_jis"),
        ("나는 학교에 갑니다. 오늘은 날씨가 좋습니다.\n", "euc_kr"),
    ],
)
def test_other_encodings_are_read_rightly_or_refused(tmp_path, text, encoding):
    (tmp_path / "a.txt").write_bytes((text * 5).encode(encoding))
    if encoding in ("shift_jis", "euc_kr"):  # so short, they might as well be Korean or Japanese
        with pytest.raises(PellucidError, match="Byte 0"):
            read(tmp_path / "a.txt")
    else:
        corpus = read(tmp_path / "a.txt")
        assert texts(corpus) == [text * 5]
        assert "not UTF-8" in corpus.notes[0]


def test_a_bad_byte_is_named_by_its_place(tmp_path):
    data = ("ascii and 春 " * 10).encode()
    (tmp_path / "a.txt").write_bytes(data + b"\xff\xfe\x81\xc0\x80" + data)
    with pytest.raises(PellucidError, match=rf"Byte {len(data)} \(0xFF\)") as caught:
        read(tmp_path / "a.txt")
    assert "a.txt" in caught.value.where


def test_a_folder(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.txt").write_text("no")
    (tmp_path / "b" / "2.md").write_text("two")
    (tmp_path / "1.txt").write_text("one")
    (tmp_path / "c.bin").write_bytes(b"\x00\x01")
    (tmp_path / "empty.txt").touch()
    corpus = read(tmp_path)
    assert corpus.documents == [Document("one", "1.txt"), Document("two", "b/2.md")]
    assert [any(word in note for note in corpus.notes) for word in ("hidden", "c.bin", "empty")] == [True] * 3


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.txt", None, "no such file"),
        ("a.txt", b"", "empty"),
        ("a.txt", b"   \n", "no text"),
        ("a.txt", b"abc\0", "byte 3 is 0"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "not JSON"),
        ("a.jsonl", b"[1]\n", "not a JSON object"),
        ("a.jsonl", rb'{"text": "a \ud83d b"}', "half a character"),
        ("a.jsonl", b'{"n": 1}\n', "No column holds text"),
        ("a.jsonl", b'{"a": "x", "b": "y"}\n', "Several columns"),
        ("a.parquet", b"nonsense", "cannot be read"),
        ("folder/x.bin", b"\0", "no text file"),
    ],
)
def test_bad_sources_are_refused(tmp_path, name, data, says):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(PellucidError, match=says):
        read(path if path.parent == tmp_path else path.parent)


def test_the_bad_line_of_json_lines_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n\n{"text"\n')
    with pytest.raises(PellucidError) as caught:
        read(tmp_path / "a.jsonl")
    assert caught.value.where.endswith("line 3")


ROWS = {"title": ["t", "u", "v"], "body": ["one\u2028", "", "three"], "n": [1, 2, 3]}


def write(tmp_path, kind):
    rows = [dict(zip(ROWS, values, strict=True)) for values in zip(*ROWS.values(), strict=True)]
    if kind == "jsonl":
        (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    elif kind == "parquet":
        parquet.write_table(pa.table(ROWS), tmp_path / "a.parquet", row_group_size=2)
    elif kind == "csv":
        from pyarrow import csv

        csv.write_csv(pa.table(ROWS), tmp_path / "a.csv")
    else:
        (tmp_path / "a.dataset/train").mkdir(parents=True)
        (tmp_path / "a.dataset/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
        (tmp_path / "a.dataset/train/state.json").write_text(
            '{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}'
        )
        with pa.ipc.new_stream(tmp_path / "a.dataset/train/data-00000-of-00001.arrow", pa.table(ROWS).schema) as stream:
            stream.write_table(pa.table(ROWS))
    return tmp_path / f"a.{kind}"


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv", "dataset"])
def test_tables(tmp_path, kind):
    path = write(tmp_path, kind)
    corpus = read(path, "body")
    assert texts(corpus) == ["one\u2028", "three"]
    assert any("1 empty" in note for note in corpus.notes)
    with pytest.raises(PellucidError, match="no column nothing") as caught:
        read(path, "nothing")
    assert "title, body, n" in caught.value.fix
    with pytest.raises(PellucidError, match="Column n holds int"):
        read(path, "n")
    with pytest.raises(PellucidError, match="Several columns") as caught:
        read(path)
    assert "title, body" in caught.value.fix


def test_only_tables_have_columns(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(PellucidError, match="Only tables"):
        read(tmp_path / "a.txt", "text")


# splitting


def documents(*given):
    return [Document(text, str(i)) for i, text in enumerate(given)]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text("abc\n", min_size=1, max_size=20), min_size=10, max_size=40), st.integers(0, 5))
def test_no_document_is_on_both_sides(given_texts, seed):
    given_texts = [text + "x" for text in given_texts]  # none is empty
    parts = split(documents(*given_texts), 0.2, seed)
    if "documents," in parts.how:
        assert sorted(parts.train + parts.validation) == sorted(given_texts)
        assert not {text.strip() for text in parts.train} & {text.strip() for text in parts.validation}
    else:
        assert "".join(parts.train + parts.validation) == "".join(given_texts)
    assert parts.train
    assert parts.validation


def test_bytes_come_near_the_share():
    sizes = [100 * (1 + i * 7919 % 50) for i in range(200)]
    given_texts = [f"{i} " + chr(97 + i % 26) * size for i, size in enumerate(sizes)]
    for seed in range(3):
        parts = split(documents(*given_texts), 0.05, seed)
        share = sum(map(len, parts.validation)) / sum(map(len, given_texts))
        assert 0.045 < share < 0.055
    assert split(documents(*given_texts), seed=1) == split(documents(*given_texts), seed=1)
    assert split(documents(*given_texts), seed=1).validation != split(documents(*given_texts), seed=2).validation


def test_a_document_contained_in_another_stays_with_it():
    inner = "A line that stands in both of them.\nAnd a second one."
    filler = [f"Document number {i} says {i * i}.\n" * 3 for i in range(20)]
    for seed in range(20):
        parts = split(documents(inner, f"Before.\n  {inner}\nAfter.", *filler), 0.3, seed)
        assert any(inner == text for text in parts.train) == any("Before" in text for text in parts.train)


def test_one_document_is_cut_where_a_line_begins():
    lines = [f"line number {i}, which is like no other\n" for i in range(1000)]
    parts = split(documents("".join(lines)))
    assert parts.train[0] + parts.validation[0] == "".join(lines)
    assert parts.validation[0].startswith("line")
    assert 49 <= parts.validation[0].count("\n") <= 51
    assert parts.repeated == 0
    assert "5." in parts.how


def test_the_share_of_repeated_lines():
    first = "".join(f"This is training line {i}.\n" for i in range(98))
    parts = split(documents(first + "  This is training line 5.\nshort\nThis is a line unlike them.\n"), 0.02)
    assert parts.repeated == 0.5


@pytest.mark.parametrize("text", [POEM, "two\nlines", "one line of words", "\n\na\nb\n\n", "x" * 5000 + "\ny", "春天"])
def test_short_texts_keep_a_part_for_each_side(text):
    parts = split(documents(text))
    assert "".join(parts.train + parts.validation) == text
    assert all(part.strip() for part in parts.train + parts.validation)
    assert any("rough" in note for note in parts.notes)


def test_a_text_that_cannot_be_split_is_refused():
    with pytest.raises(PellucidError, match="too short"):
        split(documents("x"))


def test_validation_may_be_given():
    parts = split(documents("a", "b", "c"), validation=Corpus(documents("b", "d")))
    assert (parts.train, parts.validation) == (["a", "c"], ["b", "d"])
    assert any("left out" in note for note in parts.notes)
    with pytest.raises(PellucidError, match="also in the validation"):
        split(documents("b"), validation=Corpus(documents("b")))
