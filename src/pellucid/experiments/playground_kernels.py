"""The playground's arithmetic, compiled: forward, loss, backward and update of a small dense network, in float64.

Numbers of one neuron for many points lie side by side: ``values_RN`` has a row for each input and then for each neuron,
layer by layer. All parameters lie in one array, in the order of `networks.dense.Dense`: the first layer's weight
(outputs, inputs), its bias, the next layer's. Gradients and the optimiser's memories have the same order.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

LINEAR, TANH, SIGMOID, RELU, LEAKY_RELU = range(5)
SQUARED_ERROR, ABSOLUTE, CROSS_ENTROPY, BINARY_CROSS_ENTROPY, HINGE, PERCEPTRON = range(6)
SGD, RMSPROP, ADAM, ADAMW = range(4)
LEAK = 0.01  # torch.nn.LeakyReLU's slope below 0


class Net(NamedTuple):
    """What stays the same: widths (inputs first), activation codes by layer, the loss's code, which are weights."""

    widths: Indices
    activations: Indices
    loss: int
    is_weight: Array  # 1 for a weight, 0 for a bias


class Rule(NamedTuple):
    """How parameters are updated: torch.optim's formulas, with the penalties added to the gradient of the weights."""

    optimiser: int
    rate: float
    momentum: float
    nesterov: bool
    beta1: float
    beta2: float  # torch's alpha for RMSprop
    eps: float
    decay: float
    l1: float
    l2: float
    prunes: bool


# sums over points may be taken in any order, several at once; infinities and NaN keep their meaning
compiled: Any = njit(cache=True, error_model="numpy", nogil=True, fastmath={"reassoc", "contract"})


@compiled
def train(
    net: Net, rule: Rule, weights: Array, memory: Array, gradient: Array, dead: NDArray[np.bool_], x_FN: Array,
    y_N: Array, order: Indices, ends: Indices, first: int, last: int, done: int,
) -> None:  # fmt: skip
    """Make the updates `first` to `last` of an epoch, in place.

    Args:
        memory: (2, P), the optimiser's, zero at the start.
        gradient: (P,), left as that of the last batch, penalties included.
        dead: (P,), weights that a penalty pruned.
        order: The points in the order of the epoch; update i takes those from ends[i] to ends[i + 1].
        done: Updates made before, in all epochs.
    """
    largest = 0
    for i in range(first, last):
        largest = max(largest, ends[i + 1] - ends[i])
    rows = net.widths.sum()
    values_RN, deltas_RN, targets_N = np.empty((rows, largest)), np.empty((rows, largest)), np.empty(largest)
    for i in range(first, last):
        n = ends[i + 1] - ends[i]
        for s in range(n):
            point = order[ends[i] + s]
            targets_N[s] = y_N[point]
            for f in range(net.widths[0]):
                values_RN[f, s] = x_FN[f, point]
        forward(net, weights, values_RN, n)
        loss(net, values_RN, targets_N, deltas_RN, n)
        backward(net, weights, values_RN, deltas_RN, gradient, n)
        update(net, rule, weights, memory, gradient, dead, done + i - first + 1)


@compiled
def evaluate(net: Net, weights: Array, x_FN: Array, y_N: Array, values_RN: Array, deltas_RN: Array) -> float:
    """The mean loss over all points; values_RN is left with every neuron's output."""
    n = len(y_N)
    for f in range(net.widths[0]):
        for s in range(n):
            values_RN[f, s] = x_FN[f, s]
    forward(net, weights, values_RN, n)
    return loss(net, values_RN, y_N, deltas_RN, n) / n


@compiled
def forward(net: Net, weights: Array, values_RN: Array, n: int) -> None:
    """Fill in the neurons' rows of the first `n` points from the inputs' rows."""
    at, below = 0, 0
    for layer in range(1, len(net.widths)):
        inputs, outputs = net.widths[layer - 1], net.widths[layer]
        for j in range(outputs):
            sums_N = values_RN[below + inputs + j, :n]
            for s in range(n):
                sums_N[s] = weights[at + outputs * inputs + j]
            for i in range(inputs):
                weight = weights[at + j * inputs + i]
                source_N = values_RN[below + i, :n]
                for s in range(n):
                    sums_N[s] += weight * source_N[s]
            activate(net.activations[layer - 1], sums_N)
        at += outputs * (inputs + 1)
        below += inputs


@compiled
def activate(code: int, sums_N: Array) -> None:
    """Replace weighted sums by outputs."""
    if code == TANH:
        for s in range(len(sums_N)):
            sums_N[s] = math.tanh(sums_N[s])
    elif code == SIGMOID:
        for s in range(len(sums_N)):
            sums_N[s] = sigmoid(sums_N[s])
    elif code == RELU:
        for s in range(len(sums_N)):
            sums_N[s] = 0.0 if sums_N[s] <= 0 else sums_N[s]
    elif code == LEAKY_RELU:
        for s in range(len(sums_N)):
            sums_N[s] = sums_N[s] if sums_N[s] > 0 else LEAK * sums_N[s]


@compiled
def loss(net: Net, values_RN: Array, y_N: Array, deltas_RN: Array, n: int) -> float:
    """The sum of `networks.losses` over n points; its derivatives by the outputs go to the last rows of deltas_RN."""
    outputs = net.widths[-1]
    top = len(values_RN) - outputs
    if net.loss == CROSS_ENTROPY:
        return cross_entropy(values_RN[top:], y_N, deltas_RN[top:], n)
    total = 0.0
    for s in range(n):
        output, target = values_RN[top, s], y_N[s]
        if net.loss == SQUARED_ERROR:
            derivative = output - target
            total += derivative * derivative / 2
        elif net.loss == ABSOLUTE:
            total += abs(output - target)
            derivative = np.sign(output - target)
        elif net.loss == BINARY_CROSS_ENTROPY:
            positive = 1.0 if target > 0 else 0.0
            total += max(output, 0.0) - output * positive + math.log1p(math.exp(-abs(output)))
            derivative = sigmoid(output) - positive
        else:
            short = (1.0 if net.loss == HINGE else 0.0) - target * output
            total += max(short, 0.0)
            derivative = -target if short >= 0 else 0.0
        deltas_RN[top, s] = derivative
    return total


@compiled
def cross_entropy(logits_KN: Array, y_N: Array, deltas_KN: Array, n: int) -> float:
    """-Σ ln softmax(logits)[y], and softmax(logits) - onehot(y)."""
    total = 0.0
    for s in range(n):
        highest = -np.inf
        for k in range(len(logits_KN)):
            highest = max(highest, logits_KN[k, s])
        partition = 0.0
        for k in range(len(logits_KN)):
            deltas_KN[k, s] = math.exp(logits_KN[k, s] - highest)
            partition += deltas_KN[k, s]
        for k in range(len(logits_KN)):
            deltas_KN[k, s] /= partition
        target = int(y_N[s])
        total += highest + math.log(partition) - logits_KN[target, s]
        deltas_KN[target, s] -= 1.0
    return total


@compiled
def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


@compiled
def backward(net: Net, weights: Array, values_RN: Array, deltas_RN: Array, gradient: Array, n: int) -> None:
    """The gradient of the mean loss, from the derivatives by the outputs in the last rows of deltas_RN."""
    at, below = len(weights), len(values_RN) - net.widths[-1]
    for layer in range(len(net.widths) - 1, 0, -1):
        inputs, outputs = net.widths[layer - 1], net.widths[layer]
        at -= outputs * (inputs + 1)
        row, below = below, below - inputs
        for j in range(outputs):
            delta_N = deltas_RN[row + j, :n]
            times_slope(net.activations[layer - 1], values_RN[row + j, :n], delta_N)
            total = 0.0
            for s in range(n):
                total += delta_N[s]
            gradient[at + outputs * inputs + j] = total / n
        for i in range(inputs):
            source_N, passed_N = values_RN[below + i, :n], deltas_RN[below + i, :n]
            for s in range(n):
                passed_N[s] = 0.0
            for j in range(outputs):
                weight, delta_N = weights[at + j * inputs + i], deltas_RN[row + j, :n]
                total = 0.0
                for s in range(n):
                    total += delta_N[s] * source_N[s]
                    passed_N[s] += weight * delta_N[s]
                gradient[at + j * inputs + i] = total / n


@compiled
def times_slope(code: int, outputs_N: Array, delta_N: Array) -> None:
    """Derivatives by outputs become derivatives by weighted sums."""
    if code == TANH:
        for s in range(len(delta_N)):
            delta_N[s] *= 1.0 - outputs_N[s] * outputs_N[s]
    elif code == SIGMOID:
        for s in range(len(delta_N)):
            delta_N[s] *= outputs_N[s] * (1.0 - outputs_N[s])
    elif code == RELU:
        for s in range(len(delta_N)):
            delta_N[s] = delta_N[s] if outputs_N[s] > 0 else 0.0
    elif code == LEAKY_RELU:
        for s in range(len(delta_N)):
            delta_N[s] *= 1.0 if outputs_N[s] > 0 else LEAK


@compiled
def update(
    net: Net, rule: Rule, weights: Array, memory: Array, gradient: Array, dead: NDArray[np.bool_], step: int
) -> None:
    """Step number `step`, counted from 1."""
    for p in range(len(weights)):
        weight = weights[p]
        penalty = (rule.l1 * np.sign(weight) + rule.l2 * weight) * net.is_weight[p]
        if rule.prunes and net.is_weight[p]:
            prune(rule, weights, gradient, dead, p, penalty)
            continue
        gradient[p] += penalty
        g = gradient[p]
        if rule.optimiser == SGD:
            if rule.momentum:
                memory[0, p] = g if step == 1 else rule.momentum * memory[0, p] + g
                g = g + rule.momentum * memory[0, p] if rule.nesterov else memory[0, p]
            weights[p] = weight - rule.rate * g
        elif rule.optimiser == RMSPROP:
            memory[1, p] = rule.beta2 * memory[1, p] + (1 - rule.beta2) * g * g
            g /= math.sqrt(memory[1, p]) + rule.eps
            if rule.momentum:
                memory[0, p] = rule.momentum * memory[0, p] + g
                g = memory[0, p]
            weights[p] = weight - rule.rate * g
        else:
            memory[0, p] += (1 - rule.beta1) * (g - memory[0, p])
            memory[1, p] = rule.beta2 * memory[1, p] + (1 - rule.beta2) * g * g
            if rule.optimiser == ADAMW:
                weight *= 1 - rule.rate * rule.decay * net.is_weight[p]
            size = math.sqrt(memory[1, p]) / math.sqrt(1 - rule.beta2**step) + rule.eps
            weights[p] = weight - rule.rate / (1 - rule.beta1**step) * memory[0, p] / size


@compiled
def prune(rule: Rule, weights: Array, gradient: Array, dead: NDArray[np.bool_], p: int, penalty: float) -> None:
    """Plain gradient descent, after which a weight that L1 would push across zero is zero for ever."""
    if dead[p]:
        return
    learned = weights[p] - rule.rate * gradient[p]
    gradient[p] += penalty
    weights[p] = learned - rule.rate * penalty
    if learned * weights[p] < 0:
        weights[p] = 0.0
        dead[p] = True
