import json
import unicodedata
from pydoc_data.topics import topics

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from pellucid.data import tokenizer as module
from pellucid.data.tokenizer import END, Tokenizer
from pellucid.errors import PellucidError

MODEL_TYPES = {
    "gpt1": "openai-gpt",
    "gpt2": "gpt2",
    "llama": "llama",
    "mistral": "mistral",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}
CHINESE = "春眠不覺曉，處處聞啼鳥。夜來風雨聲，花落知多少。魑魅魍魎，饕餮魑魅。\n" * 20
TEXTS = [*(topics[name] for name in ("assert", "lambda", "typesseq", "strings")), CHINESE, "e\u0301 👩‍👩‍👧 " * 5]
TRICKY = [
    "don't I'LL 'ſ",
    "e\u0301 가 Å",
    "\n\n \n\t x",
    "12345 ٣٤٥",
    "👩‍👩‍👧",
    " a  b   \n",
    "\r",
    "\u3000\u00a0",
    "\x85",
    END,
]


def blocks():
    """One text for every Unicode block of 128 with an assigned character, alone and between letters."""
    for first in (*range(0, 0x3400, 128), *range(0x3400, 0xF900, 1024), *range(0xF900, 0x20000, 128), 0x20000, 0xE0000):
        characters = [chr(c) for c in range(first, first + 128) if not 0xD800 <= c < 0xE000]
        if any(unicodedata.category(c) != "Cn" for c in characters):
            yield "".join(characters) + " " + " ".join(characters) + "\na'" + "a'".join(reversed(characters))


@pytest.fixture(scope="module")
def trained():
    return {family: Tokenizer.train(TEXTS, 700, family) for family in MODEL_TYPES}


def test_the_end_token_is_last_and_the_size_is_as_asked(trained):
    for tokenizer in trained.values():
        assert tokenizer.vocab_size == 700
        assert tokenizer.end_id == 699
        assert tokenizer.show(699) == END


def test_a_vocabulary_is_no_larger_than_the_text_supports():
    assert Tokenizer.train(["abcabc"], 5000).vocab_size < 270


def test_too_small_a_vocabulary_is_refused():
    with pytest.raises(PellucidError, match="256 is too small"):
        Tokenizer.train(["abc"], 256)


def test_bytes_are_their_own_ids():
    tokenizer = Tokenizer.byte_level()
    assert tokenizer.encode("é\n魅") == list("é\n魅".encode())
    assert (tokenizer.vocab_size, tokenizer.end_id) == (257, 256)


def test_training_twice_gives_the_same(trained):
    assert Tokenizer.train(TEXTS, 700).digest == trained["qwen3"].digest
    assert Tokenizer.train(TEXTS, 701).digest != trained["qwen3"].digest


@pytest.mark.parametrize("family", MODEL_TYPES)
def test_transformers_and_tokenizers_give_the_same_ids(trained, family, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = trained[family]
    tokenizer.save(tmp_path, family)
    config = {"model_type": MODEL_TYPES[family], "vocab_size": 700, "eos_token_id": 699}
    (tmp_path / "config.json").write_text(json.dumps(config))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    raw = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    again = Tokenizer.open(tmp_path)
    assert theirs.eos_token_id == again.end_id == 699
    assert tokenizer.lossless == (family != "qwen2")
    texts = [*blocks(), *TRICKY[:-1]]
    for text, in_theirs in zip(texts, theirs(texts)["input_ids"], strict=True):
        ids = tokenizer.encode(text)
        assert in_theirs == raw.encode(text).ids == again.encode(text) == ids
        if tokenizer.lossless or unicodedata.is_normalized("NFC", text):
            assert tokenizer.decode(ids) == theirs.decode(ids) == text


def test_what_transformers_would_rebuild_to_other_ids_is_refused(trained, tmp_path):
    with pytest.raises(PellucidError, match="its own split pattern"):
        trained["gpt2"].save(tmp_path, "qwen2")
    assert not list(tmp_path.iterdir())
    Tokenizer.byte_level("qwen2").save(tmp_path, "qwen2")


def test_names_of_special_tokens_in_a_text_are_text(trained):
    tokenizer = trained["qwen3"]
    assert tokenizer.end_id not in tokenizer.encode(f"a{END}b")
    assert tokenizer.decode(tokenizer.encode(f"a{END}b")) == f"a{END}b"
    assert tokenizer.encode(f"a{END}b", allow_special=True).count(tokenizer.end_id) == 1
    assert tokenizer.end_id not in tokenizer.encode(f"a{END}b")
    assert np.count_nonzero(tokenizer.encode_documents([f"a{END}b"]) == tokenizer.end_id) == 1


# encoding a corpus


def slowly(tokenizer, documents):
    return [id for document in documents for id in (*tokenizer.encode(document), tokenizer.end_id)]


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "qwen2"])  # each pattern, and NFC
def test_a_corpus_has_the_ids_of_its_documents(trained, family):
    tokenizer = trained[family]
    documents = [*TRICKY, "", *blocks(), CHINESE]
    assert tokenizer._fast is not None
    ids = tokenizer.encode_documents(documents)
    assert ids.dtype == np.dtype("<u2")
    assert ids.tolist() == slowly(tokenizer, documents)
    assert tokenizer.encode_documents([]).tolist() == []


@settings(deadline=None, max_examples=150)
@given(st.text(alphabet="ab \n1'sſe\u0301魅", max_size=80), st.sampled_from(list(MODEL_TYPES)))
def test_tiktoken_gives_the_same_ids(trained, text, family):
    tokenizer = trained[family]
    fast = tokenizer._fast.encode([tokenizer._backend.normalizer.normalize_str(text) if family == "qwen2" else text])
    assert fast is None or fast.tolist() == tokenizer.encode(text)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_the_proof_on_merges_holds_for_any_merges(data):
    """Merges drawn at random, most of which no training gives: whenever `_Fast.of` agrees, so do the ids."""
    tokens, merges = ["a", "b", "c"], []
    for _ in range(data.draw(st.integers(1, 8))):
        pair = data.draw(st.tuples(st.sampled_from(tokens), st.sampled_from(tokens)))
        if "".join(pair) not in tokens:
            merges.append(pair)
            tokens.append("".join(pair))
    backend = module.blank("qwen3")
    names = [*module._CHARACTERS, *("".join(pair) for pair in merges)]
    backend.model = models.BPE(vocab={name: id for id, name in enumerate(names)}, merges=merges)
    tokenizer = Tokenizer(*module._with_end(backend))
    if tokenizer._fast:
        for text in data.draw(st.lists(st.text("abc", min_size=1, max_size=14), min_size=20, max_size=20)):
            assert tokenizer._fast.encode([text]).tolist() == tokenizer.encode(text)


def test_merges_on_which_tiktoken_differs_are_seen():
    # "abc" is listed as ab + c; from a + bc, where the text takes it, only tiktoken would make it
    backend = module.blank("qwen3")
    names = [*module._CHARACTERS, "bc", "ab", "abc"]
    merges = [("b", "c"), ("a", "b"), ("ab", "c")]
    backend.model = models.BPE(vocab={name: id for id, name in enumerate(names)}, merges=merges)
    tokenizer = Tokenizer(*module._with_end(backend))
    assert tokenizer._fast is None
    assert tokenizer.encode_documents(["abc"]).tolist() == [ord("a"), 256, 259]


def test_long_documents_are_cut_where_that_changes_nothing(trained, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 5)
    text = "a\nb\n\n c\n  d e.\n\n\nf!\ng\n" * 30
    for family in ("gpt2", "qwen3", "llama", "mistral"):
        assert trained[family].encode_documents([text]).tolist() == slowly(trained[family], [text])


def test_very_long_runs_of_spaces(trained):
    text = "x" + " " * 1_200_000 + "y"
    assert trained["qwen3"].decode(trained["qwen3"].encode_documents([text])) == text


def test_large_vocabularies_take_32_bits(trained):
    backend = tokenizers.Tokenizer.from_str(trained["qwen3"]._backend.to_str())
    backend.add_special_tokens([f"<{n}>" for n in range(66_000)])
    assert Tokenizer(backend, [66_000]).encode_documents(["a"]).dtype == np.dtype("<u4")


# tokens for readers, and streams


def test_tokens_are_shown_readably():
    tokenizer = Tokenizer.train(["魅 the\n" * 50], 300)
    assert "".join(tokenizer.show(id) for id in tokenizer.encode("魅 the")) == "魅␣the"
    assert [Tokenizer.byte_level().show(byte) for byte in "魅".encode()] == ["<E9>", "<AD>", "<85>"]
    assert module.show_bytes("魅".encode()[:2]) == "<E9 AD>"
    assert module.show_bytes("魅".encode()[2:] + b" a\n\t\x00") == "<85>␣a⏎⇥<00>"


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=30))
def test_streams_give_whole_characters(text):
    tokenizer = Tokenizer.byte_level()
    stream = tokenizer.stream()
    pieces = [stream.add(id) for id in tokenizer.encode(text)]
    assert "".join(pieces) + stream.finish() == text
    assert all(len(piece) <= 1 for piece in pieces)


def test_a_stream_that_ends_inside_a_character():
    stream = Tokenizer.byte_level().stream()
    assert [stream.add(byte) for byte in "饕餮".encode()[:5]] == ["", "", "饕", "", ""]
    assert stream.finish() == "\ufffd"
    assert stream.finish() == ""


@settings(deadline=None, max_examples=100)
@given(st.one_of(st.binary(max_size=4), st.sampled_from([b" the", b"\xff", "魅".encode()])))
def test_tables_by_bytes(trained, wanted):
    tokenizer = trained["qwen3"]
    of = {id: tokenizer.token_bytes(id) for id in range(699)}
    starting = {id for id, text in of.items() if text.startswith(wanted)}
    assert set(tokenizer.ids_starting_with(wanted)) == starting
    assert sorted(tokenizer.ids_admissible(wanted)) == sorted(
        starting | {id for id, text in of.items() if wanted.startswith(text)}
    )


# tokenizers of others


@pytest.fixture(scope="module")
def sentencepiece():
    """A tokenizer of Llama 2's kind: ▁ for spaces, byte fallback, <s> in front."""
    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>"]
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    backend.train_from_iterator(
        TEXTS[:2], trainers.BpeTrainer(vocab_size=800, special_tokens=special + pieces, show_progress=False)
    )
    description = json.loads(backend.to_str())
    description["added_tokens"] = [token for token in description["added_tokens"] if token["content"] in special]
    backend = tokenizers.Tokenizer.from_str(json.dumps(description))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", pair=None, special_tokens=[("<s>", 1)]
    )
    return backend


def test_a_sentencepiece_tokenizer(sentencepiece, tmp_path):
    oracle = tokenizers.Tokenizer.from_str(sentencepiece.to_str())
    sentencepiece.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    tokenizer = Tokenizer.open(tmp_path)
    assert (tokenizer.end_id, tokenizer.end_ids, tokenizer.prefix) == (2, {2}, [1])
    for text in ("the expression", "魅 and é", "  two", "饕餮\n"):
        ids = tokenizer.encode(text)
        assert ids == oracle.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids) == oracle.decode(ids) == text
        stream = tokenizer.stream(continuing=False)
        assert "".join([*map(stream.add, ids), stream.finish()]) == text
        assert b"".join(map(tokenizer.token_bytes, ids)) == b" " + text.encode()
    assert tokenizer.unspellable("魅é") == set()
    assert tokenizer.encode_documents(["the", "é"]).tolist() == slowly(tokenizer, ["the", "é"])
    assert not tokenizer.lossless


def test_characters_that_cannot_be_spelled(tmp_path):
    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.train_from_iterator(["abc abd"], trainers.BpeTrainer(special_tokens=["<unk>"], show_progress=False))
    backend.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.open(tmp_path).unspellable("abcd 魅x") == {"魅", "x"}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [("tokenizer.json", "{", "damaged"), ("tokenizer.json", "{}", "damaged"), ("other", "", "no tokenizer here")],
)
def test_bad_files_are_refused(tmp_path, name, content, says):
    (tmp_path / name).write_text(content)
    with pytest.raises(PellucidError, match=says):
        Tokenizer.open(tmp_path)


def test_word_pieces_are_refused(tmp_path):
    backend = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece()
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(PellucidError, match="WordPiece"):
        Tokenizer.open(tmp_path)


def test_an_opened_tokenizer_is_saved_with_what_stood_beside_it(trained, tmp_path):
    trained["qwen3"].save(tmp_path / "a", "qwen3")
    settings_ = json.loads((tmp_path / "a/tokenizer_config.json").read_text())
    settings_["chat_template"] = "{{ messages }}"
    (tmp_path / "a/tokenizer_config.json").write_text(json.dumps(settings_))
    opened = Tokenizer.open(tmp_path / "a")
    opened.save(tmp_path / "b", "qwen3")
    assert Tokenizer.open(tmp_path / "b").chat_template == "{{ messages }}"
    assert Tokenizer.open(tmp_path / "b").digest == trained["qwen3"].digest
