"""WordPiece, the tokenizer of BERT's models (Devlin et al. 2018): opened from their files, never trained."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import tokenizers

from pellucid.data.tokenizer import read_backend
from pellucid.errors import PellucidError
from pellucid.language import _

_COMPANIONS = ("tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


class WordPiece:
    """Text to ids, between the token that begins a sequence and the one that ends it.

    It lower-cases and drops accents where its model was trained so: a text cannot be had back from its ids.

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
        self._companions = companions or {}
        self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values()) + 1
        self.pad_id: int = backend.token_to_id("[PAD]") or 0
        self.digest = hashlib.sha256(self._json.encode()).hexdigest()

    @classmethod
    def open(cls, path: str | Path) -> WordPiece:
        """Open a tokenizer.json or a folder that holds one.

        Raises:
            PellucidError: when there is none, it is damaged, or of another kind.
        """
        path = Path(path)
        file = path / "tokenizer.json" if path.is_dir() else path
        backend = read_backend(file)
        if not isinstance(backend.model, tokenizers.models.WordPiece):
            raise PellucidError(
                _("This kind of tokenizer ({kind}) is not supported.").format(kind=type(backend.model).__name__),
                str(file),
                _("A BERT model's is WordPiece."),
            )
        beside = [file.parent / name for name in _COMPANIONS]
        return cls(backend, {found.name: found.read_text("utf-8") for found in beside if found.is_file()})

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json and the files that stood beside it, which `AutoTokenizer` opens to the same ids."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in ({"tokenizer.json": self._json} | self._companions).items():
            temporary = folder / f".{name}.{os.getpid()}.tmp"
            temporary.write_text(text, "utf-8")
            os.replace(temporary, folder / name)

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """[CLS], the ids of `text`, [SEP]. With `allow_special` the names of special tokens become those tokens."""
        return (self._with_special if allow_special else self._backend).encode(text).ids

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where in `text` each of its ids begins and ends, in characters; (0, 0) for [CLS] and [SEP]."""
        return self._backend.encode(text).offsets

    def show(self, id: int) -> str:
        """Token `id` for a reader; what goes on a word begins with `##`."""
        return self._backend.id_to_token(id) or f"<{id}>"
