"""Who counts right: parameters and multiply-adds of four networks by us and by three other counters.

The truth is arithmetic: all products of data by weights and of data by data, every query with every key. Each counter
is used as its page says, in eval mode, on the same module and input.
"""

import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import NamedTuple

import torch
import transformers
from torch import Tensor, nn

from _measure import options
from pellucid.anatomy import catalogue, compute, counts, families
from pellucid.anatomy.reading import live
from pellucid.anatomy.tree import Attention, Linear, Node, Part, Sequence


class Case(NamedTuple):
    title: str
    module: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Tensor, ...]]
    formula: Callable[[], Node]
    lengths: dict[str, int]
    parameters: int
    products: int


class ViT(nn.Module):
    """ViT-B/16 on PyTorch's own attention, as torchvision has it (Dosovitskiy et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 768, 16, 16)
        self.token = nn.Parameter(torch.zeros(1, 1, 768))
        self.positions = nn.Parameter(torch.zeros(1, 197, 768))
        self.blocks = nn.Sequential(*(Block() for _ in range(12)))
        self.norm = nn.LayerNorm(768)
        self.head = nn.Linear(768, 1000)

    def forward(self, pictures: Tensor) -> Tensor:
        x = self.patches(pictures).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.norm = nn.LayerNorm(768), nn.LayerNorm(768)
        self.attention = nn.MultiheadAttention(768, 12, batch_first=True)
        self.layers = nn.Sequential(nn.Linear(768, 3072), nn.GELU(), nn.Linear(3072, 768))

    def forward(self, x: Tensor) -> Tensor:
        y = self.attention_norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.layers(self.norm(x))


def resnet() -> nn.Module:
    return transformers.ResNetForImageClassification(transformers.ResNetConfig(num_labels=1000))


def gpt2() -> nn.Module:
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(use_cache=False))


def attention() -> Node:
    parts = Part("in", Linear(512, 3 * 512)), Part("product", Attention(8, 8, 64)), Part("out", Linear(512, 512))
    return Sequence(tuple(part._replace(kind="attention", positions="token") for part in parts))


def published(name: str) -> Callable[[], Node]:
    return lambda: families.describe(catalogue.find(name).config)


def three(x: Tensor) -> tuple[Tensor, ...]:
    return x, x, x


D, T = 768, 1024
CASES = (
    Case(
        "ResNet-50, 224 x 224",
        resnet,
        lambda: (torch.rand(1, 3, 224, 224),),
        published("resnet-50"),
        {},
        25_557_032,
        4_089_184_256,
    ),
    Case(
        "ViT-B/16, 224 x 224",
        ViT,
        lambda: (torch.rand(1, 3, 224, 224),),
        published("vit-b-16"),
        {},
        86_567_656,
        196 * 768 * D + 12 * (197 * 12 * D * D + 2 * 197 * 197 * D) + 1000 * D,
    ),
    Case(
        "nn.MultiheadAttention(512, 8), 580 positions",
        lambda: nn.MultiheadAttention(512, 8, batch_first=True),
        lambda: three(torch.rand(1, 580, 512)),
        attention,
        {"token": 580},
        1_050_624,
        4 * 512 * 512 * 580 + 2 * 580 * 580 * 512,
    ),
    Case(
        "GPT-2 small, 1024 tokens",
        gpt2,
        lambda: (torch.randint(50257, (1, T)),),
        published("gpt2"),
        {"token": T},
        124_439_808,
        12 * (12 * D * D * T + 2 * T * T * D) + 50257 * D * T,
    ),
)


def by_formula(case: Case, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[int, int]:
    tree = case.formula()
    return counts.parameters(tree).total, compute.forward(tree, **case.lengths).total


def by_reading(case: Case, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[int, int]:
    tree = live.read(module, *inputs)
    return counts.parameters(tree).total, compute.forward(tree).total


def by_torch(case: Case, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[None, int]:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return None, counter.get_total_flops() // 2


def by_torchinfo(case: Case, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[int, int]:
    from torchinfo import summary

    found = summary(module, input_data=list(inputs), verbose=0)
    return found.total_params, found.total_mult_adds


def by_fvcore(case: Case, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[int, int]:
    from fvcore.nn import FlopCountAnalysis, parameter_count

    counted = FlopCountAnalysis(module, inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return parameter_count(module)[""], int(counted.total())


COUNTERS = {
    "pellucid, by formula": by_formula,
    "pellucid, live": by_reading,
    "torch FlopCounterMode / 2": by_torch,
    "torchinfo": by_torchinfo,
    "fvcore": by_fvcore,
}


def main() -> None:
    options(__doc__ or "")
    warnings.filterwarnings("ignore")
    names = ("torch", "transformers", "torchinfo", "fvcore")
    print(", ".join(f"{name} {version(name)}" for name in names), "(nothing is timed)\n")
    counted = []
    for case in CASES:
        torch.manual_seed(0)
        module, inputs = case.module().eval(), case.inputs()
        counted.append([count(case, module, inputs) for count in COUNTERS.values()])
    pairs = list(zip(CASES, counted, strict=True))
    table("multiply-adds, G", [[case.products, *(products for _p, products in found)] for case, found in pairs], 1e9)
    table("parameters, M", [[case.parameters, *(parameters for parameters, _p in found)] for case, found in pairs], 1e6)
    ours = [(case, counts_) for case, found in pairs for counts_ in found[:2]]
    worst = max(max(abs(p / case.parameters - 1), abs(m / case.products - 1)) for case, (p, m) in ours)
    print(f"Our largest error: {worst:.4%}, goal 0.1 %: {'met' if worst <= 1e-3 else 'MISSED'}")


def table(title: str, rows: list[list[int | None]], unit: float) -> None:
    """A row for each case, first the truth; what is off by a thousandth or more has its error beside it."""
    print(f"| {title} | truth | {' | '.join(COUNTERS)} |")
    print("| --- " * (2 + len(COUNTERS)) + "|")
    for case, (truth, *found) in zip(CASES, rows, strict=True):
        assert truth is not None
        errors = [None if count is None else count / truth - 1 for count in found]
        cells = [
            "–"
            if count is None or error is None
            else f"{count / unit:.3f}" + (f" ({error:+.1%})" if abs(error) >= 1e-3 else "")
            for count, error in zip(found, errors, strict=True)
        ]
        print(f"| {case.title} | {truth / unit:.3f} | {' | '.join(cells)} |")
    print()


if __name__ == "__main__":
    main()
