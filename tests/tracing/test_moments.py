"""The same question at two moments."""

import copy

import pytest
import torch
from torch import nn

import pellucid as pl
from pellucid.data.tokenizer import Tokenizer
from pellucid.language_model import LanguageModel
from pellucid.networks.decoder import Decoder, decoder_config

TEXT = "the cat sat on the mat and the dog sat on the log " * 4


def test_a_line_that_was_moved_says_by_what():
    class Line(nn.Module):
        def __init__(self, a, b):
            super().__init__()
            self.a, self.b = nn.Parameter(torch.tensor(a)), nn.Parameter(torch.tensor(b))

        def forward(self, x):
            return self.a * x + self.b

    difference = pl.compare(
        pl.trace(Line(2.0, 1.0), torch.tensor(3.0)), pl.trace(Line(5.0, -1.0), torch.tensor(4.0)), ":out[]"
    )
    assert (difference.before, difference.after, difference.change) == (7.0, 19.0, 12.0)
    product, shift = difference.changes
    assert (product.change, shift.change, shift.address) == (14.0, -2.0, "b[]")
    (slope,) = product.why().changes  # 5 · 4 − 2 · 3: the slope's 3 · 3.5 and the input's 1 · 3.5
    assert (slope.by_coefficient, slope.by_value, slope.address) == (10.5, 3.5, ":in.0[]")
    assert slope.why_factor().change == 3.0
    assert slope.why().change == 1.0


@pytest.fixture(scope="module")
def models():
    """A small decoder before and after a few steps of training."""
    tokenizer = Tokenizer.train([TEXT], 280)
    config = decoder_config("llama", vocab_size=tokenizer.vocab_size, d_model=16, n_layers=2, n_heads=2, context=32)
    network = Decoder(config, seed=0)
    before = copy.deepcopy(network)
    ids = torch.tensor([tokenizer.encode(TEXT)[:24]])
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.01)
    for _ in range(20):
        loss = nn.functional.cross_entropy(network(ids[:, :-1])[0], ids[0, 1:])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return [LanguageModel(net.eval().requires_grad_(False), tokenizer) for net in (before, network)]


def test_the_differences_add_up_at_every_level(models):
    before, after = (model.trace("the cat sat") for model in models)
    difference = pl.compare(before, after)
    asked = after.why()
    assert difference.after == asked.value
    assert (
        difference.before
        == before.why(next_token=after.candidates(1)[0].id, rather_than=after.candidates(2)[1].id).value
    )
    opened = difference
    for _ in range(4):
        size = sum(abs(change.before) + abs(change.after) for change in opened.changes) + 1
        assert sum(change.change for change in opened.changes) + opened.residue == pytest.approx(
            opened.change, abs=1e-9 * size
        )
        assert abs(opened.residue) < 1e-5 * size
        for change in opened.changes:
            assert change.by_coefficient + change.by_value == pytest.approx(change.change, abs=1e-12 * size)
        both = [change for change in opened.changes if all(change._terms) and not change.constant]
        opened = max(both, key=lambda change: abs(change.change)).why()
    assert f"{difference.change:+.6g}" in str(difference)


def test_nothing_changed_is_all_zero(models):
    trace = models[1].trace("the cat")
    difference = pl.compare(trace, models[1].trace("the cat"), lambda trace: trace.loss())
    assert difference.change == 0
    assert all(change.change == change.by_value == 0 for change in difference.changes)


def test_a_flow_s_difference_adds_up_by_layer_and_token(models):
    before, after = (model.trace("the cat sat") for model in models)
    flow = pl.compare(before, after, next_token="t", rather_than="e").flow
    assert len(flow.layers) == 2
    for layer in flow.layers:
        assert layer.change == pytest.approx(flow.change, abs=1e-5)
        assert [part.name.rpartition(".")[2] for part in layer.parts][:2] == ["attention", "feed_forward"]
    ends = flow.tokens.sum().item() + sum(part.change for part in flow.constants)
    assert ends + flow.residue == pytest.approx(flow.change, abs=1e-5)


def test_questions_that_cannot_be_compared_are_said(models):
    before, after = (model.trace("the cat") for model in models)
    with pytest.raises(pl.PellucidError, match="lambda trace"):
        pl.compare(before, after, after.loss())
    with pytest.raises(pl.PellucidError, match="lambda trace"):
        pl.compare(pl.trace(nn.Linear(1, 1), torch.ones(1)), pl.trace(nn.Linear(1, 1), torch.ones(1)))
    net = nn.Sequential(nn.Linear(2, 2), nn.Softmax(-1))
    with pytest.raises(pl.PellucidError, match="not a sum"):
        pl.compare(pl.trace(net, torch.ones(1, 2)), pl.trace(net, torch.ones(1, 2)), "1[0,0]")


def test_two_checkpoints_of_a_training(tmp_path):
    source = tmp_path / "text.txt"
    source.write_text("".join(f"{n} and {n} is {2 * n}; the cat sat on the mat.\n" for n in range(600)), "utf-8")
    shape = {"vocab": 290, "width": 32, "depth": 2, "context": 32, "batch": 4}
    early = pl.train(source, tmp_path / "early", steps=3, **shape)
    pl.train(source, tmp_path / "late", steps=40, **shape)
    late = pl.open(tmp_path / "late" / "checkpoints" / "last")
    before, after = early.trace("the cat sat on"), late.trace("the cat sat on")
    for question in (None, lambda trace: trace.loss(), lambda trace: trace.log_probability(" the")):
        difference = pl.compare(before, after, question)
        assert difference.change != 0
        parts = difference.by_coefficient + difference.by_value + difference.residue
        assert parts == pytest.approx(difference.change, abs=1e-9)
        for layer in difference.flow.layers:
            assert layer.change == pytest.approx(difference.change, abs=1e-4)
