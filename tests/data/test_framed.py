"""Tokenizers in a frame against `transformers`, which opens the same files."""

from pathlib import Path

import pytest
import tokenizers
from transformers import AutoTokenizer, BertTokenizer

from pellucid.data.framed import FramedTokenizer
from pellucid.data.tokenizer import Tokenizer
from pellucid.errors import PellucidError

CACHE = Path(__file__).parents[2] / "cache"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "##s", "##ting", ".", ",", "猫", "on", "o"]
TEXTS = ["The cats sat.", "", "sitting cat, 猫猫 the", "Thé CAT  on\tthe\nmat", "on" * 150, "o[MASK]o"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    BertTokenizer(vocab={word: n for n, word in enumerate(WORDS)}).save_pretrained(tmp_path)
    return tmp_path


def test_ids_are_those_of_transformers_and_come_back_from_disk(folder: Path, tmp_path: Path) -> None:
    ours, theirs = FramedTokenizer.open(folder), AutoTokenizer.from_pretrained(folder)
    assert (ours.vocab_size, ours.pad_id) == (len(WORDS), 0)
    for text in TEXTS:
        assert ours.encode(text, allow_special=True) == theirs(text).input_ids
    assert "[MASK]" not in map(ours.show, ours.encode("the [MASK]"))
    ours.save(tmp_path / "copy")
    again, foreign = FramedTokenizer.open(tmp_path / "copy"), AutoTokenizer.from_pretrained(tmp_path / "copy")
    assert again.digest == ours.digest
    assert [foreign(text).input_ids for text in TEXTS] == [again.encode(text, True) for text in TEXTS]


def test_tokens_know_where_they_stand(folder: Path) -> None:
    tokenizer, text = FramedTokenizer.open(folder), "The cats, 猫"
    ids, spans = tokenizer.encode(text), tokenizer.spans(text)
    assert [tokenizer.show(id) for id in ids] == ["[CLS]", "the", "cat", "##s", ",", "猫", "[SEP]"]
    assert [text[start:end] for start, end in spans] == ["", "The", "cat", "s", ",", "猫", ""]
    assert tokenizer.show(99) == "<99>"


def test_other_kinds_and_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PellucidError, match="no tokenizer"):
        FramedTokenizer.open(tmp_path)
    tokenizers.Tokenizer(tokenizers.models.Unigram([("a", 0.0)])).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(PellucidError, match="Unigram"):
        FramedTokenizer.open(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(PellucidError, match="damaged"):
        FramedTokenizer.open(tmp_path)
    with pytest.raises(PellucidError, match="at least 259"):
        FramedTokenizer.train(["text"], 258)


def test_ours_is_opened_by_transformers_to_the_same_ids(tmp_path: Path) -> None:
    ours = FramedTokenizer.train([*TEXTS, "the cats sat on the mat " * 9], 300)
    ours.save(tmp_path, context=12)
    theirs, again = AutoTokenizer.from_pretrained(tmp_path), FramedTokenizer.open(tmp_path)
    assert (ours.vocab_size, theirs.pad_token_id, theirs.model_max_length) == (len(theirs), ours.pad_id, 12)
    for text in [*TEXTS, "👩‍👩‍👧‍👦 \ud800\r\n"]:
        if "\ud800" not in text:
            assert theirs(text).input_ids == ours.encode(text, allow_special=True)
        assert again.encode(text) == ours.encode(text)
    assert ours.encode_all(TEXTS) == [ours.encode(text) for text in TEXTS]
    long = "a mat " * 9
    assert theirs(long, truncation=True).input_ids == [*ours.encode(long)[:11], ours.encode(long)[-1]]
    assert ours.show(ours.encode(" the")[1]) == "␣the"
    assert len(FramedTokenizer.byte_level().encode("猫")) == 2 + 3


def test_a_byte_level_tokenizer_of_others_is_framed(tmp_path: Path) -> None:
    plain = Tokenizer.train(["the cat sat on the mat " * 9], 270)
    plain.save(tmp_path, "gpt2")
    ours = FramedTokenizer.open(tmp_path)
    assert ours.encode("the cat, 猫")[1:-1] == plain.encode("the cat, 猫")
    assert [ours.show(id) for id in ours.encode("")] == ["[CLS]", "[SEP]"]


def test_a_files_own_padding_and_cutting_are_switched_off(folder: Path) -> None:
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.enable_truncation(4)
    backend.enable_padding(length=9)
    backend.save(str(folder / "tokenizer.json"))
    assert len(FramedTokenizer.open(folder).encode("the cat sat on the cat")) == 8


@pytest.mark.slow
def test_minilms_ids_are_those_of_transformers() -> None:
    if not (CACHE / "minilm").is_dir():
        pytest.skip("run `python tests/fetch.py` first, as `make test-all` does")
    ours, theirs = FramedTokenizer.open(CACHE / "minilm"), AutoTokenizer.from_pretrained(CACHE / "minilm")
    for text in [
        *TEXTS,
        "Ünïcode, 猫坐在垫子上: tokenization's unbelievable!",
        *Path(__file__).read_text("utf-8").split("\n"),
    ]:
        assert ours.encode(text, allow_special=True) == theirs(text).input_ids
