"""Optimisers against PyTorch's, the state's way through a file, and which parameter is trained by what."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pellucid import PellucidError
from pellucid.checkpoints.files import read_file, write_tensors
from pellucid.networks.decoder import Decoder, decoder_config
from pellucid.training.optimisers import Muon, Optimiser, block_matrices, orthogonalise
from pellucid.training.options import TrainOptions

KINDS = [
    {"optimiser": "sgd"},
    {"optimiser": "sgd", "momentum": 0.9},
    {"optimiser": "sgd", "momentum": 0.9, "nesterov": True, "l1": 0.01, "l2": 0.02},
    {"optimiser": "rmsprop", "learning_rate": 0.005},
    {"optimiser": "rmsprop", "momentum": 0.5, "learning_rate": 0.005, "l2": 0.02},
    {"optimiser": "adam", "l1": 0.01},
    {"optimiser": "adamw", "l2": 0.02},
    {"optimiser": "muon", "l1": 0.01},
]


def plan(**changes):
    settings = {
        "optimiser": "muon",
        "learning_rate": 0.02,
        "embedding_rate": 0.005,
        "weight_decay": 0.1,
        "momentum": 0.0,
        "nesterov": False,
        "l1": 0.0,
        "l2": 0.0,
        **changes,
    }
    return SimpleNamespace(**settings)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 8)
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.blocks.append(nn.Linear(8, 24, bias=False))
        self.blocks.append(nn.Linear(24, 7, bias=False))

    def forward(self, ids):
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x)
        return x


def trained(network, optimiser, steps):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        ids = torch.randint(0, 7, (16,), generator=generator)
        nn.functional.cross_entropy(network(ids), (ids + 1) % 7).backward()
        optimiser.step(1.0)
        optimiser.zero_grad()
    return network


def test_muon_makes_the_same_updates_as_pytorchs():
    torch.manual_seed(0)
    shapes = [(8, 8), (8, 8), (24, 8), (8, 24)]
    ours = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    a = Muon(ours, lr=0.02, weight_decay=0.1)
    b = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        a.step()
        b.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=2e-3)  # bf16 inside: batched products round differently


@pytest.mark.parametrize("shape", [(64, 64), (32, 96), (96, 32)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape):
    torch.manual_seed(0)
    u, values, v = torch.linalg.svd(torch.randn(3, *shape), full_matrices=False)
    spread = u @ torch.diag_embed(torch.linspace(0.05, 1, values.shape[1]).expand_as(values)) @ v
    values = torch.linalg.svdvals(orthogonalise(spread).float())
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_matrices_inside_blocks_go_to_muon_and_only_they_decay():
    torch.manual_seed(0)
    network = Net()
    optimiser = Optimiser(network, plan())
    muon, adamw = optimiser.parts
    inside = {optimiser.names[p] for group in muon.param_groups for p in group["params"]}
    assert inside == {f"blocks.{i}.weight" for i in range(4)}
    assert all(group["fused"] for group in adamw.param_groups)
    assert all(group["weight_decay"] == 0 for group in adamw.param_groups)
    decayed = Optimiser(Net(), plan(optimiser="adamw")).parts[0].param_groups[0]
    assert decayed["weight_decay"] == 0.1
    assert all(p.ndim == 2 for p in decayed["params"])


def test_muons_matrices_are_the_decoders_blocks_by_name():
    decoder = Decoder(decoder_config("gpt2", vocab_size=9, d_model=8, n_layers=2, n_heads=2, context=4))
    by_name = {n for n, p in decoder.named_parameters() if n.startswith("blocks.") and p.ndim == 2}
    inside = block_matrices(decoder)
    assert by_name == {n for n, p in decoder.named_parameters() if p in inside}


def test_muons_matrices_lie_in_repeated_layers_of_any_name():
    network = nn.Module()
    network.words, network.head = nn.Embedding(5, 4), nn.Linear(4, 5)
    network.encoder = nn.Module()
    network.encoder.layers = nn.ModuleList(
        nn.ModuleDict({"up": nn.Linear(4, 6), "norm": nn.LayerNorm(6), "where": nn.Embedding(3, 6)}) for _ in range(2)
    )
    assert block_matrices(network) == {layer["up"].weight for layer in network.encoder.layers}
    (adamw,) = Optimiser(nn.Sequential(nn.Linear(2, 2)), plan()).parts  # nothing is repeated
    assert isinstance(adamw, torch.optim.AdamW)


THEIRS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.02, foreach=False),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, foreach=False),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, nesterov=True, foreach=False),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.02, momentum=0.5, foreach=False),
    "adam": lambda p: torch.optim.Adam(p, lr=0.02, foreach=False),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.02, betas=(0.9, 0.95), weight_decay=0.1, foreach=False),
}
OURS = {
    "momentum": {"optimiser": "sgd", "momentum": 0.9},
    "nesterov": {"optimiser": "sgd", "momentum": 0.9, "nesterov": True},
    "rmsprop": {"optimiser": "rmsprop", "momentum": 0.5},
}


@pytest.mark.parametrize(("l1", "l2"), [(0.0, 0.0), (0.03, 0.0), (0.0, 0.2), (0.03, 0.2)])
@pytest.mark.parametrize("kind", THEIRS)
def test_updates_are_pytorchs_on_gradients_with_penalties(kind, l1, l2):
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 4).double(), nn.Linear(5, 4).double()
    theirs.load_state_dict(ours.state_dict())
    optimiser = Optimiser(ours, plan(**OURS.get(kind, {"optimiser": kind}), l1=l1, l2=l2))
    reference = THEIRS[kind]([{"params": [theirs.weight]}, {"params": [theirs.bias], "weight_decay": 0.0}])
    for _ in range(10):
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        theirs.weight.grad += l1 * theirs.weight.detach().sign() + l2 * theirs.weight.detach()
        optimiser.step(1.0)
        reference.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)


def test_penalties_spare_norms_and_biases():
    network = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimiser = Optimiser(network, plan(optimiser="sgd", learning_rate=1.0, l1=0.01, l2=0.5))
    for p in network.parameters():
        p.grad = torch.zeros_like(p)
    optimiser.step(1.0)
    w = before.pop("0.weight")
    torch.testing.assert_close(network[0].weight.detach(), w - 0.01 * w.sign() - 0.5 * w)
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters() if name in before)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_state_that_went_through_a_file_goes_on_to_the_same_bytes(kind, tmp_path):
    torch.manual_seed(0)
    straight, halfway = Net(), Net()
    halfway.load_state_dict(straight.state_dict())
    optimiser = Optimiser(straight, plan(**kind))
    trained(straight, optimiser, 5)
    trained(straight, optimiser, 5)

    first = Optimiser(halfway, plan(**kind))
    trained(halfway, first, 5)
    write_tensors(tmp_path / "optimiser.safetensors", first.state())
    second = Optimiser(halfway, plan(**kind))
    second.load(read_file(tmp_path / "optimiser.safetensors", dtype=None))
    trained(halfway, second, 5)
    for p, q in zip(straight.parameters(), halfway.parameters(), strict=True):
        assert torch.equal(p, q)
    assert second.state().keys() == optimiser.state().keys()
    assert all(torch.equal(x, second.state()[name]) for name, x in optimiser.state().items())


def test_the_factor_scales_the_peak_rates():
    optimiser = Optimiser(Net(), plan())
    optimiser.step(0.25)
    assert [part.param_groups[0]["lr"] for part in optimiser.parts] == [0.005, 0.00125]


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"momentum": 0.9}, "--momentum"),
        ({"momentum": 0.9, "optimiser": "adam"}, "--momentum"),
        ({"nesterov": True, "optimiser": "sgd"}, "--nesterov"),
        ({"nesterov": True, "momentum": 0.9, "optimiser": "rmsprop"}, "--nesterov"),
    ],
    ids=str,
)
def test_a_momentum_that_nothing_would_use_is_refused(given, option):
    with pytest.raises(PellucidError, match=option):
        TrainOptions(**given)
    assert TrainOptions(optimiser="sgd", momentum=0.9, nesterov=True).nesterov
