"""EfficientNet-lite: the paper's table, TensorFlow's padding, and the real weights on real photographs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import pellucid as pl
from pellucid.checkpoints.efficientnet import open_efficientnet
from pellucid.errors import PellucidError
from pellucid.networks.efficientnet import EfficientNet, SameConv2d
from pellucid.networks.efficientnet_config import EfficientNetConfig, Stage
from pellucid.tracing.pictures import Scale, read_pictures

CACHE = Path(__file__).parents[2] / "cache"
SMALL = EfficientNetConfig(
    classes=5,
    stages=(Stage(repeat=1, kernel=3, stride=1, expand=1, channels=4), Stage(2, 5, 2, 3, 6)),
    stem=4,
    head=8,
)


def test_lite0_has_the_parameters_that_are_published():
    with torch.device("meta"):
        network = EfficientNet(EfficientNetConfig(), seed=None)
    assert sum(p.numel() for p in network.parameters()) == 4_652_008
    assert len(network.blocks) == 16


@pytest.mark.parametrize("size", [7, 8, 15, 16])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (5, 2), (5, 1)])
def test_padding_is_tensorflows_same(size, kernel, stride):
    convolution = SameConv2d(2, 3, kernel, stride).double()
    picture = torch.randn(1, 2, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = convolution(picture)[0].detach().numpy()
    weight, places = convolution.weight.detach().numpy(), -(-size // stride)
    total = max((places - 1) * stride + kernel - size, 0)
    padded = np.pad(picture[0].numpy(), [(0, 0)] + [(total // 2, total - total // 2)] * 2)
    for row, column in np.ndindex(places, places):
        patch = padded[:, row * stride : row * stride + kernel, column * stride : column * stride + kernel]
        np.testing.assert_allclose(found[:, row, column], np.einsum("ochw,chw->o", weight, patch), atol=1e-12)
    assert found.shape == (3, places, places)


def test_the_forward_pass_is_its_parts_written_out():
    network = EfficientNet(SMALL, seed=1).double().eval()
    draw = torch.Generator().manual_seed(2)
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5, generator=draw)
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64, generator=draw)

    def norm(x, part):
        scale = part.weight / (part.running_var + 1e-3).sqrt()
        return x * scale[:, None, None] + (part.bias - part.running_mean * scale)[:, None, None]

    y = norm(F.conv2d(F.pad(x, (0, 1, 0, 1)), network.conv_stem.weight, stride=2), network.bn0).clamp(0, 6)
    for n, block in enumerate(network.blocks):
        given = y
        if n > 0:
            y = norm(F.conv2d(y, block.expand_conv.weight), block.bn0).clamp(0, 6)
        weight = block.depthwise_conv.weight
        padding, stride = (((1, 1) * 2, 1), ((1, 2) * 2, 2), ((2, 2) * 2, 1))[n]
        y = norm(F.conv2d(F.pad(y, padding), weight, stride=stride, groups=len(weight)), block.bn1).clamp(0, 6)
        y = norm(F.conv2d(y, block.project_conv.weight), block.bn2)
        y = y + given if n == 2 else y
    y = norm(F.conv2d(y, network.conv_head.weight), network.bn1).clamp(0, 6)
    torch.testing.assert_close(network(x), network.fc(y.mean((2, 3))), atol=1e-12, rtol=1e-10)


def test_one_seed_gives_one_network():
    first, again, other = (EfficientNet(SMALL, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


def test_a_logit_is_the_sum_of_its_pixels_and_constants():
    network = EfficientNet(SMALL, seed=1).eval()
    picture = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    trace = pl.trace(network, picture)
    flow = trace.flow(":out[0,2]")
    assert not flow.stopped
    total = flow.inputs[":in.0"].sum().item() + sum(flow.constants.values())
    assert total == pytest.approx(network(picture)[0, 2].item(), abs=1e-5)
    answer = trace.why("blocks.2.depthwise_conv[0,1,3,3]")
    assert abs(answer.residue) <= answer.budget


def written(folder: Path, **changes) -> Path:
    """The two files of a small network under the published names."""
    with torch.device("meta"):
        names = EfficientNet(EfficientNetConfig(classes=2), seed=None).state_dict()
    network = EfficientNet(EfficientNetConfig(classes=2), seed=0).state_dict()
    assert names.keys() == network.keys()
    tensors = {".".join(part if part.isdigit() or part in LEAVES else f"_{part}" for part in name.split(".")): tensor
               for name, tensor in network.items()}  # fmt: skip
    tensors |= changes.pop("tensors", {})
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    config = {"model_type": "efficientnet-lite0", "labels": ["cat", "dog"]} | changes
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return folder


LEAVES = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


def test_the_published_names_are_opened(tmp_path):
    network, labels, facts = open_efficientnet(written(tmp_path / "model"))
    assert not network.training
    assert labels == ["cat", "dog"]
    assert facts == {"image_size": 224, "mean": [127 / 255] * 3, "std": [128 / 255] * 3}
    assert torch.equal(network.fc.weight, EfficientNet(EfficientNetConfig(classes=2), seed=0).fc.weight)


def test_what_does_not_fit_is_refused(tmp_path):
    other = written(tmp_path / "other", model_type="resnet")
    with pytest.raises(PellucidError, match="no kind of network 'resnet'"):
        open_efficientnet(other)
    with pytest.raises(PellucidError, match=r"fc\.weight") as error:
        open_efficientnet(written(tmp_path / "classes", labels=["cat", "dog", "cow"]))
    assert error.value.fix
    with pytest.raises(PellucidError, match=r"extra"):
        open_efficientnet(written(tmp_path / "extra", tensors={"extra": torch.zeros(1)}))


@pytest.mark.slow
def test_real_photographs_are_recognised():
    network, labels, facts = open_efficientnet(CACHE / "efficientnet-lite0")
    scale = Scale(tuple(facts["mean"]), tuple(facts["std"]))
    photographs = read_pictures(CACHE / "photographs", (224, 224), scale)
    with torch.no_grad():
        probabilities = {name: network(x[None]).softmax(-1)[0] for name, x in photographs.items()}

    def p(photograph: str, *classes: str) -> float:
        return sum(probabilities[photograph][labels.index(name)].item() for name in classes)

    assert p("chelsea.png", "Egyptian cat", "tabby", "tiger cat") > 0.8
    assert p("coffee.png", "espresso") > 0.8
    assert p("rocket.jpg", "missile", "projectile") > 0.4
