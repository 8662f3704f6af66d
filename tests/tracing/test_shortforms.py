"""Short forms ask what the methods and addresses that they stand for ask."""

import pytest
import torch
from torch import nn

import pellucid as pl
from pellucid.networks.decoder import Decoder, decoder_config
from pellucid.tracing.text import TextTrace


class Numbers:
    """A vocabulary of numbers."""

    vocab_size = 50

    def encode(self, text: str) -> list[int]:
        return [int(part) for part in text.split()]

    def show(self, id: int) -> str:
        return f"<{id}>"

    def unspellable(self, text: str) -> set[str]:
        return set()


@pytest.fixture(scope="module")
def trace() -> TextTrace:
    network = Decoder(decoder_config("gpt2", vocab_size=50, d_model=16, n_layers=2, n_heads=2, context=8)).eval()
    return TextTrace(pl.trace(network, torch.tensor([[3, 1, 4, 1, 5]])).tape, Numbers())


@pytest.mark.parametrize(
    ("short", "ask"),
    [
        ('logit("7")', lambda t: t.logit("7")),
        ("neuron(1, 12)", lambda t: t.neuron(1, 12)),
        ("neuron(0, 3, position=2)", lambda t: t.neuron(0, 3, 2)),
        ("score(1, 0, 4, 2, rather_than=1)", lambda t: t.score(1, 0, 4, 2, 1)),
        ("loss()", lambda t: t.loss()),
        ('weight("blocks.0.feed_forward.up", 3, 4)', lambda t: "blocks.0.feed_forward.up.weight[3,4]"),
    ],
)
def test_a_short_form_is_the_question_that_it_names(trace, short, ask):
    said, meant = trace.why(short), trace.why(ask(trace))
    assert (said.value, said.kind, said.residue) == (meant.value, meant.kind, meant.residue)
    assert [term.contribution for term in said.terms[:5]] == [term.contribution for term in meant.terms[:5]]


def test_gradients_and_updates_of_a_weight():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 2))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    with pl.record(net) as trace:
        net(torch.randn(4, 3)).square().sum().backward()
        optimiser.step()
    assert trace.why('grad(weight("0", 1, 2))').value == net[0].weight.grad[1, 2].item()
    assert trace.why('updated(weight("0", 1, 2))').value == net[0].weight[1, 2].item()


@pytest.mark.parametrize("short", ["logits(3)", "neuron(1)", "neuron(1, 2", "exit()", "neuron(1, __import__('os'))"])
def test_what_is_no_short_form_is_refused(trace, short):
    with pytest.raises(pl.PellucidError):
        trace.why(short)
