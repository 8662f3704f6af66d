"""Numbers changed while a module runs, and what that does."""

import random

import pytest
import torch
from torch import nn

import pellucid as pl
from pellucid.networks.decoder import Decoder, decoder_config
from tracing.zoo import ZOO, make


class Block(nn.Module):
    """Two linear layers with a ReLU between, called by an operation and not a module."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.down(torch.relu(self.up(x)) + 1)


class Twice(nn.Module):
    """One block called twice, its results a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block()
        self.widen = nn.Linear(2, 3)

    def forward(self, x):
        first = self.block(x)
        return {"first": first, "both": (first, self.block(self.widen(first)))}


@pytest.fixture
def block():
    torch.manual_seed(0)
    return Block()


@pytest.fixture
def twice():
    torch.manual_seed(1)
    return Twice()


X = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.7, -1.0]])


def state(module):
    return {name: (id(x), x._version, x.clone()) for name, x in module.state_dict(keep_vars=True).items()}


def unchanged(module, before):
    after = state(module)
    return all(
        after[name][:2] == was[:2] and torch.equal(after[name][2], was[2]) for name, was in before.items()
    ) and len(after) == len(before)


@torch.no_grad()
def test_a_result_is_set_scaled_added_to_and_zeroed(block):
    hidden = block.up(X)
    for change, expected in (
        (0, hidden * 0),
        (2.5, torch.full_like(hidden, 2.5)),
        (lambda x: 3 * x, 3 * hidden),
        (lambda x: x + torch.arange(4), hidden + torch.arange(4)),
    ):
        with pl.edit(block, {"up": change}) as edits:
            got = block(X)
        assert torch.equal(got, block.down(torch.relu(expected) + 1))
        assert edits.done == {"up": 1}


@torch.no_grad()
def test_an_index_may_be_whole_partial_or_a_slice(block):
    for address, index in (
        ("up[1,2]", (1, 2)),
        ("up[0]", (0,)),
        ("up[...,-1]", (..., -1)),
        ("up[:,1:3]", (slice(None), slice(1, 3))),
    ):
        hidden = block.up(X)
        hidden[index] = 7.0
        with pl.edit(block, {address: 7.0}):
            assert torch.equal(block(X), block.down(torch.relu(hidden) + 1))


@torch.no_grad()
def test_an_input_and_an_operation_inside(block):
    with pl.edit(block, {"down:in": 0, "/relu.0[0]": 5.0, ":in[1]": 1.0}) as edits:
        got = block(X)
    assert torch.equal(got, block.down(torch.zeros(2, 4)))
    assert edits.done == {"down:in": 1, "/relu.0[0]": 1, ":in[1]": 1}
    relu = torch.relu(block.up(X))
    relu[0] = 5.0
    with pl.edit(block, {"/relu.0[0]": 5.0}):
        assert torch.equal(block(X), block.down(relu + 1))
    with pl.edit(block, {"/add.0:in": 0}):
        assert torch.equal(block(X), block.down(torch.ones(2, 4)))


@torch.no_grad()
def test_calls_are_counted_and_results_may_be_nested(twice):
    first = twice.block(X)
    with pl.edit(twice, {"block#1": 0}):
        out = twice(X)
    assert torch.equal(out["first"], first)
    assert out["both"][1].abs().max() == 0
    with pl.edit(twice, {"block": 0}) as edits:
        out = twice(X)
    assert edits.done == {"block": 2}
    with pl.edit(twice, {":out.2[0,1]": 9.0}):
        assert twice(X)["both"][1][0, 1] == 9.0
    with pl.edit(twice, {"block#1/relu.0": 0}):
        assert torch.equal(twice(X)["both"][1], twice.block.down(torch.ones(2, 4)))


@torch.no_grad()
def test_parameters_come_back_byte_for_byte_also_after_an_error(block):
    before = state(block)
    with pl.edit(block, {"up.weight[2]": 0, "down.bias": lambda b: b + 1}):
        got = block(X)
    weight = block.up.weight.clone()
    weight[2] = 0
    hidden = torch.relu(X @ weight.T + block.up.bias) + 1
    torch.testing.assert_close(got, block.down(hidden) + 1)
    assert unchanged(block, before)
    with pytest.raises(ZeroDivisionError), pl.edit(block, {"up.weight": 0, "up": 0}):
        raise ZeroDivisionError
    assert unchanged(block, before)
    assert torch.equal(block(X), block(X))
    assert not block._forward_hooks
    assert not block.up._forward_hooks


def test_a_tied_weight_is_changed_wherever_it_is_used():
    network = Decoder(decoder_config("llama", vocab_size=11, d_model=8, n_layers=1, n_heads=2, context=6), seed=0)
    before = state(network)
    with pl.edit(network, {"head.weight": 0}):
        assert network.embedding.weight is network.head.weight
        assert network(torch.tensor([[1, 2]])).abs().max() == 0
    assert unchanged(network, before)
    assert network.embedding.weight is network.head.weight


@torch.no_grad()
def test_a_trace_patches_the_numbers_it_recorded(twice):
    other = torch.flip(X, [0]) * 2
    trace, plain, theirs = pl.trace(twice, other), twice(X), twice(other)
    with pl.edit(twice, {"block#1/relu.0": trace}):
        out = twice(X)
    assert torch.equal(out["both"][1], theirs["both"][1])
    assert torch.equal(out["first"], plain["first"])
    with pl.edit(twice, {"block[0]": trace}):
        out = twice(X)
    assert torch.equal(out["first"], torch.stack([theirs["first"][0], plain["first"][1]]))


def test_an_edited_run_can_be_recorded_and_differentiated(block):
    with pl.edit(block, {"up": lambda x: 2 * x, "/relu.0[0,0]": 4.0}):
        trace = pl.trace(block, X)
    answer = trace.why(":out[0,1]")
    assert answer.kind == "sum"
    relu = torch.relu(2 * block.up(X))
    relu[0, 0] = 4.0
    torch.testing.assert_close(answer.value, block.down(relu + 1)[0, 1].item())
    with pl.edit(block, {"up": lambda x: 2 * x}):
        block(X).sum().backward()
    doubled = block.up.weight.grad.clone()
    block.zero_grad()
    block.down(torch.relu(2 * block.up(X)) + 1).sum().backward()
    torch.testing.assert_close(doubled, block.up.weight.grad)


def test_a_function_that_returns_nothing_only_looks(block):
    seen = []
    with torch.no_grad(), pl.edit(block, {"/relu.0": seen.append}):
        assert torch.equal(block(X), block(X))
    assert torch.equal(seen[0], torch.relu(block.up(X)))
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("upp", "Near to it: up"),
        ("up.wieght", "Near to it: up.weight"),
        ("up:grad", "going forward"),
        ("up[x]", "does not fit"),
        ("up[0", "nothing at this address"),
        ("/rleu.0", "Near to it: /relu.0"),
        ("up#3", "called 1 times only"),
        ("/relu.1", "never happened"),
        ("up[5]", r"shape \[2, 4\]"),
        ("up:out.3", "1 tensors here"),
    ],
)
def test_a_wrong_address_is_said(block, address, says):
    before = state(block)
    with torch.no_grad(), pytest.raises(pl.PellucidError, match=says), pl.edit(block, {address: 0}):
        block(X)
    assert unchanged(block, before)


def test_a_change_of_another_shape_is_said(block):
    with pytest.raises(pl.PellucidError, match=r"shape \[3\]"), pl.edit(block, {"up": torch.ones(3)}):
        block(X)


# ---- taking terms away


def test_in_a_linear_network_exact_is_causal():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)).double()
    trace = pl.trace(net, torch.randn(2, 5, dtype=torch.float64))
    before = state(net)
    answer = trace.why("1[1,2]")
    for k in (1, 3):
        effect = answer.ablate(k)
        assert effect.exact == pytest.approx(sum(term.contribution for term in answer.terms[:k]))
        assert effect.change == pytest.approx(-effect.exact)
    assert answer.terms[0].why().ablate(2).change == pytest.approx(
        -sum(term.contribution for term in answer.terms[0].why().terms[:2])
    )
    assert unchanged(net, before)


def test_a_layer_norm_makes_exact_and_causal_differ():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 1)).double()
    x = torch.randn(1, 5, dtype=torch.float64)
    effect = pl.trace(net, x).why("1[0,2]").ablate(1)
    (address,) = effect.changed
    with torch.no_grad():
        hidden = net[0](x)
        hidden[0, int(address[:-1].rpartition(",")[2])] = 0
        assert effect.after == pytest.approx(net[1](hidden)[0, 2].item())
    assert abs(effect.change + effect.exact) > 1e-3
    assert "as a term of the sum" in str(effect)


def test_a_perceptron_s_decision_flips_without_its_larger_side():
    class Perceptron(nn.Module):
        def __init__(self):
            super().__init__()
            self.weights, self.threshold = nn.Parameter(torch.ones(3)), nn.Parameter(torch.tensor(8.0))

        def forward(self, x):
            return ((x * self.weights).sum() > self.threshold).float()

    answer = pl.trace(Perceptron(), torch.tensor([8.0, 4.0, 0.0])).why(":out[]")
    effect = answer.ablate(1)
    assert (effect.before, effect.after, effect.exact) == (1.0, 0.0, None)


@pytest.mark.parametrize("name", ZOO)
def test_every_network_runs_again_as_it_did_and_is_left_as_it_was(name):
    case = make(name)
    trace = pl.trace(case.net, *case.args, **case.named)
    before, random_state = state(case.net), torch.get_rng_state()
    scope = [s for s in trace.tape.scopes if s.outputs and s.outputs[0].dtype.is_floating_point and s.outputs[0].numel][
        -1
    ]
    chosen = random.Random(0)
    index = [chosen.randrange(size) for size in scope.outputs[0].shape]
    answer = trace.why(f"{scope.path}#{scope.call}:out{index}")
    effect = answer.ablate(2)
    assert effect.before == answer.value
    assert effect.changed == tuple(term.address for term in answer.terms[:2])
    if answer.operation in ("addmm", "mm", "bmm", "convolution", "_convolution"):  # linear: what goes is what it gave
        tolerance = 0.02 if "autocast" in name else 1e-4
        assert effect.change == pytest.approx(-effect.exact, rel=tolerance, abs=tolerance)
    assert unchanged(case.net, before)
    assert torch.equal(torch.get_rng_state(), random_state)


def test_inputs_and_random_numbers_and_statistics_are_as_before():
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(inplace=True), nn.Linear(8, 2)
    ).train()
    x = torch.randn(4, 6)
    trace = pl.trace(net, x)
    before, random, inputs = state(net), torch.get_rng_state(), x.clone()
    answer = trace.why("4[1,0]")
    effect = answer.ablate(1)
    assert effect.before == pytest.approx(answer.value)
    assert effect.change == pytest.approx(-effect.exact, abs=1e-6)
    leaf = trace.why("0[2,3]").ablate(2)
    assert leaf.change == pytest.approx(-leaf.exact, abs=1e-6)
    assert unchanged(net, before)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(x, inputs)


def test_a_recorded_block_says_that_it_cannot_be_run_again(block):
    with torch.no_grad(), pl.record(block) as trace:
        block(X)
    answer = trace.why("down[0,0]")
    with pytest.raises(pl.PellucidError, match="run="):
        answer.ablate(1)

    def run():
        with torch.no_grad():
            block(X)

    effect = answer.ablate(2, run=run)
    assert effect.change == pytest.approx(-effect.exact, abs=1e-6)
    with torch.no_grad(), pytest.raises(pl.PellucidError, match="took another way"):
        answer.ablate(1, run=lambda: block.down(torch.sigmoid(block.up(X))))


def test_a_changed_state_is_noticed(block):
    x = X.clone()
    answer = pl.trace(block, x).why("down[0,0]")
    x.add_(1)
    with pytest.raises(pl.PellucidError, match="record again"):
        answer.ablate(1)


@pytest.fixture(scope="module")
def decoded():
    config = decoder_config("llama", vocab_size=23, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, context=12)
    network = Decoder(config, seed=0).eval()
    network.embedding.weight.data.mul_(20)
    return network, torch.tensor([[3, 5, 7, 11, 2]])


def test_layers_heads_and_tokens_are_taken_away(decoded):
    network, ids = decoded
    trace = pl.trace(network, ids)
    target = "head[0,4,9]"
    flow = trace.flow(target)
    part = trace.ablate(target, "blocks.1.feed_forward")
    with torch.no_grad(), pl.edit(network, {"blocks.1.feed_forward": 0}):
        assert part.after == network(ids)[0, 4, 9].item()
    assert part.exact == pytest.approx(flow.layers[1].groups[1].amount)

    head = trace.ablate(target, "blocks.0.attention", head=2)

    def without(x):
        x[..., 8:12] = 0  # heads of 4 numbers each
        return x

    with torch.no_grad(), pl.edit(network, {"blocks.0.attention.output:in": without}):
        assert head.after == pytest.approx(network(ids)[0, 4, 9].item(), abs=1e-5)
    assert head.exact == pytest.approx(flow.layers[0].groups[0].heads[2].sum().item())

    token = trace.ablate(target, token=1)
    with torch.no_grad(), pl.edit(network, {"embedding[0,1]": 0}):
        assert token.after == network(ids)[0, 4, 9].item()
    assert token.exact == pytest.approx(flow.tokens[1].item())
    with pytest.raises(pl.PellucidError, match="It has 4"):
        trace.ablate(target, "blocks.0.attention", head=4)
    with pytest.raises(pl.PellucidError, match="There are 5"):
        trace.ablate(target, token=5)


def test_an_effect_of_any_change_is_measured(decoded):
    network, ids = decoded
    trace = pl.trace(network, ids)
    effect = trace.effect({"blocks.0.attention": lambda x: 2 * x, "norm.weight[3]": 0}, "head[0,4,9]")
    with torch.no_grad(), pl.edit(network, {"blocks.0.attention": lambda x: 2 * x, "norm.weight[3]": 0}):
        assert effect.after == network(ids)[0, 4, 9].item()
    assert effect.before == trace.value("head")[0, 4, 9].item()
