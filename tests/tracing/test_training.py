"""Training seen through: gradients by example and token, optimisers' steps, and what they cost to record."""

import random
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn

import pellucid as pl
from pellucid.networks.decoder import Decoder, decoder_config
from pellucid.networks.losses import cross_entropy_in_place
from pellucid.tasks.text import TextTask
from pellucid.tracing.addresses import Numbers
from pellucid.tracing.rules import RULES
from pellucid.tracing.rules.operation import Share
from pellucid.tracing.rules.steps import STEPS
from pellucid.tracing.tape import BACKWARD
from pellucid.tracing.training import by_token
from pellucid.training.loop import one_step
from pellucid.training.optimisers import Optimiser


class Attention(nn.Module):
    """Embedding, PyTorch's fused attention with shared key-value heads, RMS norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm, self.last = nn.Embedding(11, 16), nn.LayerNorm(16), nn.RMSNorm(16)
        self.qkv, self.output = nn.Linear(16, 48), nn.Linear(16, 11)

    def forward(self, ids_BT: Tensor) -> Tensor:
        x_BTD = self.embedding(ids_BT)
        q, k, v = self.qkv(self.norm(x_BTD)).view(*ids_BT.shape, 3, 2, 8).transpose(1, 3).unbind(2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.output(self.last(x_BTD + y.transpose(1, 2).flatten(2)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.output = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.output(self.lstm(x_BTD)[0])


def mlp():
    net = nn.Sequential(
        nn.Linear(5, 8), nn.GELU(), nn.LayerNorm(8), nn.Dropout(0.3), nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 8),
        nn.Tanh(), nn.Linear(8, 3),
    )  # fmt: skip
    return net, torch.randn(6, 5), torch.randint(0, 3, (6,)), F.cross_entropy


def probabilities():
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(-1))
    return net, torch.randn(6, 5), torch.rand(6, 3), F.mse_loss


def convolutions():
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, stride=2), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 8, 1, groups=2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip
    return net, torch.randn(4, 3, 8, 8), torch.randint(0, 3, (4,)), F.cross_entropy


def attention():
    return Attention(), torch.randint(0, 11, (2, 7)), torch.randint(0, 11, (2, 7)), summed


def recurrent():
    return Recurrent(), torch.randn(2, 4, 4), torch.randint(0, 3, (2, 4)), summed


def decoder(family, **settings):
    config = decoder_config(family, vocab_size=32, d_model=32, n_layers=2, n_heads=2, context=16, **settings)
    net = Decoder(config)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return net, torch.randint(0, 32, (2, 7)), torch.randint(0, 32, (2, 7)), fused


def summed(logits, targets):
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten())


def fused(logits, targets):
    return cross_entropy_in_place(logits.flatten(0, -2), targets.flatten()) / targets.numel()


NETS = {
    "mlp": mlp,
    "probabilities": probabilities,
    "convolutions": convolutions,
    "attention": attention,
    "recurrent": recurrent,
    "qwen3": lambda: decoder("qwen3", dropout=0.1, n_kv_heads=1),
    "gpt2": lambda: decoder("gpt2", dropout=0.1),
}


def backward(name, bf16=False):
    torch.manual_seed(0)
    net, inputs, targets, loss = NETS[name]()
    net.train()
    with pl.record(net) as trace:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = net(inputs)
            value = loss(out, targets)
        value.backward()
    return net, trace


def drawn(shape, n, seed=0):
    generator = random.Random(seed)
    return [tuple(generator.randrange(size) for size in shape) for _ in range(n)]


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", NETS)
def test_gradients_are_autograds(name, bf16):
    net, trace = backward(name, bf16)
    state = {key: x.clone() for key, x in net.state_dict().items()}
    random_state = torch.get_rng_state()
    for path, parameter in net.named_parameters():
        for index in drawn(parameter.shape, 4):
            answer = trace.why(f"{path}:grad{list(index)}")
            assert answer.value == parameter.grad[index].item()
            assert answer.kind == "sum", (path, answer)
            assert abs(answer.total - answer.value) <= answer.budget
            assert answer.budget <= (1e-5 if not bf16 else 0.13) * (answer.terms.contributions.abs().sum() + 1e-6)
            for term in answer.terms[:2]:
                assert term.why().value == term.value
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(x, state[key]) for key, x in net.state_dict().items())


@pytest.mark.parametrize("name", NETS)
def test_every_operation_of_a_backward_pass_is_a_sum_of_gradients(name):
    _, trace = backward(name)
    asked = 0
    for call in trace.tape.calls:
        for out in call.outs:
            if (
                call.phase != BACKWARD
                or out is None
                or not out.dtype.is_floating_point
                or not trace.roles.of(out, call.time + 1).gradient
            ):
                continue
            for index in drawn(out.shape, 2, call.time):
                answer = trace.unfolding.number(Numbers(out.at(index), call.time + 1))
                assert answer.kind in ("sum", "leaf"), (call.name, answer)
                asked += 1
    assert asked > 10


@pytest.mark.parametrize("name", ["mlp", "convolutions", "attention", "gpt2"])
def test_finite_differences(name):
    torch.manual_seed(0)
    net, inputs, targets, _ = NETS[name]()
    for module in net.modules():
        if hasattr(module, "p"):
            module.p = 0.0
    net.double().train()
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    with pl.record(net) as trace:
        summed(net(inputs), targets).backward()
    chosen = [(path, parameter, drawn(parameter.shape, 1)[0]) for path, parameter in net.named_parameters()]
    answers = [trace.why(f"{path}:grad{list(index)}") for path, _, index in chosen]
    for (_, parameter, index), answer in zip(chosen, answers, strict=True):
        with torch.no_grad():
            losses = []
            for step in (1e-5, -2e-5):
                parameter[index] += step
                losses.append(summed(net(inputs), targets).item())
            parameter[index] += 1e-5
        assert answer.kind == "sum"
        assert answer.total == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-4, abs=1e-8)


def test_a_gradient_handed_in():
    net = nn.Linear(3, 2)
    x, given = torch.randn(4, 3), torch.randn(4, 2)
    with pl.record(net) as trace:
        net(x).backward(given)
    answer = trace.why("weight:grad[1,2]")
    assert sorted(term.value for term in answer.terms) == pytest.approx(sorted(given[:, 1].tolist()))
    assert sorted(term.coefficient for term in answer.terms) == pytest.approx(sorted(x[:, 2].tolist()))
    assert {term.source for term in answer.terms} == {f"example {n}" for n in range(4)}


def test_gradients_handed_in_from_inside_through_a_view_twice():
    net, x = nn.Linear(3, 2), torch.randn(4, 3)
    with pl.record(net) as trace:
        y = net(x).T
        y.backward(torch.ones(2, 4), retain_graph=True)
        y.backward(torch.full((2, 4), 2.0))
    answer = trace.why("weight:grad[0,1]")
    assert answer.value == net.weight.grad[0, 1].item()
    assert sorted(term.value for term in answer.terms) == [1.0] * 4 + [2.0] * 4


def test_checkpointed_layers():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.utils.checkpoint.checkpoint(lambda x: torch.tanh(self.a(x)), x, use_reentrant=False)
            return torch.einsum("btf,of->bto", h, self.b.weight)

    net = Net()
    with pl.record(net) as trace:
        net(torch.randn(2, 3, 4)).square().sum().backward()
    for address in ("a.weight:grad[1,2]", "b.weight:grad[1,2]"):
        answer = trace.why(address)
        assert answer.kind == "sum"
        assert {term.source for term in answer.terms} == {
            f"example {n}, position {t}" for n in range(2) for t in range(3)
        }


def test_sparse_gradients_are_refused_by_name():
    net = nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Linear(3, 2))
    with pytest.raises(pl.PellucidError, match="sparse"), pl.record(net):
        net(torch.tensor([1, 2, 2])).sum().backward()


# ---- optimisers

MODES = {"loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
SETTINGS = {
    "SGD": [
        {}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        {"momentum": 0.9, "dampening": 0.3}, {"maximize": True, "weight_decay": 0.1},
    ],
    "Adam": [{}, {"weight_decay": 0.1}, {"amsgrad": True}, {"maximize": True}],
    "AdamW": [{}, {"weight_decay": 0.1, "maximize": True}, {"amsgrad": True}],
    "RMSprop": [{}, {"momentum": 0.9}, {"centered": True, "weight_decay": 0.1}],
    "Adagrad": [{}, {"weight_decay": 0.1, "lr_decay": 0.1}],
}  # fmt: skip
CASES = [
    (kind, {**settings, **MODES[mode]})
    for kind, all_settings in SETTINGS.items()
    for settings in all_settings
    for mode in MODES
    if kind != "RMSprop" or mode != "fused"  # PyTorch has none
]


def stepped(make, warm=2, updates=None, budget=None):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(30, 40), nn.Tanh(), nn.Linear(40, 20))
    optimiser, x = make(net), torch.randn(6, 30)

    def backward():
        optimiser.zero_grad()
        net(x).square().sum().backward()

    for _ in range(warm):
        backward()
        optimiser.step()
    optimiser.zero_grad()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    forecast = pl.step_memory(net, optimiser, updates)
    with pl.record(net, updates=updates, budget=budget) as trace:
        backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        kept = trace.tape.kept_bytes
        optimiser.step()
        used = trace.tape.kept_bytes - kept
    return net, before, trace, forecast.bytes, used


@pytest.mark.parametrize("warm", [0, 2], ids=["first", "third"])
@pytest.mark.parametrize(("kind", "settings"), CASES, ids=str)
def test_an_optimisers_step(kind, settings, warm):
    net, before, trace, forecast, used = stepped(
        lambda net: getattr(torch.optim, kind)(net.parameters(), lr=0.01, **settings), warm
    )
    assert used <= forecast <= 3.2 * used
    for path, parameter in net.named_parameters():
        for index in drawn(parameter.shape, 2):
            answer = trace.why(f"{path}:updated{list(index)}")
            assert answer.value == parameter[index].item()
            assert answer.kind == "sum"
            terms = {term.source: term for term in answer.terms}
            assert terms["before the step"].value == before[path][index].item()
            assert terms["gradient"].value == trace.value(f"{path}:grad{list(index)}").item()
            assert ("weight decay" in terms) == bool(settings.get("weight_decay", kind == "AdamW"))
            if settings.get("momentum") and warm:
                assert terms["momentum"].coefficient != 0
            assert any("lr = 0.01" in note for note in answer.notes)
            for term in answer.terms:
                opened = term.why()
                assert opened.kind in ("sum", "leaf")
                assert opened.value == term.value


def test_sgd_with_momentum_by_hand():
    _, _, trace, *_ = stepped(lambda net: torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), warm=1)
    terms = {term.source: term for term in trace.why("0.weight:updated[3,4]").terms}
    assert terms["before the step"].coefficient == 1.0
    assert terms["momentum"].coefficient == pytest.approx(-0.09)
    assert terms["gradient"].coefficient == pytest.approx(-0.1)
    assert terms["gradient"].why().terms[0].source.startswith("example ")


def test_two_steps_open_into_one_another():
    torch.manual_seed(0)
    net, x = nn.Linear(4, 3), torch.randn(5, 4)
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.01, fused=True)
    start = net.weight[1, 2].item()
    with pl.record(net) as trace:
        for _ in range(2):
            optimiser.zero_grad()
            net(x).square().sum().backward()
            optimiser.step()
    answer = trace.why("weight:updated[1,2]")
    earlier = next(term for term in answer.terms if term.source == "before the step")
    first = next(term for term in earlier.why().terms if term.source == "before the step")
    assert first.value == start
    assert earlier.address != answer.address
    momentum = next(term for term in answer.terms if term.source == "momentum").why()
    assert [term.source for term in momentum.terms if term.contribution] != []


def test_a_saved_step_gives_the_same_answers(tmp_path):
    _, _, trace, *_ = stepped(lambda net: torch.optim.AdamW(net.parameters(), lr=0.01))
    trace.save(tmp_path / "step")
    loaded = pl.load_trace(tmp_path / "step")
    for address in ("0.weight:updated[3,4]", "0.weight:grad[3,4]", "2.bias:updated[1]"):
        a, b = trace.why(address), loaded.why(address)
        assert [(t.source, t.coefficient, t.value) for t in a.terms] == [
            (t.source, t.coefficient, t.value) for t in b.terms
        ]
        assert (a.kind, a.notes, a.residue) == (b.kind, b.notes, b.residue)


def test_only_named_parameters_are_copied():
    def adam(net):
        return torch.optim.AdamW(net.parameters(), lr=0.01, foreach=True)

    _, _, trace, forecast, used = stepped(adam, updates=["0.weight"])
    assert used <= forecast
    answer = trace.why("0.weight:updated[3,4]")
    assert answer.kind == "sum"
    assert {term.source for term in answer.terms} >= {"before the step", "gradient", "momentum"}
    assert trace.why("optimiser.AdamW.0.weight.exp_avg_sq:updated[3,4]").kind == "sum"
    assert trace.value("optimiser.AdamW.0.weight.exp_avg[3,4]") != trace.value(
        "optimiser.AdamW.0.weight.exp_avg:updated[3,4]"
    )
    with pytest.raises(pl.PellucidError, match=r"updates=\['2\.weight'\]"):
        trace.why("2.weight:updated[3,4]")


@pytest.mark.parametrize("warm", [0, 2])
def test_the_budget_is_refused_before_the_step(warm):
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(300, 400), nn.Linear(400, 2)), torch.randn(2, 300)
    optimiser = torch.optim.Adam(net.parameters(), fused=True)
    for _ in range(warm):
        net(x).sum().backward()
        optimiser.step()
    before = {name: x.clone() for name, x in net.state_dict().items()}
    forecast = pl.step_memory(net, optimiser)
    assert "MB" in str(forecast)

    def record_step(updates):
        with pl.record(net, updates=updates, budget=forecast.bytes) as trace:
            optimiser.zero_grad()
            net(x).sum().backward()
            optimiser.step()
        return trace

    with pytest.raises(pl.PellucidError, match=r"updates=\['0\.bias', '1\.weight', '1\.bias'\]"):
        record_step(None)
    assert all(torch.equal(x, before[name]) for name, x in net.state_dict().items())
    trace = record_step(["1.weight"])
    assert trace.why("1.weight:updated[1,2]").kind == "sum"


# ---- the main job's own step


class Blocks:
    """Token blocks such as the text task's."""

    position = 0

    def __init__(self, vocabulary: int, length: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.blocks = [torch.randint(0, vocabulary, (2, length + 1), generator=generator) for _ in range(4)]

    def __next__(self):
        self.position += 1
        block = self.blocks[self.position - 1]
        return block[:, :-1], block[:, 1:]


def main_step(optimiser, precision, seed=1):
    plan = SimpleNamespace(
        optimiser=optimiser, precision=precision, learning_rate=1e-2, embedding_rate=1e-2, weight_decay=0.1, clip=0.5,
        accumulation=2, device="cpu", schedule="stable", steps=10, planned_steps=10, warmup=0.0, decay=0.2, events=[],
        momentum=0.0, nesterov=False, l1=0.0, l2=0.0,
    )  # fmt: skip
    shape = {"vocab_size": 64, "d_model": 32, "n_layers": 2, "n_heads": 2, "context": 16}
    torch.manual_seed(seed)
    net = Decoder(decoder_config("qwen3", dropout=0.1, **shape), seed=seed)
    both, task, blocks = (
        Optimiser(net, plan),
        SimpleNamespace(loss=lambda n, b: TextTask.loss(None, n, b)),
        Blocks(64, 12),
    )
    one_step(0, net, task, blocks, both, plan)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    with pl.record(net) as trace:
        step = one_step(1, net, task, blocks, both, plan)
    assert 0 < pl.step_memory(net, both).bytes < 40 * sum(4 * p.numel() for p in net.parameters())
    return net, before, trace, step


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_the_main_jobs_own_step(optimiser, precision):
    net, before, trace, _ = main_step(optimiser, precision)
    after = {name: p.detach().clone() for name, p in net.named_parameters()}
    random_state = torch.get_rng_state()
    for path, old in before.items():
        for index in drawn(old.shape, 3):
            answer = trace.why(f"{path}:updated{list(index)}")
            terms = {term.source: term for term in answer.terms}
            assert (answer.kind, answer.value) == ("sum", after[path][index].item())
            assert terms["before the step"].value == old[index].item()
            inner = optimiser == "muon" and path.startswith("blocks.") and old.dim() == 2
            assert ("orthogonalised momentum" if inner else "gradient") in terms
            gradient = trace.why(f"{path}:grad{list(index)}")
            assert gradient.kind == "sum"
            rounded = any("bfloat16" in note for note in gradient.notes)
            assert rounded <= (precision == "bf16")
            if path.endswith("qkv.weight"):
                assert rounded == (precision == "bf16")
                assert {term.source for term in gradient.terms} <= {
                    f"example {n}, position {t}" for n in range(4) for t in range(12)
                }
            opened = gradient
            for _ in range(6):  # down to activations
                if not len(opened.terms):
                    break
                opened = opened.terms[0].why()
                assert opened.kind in ("sum", "leaf"), opened
        sources = by_token(trace, f"{path}:grad")
        assert not sources.notes
        size = sum(abs(source.contribution) for source in sources.sources)
        assert abs(sources.residue) <= (2e-6 if precision == "fp32" else 2e-2) * size
        assert sources.value == pytest.approx(trace.value(f"{path}:grad").norm().item())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(p, after[name]) for name, p in net.named_parameters())


KINDS = [
    {"optimiser": "sgd"},
    {"optimiser": "sgd", "momentum": 0.9, "nesterov": True},
    {"optimiser": "rmsprop"},
    {"optimiser": "rmsprop", "momentum": 0.9},
    {"optimiser": "adam"},
    {"optimiser": "adamw"},
    {"optimiser": "muon"},
]


@pytest.mark.parametrize("warm", [0, 2], ids=["first", "third"])
@pytest.mark.parametrize("penalties", [{}, {"l1": 0.1, "l2": 0.2}], ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_plans_optimiser_tells_its_penalties_apart(kind, penalties, warm):
    settings = {"learning_rate": 0.01, "embedding_rate": 0.01, "weight_decay": 0.1, "momentum": 0.0, "nesterov": False}
    plan = SimpleNamespace(**{**settings, "l1": 0.0, "l2": 0.0, **kind, **penalties})
    torch.manual_seed(0)
    net = nn.Module()
    net.first, net.blocks = nn.Linear(30, 40), nn.ModuleList([nn.Linear(40, 40)])
    optimiser, x = Optimiser(net, plan), torch.randn(6, 30)

    def backward():
        optimiser.zero_grad()
        net.blocks[0](torch.tanh(net.first(x))).square().sum().backward()

    for _ in range(warm):
        backward()
        optimiser.step(1.0)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    forecast = pl.step_memory(net, optimiser).bytes
    with pl.record(net) as trace:
        backward()
        gradients = {name: p.grad.clone() for name, p in net.named_parameters()}
        kept = trace.tape.kept_bytes
        optimiser.step(0.5)
        used = trace.tape.kept_bytes - kept
    assert used <= forecast <= 3.2 * used
    for path, parameter in net.named_parameters():
        for index in drawn(parameter.shape, 3):
            answer = trace.why(f"{path}:updated{list(index)}")
            assert (answer.kind, answer.value) == ("sum", parameter[index].item())
            terms = {term.source: term for term in answer.terms}
            assert terms["before the step"].value == before[path][index].item()
            by_number = not (kind["optimiser"] == "muon" and path == "blocks.0.weight")
            decayed = kind["optimiser"] == "adamw" or not by_number
            assert ("weight decay" in terms) == (decayed and parameter.ndim == 2)
            if warm and by_number:
                assert ("momentum" in terms) == (bool(kind.get("momentum")) or kind["optimiser"][0] in "am")
            for name, rate, push in (("l1", 0.1, before[path][index].sign()), ("l2", 0.2, before[path][index])):
                label = name.upper()
                assert (label in terms) == (name in penalties and by_number and parameter.ndim == 2)
                if label in terms:
                    ratio = terms[label].coefficient / terms["gradient"].coefficient
                    assert terms[label].value == push.item()
                    assert ratio == pytest.approx(rate, rel=1e-4)
                    assert any(f"{name} = {rate}" in note for note in answer.notes)
            if by_number:
                assert terms["gradient"].value == gradients[path][index].item()
                assert terms["gradient"].why().terms[0].source.startswith("example ")
            for term in answer.terms:
                opened = term.why()
                assert opened.value == term.value
                assert opened.kind == ("decision" if term.source == "L1" else opened.kind)
                assert opened.kind in ("sum", "leaf", "decision")


def test_recording_changes_nothing():
    recorded, _, _, with_tape = main_step("adamw", "bf16")
    plain, _, _, without = main_step("adamw", "bf16")
    assert with_tape == without
    assert all(torch.equal(a, b) for a, b in zip(recorded.parameters(), plain.parameters(), strict=True))


# ---- tokens


def test_tokens_by_leaving_the_others_out():
    net, ids_BT, targets_BT, _ = decoder("gpt2")
    with pl.record(net) as trace:
        summed(net(ids_BT), targets_BT).backward()
    found = by_token(trace, "blocks.1.feed_forward.up.weight:grad[5,6]", show=lambda id: f"<{id}>")
    assert {(s.example, s.position) for s in found.sources} == {(n, t) for n in range(2) for t in range(7)}
    assert all(s.token == ids_BT[s.example, s.position] and s.shown == f"<{s.token}>" for s in found.sources)
    for example in range(2):  # examples do not see each other: the gradient of one example's loss is its tokens' share
        net.zero_grad()
        (summed(net(ids_BT[example : example + 1]), targets_BT[example : example + 1]) / 2).backward()
        share = sum(s.contribution for s in found.sources if s.example == example)
        assert share == pytest.approx(net.blocks[1].feed_forward.up.weight.grad[5, 6].item(), rel=1e-4, abs=1e-8)


def test_positions_by_hand():
    torch.manual_seed(0)
    net, x_BTD = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)), torch.randn(2, 3, 4)
    gradients = []
    net[0].register_full_backward_hook(lambda module, given, out: gradients.append(out[0]))
    with pl.record(net) as trace:
        net(x_BTD).square().sum().backward()
    for address, expected_BT in (
        ("0.weight:grad[1,2]", gradients[0][..., 1] * x_BTD[..., 2]),
        ("0.bias:grad[1]", gradients[0][..., 1]),
    ):
        found = {(s.example, s.position): s.contribution for s in trace.by_token(address).sources}
        assert found == {(n, t): pytest.approx(expected_BT[n, t].item(), rel=1e-5) for n in range(2) for t in range(3)}
        labelled = {term.source: term.contribution for term in trace.why(address).terms}
        assert labelled == {f"example {n}, position {t}": pytest.approx(x) for (n, t), x in found.items()}


def test_where_time_comes_first_nothing_is_guessed():
    _, trace = backward("recurrent")
    assert by_token(trace, "lstm.weight_ih_l0:grad").notes
    assert not by_token(trace, "output.weight:grad").notes


# ---- a wrong coefficient surfaces


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("attention", "native_layer_norm_backward"),
        ("attention", "_scaled_dot_product_flash_attention_for_cpu_backward"),
        ("attention", "embedding_dense_backward"),
        ("convolutions", "native_group_norm_backward"),
        ("convolutions", "convolution_backward"),
        ("mlp", "mm"),
    ],
)
def test_a_wrong_rule_is_unexplained(monkeypatch, name, operation):
    _, trace = backward(name)
    call = next(call for call in trace.tape.calls if call.name == operation and call.phase == BACKWARD)
    numbers = [Numbers(out.at(index), call.time + 1) for out in call.outs if out for index in drawn(out.shape, 4)]
    kinds = [trace.unfolding.number(number).kind for number in numbers]
    assert "unexplained" not in kinds
    right = RULES[operation]

    def wrong(op, w):
        for part in right(op, w):
            yield Share(part.place, part.weights * 1.01)

    monkeypatch.setitem(RULES, operation, wrong)
    # where all but nothing is left of what cancels, so is the error
    found = [trace.unfolding.number(number).kind for number in numbers if trace.unfolding.value(number).abs() > 1e-6]
    assert found
    assert set(found) == {"unexplained"}


def test_a_wrong_step_is_unexplained(monkeypatch):
    _, _, trace, *_ = stepped(lambda net: torch.optim.AdamW(net.parameters(), lr=0.01, fused=True))
    right = STEPS["_fused_adamw"]

    def wrong(op, w):
        *parts, last = right(op, w)
        yield from parts
        yield Share(last.place, last.weights * 1.05)

    assert trace.why("0.weight:updated[1,2]").kind == "sum"
    monkeypatch.setitem(STEPS, "_fused_adamw", wrong)
    assert trace.why("0.weight:updated[1,2]").kind == "unexplained"


def test_a_changed_copy_surfaces():
    _, _, trace, *_ = stepped(lambda net: torch.optim.AdamW(net.parameters(), lr=0.01, fused=True))
    place = trace.find("optimiser.AdamW.0.weight.exp_avg[1,2]").place
    write = next(write for write in trace.tape._writes[place.storage] if write.before is not None)
    write.before[1, 2] += 0.5
    assert trace.why("0.weight:updated[1,2]").kind == "unexplained"
