"""WordPiece against `transformers`, which opens the same files."""

from pathlib import Path

import pytest
import tokenizers
from transformers import AutoTokenizer, BertTokenizer

from pellucid.data.tokenizer import Tokenizer
from pellucid.data.wordpiece import WordPiece
from pellucid.errors import PellucidError

CACHE = Path(__file__).parents[2] / "cache"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "##s", "##ting", ".", ",", "猫", "on", "o"]
TEXTS = ["The cats sat.", "", "sitting cat, 猫猫 the", "Thé CAT  on\tthe\nmat", "on" * 150, "o[MASK]o"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    BertTokenizer(vocab={word: n for n, word in enumerate(WORDS)}).save_pretrained(tmp_path)
    return tmp_path


def test_ids_are_those_of_transformers_and_come_back_from_disk(folder: Path, tmp_path: Path) -> None:
    ours, theirs = WordPiece.open(folder), AutoTokenizer.from_pretrained(folder)
    assert (ours.vocab_size, ours.pad_id) == (len(WORDS), 0)
    for text in TEXTS:
        assert ours.encode(text, allow_special=True) == theirs(text).input_ids
    assert "[MASK]" not in map(ours.show, ours.encode("the [MASK]"))
    ours.save(tmp_path / "copy")
    again, foreign = WordPiece.open(tmp_path / "copy"), AutoTokenizer.from_pretrained(tmp_path / "copy")
    assert again.digest == ours.digest
    assert [foreign(text).input_ids for text in TEXTS] == [again.encode(text, True) for text in TEXTS]


def test_tokens_know_where_they_stand(folder: Path) -> None:
    tokenizer, text = WordPiece.open(folder), "The cats, 猫"
    ids, spans = tokenizer.encode(text), tokenizer.spans(text)
    assert [tokenizer.show(id) for id in ids] == ["[CLS]", "the", "cat", "##s", ",", "猫", "[SEP]"]
    assert [text[start:end] for start, end in spans] == ["", "The", "cat", "s", ",", "猫", ""]
    assert tokenizer.show(99) == "<99>"


def test_other_kinds_and_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PellucidError, match="no tokenizer"):
        WordPiece.open(tmp_path)
    Tokenizer.byte_level().save(tmp_path, "gpt2")
    with pytest.raises(PellucidError, match="BPE"):
        WordPiece.open(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(PellucidError, match="damaged"):
        WordPiece.open(tmp_path)


def test_a_files_own_padding_and_cutting_are_switched_off(folder: Path) -> None:
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.enable_truncation(4)
    backend.enable_padding(length=9)
    backend.save(str(folder / "tokenizer.json"))
    assert len(WordPiece.open(folder).encode("the cat sat on the cat")) == 8


@pytest.mark.slow
def test_minilms_ids_are_those_of_transformers() -> None:
    if not (CACHE / "minilm").is_dir():
        pytest.skip("run `python tests/fetch.py` first, as `make test-all` does")
    ours, theirs = WordPiece.open(CACHE / "minilm"), AutoTokenizer.from_pretrained(CACHE / "minilm")
    for text in [
        *TEXTS,
        "Ünïcode, 猫坐在垫子上: tokenization's unbelievable!",
        *Path(__file__).read_text("utf-8").split("\n"),
    ]:
        assert ours.encode(text, allow_special=True) == theirs(text).input_ids
