"""Dense networks: the perceptron, the straight line, softmax regression and the multilayer network are one module."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from pellucid.networks.activations import Step, activation
from pellucid.networks.dense_config import DenseConfig
from pellucid.networks.dropout import Dropout
from pellucid.networks.initialisation import initialise
from pellucid.networks.scaling import Scaling

NORMS = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d, "rms": nn.RMSNorm}


class Dense(nn.Module):
    """Layers of neurons, each reading all outputs of the layer before: a = f(W x + b), again and again.

    Rosenblatt's perceptron is ``DenseConfig(3, 1, output_activation="step")``, the line y = ax + b
    ``DenseConfig(1, 1)``, softmax regression ``DenseConfig(64, 10)``: its outputs are logits.

    Args:
        config: The shape.
        seed: Of the initialisation; None leaves the parameters on the meta device, for who loads them from a file.
    """

    def __init__(self, config: DenseConfig, seed: int | None = 0) -> None:
        super().__init__()
        self.config = config
        device = torch.get_default_device()
        with torch.device("meta"):  # spares torch's own initialisation, and the global generator
            layers = [Layer(config, i) for i in range(len(config.widths) - 1)]
            self.layers: Sequence[Layer] = nn.ModuleList(layers)  # type: ignore[assignment]
        if seed is not None and device.type != "meta":
            self.to_empty(device=device)
            self.initialise(seed)

    def forward(self, x_BF: Tensor) -> Tensor:
        """(B, inputs) to (B, outputs)."""
        for layer in self.layers:
            x_BF = layer(x_BF)
        return x_BF

    def scores(self, x_BF: Tensor) -> Tensor:
        """What the last activation is given, (B, outputs): a perceptron's w · x − threshold, which has a slope."""
        *hidden, last = self.layers
        for layer in hidden:
            x_BF = layer(x_BF)
        return last.score(x_BF)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw all parameters anew, from a generator of its own; norms begin at one, their shifts at zero."""
        generator = torch.Generator(self.layers[0].linear.weight.device).manual_seed(seed)
        for layer, name in zip(self.layers, self.config.activations, strict=True):
            layer.initialise(self.config.initialisation, name, generator)


class Layer(nn.Sequential):
    """A weighted sum of all inputs, then norm, activation and dropout, as far as the configuration has them.

    A step's bias is its threshold: what is compared are the two sides that Rosenblatt compares, w · x > threshold.
    """

    linear: nn.Linear

    def __init__(self, config: DenseConfig, i: int) -> None:
        inputs, outputs = config.widths[i : i + 2]
        name, bias, is_hidden = config.activations[i], config.biases[i], i < len(config.hidden)
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        parts["linear"] = nn.Linear(inputs, outputs, bias and name != "step")
        if config.norm is not None and is_hidden:
            parts["norm"] = NORMS[config.norm](outputs)
        if name == "step":
            parts["activation"] = Step(outputs if bias else None)
        elif name != "linear":
            parts["activation"] = activation(name)
        if config.dropout and is_hidden:
            parts["dropout"] = Dropout(config.dropout)
        super().__init__(parts)

    @property
    def threshold(self) -> Tensor | None:
        """Of a layer of steps, what each neuron's weighted sum must exceed, (outputs,); None where that is 0."""
        step = self._modules.get("activation")
        return step.threshold if isinstance(step, Step) else None

    def score(self, x_BF: Tensor) -> Tensor:
        """The weighted sum with its bias (a threshold is a bias with the other sign)."""
        y_BO = self.linear(x_BF)
        return y_BO if self.threshold is None else y_BO - self.threshold

    def initialise(self, name: str, followed_by: str, generator: torch.Generator) -> None:
        """Draw the parameters anew."""
        bias = self.linear.bias if self.threshold is None else self.threshold
        initialise(self.linear.weight, bias, name, followed_by, generator)
        if self.threshold is not None:
            self.threshold.neg_()
        if "norm" in self._modules:
            self.norm.reset_parameters()  # type: ignore[union-attr, operator]


@torch.no_grad()
def in_units(network: Dense, inputs: Scaling | None = None, outputs: Scaling | None = None) -> Dense:
    """The network that does in the user's units what `network` does between two scalings: y = ax + b with the real a.

    The scaling of the inputs goes into the first layer, W' = W / scale and b' = b − W' shift; that of the outputs into
    the last, W' = scale W and b' = scale b + shift. Computed in float64; every layer that takes a shift gets a bias.

    Raises:
        ValueError: when outputs are to be scaled and the last activation is not linear.
    """
    config = network.config
    if outputs is not None and config.output_activation != "linear":
        raise ValueError(f"no scale goes through {config.output_activation}")
    biases = list(config.biases)
    biases[0] |= inputs is not None
    biases[-1] |= outputs is not None
    made = Dense(replace(config, bias=tuple(biases))).to(network.layers[0].linear.weight.dtype).train(network.training)
    made.load_state_dict(network.state_dict(), strict=False)  # a bias that is new keeps the zeros set next
    for had, layer in zip(config.biases, made.layers, strict=True):
        if not had and layer.linear.bias is not None:
            layer.linear.bias.zero_()
    if inputs is not None:
        first = made.layers[0]
        weight = first.linear.weight.double() / inputs.scale.double()
        moved = weight @ inputs.shift.double()
        first.linear.weight.copy_(weight)
        if first.threshold is not None:
            first.threshold.copy_(first.threshold.double() + moved if config.biases[0] else moved)
        else:
            first.linear.bias.copy_(first.linear.bias.double() - moved)
    if outputs is not None:
        last = made.layers[-1].linear
        scale, shift = outputs.scale.double(), outputs.shift.double()
        last.weight.copy_(last.weight.double() * scale[:, None])
        last.bias.copy_(last.bias.double() * scale + shift)
    return made
