"""Tokenizers of encoders, which read a text in a frame: [CLS], its tokens, [SEP] (Devlin et al. 2018).

BERT's WordPiece is opened from its models' files, never trained; byte-level BPE is trained here, or taken from others
and framed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, models, pre_tokenizers, processors, trainers

from pellucid.data.tokenizer import blank, bytes_spelled, read_backend, show_bytes, training_pieces
from pellucid.errors import PellucidError
from pellucid.language import _

PAD, BEGIN, END = "[PAD]", "[CLS]", "[SEP]"
SMALLEST = 259  # every byte and the frame
_COMPANIONS = ("tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


class FramedTokenizer:
    """Text to ids, between the token that begins a sequence and the one that ends it.

    WordPiece lower-cases and drops accents where its model was trained so: a text cannot be had back from its ids.

    Attributes:
        vocab_size: One more than the largest id.
        pad_id: What fills up short sequences.
        digest: SHA-256 of everything that decides ids.
    """

    def __init__(self, backend: tokenizers.Tokenizer, companions: dict[str, str] | None = None) -> None:
        backend.no_truncation()
        backend.no_padding()
        self._json = backend.to_str(pretty=False)
        self._with_special = backend
        self._backend = tokenizers.Tokenizer.from_str(self._json)
        self._backend.encode_special_tokens = True  # the names of special tokens in a text are text
        self._spells_bytes = isinstance(backend.model, models.BPE)
        self._special = {id for id, token in backend.get_added_tokens_decoder().items() if token.special}
        self._companions = companions or {}
        self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values()) + 1
        self.pad_id: int = backend.token_to_id(PAD) or 0
        self.digest = hashlib.sha256(self._json.encode()).hexdigest()

    @classmethod
    def open(cls, path: str | Path) -> FramedTokenizer:
        """Open a tokenizer.json or a folder that holds one; byte-level BPE without a frame is given one.

        Raises:
            PellucidError: when there is none, it is damaged, or of another kind.
        """
        path = Path(path)
        file = path / "tokenizer.json" if path.is_dir() else path
        backend = read_backend(file)
        beside = [file.parent / name for name in _COMPANIONS]
        companions = {found.name: found.read_text("utf-8") for found in beside if found.is_file()}
        if isinstance(backend.model, models.WordPiece) or (_spells_bytes(backend) and backend.token_to_id(BEGIN)):
            return cls(backend, companions)
        if not _spells_bytes(backend):
            raise PellucidError(
                _("This kind of tokenizer ({kind}) is not supported.").format(kind=type(backend.model).__name__),
                str(file),
                _("Use BERT's WordPiece or a byte-level one, or train one."),
            )
        return cls(_framed(backend))

    @classmethod
    def train(cls, texts: Sequence[str], vocab_size: int) -> FramedTokenizer:
        """Learn byte-level merges from `texts`; the frame's tokens have the last ids.

        The vocabulary is smaller than asked for when no further pair occurs twice (see `vocab_size`).

        Raises:
            PellucidError: when `vocab_size` is less than `SMALLEST`.
        """
        if vocab_size < SMALLEST:
            raise PellucidError(
                _("A vocabulary of {n} is too small.").format(n=vocab_size),
                "--vocab",
                _("Use at least {n}: every byte and what frames a text.").format(n=SMALLEST),
            )
        backend = blank("qwen3")
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 3, min_frequency=2, show_progress=False, initial_alphabet=alphabet
        )
        backend.train_from_iterator(training_pieces(texts), trainer)
        return cls(_framed(backend))

    @classmethod
    def byte_level(cls) -> FramedTokenizer:
        """One token a byte, and the frame."""
        return cls.train([], SMALLEST)

    def save(self, folder: str | Path, context: int | None = None) -> None:
        """Write tokenizer.json and the files that stood beside it, which `AutoTokenizer` opens to the same ids.

        Args:
            folder: Made when there is none.
            context: The longest sequence, for `AutoTokenizer` to cut longer ones at, where nothing stood beside.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = {"tokenizer.json": self._json} | self._companions
        if "tokenizer_config.json" not in files:
            settings = {
                "tokenizer_class": "PreTrainedTokenizerFast",  # takes tokenizer.json as it is, in transformers 4 and 5
                "pad_token": PAD,
                "cls_token": BEGIN,
                "sep_token": END,
                "clean_up_tokenization_spaces": False,
                "model_max_length": context or int(1e30),
            }
            files["tokenizer_config.json"] = json.dumps(settings, indent=2)
        for name, text in files.items():
            temporary = folder / f".{name}.{os.getpid()}.tmp"
            temporary.write_text(text, "utf-8")
            os.replace(temporary, folder / name)

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """[CLS], the ids of `text`, [SEP]. With `allow_special` the names of special tokens become those tokens."""
        return (self._with_special if allow_special else self._backend).encode(_whole(text)).ids

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, on all cores."""
        return [found.ids for found in self._backend.encode_batch([_whole(text) for text in texts])]

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where in `text` each of its ids begins and ends, in characters; (0, 0) for [CLS] and [SEP]."""
        return self._backend.encode(_whole(text)).offsets

    def words(self, text: str) -> list[int | None]:
        """The number of the word that each id is a piece of, as the text was cut before merging; None for the frame."""
        return self._backend.encode(_whole(text)).word_ids

    def show(self, id: int) -> str:
        """Token `id` for a reader: `␣the`; of WordPiece, what goes on a word begins with `##`."""
        token = self._backend.id_to_token(id)
        if token is None:
            return f"<{id}>"
        return show_bytes(bytes_spelled(token)) if self._spells_bytes and id not in self._special else token


def _framed(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in (PAD, BEGIN, END)])
    ids = [(name, backend.token_to_id(name)) for name in (BEGIN, END)]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}", pair=f"{BEGIN} $A {END} $B:1 {END}:1", special_tokens=ids
    )
    return backend


def _spells_bytes(backend: tokenizers.Tokenizer) -> bool:
    return isinstance(backend.model, models.BPE) and '"type":"ByteLevel"' in backend.to_str(pretty=False)


def _whole(text: str) -> str:
    """The text, where every character of it is whole: half of one (a lone surrogate) has no bytes."""
    return text.encode("utf-8", "replace").decode("utf-8")
