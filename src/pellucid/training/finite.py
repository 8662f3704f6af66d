"""Where did the first number that is not finite come up?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pellucid.language import _


def first_bad(network: nn.Module, run: Callable[[], object]) -> str | None:
    """Watch ``run`` (a forward and backward pass of ``network``) and name the first tensor with an infinity or a NaN.

    Looked at in this order: the parameters, each module's output as the forward pass reaches it, the gradient of each
    module's output as the backward pass reaches it, the parameters' gradients. Returns None when all are finite.
    """
    for name, parameter in network.named_parameters():
        if not finite(parameter):
            return _("parameter {name} before the step").format(name=name)
    found: list[str] = []
    watched = [module.register_forward_hook(_watch(name, found)) for name, module in network.named_modules() if name]
    try:
        run()
    finally:
        for hook in watched:
            hook.remove()
    for name, parameter in network.named_parameters():
        if not found and parameter.grad is not None and not finite(parameter.grad):
            found.append(_("gradient of parameter {name}").format(name=name))
    return found[0] if found else None


def finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _watch(name: str, found: list[str]) -> Callable[..., None]:
    def check_gradient(gradient: Tensor) -> None:
        if not found and not finite(gradient):
            found.append(_("gradient at the output of {name}").format(name=name))

    def check(module: nn.Module, inputs: object, output: object) -> None:
        if not isinstance(output, Tensor) or found:
            return
        if not finite(output):
            found.append(_("output of {name}").format(name=name))
        elif output.requires_grad:
            output.register_hook(check_gradient)

    return check
