"""A trace in files gives the same answers, to the last bit; what could run a program is refused."""

import json
import pickle
import struct

import pytest
import torch
from torch import nn

import pellucid as pl
from pellucid.data.tokenizer import Tokenizer
from pellucid.language_model import LanguageModel
from pellucid.networks.decoder import Decoder, decoder_config
from pellucid.tracing.saving import EVENTS, NUMBERS, decode, encode
from pellucid.tracing.tape import Place


def same(ours, theirs) -> None:
    """Two answers, and what is behind their first terms, equal to the last bit."""
    assert ours.to_dict() == theirs.to_dict()
    assert bytes_of(ours.terms.contributions) == bytes_of(theirs.terms.contributions)
    for n in range(min(3, len(ours.terms))):
        assert ours.terms[n].why().to_dict() == theirs.terms[n].why().to_dict()


def bytes_of(x: torch.Tensor) -> bytes:
    return x.contiguous().view(torch.uint8).numpy().tobytes()


@pytest.fixture(scope="module", params=["gpt2", "qwen3"])
def model(request) -> LanguageModel:
    tokenizer = Tokenizer.byte_level(request.param)
    network = Decoder(
        decoder_config(request.param, vocab_size=tokenizer.vocab_size, d_model=128, n_layers=3, n_heads=4, context=256)
    )
    network.initialise(0)
    return LanguageModel(network.eval().requires_grad_(False), tokenizer)


def test_a_text_trace_answers_as_before(model, tmp_path):
    trace = model.trace("Any number can answer why. " * 8)  # long enough for some results to be computed again
    assert any(storage is None for storage in trace.tape._held) == (model.network.config.family == "qwen3")
    trace.save(tmp_path / "trace")
    loaded = pl.load_trace(tmp_path / "trace")
    assert loaded.tokens == trace.tokens
    assert loaded.tree() == trace.tree()
    begins = {storage.data_ptr() % 64 for storage in loaded.tape._held if storage is not None}
    assert begins == {0}  # else kernels would round otherwise, on some machine or at some size
    for convention in ("values", "half"):
        same(loaded.why(convention=convention), trace.why(convention=convention))
    same(loaded.why(next_token="x", rather_than="y"), trace.why(next_token="x", rather_than="y"))
    same(loaded.why(loaded.loss()), trace.why(trace.loss()))
    ours, theirs = loaded.flow(), trace.flow()
    assert ours.to_dict() == theirs.to_dict()
    assert bytes_of(ours.tokens) == bytes_of(theirs.tokens)
    assert str(loaded.why()) == str(trace.why())


def test_a_training_step_answers_as_before(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.BatchNorm1d(8), nn.Linear(8, 2))
    optimiser = torch.optim.AdamW(net.parameters(), 1e-2)
    with pl.record(net) as trace:
        loss = nn.functional.cross_entropy(net(torch.randn(6, 4)), torch.tensor([0, 1, 0, 1, 1, 0]))
        loss.backward()
        optimiser.step()
    trace.save(tmp_path / "step")
    with torch.no_grad():
        net[0].weight.zero_()  # the files do not look at the module any more
    loaded = pl.load_trace(tmp_path / "step")
    with pytest.raises(pl.PellucidError, match="changed after"):
        trace.why("0.weight[1,2]")
    assert loaded.value("0.weight").abs().sum() > 0
    assert loaded.value("0.weight:updated").ne(loaded.value("0.weight")).all()
    for address in ("3[2,1]", "0.weight:grad[1,2]", "0.weight:updated[1,2]", "2.running_mean:updated[3]"):
        assert loaded.why(address).kind == "sum"
    again = tmp_path / "again"
    loaded.save(again)
    second = pl.load_trace(again)
    for address in ("3[2,1]", "0.weight:grad[1,2]", "0.weight:updated[1,2]"):
        same(second.why(address), loaded.why(address))


def test_in_place_writes_are_undone_in_a_loaded_trace(tmp_path):
    class Strange(nn.Module):
        def forward(self, x):
            y = x * 2
            y[1:] += 1
            y.relu_()
            return y.sum()

    trace = pl.trace(Strange(), torch.tensor([1.0, -3.0, 2.0]))
    trace.save(tmp_path / "strange")
    loaded = pl.load_trace(tmp_path / "strange")
    same(loaded.why(":out[]"), trace.why(":out[]"))
    same(loaded.why("/mul.0[1]"), trace.why("/mul.0[1]"))
    assert loaded.value("/mul.0").tolist() == [2.0, -6.0, 4.0]


def test_two_files_and_no_pickle(model, tmp_path):
    model.trace("abc").save(tmp_path / "trace")
    names = {path.name for path in (tmp_path / "trace").iterdir()}
    assert {EVENTS, NUMBERS, "tokenizer.json"} <= names
    assert json.loads((tmp_path / "trace" / EVENTS).read_text("utf-8"))["format"] == "pellucid.trace/1"
    for path in (tmp_path / "trace").iterdir():
        assert not path.read_bytes().startswith((b"PK", b"\x80"))
    assert [path.name for path in tmp_path.iterdir()] == ["trace"]  # nothing temporary is left


@pytest.mark.parametrize("name", ["trace.pt", "trace.pkl", "renamed.trace"])
def test_a_pickle_is_refused_by_name(name, tmp_path):
    path = tmp_path / name
    if name.endswith("pkl"):
        path.write_bytes(pickle.dumps({"calls": []}))
    else:
        torch.save({"calls": []}, path)
    with pytest.raises(pl.PellucidError, match=f"{name} is a pickle"):
        pl.load_trace(path)


def test_damage_is_said(model, tmp_path):
    folder = tmp_path / "trace"
    model.trace("abc").save(folder)
    events, numbers = (folder / EVENTS).read_bytes(), (folder / NUMBERS).read_bytes()
    content = json.loads(events)

    def refused(message: str) -> None:
        with pytest.raises(pl.PellucidError, match=message):
            pl.load_trace(folder)

    (folder / NUMBERS).write_bytes(numbers[: len(numbers) // 2])
    refused("damaged")
    (folder / NUMBERS).write_bytes(struct.pack("<Q", 1 << 40) + numbers[8:])
    refused("damaged")
    (folder / NUMBERS).write_bytes(numbers)
    (folder / EVENTS).write_bytes(events[:1000])
    refused("damaged")
    for key, value, message in (
        ("format", "pellucid.trace/9", "format"),
        ("calls", [["os::system", "default", [], {"named": {}}, [], None, "forward"]], "damaged"),
        ("calls", [["aten::__class__", "__init__", [], {"named": {}}, [], None, "forward"]], "damaged"),
        ("calls", 7, "damaged"),
        ("storages", [{"torch": "save"}], "damaged"),
        ("scopes", None, "damaged"),
    ):
        (folder / EVENTS).write_text(json.dumps(content | {key: value}), "utf-8")
        refused(message)
    with pytest.raises(pl.PellucidError, match="no trace here"):
        pl.load_trace(tmp_path / "nothing")


def test_nothing_else_is_overwritten(model, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("keep me")
    trace = model.trace("abc")
    with pytest.raises(pl.PellucidError, match="no trace"):
        trace.save(tmp_path / "letters")
    assert (tmp_path / "letters" / "dear.txt").read_text() == "keep me"
    trace.save(tmp_path / "own")
    model.trace("abcd").save(tmp_path / "own")
    assert len(pl.load_trace(tmp_path / "own").tokens) == 4


def test_arguments_survive_json():
    place = Place(3, 8, (2, 1), (1, 0), torch.bfloat16)
    values = (
        place, None, True, 1, 1.5, float("-inf"), 2 + 1j, "mean", torch.float16, torch.device("cpu"), torch.strided,
        torch.preserve_format, (1, (place, 2.0)), {"a": (place,)},
    )  # fmt: skip
    assert decode(json.loads(json.dumps(encode(values)))) == values
    assert decode(encode(torch.Generator())) is None
    with pytest.raises(ValueError, match="no type"):
        decode({"torch": "save"})
