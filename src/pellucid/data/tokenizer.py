"""Byte-level BPE, trained, opened and saved through `tokenizers`; readable tokens; streams of whole characters."""

import codecs
import hashlib
import json
import os
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers

from pellucid.errors import PellucidError
from pellucid.language import _

END = "<|endoftext|>"
_ENDS = (END, "</s>", "<|end_of_text|>", "<eos>", "<|im_end|>")  # tried when no file beside names the end token
_COMPANIONS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja")

_CONTRACTIONS = r"'s|'t|'re|'ve|'m|'ll|'d"
_GPT2 = _CONTRACTIONS + r"| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
# where each family cuts text before it merges: GPT-2's, Qwen's, Llama 3's and Mistral NeMo's published patterns
_PATTERNS = {
    "gpt1": _GPT2,  # GPT-1's own tokenizer lower-cases and cannot spell every text
    "gpt2": _GPT2,
    "sinusoidal": _GPT2,
    "qwen2": rf"(?i:{_CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}" + _TAIL,
    "qwen3": rf"(?i:{_CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}" + _TAIL,
    "llama": rf"(?i:{_CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}" + _TAIL,
    "mistral": rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*|\p{{N}}"
    + _TAIL.replace(r"[\r\n]*|", r"[\r\n/]*|", 1),
}
# `transformers` 5 throws a qwen2 folder's normalizer and split pattern away and puts these in (Qwen2Tokenizer)
_REBUILT = {"qwen2": ("NFC", _PATTERNS["qwen2"])}
# every class of characters that the patterns above tell apart
_CLASSES = (
    *(r"\s", r"\p{L}", r"\p{N}", r"\p{M}", r"\p{Lu}", r"\p{Lt}", r"\p{Lm}", r"\p{Lo}", r"\p{Ll}", r"[\r\n]"),
    *(rf"(?i:{letter})" for letter in "stmdrevl"),
)

_CHUNK = 1 << 16  # characters handed to the trainer at once; to one thread four times as many
_LONG_RUN = 50_000  # spaces in a row, from which on `tokenizers` does the work
SAMPLE = 1 << 24  # characters the trainer sees at most: a vocabulary hardly changes beyond, its cost does
# longer runs of letters are cut before training, whose cost grows with their length; writing without spaces sooner
_RUN = re.compile(r"[\u3040-\u9fff\U00020000-\U0003ffff]{16}|\w{512}")


class Tokenizer:
    """Text to ids and back.

    Special tokens (the end of a document and the like) stand for no text: their bytes are empty and a text that
    contains their names is spelled out like any other.

    Attributes:
        vocab_size: One more than the largest id.
        end_id: The token that ends a document, or None when the tokenizer has none.
        end_ids: Every token at which writing stops; `end_id` is one of them.
        prefix: Ids that this tokenizer's models expect before any text (Llama's `<s>`); empty for ours.
        chat_template: Jinja source, or None.
        special_names: How bos_token, eos_token and their like are written: what chat templates ask for.
        lossless: Whether decoding gives back every text byte for byte (not where text is normalised first).
        digest: SHA-256 of everything that decides ids.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        end_ids: Sequence[int] = (),
        companions: dict[str, str] | None = None,
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True  # the names of special tokens in a text are text
        self._backend = backend
        self._json: dict[str, Any] = json.loads(backend.to_str())
        self._companions = companions or {}
        vocabulary = backend.get_vocab(with_added_tokens=True)
        self._token_of = {id: token for token, id in vocabulary.items()}
        self.vocab_size = max(self._token_of) + 1
        self._added = {id: token for id, token in backend.get_added_tokens_decoder().items() if not token.special}
        self._special = {id for id, token in backend.get_added_tokens_decoder().items() if token.special}
        self._style = _style(self._json)
        self.end_ids = frozenset(end_ids)
        self.end_id: int | None = end_ids[0] if end_ids else None
        self.prefix: list[int] = backend.encode("", add_special_tokens=True).ids if self._json["post_processor"] else []
        if self.prefix and self.prefix[-1] in self.end_ids and len(self.prefix) > 1:
            self.prefix.pop()
        self.chat_template = _chat_template(self._companions)
        self.special_names = _special_names(self._companions)
        self.lossless = self._json["normalizer"] is None and self._style == "bytes"
        self.digest = hashlib.sha256(
            json.dumps([self._json, self.end_id], sort_keys=True, ensure_ascii=False).encode()
        ).hexdigest()

    # three ways to have one

    @classmethod
    def train(cls, texts: Sequence[str], vocab_size: int, family: str = "qwen3") -> "Tokenizer":
        """Learn merges from `texts`, cut by the family's own pattern; the end token has the last id.

        The vocabulary is smaller than asked for when no further pair occurs twice (see `vocab_size`). Of more than
        16 Mi characters, pieces at even distances are learned from.

        Raises:
            PellucidError: when `vocab_size` < 257 (every byte and the end token) or the family is unknown.
        """
        if vocab_size < 257:
            raise PellucidError(
                _("A vocabulary of {n} is too small.").format(n=vocab_size),
                "--vocab",
                _("Use at least 257: every byte and the end token."),
            )
        backend = blank(family)
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 1,
            min_frequency=2,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        backend.train_from_iterator(training_pieces(texts), trainer)
        return cls(*_with_end(backend))

    @classmethod
    def byte_level(cls, family: str = "qwen3") -> "Tokenizer":
        """256 bytes, in the order of their values, and the end token, 256."""
        backend = blank(family)
        backend.model = models.BPE(vocab={_CHARACTERS[byte]: byte for byte in range(256)}, merges=[])
        return cls(*_with_end(backend))

    @classmethod
    def open(cls, path: str | Path) -> "Tokenizer":
        """Open a tokenizer.json or a folder that holds one, as `save`, `tokenizers` or `transformers` write it.

        Raises:
            PellucidError: when there is none, it is damaged, or of a kind that cannot be shown as bytes (WordPiece).
        """
        path = Path(path)
        file = path / "tokenizer.json" if path.is_dir() else path
        backend = read_backend(file)
        companions = {
            name: (file.parent / name).read_text("utf-8") for name in _COMPANIONS if (file.parent / name).is_file()
        }
        try:
            return cls(backend, _end_ids(backend, file.parent), companions)
        except PellucidError as error:
            raise PellucidError(error.what, str(file), error.fix) from error

    def save(self, folder: str | Path, family: str) -> None:
        """Write tokenizer.json and tokenizer_config.json, which `tokenizers` and `AutoTokenizer` open to the same ids.

        An opened tokenizer's own companion files are written back as they were.

        Raises:
            PellucidError: when `transformers` would rebuild this tokenizer, in a folder of this family, to other ids.
        """
        if family in _REBUILT and not self._companions and (self._normaliser, self._pattern) != _REBUILT[family]:
            raise PellucidError(
                _(
                    "transformers gives every {family} folder its own split pattern, which is not this tokenizer's."
                ).format(family=family),
                "--tokenizer",
                _("Train the tokenizer for {family}, or choose another family.").format(family=family),
            )
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = {"tokenizer.json": self._backend.to_str(pretty=False)} | self._companions
        if "tokenizer_config.json" not in files:
            end = self._token_of[self.end_id] if self.end_id is not None else None
            settings = {
                # the one class that takes tokenizer.json as it is, in transformers 4 and 5, for every family but qwen2
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": end,
                "eos_token": end,
                "pad_token": end,
                "clean_up_tokenization_spaces": False,
                "model_max_length": int(1e30),
            }
            files["tokenizer_config.json"] = json.dumps(settings, indent=2, ensure_ascii=False)
        for name, text in files.items():
            temporary = folder / f".{name}.{os.getpid()}.tmp"
            temporary.write_text(text, "utf-8")
            os.replace(temporary, folder / name)

    # text to ids

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Ids of `text`, without `prefix`. With `allow_special` the names of special tokens become those tokens."""
        backend = self._with_special if allow_special else self._backend
        try:
            return backend.encode(text, add_special_tokens=False).ids
        except TypeError:
            half = next((n for n, character in enumerate(text) if "\ud800" <= character <= "\udfff"), None)
            if half is None:
                raise
            raise PellucidError(
                _("Character {n} of the text, U+{code:04X}, is only half of one.").format(
                    n=half + 1, code=ord(text[half])
                ),
                "",
                _("Give text that can be written in UTF-8."),
            ) from None

    def encode_documents(self, documents: list[str]) -> np.ndarray:
        """Ids of all documents, an end token after each: (N,), uint16 or uint32 by vocabulary.

        tiktoken does the work where its ids are proven to be the same (see `_Fast`), `tokenizers` the rest.

        Raises:
            PellucidError: when the tokenizer has no end token.
        """
        if self.end_id is None:
            raise PellucidError(
                _("The tokenizer has no token that ends a document."),
                "--tokenizer",
                _("Name one as eos_token in its tokenizer_config.json, or train a tokenizer."),
            )
        safe = self._pattern in _PATTERNS.values()
        pieces: list[str | None] = []  # None: a document ends
        for document in documents:
            pieces += [*(_pieces(document, _CHUNK * 4) if safe else [document]), None]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            encoded = list(pool.map(self._encode_pieces, _grouped(pieces)))
        return np.concatenate([np.zeros(0, self._dtype), *encoded])

    def _encode_pieces(self, pieces: list[str | None]) -> np.ndarray:
        if self._fast:
            normal = self._backend.normalizer.normalize_str if self._normaliser else str
            ids = self._fast.encode([piece and normal(piece) for piece in pieces])
            if ids is not None:
                return ids.astype(self._dtype)
            if len(pieces) > 1:  # one piece of the group is not for tiktoken
                return np.concatenate([self._encode_pieces([piece]) for piece in pieces])
        texts = [piece for piece in pieces if piece is not None]
        encodings = iter(self._backend.encode_batch_fast(texts, add_special_tokens=False))
        ids_of = ([self.end_id] if piece is None else next(encodings).ids for piece in pieces)
        return np.fromiter(chain.from_iterable(ids_of), self._dtype)

    def unspellable(self, text: str) -> set[str]:
        """The characters of `text` that this tokenizer has no tokens for: empty for every byte-level tokenizer."""
        if self._spells_bytes:
            return set()
        model = self._json["model"]
        unknown = (
            self._backend.token_to_id(model["unk_token"])
            if isinstance(model.get("unk_token"), str)
            else model.get("unk_id")
        )
        missing = set()
        for character in set(text):
            ids = self.encode(character)
            normal = self._backend.normalizer.normalize_str(character) if self._backend.normalizer else character
            spelled = b"".join(self.token_bytes(id) for id in ids if id != unknown)
            if normal.replace("▁", " ").strip().encode() not in spelled:
                missing.add(character)
        return missing

    # ids to text

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; special tokens stand for none, bytes that are not UTF-8 become U+FFFD."""
        text = b"".join(self._bytes[id] for id in ids).decode("utf-8", "replace")
        return text[1:] if self._strips and text.startswith(" ") else text

    def token_bytes(self, id: int) -> bytes:
        """The UTF-8 bytes that token `id` stands for, maybe a piece of a character; none for a special token."""
        return self._bytes[id]

    def show(self, id: int) -> str:
        """Token `id` for a reader: `魅`, `␣the`, `⏎`; bytes that are no whole character as `<E9 AD>`."""
        if id in self._special or id not in self._token_of:
            return self._token_of.get(id, f"<{id}>")
        return show_bytes(self._bytes[id])

    def stream(self, continuing: bool = True) -> "TextStream":
        """A decoder for ids that come one by one. `continuing`: they go on from a text, so a first space is kept."""
        return TextStream(self, strip=self._strips and not continuing)

    # tokens by their bytes

    def ids_starting_with(self, prefix: bytes) -> list[int]:
        """All tokens whose bytes start with `prefix`, special tokens never; in the order of their bytes."""
        keys, ids = self._sorted
        # 0xFF never occurs in UTF-8, but a byte token may be it: the first key past the prefix is found, not made up
        first = bisect_left(keys, prefix)
        after = bisect_left(keys, True, lo=first, key=lambda key: not key.startswith(prefix))
        return ids[first:after]

    def ids_admissible(self, remaining: bytes) -> list[int]:
        """The tokens that may stand where the bytes `remaining` must come next.

        Their bytes start with `remaining`, or are a prefix of it.
        """
        shorter = [id for n in range(1, len(remaining)) for id in self._by_bytes.get(remaining[:n], ())]
        return shorter + self.ids_starting_with(remaining)

    # tables, made when first asked for

    @cached_property
    def _dtype(self) -> np.dtype:
        return np.dtype("<u2") if self.vocab_size <= 1 << 16 else np.dtype("<u4")

    @cached_property
    def _with_special(self) -> tokenizers.Tokenizer:
        backend = tokenizers.Tokenizer.from_str(self._backend.to_str())
        backend.encode_special_tokens = False
        return backend

    @cached_property
    def _bytes(self) -> list[bytes]:
        return [self._bytes_of(id) for id in range(self.vocab_size)]

    def _bytes_of(self, id: int) -> bytes:
        token = self._token_of.get(id)
        if token is None or id in self._special:
            return b""
        if id in self._added:
            return token.encode()
        if self._style == "bytes":
            return bytes_spelled(token)
        if self._style == "words":
            return token.replace(self._json["decoder"]["suffix"], " ").encode()
        if re.fullmatch("<0x[0-9A-F]{2}>", token):
            return bytes([int(token[3:5], 16)])
        return token.replace("▁", " ").encode()

    @cached_property
    def _by_bytes(self) -> dict[bytes, list[int]]:
        table: dict[bytes, list[int]] = {}
        for id, text in enumerate(self._bytes):
            if text:
                table.setdefault(text, []).append(id)
        return table

    @cached_property
    def _sorted(self) -> tuple[list[bytes], list[int]]:
        pairs = sorted((text, id) for id, text in enumerate(self._bytes) if text)
        return [text for text, _id in pairs], [id for _text, id in pairs]

    @cached_property
    def _strips(self) -> bool:
        return "Strip" in _types(self._json["decoder"]) or (
            "Metaspace" in _types(self._json["decoder"]) and "never" not in json.dumps(self._json["decoder"])
        )

    @cached_property
    def _spells_bytes(self) -> bool:
        vocabulary = self._json["model"]["vocab"]
        if self._style == "bytes":
            return all(character in vocabulary for character in _CHARACTERS)
        return bool(self._json["model"].get("byte_fallback")) and all(
            self._backend.token_to_id(f"<0x{byte:02X}>") is not None for byte in range(256)
        )

    @cached_property
    def _normaliser(self) -> str | None:
        normaliser = self._json["normalizer"]
        return normaliser and (normaliser["type"] if normaliser["type"] != "Sequence" else json.dumps(normaliser))

    @cached_property
    def _pattern(self) -> str | None:
        """The split pattern, when splitting by it and then spelling as bytes is all that happens before merges."""
        outer = self._json["pre_tokenizer"] or {}
        parts = outer.get("pretokenizers", [outer])
        if any(part.get("add_prefix_space") for part in parts) or not parts or parts[-1].get("type") != "ByteLevel":
            return None
        if len(parts) == 1:
            return _GPT2 if parts[0]["use_regex"] else None
        split = parts[0]
        if len(parts) > 2 or parts[1]["use_regex"] or split["type"] != "Split" or split["invert"]:
            return None
        return split["pattern"].get("Regex") if split["behavior"] == "Isolated" else None

    @cached_property
    def _fast(self) -> "_Fast | None":
        return _Fast.of(self)


class TextStream:
    """Text from ids that come one by one, never half a character: `add` each, then `finish`."""

    def __init__(self, tokenizer: Tokenizer, strip: bool) -> None:
        self._tokenizer, self._strip = tokenizer, strip
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, id: int) -> str:
        """The characters that token `id` completes; often one or more, "" while a character is unfinished."""
        return self._stripped(self._decoder.decode(self._tokenizer.token_bytes(id)))

    def finish(self) -> str:
        """What is left: U+FFFD for a character that was begun and not finished, else ""."""
        return self._stripped(self._decoder.decode(b"", final=True))

    def _stripped(self, text: str) -> str:
        if text and self._strip:
            self._strip = False
            return text.removeprefix(" ")
        return text


def read_backend(file: Path) -> tokenizers.Tokenizer:
    """The tokenizer.json `file`, of whatever kind.

    Raises:
        PellucidError: when there is none, or it is damaged.
    """
    try:
        return tokenizers.Tokenizer.from_str(file.read_text("utf-8"))
    except FileNotFoundError as error:
        raise PellucidError(
            _("There is no tokenizer here."),
            str(file),
            _("Name a tokenizer.json, a folder that holds one, or `bytes`."),
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise PellucidError(_("The tokenizer cannot be read: {error}").format(error=error), str(file)) from error
    except Exception as error:  # tokenizers raises bare Exception for any damage
        if type(error) is not Exception:
            raise
        raise PellucidError(
            _("This is not a tokenizer.json, or it is damaged: {error}").format(error=error),
            str(file),
            _("Copy or download it again."),
        ) from error


def show_bytes(text: bytes) -> str:
    """`text` for a reader: spaces as ␣, line ends as ⏎, and bytes that are no whole character as `<E9 AD>`."""
    shown = text.decode("utf-8", "surrogateescape").translate({32: "␣", 10: "⏎", 9: "⇥", 13: "␍"})
    # half characters (escaped as surrogates) and characters that cannot be seen
    hidden = r"[\udc80-\udcff]+|[\x00-\x1f\x7f-\x9f\u2028\u2029\u200b-\u200f\ufeff]"
    return re.sub(hidden, lambda found: _hexadecimal(found[0].encode("utf-8", "surrogateescape")), shown)


def _hexadecimal(text: bytes) -> str:
    return f"<{text.hex(' ').upper()}>"


class _Fast:
    """The same ids by way of tiktoken, which encodes several times faster.

    Both cut the text into pieces by the pattern and then merge within each piece, lowest merge first. They differ in
    two ways. `tokenizers` merges a listed pair only, tiktoken any two neighbours whose bytes together are a token.
    And their regular expressions may know different versions of Unicode.

    Merges. Number the merges in order and let both run through them one by one, each at every place from the left
    (a merge's product occurs in later merges only, so this is what their queues do). Let the states agree before
    merge k, (l, r) → t. They can part only if some other neighbours l', r' spell t. No merge crossed the outer
    edges of l'r', so bytes(t) alone, under the merges before k, would also come to l', r'. But if bytes(t) alone
    comes to the one token t, it came to l, r before merge k. So it is enough that every token's bytes encode to
    that token, which `of` checks.

    Characters. The patterns tell characters apart by `_CLASSES` only; a text with a character that the two engines
    put in different classes goes to `tokenizers`.
    """

    def __init__(self, pattern: str, ranks: dict[bytes, int], ids: np.ndarray, end_id: int, added: list[str]) -> None:
        import tiktoken  # only where a corpus is encoded: it costs start-up time

        self._encoding = tiktoken.Encoding("pellucid", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        self._ids = np.append(ids, end_id)  # by rank; the end comes last
        self._added = added
        self._alike = np.arange(0x110000) < 128

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "_Fast | None":
        """None when the ids would not be proven equal."""
        model, pattern = tokenizer._json["model"], tokenizer._pattern
        plain = not any(model.get(k) for k in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"))
        if pattern is None or pattern not in _PATTERNS.values() or model["type"] != "BPE" or not plain:
            return None
        if not tokenizer._spells_bytes or tokenizer._normaliser not in (None, "NFC"):
            return None
        vocabulary = model["vocab"]
        ranks = {bytes([byte]): byte for byte in range(256)}
        ids = [vocabulary[character] for character in _CHARACTERS]
        for merge in model["merges"]:
            left, right = merge if isinstance(merge, list) else merge.split(" ")
            spelled = bytes_spelled(left + right)
            parts = [bytes_spelled(part) for part in (left, right)]
            if spelled in ranks or not all(part in ranks for part in parts):
                return None
            ranks[spelled] = len(ids)
            ids.append(vocabulary[left + right])
        names = {id: token for token, id in vocabulary.items()}
        merging = tokenizers.Tokenizer(tokenizer._backend.model)
        for encoding, id in zip(merging.encode_batch([names[id] for id in ids]), ids, strict=True):
            if encoding.ids != [id]:
                return None
        added = [token.content for token in tokenizer._added.values()]
        return cls(pattern, ranks, np.array(ids, np.uint32), tokenizer.end_id or 0, added)

    def encode(self, pieces: Sequence[str | None]) -> np.ndarray | None:
        """Ids of the pieces, the end token for None; or None where they may differ from those of `tokenizers`."""
        text = "".join(filter(None, pieces))
        if any(name in text for name in self._added) or not (text.isascii() or self._known_alike(text)):
            return None
        # tiktoken's regular expressions give up, with a panic, on runs of about a million spaces
        if len(text) > _LONG_RUN and re.search(rf"\s{{{_LONG_RUN}}}", text):
            return None
        ordinary = self._encoding.encode_ordinary
        ranks: list[int] = []
        for piece in pieces:
            ranks += [len(self._ids) - 1] if piece is None else ordinary(piece)
        return self._ids[np.array(ranks, np.intp)]

    def _known_alike(self, text: str) -> bool:
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        # a table, for sets of characters would take a fifth of the time of encoding
        unknown = codes[~self._alike[codes]]
        new = [code for code in np.unique(unknown).tolist() if not _engines_differ(chr(code))]
        self._alike[new] = True
        return bool(self._alike[unknown].all())


@cache
def _engines_differ(character: str) -> bool:
    """Whether the two regular-expression engines put the character into different ones of `_CLASSES`."""
    return any(theirs(character) != ours(character) for theirs, ours in _class_tests())


@cache
def _class_tests() -> list[tuple[Any, Any]]:
    import tiktoken

    bytes_only = {bytes([byte]): byte for byte in range(256)}

    def pair(pattern: str) -> tuple[Any, Any]:
        encoding = tiktoken.Encoding(pattern, pat_str=pattern, mergeable_ranks=bytes_only, special_tokens={})
        split = pre_tokenizers.Split(Regex(pattern), "removed")
        # tiktoken leaves out what the pattern does not match; `removed` leaves out what it does
        return (lambda c: bool(encoding.encode_ordinary(c))), (lambda c: not split.pre_tokenize_str(c))

    return [pair(pattern) for pattern in _CLASSES]


def blank(family: str) -> tokenizers.Tokenizer:
    """Byte-level BPE that cuts text as the family does, still without tokens and merges."""
    if family not in _PATTERNS:
        raise PellucidError(
            _("There is no family {family}.").format(family=repr(family)),
            "--family",
            _("The families are {families}.").format(families=", ".join(_PATTERNS)),
        )
    backend = tokenizers.Tokenizer(models.BPE())
    if family in _REBUILT:
        backend.normalizer = normalizers.NFC()
    if _PATTERNS[family] == _GPT2:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        split = pre_tokenizers.Split(Regex(_PATTERNS[family]), behavior="isolated")
        spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([split, spell])
    backend.decoder = decoders.ByteLevel()
    return backend


def _with_end(backend: tokenizers.Tokenizer) -> tuple[tokenizers.Tokenizer, list[int]]:
    backend.add_special_tokens([AddedToken(END, special=True, normalized=False)])
    return backend, [backend.get_vocab_size() - 1]


def training_pieces(texts: Sequence[str]) -> Iterator[str]:
    every = -(-sum(map(len, texts)) // SAMPLE) or 1
    pieces = (piece for text in texts for piece in _pieces(text, _CHUNK))
    for piece in islice(pieces, 0, None, every):
        start = 0
        for run in _RUN.finditer(piece):
            yield piece[start : run.end()]
            start = run.end()
        yield piece[start:]


def _pieces(text: str, size: int) -> Iterator[str]:
    """Cut `text` into pieces of about `size` or more characters, only where every family's pattern cuts too.

    That is after a line end between two characters that are no space.
    """
    start = 0
    boundary = re.compile(r"(?<=\S)\n(?=\S)")
    while len(text) - start > size:
        found = boundary.search(text, start + size)
        if not found:
            break
        yield text[start : found.end()]
        start = found.end()
    yield text[start:]


def _grouped(pieces: list[str | None]) -> Iterator[list[str | None]]:
    """Consecutive pieces, together about as long as one thread should be given at once."""
    group: list[str | None] = []
    size = 0
    for piece in pieces:
        group.append(piece)
        size += len(piece or "")
        if size > _CHUNK * 4:
            yield group
            group, size = [], 0
    if group:
        yield group


def _style(description: dict[str, Any]) -> str:
    """How tokens spell bytes: "bytes" (GPT-2's alphabet), "pieces" (SentencePiece's ▁), "words" (a suffix ends one)."""
    kind, found = description["model"]["type"], _types(description["decoder"])
    if "ByteLevel" in found:
        return "bytes"
    if found & {"ByteFallback", "Metaspace", "Replace"} and kind in ("BPE", "Unigram"):
        return "pieces"
    if "BPEDecoder" in found:
        return "words"
    raise PellucidError(
        _("This kind of tokenizer ({kind}) is not supported.").format(kind=kind),
        "",
        _("Use a byte-level or SentencePiece one, or train one."),
    )


def _types(decoder: dict[str, Any] | None) -> set[str]:
    if decoder is None:
        return set()
    return {decoder["type"]}.union(*(_types(part) for part in decoder.get("decoders", ())))


def _end_ids(backend: tokenizers.Tokenizer, folder: Path) -> list[int]:
    """The end tokens that the files beside a tokenizer name, the one that ends documents first."""
    special = {id for id, token in backend.get_added_tokens_decoder().items() if token.special}
    found: list[int] = []
    settings = _json_of(folder / "tokenizer_config.json")
    name = settings.get("eos_token")
    name = name.get("content") if isinstance(name, dict) else name
    named = backend.token_to_id(name) if isinstance(name, str) else None
    if named is not None:
        found.append(named)
    for file in ("config.json", "generation_config.json"):
        ids = _json_of(folder / file).get("eos_token_id")
        for id in ids if isinstance(ids, list) else [ids]:
            # a configuration's default may name any id: an end token is a special one
            if isinstance(id, int) and id in special:
                found.append(id)
    known = (backend.token_to_id(name) for name in _ENDS)
    return list(dict.fromkeys(found or [id for id in known if id is not None][:1]))


def _json_of(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise PellucidError(_("This is not JSON: {error}").format(error=error), str(file)) from error
    return content if isinstance(content, dict) else {}


def _chat_template(companions: dict[str, str]) -> str | None:
    if "chat_template.jinja" in companions:
        return companions["chat_template.jinja"]
    template = json.loads(companions.get("tokenizer_config.json", "{}")).get("chat_template")
    if isinstance(template, list):  # several by name
        named = {entry["name"]: entry["template"] for entry in template}
        template = named.get("default")
    return template


def _special_names(companions: dict[str, str]) -> dict[str, str]:
    settings = json.loads(companions.get("tokenizer_config.json", "{}"))
    named = {name: value for name, value in settings.items() if name.endswith("_token")}
    # a file may describe the token instead of naming it
    texts = {name: value.get("content") if isinstance(value, dict) else value for name, value in named.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def bytes_spelled(token: str) -> bytes:
    """The bytes that a byte-level token's characters stand for."""
    return token.translate(_LATIN_1).encode("latin-1")


def _byte_characters() -> list[str]:
    """GPT-2's alphabet: bytes that print stand for themselves, the others for characters from U+0100 on."""
    printing = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printing else chr(next(others)) for byte in range(256)]


_CHARACTERS = _byte_characters()
_LATIN_1 = {ord(character): byte for byte, character in enumerate(_CHARACTERS)}
