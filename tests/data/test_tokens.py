import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.data.tokenizer import Tokenizer
from pellucid.data.tokens import IGNORED, Batches, TokenFile, evaluation_blocks
from pellucid.errors import PellucidError

BYTES = Tokenizer.byte_level()


def test_a_file_of_tokens_is_built_once(tmp_path):
    path = tmp_path / "data" / "train.bin"
    made = TokenFile.build(path, ["ab", "é"], BYTES)
    assert made.ids.tolist() == [97, 98, 256, 195, 169, 256]
    assert np.fromfile(path, "<u2").tolist() == made.ids.tolist()
    assert (made.note.split, made.note.bytes, made.note.documents, made.note.count) == ("train", 4, 2, 6)
    before = path.stat().st_mtime_ns
    assert TokenFile.build(path, ["ab", "é"], BYTES).ids.tolist() == made.ids.tolist()
    assert path.stat().st_mtime_ns == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["train.bin", "train.bin.json"]


@pytest.mark.parametrize("documents", [["a", "bé"], ["abé"], ["ab"]])
def test_other_documents_make_another_file(tmp_path, documents):
    TokenFile.build(tmp_path / "train.bin", ["ab", "é"], BYTES)
    again = TokenFile.build(tmp_path / "train.bin", documents, BYTES)
    assert again.ids.tolist() == BYTES.encode_documents(documents).tolist()


def test_another_tokenizer_makes_another_file(tmp_path):
    TokenFile.build(tmp_path / "train.bin", ["abab"], BYTES)
    other = Tokenizer.train(["abab"], 300)
    assert TokenFile.build(tmp_path / "train.bin", ["abab"], other).ids.tolist() == [
        *other.encode("abab"),
        other.end_id,
    ]


def test_damaged_files_are_refused_and_made_again(tmp_path):
    path = tmp_path / "train.bin"
    TokenFile.build(path, ["abc"], BYTES)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PellucidError, match="not as long"):
        TokenFile.open(path)
    assert len(TokenFile.build(path, ["abc"], BYTES)) == 4
    (tmp_path / "train.bin.json").write_text(json.dumps({"split": "train"}))
    with pytest.raises(PellucidError, match="cannot be read"):
        TokenFile.open(path)


@settings(deadline=None, max_examples=80)
@given(st.integers(2, 200), st.integers(1, 20), st.integers(1, 5), st.integers(0, 3))
def test_batches(n, context, size, seed):
    ids = np.arange(n, dtype=np.uint16)
    if n <= context:
        with pytest.raises(PellucidError, match="too few"):
            Batches(ids, context, size, seed)
        return
    batches = Batches(ids, context, size, seed)
    seen: list[int] = []
    while batches.epoch < 1:
        x_BT, y_BT = next(batches)
        assert x_BT.shape == y_BT.shape == (size, context)
        assert x_BT.dtype == y_BT.dtype == torch.int64
        assert torch.equal(y_BT, x_BT + 1)
        seen += x_BT[:, 0].tolist()
    # the first epoch: blocks that do not overlap, from an offset below the context to the end of the ids
    offset = seen[0] % context
    first_epoch = range(offset, n - context, context)
    assert sorted(seen[: len(first_epoch)]) == list(first_epoch)


@settings(deadline=None, max_examples=50)
@given(st.integers(12, 99), st.integers(1, 10), st.integers(1, 5), st.integers(0, 30))
def test_batches_go_on_from_a_position(n, context, size, steps):
    ids = np.arange(n, dtype=np.uint16)
    whole, cut = Batches(ids, context, size, 3), Batches(ids, context, size, 3)
    for _ in range(steps):
        next(whole)
    for _ in range(steps // 2):
        next(cut)
    resumed = Batches(ids, context, size, 3)
    resumed.position = json.loads(json.dumps(cut.position))
    for _ in range(steps - steps // 2):
        next(resumed)
    assert resumed.epoch == whole.epoch
    for _ in range(5):
        assert torch.equal(next(resumed)[0], next(whole)[0])


def test_seeds_and_epochs_differ():
    ids = np.arange(1000, dtype=np.uint16)
    a, b = Batches(ids, 10, 50, 0), Batches(ids, 10, 50, 1)
    first = next(a)[0]
    assert not torch.equal(first, next(b)[0])
    next(a)
    assert not torch.equal(first, next(a)[0])


@given(st.integers(2, 90), st.integers(1, 20), st.integers(1, 4), st.booleans())
@settings(deadline=None, max_examples=80)
def test_evaluation_covers_every_target_once(n, context, size, with_first):
    ids = np.arange(10, 10 + n, dtype=np.uint16)
    targets = []
    for x_BT, y_BT in evaluation_blocks(ids, context, size, before=9 if with_first else None):
        assert x_BT.shape == y_BT.shape
        assert len(x_BT) <= size
        counted = y_BT != IGNORED
        assert torch.equal(x_BT[counted] + 1, y_BT[counted])
        targets += y_BT[counted].tolist()
    assert targets == ids.tolist()[0 if with_first else 1 :]


def test_a_text_without_targets_is_refused():
    with pytest.raises(PellucidError, match="no token to predict"):
        next(evaluation_blocks(np.array([1]), 4, 1))
    with pytest.raises(PellucidError, match="--context 3 or less"):
        Batches(np.arange(4), 4, 1)
