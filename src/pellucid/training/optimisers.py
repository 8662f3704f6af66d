"""Optimisers: PyTorch's SGD, RMSprop, Adam and AdamW, and Muon for the matrices inside the blocks."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from pellucid.training.plan import Plan

TOGETHER = 2**22  # numbers that Muon orthogonalises in one call: more would gain nothing and take 12 bytes each


class Optimiser:
    """The optimisers that train one network, stepped together, with a state that can be saved without pickles."""

    def __init__(self, network: nn.Module, plan: Plan) -> None:
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in network.named_parameters()}
        inside = block_matrices(network) if plan.optimiser == "muon" else set()
        rest = [p for p in self.names if p not in inside]
        penalties = {name: rate for name, rate in (("l1", plan.l1), ("l2", plan.l2)) if rate}
        # with muon these weights are the embedding only, which is not decayed
        decay = {"weight_decay": plan.weight_decay if plan.optimiser == "adamw" else 0.0}
        weights = {"params": [p for p in rest if p.ndim >= 2], **decay, **penalties}
        others = {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0}
        if not penalties and not decay["weight_decay"]:  # nothing tells them apart: one group, half the calls
            weights, others = {"params": rest, **decay}, {"params": []}
        groups = [group for group in (weights, others) if group["params"]]
        self.parts: list[torch.optim.Optimizer] = []
        if inside:
            matrices = {"params": [p for p in self.names if p in inside], **penalties}
            self.parts.append(Muon([matrices], plan.learning_rate, plan.weight_decay))
        if groups:
            self.parts.append(_number_by_number(groups, plan))
        if penalties:
            for part in self.parts:
                part.register_step_pre_hook(penalise)
        self.peaks = [[group["lr"] for group in part.param_groups] for part in self.parts]

    def step(self, factor: float) -> None:
        """Apply the gradients with ``factor`` times the peak learning rates."""
        for part, peaks in zip(self.parts, self.peaks, strict=True):
            for group, peak in zip(part.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            part.step()

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Every tensor of the optimisers' state by ``<parameter>/<what>``, for a safetensors file."""
        return {
            f"{self.names[parameter]}/{what}": value
            for part in self.parts
            for parameter, state in part.state.items()
            for what, value in state.items()
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `state` gave."""
        by_parameter: dict[str, dict[str, Any]] = defaultdict(dict)
        for name, value in tensors.items():
            parameter, what = name.rsplit("/", 1)
            by_parameter[parameter][what] = value
        for part in self.parts:
            for group in part.param_groups:
                for parameter in group["params"]:
                    saved = by_parameter.get(self.names[parameter], {})
                    part.state[parameter] = {
                        what: torch.empty_like(parameter).copy_(value)  # fused steps count on one memory format
                        if value.shape == parameter.shape
                        else value.to(parameter.device if group.get("fused") else value.device)
                        for what, value in saved.items()
                    }


def block_matrices(network: nn.Module) -> set[Tensor]:
    """The matrices inside what a network repeats, its `ModuleList`s: embeddings and head stand outside of them."""
    repeated = (
        module for blocks in network.modules() if isinstance(blocks, nn.ModuleList) for module in blocks.modules()
    )
    return {
        parameter
        for module in repeated
        if not isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
        if parameter.ndim == 2
    }


def _number_by_number(groups: list[dict[str, Any]], plan: Plan) -> torch.optim.Optimizer:
    """The optimiser that looks at each number alone, with PyTorch's settings but for AdamW's shorter memory."""
    rate = plan.learning_rate
    if plan.optimiser == "sgd":
        return torch.optim.SGD(groups, rate, momentum=plan.momentum, nesterov=plan.nesterov, fused=True)
    if plan.optimiser == "rmsprop":  # PyTorch has none that is fused
        return torch.optim.RMSprop(groups, rate, momentum=plan.momentum, foreach=True)
    if plan.optimiser == "adam":
        return torch.optim.Adam(groups, rate, fused=True)
    rate = plan.embedding_rate if plan.optimiser == "muon" else rate
    return torch.optim.AdamW(groups, rate, betas=(0.9, 0.95), fused=True)


@torch.no_grad()
def penalise(optimiser: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Add the gradient of l1 Σ |w| + l2 / 2 Σ w² over the weights of each group that has such rates.

    It runs as a hook at the start of the optimiser's step: a recorded step shows it as its own part.
    """
    for group in optimiser.param_groups:
        weights = [weight for weight in group["params"] if weight.grad is not None]
        gradients = [weight.grad for weight in weights]
        if weights and "l2" in group:
            torch._foreach_add_(gradients, weights, alpha=group["l2"])
        if weights and "l1" in group:
            torch._foreach_add_(gradients, torch._foreach_sign(weights), alpha=group["l1"])


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised: U Vᵀ instead of U Σ Vᵀ for each matrix (Jordan et al. 2024, "Muon").

    Matrices of one shape are orthogonalised in one batched call. The update is scaled by 0.2 √max(rows, columns), so
    that its size matches AdamW's (Liu et al. 2025, "Muon is scalable for LLM training", eq. 4).
    """

    def __init__(self, matrices: ParamsT, lr: float, weight_decay: float, momentum: float = 0.95) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape[matrix.shape].append(matrix)
            for shape, matrices in by_shape.items():
                together = max(1, TOGETHER // shape.numel())
                for start in range(0, len(matrices), together):
                    self._step_together(matrices[start : start + together], group)

    def _step_together(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]
        for matrix in matrices:
            if "momentum" not in self.state[matrix]:
                self.state[matrix]["momentum"] = torch.zeros_like(matrix)
        momenta = [self.state[matrix]["momentum"] for matrix in matrices]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        looked_ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])  # Nesterov
        directions = orthogonalise(torch.stack(looked_ahead))
        scale = group["lr"] * 0.2 * max(matrices[0].shape) ** 0.5
        torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(matrices, list(directions.to(matrices[0].dtype).unbind()), alpha=-scale)


def orthogonalise(matrices_NRC: Tensor, steps: int = 5) -> Tensor:
    """The nearest orthogonal matrix to each of N, roughly: singular values above a hundredth of the norm end near 1.

    A quintic Newton-Schulz iteration X ← aX + (bA + cA²)X with A = XXᵀ, in bf16, which it bears (Jordan et al. 2024).
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x_NRC = matrices_NRC.bfloat16()
    x_NRC = x_NRC / (x_NRC.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x_NRC.size(-2) > x_NRC.size(-1)
    if tall:
        x_NRC = x_NRC.mT.contiguous()
    for _ in range(steps):
        a_NRR = x_NRC @ x_NRC.mT
        b_NRR = torch.baddbmm(a_NRR, a_NRR, a_NRR, beta=b, alpha=c)
        x_NRC = torch.baddbmm(x_NRC, b_NRR, x_NRC, beta=a)
    return x_NRC.mT if tall else x_NRC
