"""The playground's engine: small dense networks trained while one looks on, a hundred thousand updates a second.

It does what the one loop does with the same network, loss and optimiser, to the last digits (float64), but knows only
the few that `Settings` names. Every number of it can be asked why through `Playground.network`, which is plain PyTorch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from pellucid.data import toys
from pellucid.errors import PellucidError
from pellucid.experiments import playground_kernels as kernels
from pellucid.experiments.playground_kernels import Array, Indices, Net, Rule
from pellucid.experiments.playground_options import Settings
from pellucid.language import _
from pellucid.networks.dense import Dense, DenseConfig

ACTIVATIONS = {
    "linear": kernels.LINEAR,
    "tanh": kernels.TANH,
    "sigmoid": kernels.SIGMOID,
    "relu": kernels.RELU,
    "leaky_relu": kernels.LEAKY_RELU,
}
LOSSES = {
    "squared_error": kernels.SQUARED_ERROR,
    "absolute": kernels.ABSOLUTE,
    "cross_entropy": kernels.CROSS_ENTROPY,
    "binary_cross_entropy": kernels.BINARY_CROSS_ENTROPY,
    "hinge": kernels.HINGE,
    "perceptron": kernels.PERCEPTRON,
}
OPTIMISERS = {"sgd": kernels.SGD, "rmsprop": kernels.RMSPROP, "adam": kernels.ADAM, "adamw": kernels.ADAMW}
LIVE = ("learning_rate", "batch", "momentum", "nesterov", "eps", "weight_decay", "l1", "l2")
EDGE = 6.0  # heat-maps show [-6, 6]²


@dataclass(frozen=True)
class Measured:
    """Where a playground stands: losses are means over points, accuracies shares, None where there are no classes."""

    epoch: int
    steps: int
    training_loss: float
    test_loss: float
    training_accuracy: float | None
    test_accuracy: float | None


class Playground:
    """A small network, its points and its training, to be stepped, looked at and changed by hand.

    Attributes:
        weights: All parameters, (P,), layer by layer: weight (outputs, inputs), then bias. May be written to.
        gradient: Of the last batch's mean loss and penalties, in the same order.
        epoch: Whole passes over the training points so far.
        position: Updates made in the present epoch.
        updates: Updates made in all.

    Args:
        settings: See `Settings`.
        points: Points of one's own instead of ``settings.data``. With two columns the features are made of them; more
            (or one) are read as they are.

    Raises:
        PellucidError: when the loss does not fit the data, or too few points are left to train on.
    """

    def __init__(self, settings: Settings = Settings(), points: toys.Points | None = None) -> None:  # noqa: B008
        self.settings, self.own_points = settings, points
        self.points = points or toys.make(settings.data, settings.noise, settings.data_seed)
        training, testing = self.points.split(settings.training)
        if not len(training.y):
            raise PellucidError(_("No points are left to train on."), "training", _("Train on a larger part of them."))
        classes = len(self.points.classes)
        loss, output = settings.objective(classes)
        self.x_FN, self.y_N = self._inputs(training.x), np.ascontiguousarray(training.y, dtype=float)
        self.test_FN, self.test_N = self._inputs(testing.x), np.ascontiguousarray(testing.y, dtype=float)
        self.config = DenseConfig(
            inputs=len(self.x_FN),
            outputs=classes if classes > 2 else 1,
            hidden=settings.hidden,
            activation=settings.activation,
            output_activation=output,
            initialisation=settings.init,
        )
        self.shapes = {name: tuple(value.shape) for name, value in Dense(self.config, seed=None).named_parameters()}
        self.net = Net(
            np.array(self.config.widths),
            np.array([ACTIVATIONS[name] for name in self.config.activations]),
            LOSSES[loss],
            np.concatenate([np.full(math.prod(shape), len(shape) == 2, float) for shape in self.shapes.values()]),
        )
        self.reset()

    def reset(self) -> None:
        """Start again from the first weights."""
        with torch.no_grad():
            start = parameters_to_vector(Dense(self.config, self.settings.seed).parameters())
        self.weights = start.double().numpy()
        self.gradient = np.zeros_like(self.weights)
        self.memory = np.zeros((2, len(self.weights)))
        self.dead = np.zeros(len(self.weights), bool)
        self.epoch = self.position = self.updates = 0
        self._begin_epoch()

    def change(self, **settings: Any) -> None:
        """Go on with other settings of the training, those in `LIVE`. Another batch size begins a new epoch.

        Raises:
            PellucidError: when a setting is not among them or not possible.
        """
        for name in settings:
            if name not in LIVE:
                raise PellucidError(
                    _("{name} cannot change while a network learns.").format(name=name),
                    name,
                    _("Start anew with it. What can change: {names}.").format(names=", ".join(LIVE)),
                )
        other_batch = settings.get("batch", self.settings.batch) != self.settings.batch
        self.settings = replace(self.settings, **settings)
        if other_batch and self.position:
            self.epoch, self.position = self.epoch + 1, 0
        self._begin_epoch()

    # training

    def play(self, steps: int, every: int = 1) -> Iterator[Measured]:
        """Make `steps` updates; measure before the first, after every `every` epochs, and after the last.

        Raises:
            PellucidError: when the loss is no longer a number; that was the last one measured.
        """
        if steps < 0 or every < 1:
            raise PellucidError(_("Neither steps nor the epochs between measurements can be negative or none."))
        yield self.measure()
        while steps:
            made = min(steps, len(self._ends) - 1 - self.position)
            self.steps(made)
            steps -= made
            if not steps or (not self.position and self.epoch % every == 0):
                found = self.measure()
                yield found
                if not math.isfinite(found.training_loss):
                    raise PellucidError(
                        _("After {n} steps the loss is no longer a number.").format(n=self.updates),
                        "learning_rate",
                        _("Try a learning rate below {rate:g}.").format(rate=self.settings.rate),
                    )

    def steps(self, n: int) -> None:
        """Make n updates, into the next epochs if need be."""
        while n:
            made = min(n, len(self._ends) - 1 - self.position)
            first, last = self.position, self.position + made
            kernels.train(
                self.net, self._rule, self.weights, self.memory, self.gradient, self.dead, self.x_FN, self.y_N,
                self._order, self._ends, first, last, self.updates,
            )  # fmt: skip
            self.position, self.updates, n = last, self.updates + made, n - made
            if last == len(self._ends) - 1:
                self.epoch, self.position = self.epoch + 1, 0
                self._begin_epoch()

    def epochs(self, n: int = 1) -> Array:
        """Go on to the end of the epoch, n times; (n, 2): the loss on training and on test points after each."""
        losses = np.empty((n, 2))
        for i in range(n):
            self.steps(len(self._ends) - 1 - self.position)
            losses[i] = self.losses()
        return losses

    def _begin_epoch(self) -> None:
        """Lay out the batches of the present epoch."""
        n, once = len(self.y_N), self.settings.shuffle == "once"
        size = min(self.settings.batch, n)
        if once:
            left = n % size if self.epoch else 0
            self._order: Indices = np.r_[n - left : n, :n]  # the points are in random order as they are drawn
            self._ends: Indices = np.r_[0, np.arange(left + size, left + n + 1, size)]
        else:
            self._order = np.random.default_rng([self.settings.seed, self.epoch]).permutation(n)
            self._ends = np.append(np.arange(0, n, size), n)
        self._rule = _rule(self.settings)

    # looking

    def losses(self) -> tuple[float, float]:
        """The mean loss on the training and on the test points, without penalties."""
        return self._evaluate(self.x_FN, self.y_N)[0], self._evaluate(self.test_FN, self.test_N)[0]

    def measure(self) -> Measured:
        """Losses, and the shares of points in the right class."""
        training, training_KN = self._evaluate(self.x_FN, self.y_N)
        test, test_KN = self._evaluate(self.test_FN, self.test_N)
        accuracies = self._accuracy(training_KN, self.y_N), self._accuracy(test_KN, self.test_N)
        return Measured(self.epoch, self.updates, training, test, *accuracies)

    def parameters(self) -> dict[str, Array]:
        """Weights and biases under the names of `network`, as views of `weights`."""
        return self._named(self.weights)

    def gradients(self) -> dict[str, Array]:
        """The last batch's, under the names of the parameters."""
        return self._named(self.gradient)

    def set_weight(self, address: str, value: float) -> None:
        """Set one parameter by hand, such as ``layers.0.linear.weight[1,0]``: to neuron 1 from input 0.

        Raises:
            PellucidError: when there is no such parameter, or the value is not finite.
        """
        found = re.fullmatch(r"([\w.]+)\[(\d+(?:,\d+)?)\]", address.replace(" ", ""))
        name, index = (found[1], tuple(map(int, found[2].split(",")))) if found else ("", ())
        shape = self.shapes.get(name, ())
        if len(index) != len(shape) or not all(i < n for i, n in zip(index, shape, strict=True)) or not shape:
            raise PellucidError(
                _("There is no weight {address}.").format(address=address),
                "",
                _("A weight is named such as {example}.").format(example="layers.0.linear.weight[1,0]"),
            )
        if not math.isfinite(value):
            raise PellucidError(_("A weight cannot be {value}.").format(value=value), address)
        self.parameters()[name][index] = value

    def activations(self, point: Array) -> list[Array]:
        """What every neuron makes of one point (d,): by layer, the features first and the output last."""
        values_R1 = self._values(self._inputs(np.asarray(point, float)[None]))
        return np.split(values_R1[:, 0], np.cumsum(self.config.widths)[:-1])

    def surfaces(self, size: int = 100) -> Array:
        """(neurons, size, size): the output of each of `neurons` over [-6, 6]²; rows go down from x2 = 6.

        Raises:
            PellucidError: when the points are not on a plane.
        """
        if self.points.x.shape[1] != 2:
            raise PellucidError(_("Only what has two columns can be shown on a plane."))
        line = np.linspace(-EDGE, EDGE, size)
        x1, x2 = np.meshgrid(line, line[::-1])
        return self._values(self._inputs(np.stack([x1.ravel(), x2.ravel()], axis=1))).reshape(-1, size, size)

    def neurons(self) -> list[str]:
        """The names of what `surfaces` shows: the features, then the neurons layer by layer, ``layers.0[3]``."""
        named = [f"layers.{i}[{j}]" for i, width in enumerate(self.config.widths[1:]) for j in range(width)]
        return [*self._features(), *named]

    def formulas(self) -> list[str]:
        """Each neuron as a formula of the numbers before it: ``layers.0[0] = tanh(0.52 x1 - 1.3 x2 + 0.1)``."""
        names, parameters, found, below = self.neurons(), self.parameters(), [], 0
        for layer, function in enumerate(self.config.activations):
            inputs = names[below : below + self.config.widths[layer]]
            below += len(inputs)
            weight, bias = (parameters[f"layers.{layer}.linear.{what}"] for what in ("weight", "bias"))
            for j, row in enumerate(weight):
                terms = [*zip(row, (f" {name}" for name in inputs), strict=True), (bias[j], "")]
                signed = (f"{'-' if value < 0 else '+'} {abs(value):.4g}{name}" for value, name in terms)
                total = " ".join(signed).removeprefix("+ ")
                found.append(f"{names[below + j]} = {total if function == 'linear' else f'{function}({total})'}")
        return found

    def network(self) -> Dense:
        """The same network in PyTorch, float64: for `pl.trace` and why, and to save."""
        network = Dense(self.config).double()
        vector_to_parameters(torch.from_numpy(self.weights.copy()), network.parameters())
        return network

    def _features(self) -> tuple[str, ...]:
        names = self.settings.feature_names
        return names if self.points.x.shape[1] == 2 else self.points.names[:-1]

    def _inputs(self, x: Array) -> Array:
        """(F, N): what the network reads of the points (N, d)."""
        chosen = toys.features(x, self._features()) if self.points.x.shape[1] == 2 else x
        return np.ascontiguousarray(chosen.T, dtype=float)

    def _values(self, x_FN: Array) -> Array:
        """(neurons, N): every neuron's output, the inputs first."""
        values_RN = np.empty((sum(self.config.widths), x_FN.shape[1]))
        values_RN[: len(x_FN)] = x_FN
        kernels.forward(self.net, self.weights, values_RN, x_FN.shape[1])
        return values_RN

    def _evaluate(self, x_FN: Array, y_N: Array) -> tuple[float, Array]:
        """The mean loss, and the outputs (K, N)."""
        values_RN = np.empty((sum(self.config.widths), len(y_N)))
        loss = kernels.evaluate(self.net, self.weights, x_FN, y_N, values_RN, np.empty_like(values_RN))
        return loss, values_RN[-self.config.outputs :]

    def _accuracy(self, outputs_KN: Array, y_N: Array) -> float | None:
        if not self.points.classes:
            return None
        if len(outputs_KN) > 1:
            return float((outputs_KN.argmax(axis=0) == y_N).mean())
        return float(((outputs_KN[0] > 0) == (y_N > 0)).mean())

    def _named(self, flat: Array) -> dict[str, Array]:
        ends = np.cumsum([math.prod(shape) for shape in self.shapes.values()])
        parts = np.split(flat, ends[:-1])
        return {name: part.reshape(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    # saving

    def to_json(self) -> dict[str, Any]:
        """Everything, so that `from_json` goes on exactly; numbers that are not finite are written as words."""
        points = self.own_points
        own = {"points": asdict(points) | {"x": points.x.tolist(), "y": points.y.tolist()}} if points else {}
        return own | {
            "settings": asdict(self.settings),
            "weights": _plain(self.weights),
            "gradient": _plain(self.gradient),
            "memory": [_plain(row) for row in self.memory],
            "dead": np.flatnonzero(self.dead).tolist(),
            "epoch": self.epoch,
            "position": self.position,
            "updates": self.updates,
        }

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Playground:
        """The playground that `to_json` wrote.

        Raises:
            PellucidError: when that is something else.
        """
        try:
            made = cls(Settings(**saved["settings"]), _points(saved["points"]) if "points" in saved else None)
            for name in ("weights", "gradient", "memory"):
                getattr(made, name)[:] = np.array(saved[name]).astype(float).reshape(getattr(made, name).shape)
            made.dead[saved["dead"]] = True
            made.epoch, made.position, made.updates = (int(saved[name]) for name in ("epoch", "position", "updates"))
            made._begin_epoch()
            if not 0 <= made.position < len(made._ends) - 1:
                raise ValueError(made.position)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise PellucidError(
                _("This is no saved playground: {why}").format(why=f"{type(error).__name__}: {error}")
            ) from None
        return made


def _rule(settings: Settings) -> Rule:
    """The numbers of the optimiser, torch.optim's own where none is given."""
    usual = 0.99 if settings.optimiser == "rmsprop" else 0.999
    return Rule(
        optimiser=OPTIMISERS[settings.optimiser],
        rate=float(settings.rate),
        momentum=float(settings.momentum),
        nesterov=settings.nesterov,
        beta1=float(0.9 if settings.beta1 is None else settings.beta1),
        beta2=float(usual if settings.beta2 is None else settings.beta2),
        eps=float(settings.eps),
        decay=float(0.01 if settings.weight_decay is None else settings.weight_decay),
        l1=float(settings.l1),
        l2=float(settings.l2),
        prunes=settings.l1_prunes,
    )


def _plain(values: Array) -> list[float | str]:
    return [value if math.isfinite(value) else repr(value) for value in values.tolist()]


def _points(saved: dict[str, Any]) -> toys.Points:
    lists = {name: tuple(saved[name]) for name in ("classes", "names")}
    return toys.Points(np.array(saved["x"], float), np.array(saved["y"], float), saved["problem"], **lists)
