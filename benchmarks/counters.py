"""Who counts right: parameters and multiply-adds of four networks by us and by three other counters.

The truth is arithmetic: the sum of all products of data by weights and data by data, every query with every key (the
rows of sizing.md are these). Each counter is used as its page says, in eval mode, on the same module and input.
"""

import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import NamedTuple

import torch
import transformers
from torch import Tensor, nn

from _measure import options
from pellucid.anatomy import catalogue, compute, counts, families, live
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
    print(
        "| | " + " | ".join(("parameters", "error", "multiply-adds", "error")) + " |\n| --- | --- | --- | --- | --- |"
    )
    worst = dict.fromkeys(COUNTERS, 0.0)
    for case in CASES:
        torch.manual_seed(0)
        module, inputs = case.module().eval(), case.inputs()
        print(f"| **{case.title}** | **{case.parameters:,}** | | **{case.products / 1e9:.4f} G** | |")
        for name, count in COUNTERS.items():
            parameters, products = count(case, module, inputs)
            errors = [0.0 if parameters is None else parameters / case.parameters - 1, products / case.products - 1]
            worst[name] = max(worst[name], *map(abs, errors))
            shown = "– | –" if parameters is None else f"{parameters:,} | {errors[0]:+.2%}"
            print(f"| {name} | {shown} | {products / 1e9:.4f} G | {errors[1]:+.2%} |", flush=True)
    print("\nLargest error: " + ", ".join(f"{name} {error:.2%}" for name, error in worst.items()))
    print(f"Goal 0.1 %: {'met' if max(list(worst.values())[:2]) <= 1e-3 else 'MISSED'} by ours")


if __name__ == "__main__":
    main()
