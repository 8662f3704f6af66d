"""Looking inside networks that see: known filters find their edges, fields are exact, what decided adds up."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

import pellucid as pl
from pages import Page
from pellucid import language
from pellucid.checkpoints.efficientnet import open_efficientnet
from pellucid.errors import PellucidError
from pellucid.tracing.pictures import (
    Look,
    Scale,
    dream,
    feature_maps,
    filters,
    grad_cam,
    look,
    read_pictures,
    receptive_field,
    region,
    strongest_patches,
    top_pictures,
)

CACHE = Path(__file__).parents[2] / "cache"
VERTICAL = torch.tensor([[-1.0, 0.0, 1.0]] * 3)  # dark to the left, bright to the right


class Edges(nn.Module):
    """A channel for dark-bright edges, one for their reverse, one for lines that lie; two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1, bias=False)
        self.relu = nn.ReLU()
        self.deep = nn.Conv2d(3, 4, 3, stride=2)
        self.fc = nn.Linear(4, 2)
        draw = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.conv.weight[:, 0] = torch.stack([VERTICAL, -VERTICAL, VERTICAL.T])
            for parameter in (*self.deep.parameters(), *self.fc.parameters()):
                parameter.normal_(0.0, 0.5, generator=draw)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.deep(self.relu(self.conv(x))).mean((2, 3)))


class Coloured(nn.Module):
    """A small network of the usual kind, for pictures in colour of any size: norms, an activation with a ceiling."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.relu6 = nn.ReLU6()
        self.second = nn.Conv2d(6, 8, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(8, 3)
        draw = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(0.0, 0.6, generator=draw)
            self.norm.running_mean.normal_(0.0, 0.3, generator=draw)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu6(self.norm(self.first(x)))
        return self.fc(self.pool(self.second(x).relu_()).mean((2, 3)))


def edge_at(column: int, size: int = 20) -> Tensor:
    """Dark up to a column, bright from it on."""
    picture = torch.zeros(1, size, size)
    picture[:, :, column:] = 1
    return picture


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- channels


def test_an_edge_detector_answers_most_to_the_edge():
    pictures = [torch.full((1, 20, 20), 0.5), edge_at(11), 1 - edge_at(7)]
    best, *others = top_pictures(Edges(), pictures, "conv", 0, k=4)
    assert (best.picture, best.column) in ((1, 10), (1, 11))
    assert best.value == 3.0
    assert best.pixels.shape == (1, 3, 3)
    assert torch.equal((VERTICAL * best.pixels[0]).sum(), torch.tensor(3.0))
    assert all(other.value <= best.value for other in others)
    inner = [patch for patch in top_pictures(Edges(), pictures, "conv", 1, k=99) if patch.column in range(1, 19)]
    assert (inner[0].picture, inner[0].value) == (2, 3.0)  # at the right edge of a bright picture the padding is dark
    assert inner[0].column in (6, 7)


def test_a_patch_says_where_it_is_and_can_be_asked_why():
    network, picture = Edges(), noise(1, 20, 20)
    patch = top_pictures(network, [noise(1, 20, 20, seed=1), picture], "deep", 2, k=3)[0]
    pictures = [noise(1, 20, 20, seed=1), picture]
    assert torch.equal(patch.pixels, pictures[patch.picture][:, patch.box.top : patch.box.bottom,
                                                             patch.box.left : patch.box.right])  # fmt: skip
    answer = pl.trace(network, pictures[patch.picture][None]).why(patch.address)
    assert answer.value == pytest.approx(patch.value, abs=1e-6)
    assert abs(answer.residue) <= answer.budget


def test_patches_of_one_picture_lie_apart():
    found = top_pictures(Edges(), [noise(1, 20, 20)], "deep", 1, k=50)
    places = [(patch.row, patch.column) for patch in found]
    assert len(set(places)) == len(places)
    for n, (row, column) in enumerate(places):
        assert all(max(abs(row - r), abs(column - c)) >= 1 for r, c in places[:n])
    values = [patch.value for patch in found]
    assert values == sorted(values, reverse=True)


def test_many_channels_at_once_are_as_one_by_one_and_the_network_stays_as_it_was():
    network = Coloured().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    pictures = list(noise(5, 3, 16, 16))
    found = strongest_patches(network, pictures, {"norm": [0, 4], "fc": [1]}, k=2)
    assert network.training
    assert network.norm.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert [p.address for p in found["norm", 4]] == [p.address for p in top_pictures(network, pictures, "norm", 4, 2)]
    network.eval()
    logits = network(torch.stack(pictures))[:, 1]
    assert [p.picture for p in found["fc", 1]] == logits.topk(2).indices.tolist()
    assert found["fc", 1][0].address == "fc[0,1]"


def test_filters_and_maps_are_what_is_there():
    network, picture = Edges(), edge_at(8)
    assert torch.equal(filters(network, "conv")[0, 0], VERTICAL)
    trace = pl.trace(network, picture[None])
    maps = feature_maps(trace, "conv")
    assert torch.equal(maps, network.conv(picture[None])[0])
    assert trace["conv[0,0,5,7]"] == maps[0, 5, 7] == 3


# ---- fields

LAYERS = st.one_of(
    st.tuples(st.just("conv"), st.integers(1, 3), st.integers(1, 2), st.integers(0, 2), st.integers(1, 2)),
    st.tuples(st.sampled_from(["max", "average"]), st.integers(2, 3), st.integers(1, 2), st.integers(0, 1), st.just(1)),
    st.tuples(st.sampled_from(["pad", "norm", "relu"]), st.just(1), st.just(1), st.just(1), st.just(1)),
)


def stack(layers: list[tuple[str, int, int, int, int]]) -> nn.Sequential:
    """Layers in which more never gives less."""
    made: list[nn.Module] = []
    for kind, kernel, stride, padding, dilation in layers:
        if kind == "conv":
            made.append(nn.Conv2d(2, 2, kernel, stride, padding, dilation))
        elif kind == "max":
            made.append(nn.MaxPool2d(kernel, stride, padding))
        elif kind == "average":
            made.append(nn.AvgPool2d(kernel, stride, padding))
        else:
            made.append({"pad": nn.ZeroPad2d((1, 0, 0, 2)), "norm": nn.BatchNorm2d(2), "relu": nn.ReLU()}[kind])
    network = nn.Sequential(*made).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.5)
    return network


@settings(max_examples=30)
@given(st.lists(LAYERS, min_size=1, max_size=3), st.data())
def test_a_field_is_exactly_what_can_matter(layers, data):
    network, picture = stack(layers), noise(2, 30, 29).double().abs()
    trace = pl.trace(network, picture[None])
    maps = network(picture[None]).detach()
    row, column = (data.draw(st.integers(0, size - 1)) for size in maps.shape[2:])
    box = receptive_field(trace, "", row, column)
    outside = picture.clone() + 100
    outside[:, box.top : box.bottom, box.left : box.right] -= 100
    torch.testing.assert_close(network(outside[None])[0, :, row, column], maps[0, :, row, column], atol=1e-9, rtol=1e-9)
    if not box.height or not box.width:
        return
    for edge in (
        (slice(box.top, box.top + 1), slice(None)),
        (slice(box.bottom - 1, box.bottom), slice(None)),
        (slice(None), slice(box.left, box.left + 1)),
        (slice(None), slice(box.right - 1, box.right)),
    ):
        more = picture.clone()
        more[:, *edge] += 1e4
        assert (network(more[None])[0, :, row, column] > maps[0, :, row, column] + 1e-3).all()


def test_the_field_of_what_is_no_map_and_of_unknown_operations_is_the_whole_picture():
    trace = pl.trace(Edges(), noise(1, 1, 20, 20))
    assert receptive_field(trace, "fc", 0, 0) == (0, 20, 0, 20)

    class Rolled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.roll(3, dims=-1)

    assert receptive_field(pl.trace(Rolled(), noise(1, 1, 6, 7)), "", 2, 2) == (0, 6, 0, 7)


def test_a_field_sees_through_shortcuts_and_in_place_writes():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 5, padding=2)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.b(self.a(x).relu_())

    trace = pl.trace(Block(), noise(1, 1, 20, 20))
    assert receptive_field(trace, "", 10, 8) == (7, 14, 5, 12)
    assert receptive_field(trace, "a", 0, 0) == (0, 2, 0, 2)


# ---- what decided


@pytest.mark.parametrize("rather_than", [None, 2])
def test_the_region_adds_up_and_is_the_flow(rather_than):
    network, picture = Coloured().eval(), noise(3, 16, 16)
    found = region(network, picture, 0, rather_than)
    logits = network(picture[None])[0].tolist()
    assert found.value == pytest.approx(logits[0] - (logits[2] if rather_than else 0), abs=1e-6)
    for part in (found.pixels, found.maps):
        assert abs(part.past) < 1e-5
        assert part.map.sum().item() + part.constants + part.past == pytest.approx(found.value, abs=1e-12)
        assert part.channels.sum().item() == pytest.approx(part.map.sum().item(), abs=1e-12)
    if rather_than is None:
        flow = pl.trace(network, picture[None]).flow(":out[0,0]", exact=True)
        torch.testing.assert_close(found.pixels.amounts, flow.inputs[":in.0"][0])
    assert found.maps.path == "pool"


def test_the_last_maps_of_a_linear_head_are_class_activation_maps():
    network, picture = Edges().double(), noise(1, 20, 20).double()
    found = region(network, picture, 1)
    maps = network.deep(network.relu(network.conv(picture[None])))[0].detach().numpy()
    weight = network.fc.weight[1].detach().numpy()
    expected = np.einsum("k,khw->hw", weight, maps) / maps[0].size
    np.testing.assert_allclose(found.maps.map, expected, atol=1e-12)
    assert found.maps.constants == pytest.approx(network.fc.bias[1].item())
    np.testing.assert_allclose(found.grad_cam, expected.clip(min=0), atol=1e-12)


def test_grad_cam_is_its_equations_by_finite_differences():
    network, picture = Coloured().double().eval(), noise(1, 3, 16, 16).double()
    network.requires_grad_(False)
    maps = network.relu6(network.norm(network.first(picture)))

    def score(maps: Tensor) -> float:
        logits = network.fc(network.pool(network.second(maps).relu()).mean((2, 3)))[0]
        return (logits[1] - logits[0]).item()

    slopes = np.zeros(maps.shape[1:])
    for index in np.ndindex(*slopes.shape):
        step = torch.zeros_like(maps)
        step[0][index] = 1e-6
        slopes[index] = (score(maps + step) - score(maps - step)) / 2e-6
    expected = np.einsum("k,khw->hw", slopes.mean((1, 2)), maps[0].numpy()).clip(min=0)
    np.testing.assert_allclose(grad_cam(network, picture, "relu6", 1, 0), expected, atol=1e-7)
    assert network.first.weight.grad is None


# ---- dreams


def test_a_dream_makes_its_channel_far_more_active_than_any_noise():
    network, scale = Coloured().eval(), Scale((0.5,), (0.25,))
    arguments = {"steps": 40, "shape": (3, 24, 24), "scale": scale}
    for path, channel in (("norm", 2), ("fc", 1)):
        dreamt = dream(network, path, channel, **arguments)
        assert dreamt.shape == (3, 24, 24)
        assert 0 <= dreamt.min() < dreamt.max() <= 1
        trace = pl.trace(network, scale.scaled(dreamt)[None])
        noises = torch.rand(200, 3, 24, 24, generator=torch.Generator().manual_seed(0))
        seen: list[Tensor] = []
        handle = network.get_submodule(path).register_forward_hook(lambda _m, _x, out, seen=seen: seen.append(out))
        network(scale.scaled(noises))
        handle.remove()
        answers = seen[0][:, channel].reshape(200, -1).relu().mean(1)
        assert trace[path][0, channel].relu().mean() > answers.mean() + 3 * answers.std()
        assert trace[path][0, channel].relu().mean() > answers.max()


def test_one_seed_gives_one_dream_and_leaves_the_network_alone():
    network = Coloured().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(5)
    first, again, other = (dream(network, "second", 3, 4, seed, shape=(3, 16, 16)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert network.norm.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.initial_seed() == 5


def test_a_dream_of_an_edge_detector_has_edges_and_of_a_colour_has_that_colour():
    edges = dream(Edges(), "conv", 0, 60, shape=(1, 32, 32))[0]
    across, down = edges.diff(dim=1).abs().mean(), edges.diff(dim=0).abs().mean()
    assert across > 1.5 * down
    network = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False))
    with torch.no_grad():
        network[0].weight[:] = torch.tensor([1.0, -0.5, -0.5])[:, None, None]
    red, green, blue = dream(network, "0", 0, 100, shape=(3, 16, 16)).mean((1, 2))
    assert red > max(green, blue) + 0.1


# ---- all of it together


@pytest.fixture(scope="module")
def seen() -> Look:
    pictures = {"<one>": noise(3, 16, 16, seed=1), "two": noise(3, 16, 16, seed=2)}
    return look(
        Coloured(), noise(3, 16, 16), ["cat", "<dog>", "cow"], pictures=pictures, steps=2, name="a & b", rather_than=0,
        target=1,
    )  # fmt: skip


def test_a_look_gathers_everything(seen):
    assert [guess.label for guess in seen.guesses] != []
    assert sum(guess.probability for guess in seen.guesses) == pytest.approx(1)
    assert [level.path for level in seen.levels] == ["norm", "second"]
    assert (seen.levels[0].field.height, seen.levels[1].field.height) == (3, 7)
    assert all(len(one.patches) == 4 and one.dream is not None for level in seen.levels for one in level.channels)
    assert "<dog> rather than cat" in str(seen)
    network = Coloured().eval()
    trace = pl.trace(network, noise(1, 3, 16, 16))
    for level in seen.levels:
        for one in level.channels:
            assert trace[one.address] == one.map.max()


def test_the_page_is_one_file_with_its_pictures_within(seen, tmp_path):
    seen.save(tmp_path / "look.html")
    text = (tmp_path / "look.html").read_text("utf-8")
    read = Page(text)
    images = [attributes["src"] for tag, attributes in read.seen if tag == "img"]
    assert len(images) == 1 + 3 + 4 * (1 + 4 + 1) + 6
    assert all(source.startswith("data:image/") for source in images)
    assert all(attributes.get("alt") is not None for tag, attributes in read.seen if tag == "img")
    assert not re.search(r"https?://|url\(|@import", text)
    assert "script" not in {tag for tag, _attributes in read.seen}
    words = " ".join(read.words)
    assert "<dog> rather than cat" in words
    assert seen.levels[0].channels[0].address in words
    seen.save(tmp_path / "look.html")  # its own page is replaced
    assert list(tmp_path.iterdir()) == [tmp_path / "look.html"]


def test_the_page_speaks_chinese(seen, tmp_path):
    language.use("zh")
    try:
        seen.save(tmp_path / "look.html")
    finally:
        language.use("en")
    text = (tmp_path / "look.html").read_text("utf-8")
    assert '<html lang="zh' in text
    assert len(re.findall("[\u4e00-\u9fff]", text)) > 150


def test_the_sheet_is_a_picture_and_nothing_else_is_overwritten(seen, tmp_path):
    seen.save(tmp_path / "look.png")
    seen.save(tmp_path / "look.png")
    with Image.open(tmp_path / "look.png") as sheet:
        assert sheet.width > 400
        assert sheet.height > 400
    mine = tmp_path / "mine.png"
    Image.new("RGB", (2, 2)).save(mine)
    (tmp_path / "mine.html").write_text("mine")
    for name in ("mine.png", "mine.html"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(PellucidError, match="there already"):
            seen.save(tmp_path / name)
        assert (tmp_path / name).read_bytes() == before
    with pytest.raises(PellucidError, match="as a page or as a picture"):
        seen.save(tmp_path / "look.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["look.png", "mine.html", "mine.png"]


def test_mistakes_are_named():
    network, picture = Coloured(), noise(3, 16, 16)
    trace = pl.trace(network.eval(), picture[None])
    for wrong, match in (
        (lambda: filters(network, "fc"), "no convolution"),
        (lambda: filters(network, "frist"), "no part 'frist'"),
        (lambda: feature_maps(trace, "fc"), "gives no maps"),
        (lambda: top_pictures(network, [picture], "norm", 6), "no channel 6"),
        (lambda: top_pictures(network, [], "norm", 0), "no picture"),
        (lambda: dream(network, "norm", -1, 1, shape=(3, 16, 16)), "no channel -1"),
        (lambda: dream(network, "nothing", 0, 1, shape=(3, 16, 16)), "no part"),
        (lambda: region(network, picture, 3), "no channel 3"),
        (lambda: region(network, picture, 0, maps="fc"), "gives no maps"),
        (lambda: grad_cam(network, picture[None], "fc", 0), "gives no maps"),
        (lambda: region(nn.Sequential(nn.Flatten(), nn.Linear(768, 2)), picture), "makes no maps"),
        (lambda: region(nn.Sequential(nn.Conv2d(3, 2, 3)), picture), "no logits"),
        (lambda: look(network, picture, layers=["fc"], dreams=False), "gives no maps"),
    ):
        with pytest.raises(PellucidError, match=match) as error:
            wrong()
        assert error.value.fix


# ---- the real thing


@pytest.fixture(scope="module")
def real():
    network, labels, facts = open_efficientnet(CACHE / "efficientnet-lite0")
    scale = Scale(tuple(facts["mean"]), tuple(facts["std"]))
    return network, labels, scale, read_pictures(CACHE / "photographs", (224, 224), scale)


@pytest.mark.slow
def test_a_real_cat_adds_up(real):
    network, labels, _scale, photographs = real
    found = region(network, photographs["chelsea.png"], labels.index("tabby"), labels.index("espresso"))
    size = found.pixels.amounts.abs().sum().item()
    assert abs(found.pixels.past) < 1e-6 * size
    assert abs(found.maps.past) < 1e-4
    assert found.maps.map.shape == found.grad_cam.shape == (7, 7)


@pytest.mark.slow
def test_real_early_channels_are_edges_and_colours(real):
    network, _labels, scale, photographs = real
    weights = filters(network, "conv_stem")
    turned = weights - weights.mean((2, 3), keepdim=True)  # what is left of a filter without its colour
    alive = weights.flatten(1).norm(dim=1) > 0.1 * weights.flatten(1).norm(dim=1).max()
    edges = alive & (turned.flatten(1).norm(dim=1) > 0.8 * weights.flatten(1).norm(dim=1))
    assert edges.sum() >= 5
    best = strongest_patches(network, list(photographs.values()), {"bn0": edges.nonzero()[:, 0].tolist()}, k=3)
    contrasts = [
        scale.pixels(p.pixels).mean(0).std() for found in best.values() for p in found if p.pixels.numel() == 27
    ]
    everywhere = torch.stack([scale.pixels(x).mean(0).unfold(0, 3, 3).unfold(1, 3, 3) for x in photographs.values()])
    assert torch.stack(contrasts).median() > 5 * everywhere.flatten(3).std(-1).median()


@pytest.mark.slow
def test_a_dream_of_espresso_is_espresso_to_the_network(real):
    network, labels, scale, _photographs = real
    dreamt = dream(network, "fc", labels.index("espresso"), 32, shape=(3, 160, 160), scale=scale)
    with torch.no_grad():
        assert network(scale.scaled(dreamt)[None]).softmax(-1)[0, labels.index("espresso")] > 0.9
