"""Token ids in a memory-mapped file, and batches of them from a position that can be saved and resumed exactly."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pellucid.data.tokenizer import Tokenizer
from pellucid.errors import PellucidError
from pellucid.language import _

IGNORED = -100  # the target that a loss passes over, as in torch.nn.functional.cross_entropy
_GROUP = 1 << 25  # characters encoded at once: bounds memory


@dataclass(frozen=True)
class Note:
    """What a file of ids holds, and of what: it is used again only when everything here is the same.

    `sha256` is taken over the tokenizer and the documents; `bytes` are the UTF-8 bytes of the documents.
    """

    split: str
    dtype: str
    sha256: str
    bytes: int
    documents: int
    count: int


class TokenFile:
    """Ids in a flat little-endian file, memory-mapped, with its note in a JSON file beside it.

    Attributes:
        ids: uint16 or uint32, (N,); read-only.
        note: What they were made from.
    """

    def __init__(self, path: Path, note: Note, ids: np.ndarray) -> None:
        self.path, self.note, self.ids = path, note, ids

    @classmethod
    def open(cls, path: str | Path) -> "TokenFile":
        """Open `path` (and `path` + ".json").

        Raises:
            PellucidError: when either is missing, damaged, or their lengths disagree.
        """
        path = Path(path)
        try:
            note = Note(**json.loads(_note_path(path).read_text("utf-8")))
            dtype = np.dtype(note.dtype)
            whole = path.stat().st_size == note.count * dtype.itemsize
        except (OSError, ValueError, TypeError) as error:
            raise PellucidError(
                _("The token file cannot be read: {error}").format(error=error),
                str(path),
                _("Delete it and its .json; it is made again from the text."),
            ) from error
        if not whole:
            raise PellucidError(
                _("The token file is not as long as its note says."),
                str(path),
                _("Delete it and its .json; it is made again from the text."),
            )
        # an empty file cannot be mapped
        ids = np.memmap(path, dtype=dtype, mode="r") if note.count else np.zeros(0, dtype)
        return cls(path, note, ids)

    @classmethod
    def build(
        cls, path: str | Path, documents: list[str], tokenizer: Tokenizer, split: str | None = None
    ) -> "TokenFile":
        """The file at `path` if it holds these documents in this tokenizer's ids, else the same made anew.

        It is written under a temporary name and then renamed, so that it is whole whenever it is there. `split` is
        the name of the part for the note; without it, that of the file.
        """
        path = Path(path)
        split = split or path.stem
        sha256, n_bytes = _digest(documents, tokenizer)
        try:
            there = cls.open(path)
        except PellucidError:
            pass
        else:
            if (there.note.sha256, there.note.split) == (sha256, split):
                return there
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        count, dtype = 0, "<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4"
        try:
            with temporary.open("wb") as file:
                for group in _groups(documents):
                    ids = tokenizer.encode_documents(group).astype(dtype, copy=False)
                    ids.tofile(file)
                    count += ids.size
            note = Note(split, dtype, sha256, n_bytes, len(documents), count)
            # no old note may stand beside new ids, whatever happens between the two renames
            _note_path(path).unlink(missing_ok=True)
            os.replace(temporary, path)
            temporary.write_text(json.dumps(asdict(note), indent=1), "utf-8")
            os.replace(temporary, _note_path(path))
        finally:
            temporary.unlink(missing_ok=True)
        return cls.open(path)

    def __len__(self) -> int:
        return len(self.ids)


class Batches:
    """Endless batches of (x_BT, y_BT), int64; y is x one token later.

    Each epoch draws an offset in [0, context) and cuts the ids from there into blocks that do not overlap, in
    an order drawn from PCG64([seed, epoch]). A batch may end one epoch and begin the next.

    Args:
        tokens: ids, (N,), N > context.
        context: T, tokens a sequence.
        size: B, sequences a batch.
        seed: With the position it decides every batch to come.

    Raises:
        PellucidError: when there are not context + 1 ids.
    """

    def __init__(self, tokens: TokenFile | np.ndarray, context: int, size: int, seed: int = 0) -> None:
        self.ids = tokens.ids if isinstance(tokens, TokenFile) else tokens
        self.context, self.size, self.seed = context, size, seed
        if len(self.ids) <= context:
            raise PellucidError(
                _("The text has {n} tokens: too few for a context of {context}.").format(
                    n=len(self.ids), context=context
                ),
                "--context",
                _("Use --context {longest} or less, or add text.").format(longest=len(self.ids) - 1)
                if len(self.ids) > 1
                else _("Add text."),
            )
        self._enter(epoch=0, block=0)

    @property
    def position(self) -> dict[str, int]:
        """Where the next batch begins. Set it, on batches of the same ids, context and seed, to go on from there."""
        return {"epoch": self._epoch, "block": self._block}

    @position.setter
    def position(self, position: dict[str, Any]) -> None:
        self._enter(int(position["epoch"]), int(position["block"]))

    @property
    def epoch(self) -> float:
        """How many times the text was gone through, up to the next batch."""
        return self._epoch + self._block / len(self._starts)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return self

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        starts: list[np.ndarray] = []
        wanted = self.size
        while wanted:
            if self._block == len(self._starts):
                self._enter(self._epoch + 1, 0)
            taken = self._starts[self._block : self._block + wanted]
            starts.append(taken)
            self._block += len(taken)
            wanted -= len(taken)
        return _sequences(self.ids, np.concatenate(starts), self.context)

    def _enter(self, epoch: int, block: int) -> None:
        random = np.random.Generator(np.random.PCG64([self.seed, epoch]))
        offset = int(random.integers(min(self.context, len(self.ids) - self.context)))
        n_blocks = (len(self.ids) - 1 - offset) // self.context
        self._starts = offset + self.context * random.permutation(n_blocks)
        self._epoch, self._block = epoch, block


def evaluation_blocks(
    tokens: TokenFile | np.ndarray, context: int, size: int, before: int | None = None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of (x_BT, y_BT), int64, in order, in which every target stands exactly once.

    The targets are all ids but the first; with `before` (the end token, say) put in front, all ids. What is left
    over at the end is padded with 0 in x and -100 in y. A text shorter than `context` gives shorter sequences.

    Raises:
        PellucidError: when there is no target at all.
    """
    ids = tokens.ids if isinstance(tokens, TokenFile) else tokens
    if before is not None:
        ids = np.concatenate([np.array([before], dtype=np.int64), ids])
    n_targets = len(ids) - 1
    if n_targets < 1:
        raise PellucidError(_("The text has no token to predict."), "", _("Give at least two tokens of text."))
    context = min(context, n_targets)
    n_whole, rest = divmod(n_targets, context)
    starts = context * np.arange(n_whole)
    for first in range(0, n_whole, size):
        yield _sequences(ids, starts[first : first + size], context)
    if rest:
        x_BT = torch.zeros(1, context, dtype=torch.int64)
        y_BT = torch.full((1, context), IGNORED, dtype=torch.int64)
        tail = torch.from_numpy(ids[n_whole * context :].astype(np.int64))
        x_BT[0, :rest], y_BT[0, :rest] = tail[:-1], tail[1:]
        yield x_BT, y_BT


def _sequences(ids: np.ndarray, starts: np.ndarray, context: int) -> tuple[torch.Tensor, torch.Tensor]:
    chunk = torch.from_numpy(ids[starts[:, None] + np.arange(context + 1)].astype(np.int64))
    return chunk[:, :-1].contiguous(), chunk[:, 1:].contiguous()


def _note_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _digest(documents: Iterable[str], tokenizer: Tokenizer) -> tuple[str, int]:
    digest, n_bytes = hashlib.sha256(tokenizer.digest.encode()), 0
    for document in documents:
        encoded = document.encode()
        digest.update(len(encoded).to_bytes(8, "little"))  # so that where one document ends is part of the digest
        digest.update(encoded)
        n_bytes += len(encoded)
    return digest.hexdigest(), n_bytes


def _groups(documents: list[str]) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for document in documents:
        group.append(document)
        size += len(document)
        if size >= _GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group
