"""What can be set in the playground. The docstrings of the fields are the command line's help."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pellucid.errors import PellucidError
from pellucid.language import _

Data = Literal["circle", "xor", "gauss", "spiral", "plane", "multi-gauss", "nearest"]
Activation = Literal["tanh", "relu", "sigmoid", "linear", "leaky_relu"]
Output = Literal["tanh", "linear"]
Loss = Literal["squared_error", "absolute", "cross_entropy", "binary_cross_entropy", "hinge", "perceptron"]
Init = Literal["default", "he", "xavier", "normal", "uniform", "zero"]
Optimiser = Literal["sgd", "rmsprop", "adam", "adamw"]
Shuffle = Literal["epoch", "once"]

FEATURES = ("x1", "x2", "x1sq", "x2sq", "x1x2", "sinx1", "sinx2")
MOST_LAYERS, MOST_NEURONS = 16, 64  # hidden layers, and neurons in each; for more there is `pellucid train`


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides how a playground runs: one `Settings` gives one result.

    Raises:
        PellucidError: an unknown name, a number out of range, or settings that do not go together.
    """

    data: Data = "circle"
    """The points: circle, xor, gauss, spiral, plane or multi-gauss (regression), nearest (three classes)."""
    noise: float = 0.0
    """Noise in the points, in percent, up to 80."""
    training: float = 50.0
    """Percent of the points that are trained on; the others test."""
    data_seed: int = 0
    """Which points are drawn."""
    features: str = "x1,x2"
    """What the network reads, by commas: x1, x2, x1sq, x2sq, x1x2, sinx1, sinx2; or all."""
    layers: str = "4-2"
    """Neurons of each hidden layer, such as 8-8; none for no hidden layer."""
    activation: Activation = "tanh"
    """Of the hidden neurons: tanh, relu, sigmoid, linear or leaky_relu."""
    output: Output | None = None
    """Activation of the output: tanh for two classes by squared or absolute error, else linear."""
    loss: Loss | None = None
    """squared_error, absolute; binary_cross_entropy, hinge, perceptron for two classes; cross_entropy for more."""
    init: Init = "default"
    """How weights start: he, xavier, default (one of these, by activation), normal, uniform or zero."""
    seed: int = 0
    """Decides the first weights and the order of the points."""
    optimiser: Optimiser = "adam"
    """adam, adamw, rmsprop or sgd, as in torch.optim."""
    learning_rate: float | None = None
    """How far each update goes: 0.03 for sgd, else 0.01."""
    batch: int = 10
    """Points that share one update."""
    momentum: float = 0.0
    """Of sgd or rmsprop."""
    nesterov: bool = False
    """Nesterov's momentum, of sgd."""
    beta1: float | None = None
    """How long adam and adamw remember the gradient: 0.9."""
    beta2: float | None = None
    """How long its square is remembered: 0.999 by adam and adamw, 0.99 by rmsprop (torch's alpha)."""
    eps: float = 1e-8
    """What adam, adamw and rmsprop add to the root of the mean square."""
    weight_decay: float | None = None
    """Decay of the weights, not the biases, of adamw: 0.01."""
    l1: float = 0.0
    """Penalty on the sum of the weights' sizes, not the biases'."""
    l2: float = 0.0
    """Penalty on half the sum of the weights' squares, not the biases'."""
    l1_prunes: bool = False
    """A weight that L1 pushes across zero is zero for ever, as in the browser playground; with plain sgd."""
    shuffle: Shuffle = "epoch"
    """Mix the points for each epoch, or once; then points left over start the next epoch's first batch."""

    def __post_init__(self) -> None:
        _check_choices(self)
        _check_ranges(self)
        _check_network(self)
        _check_together(self)

    @property
    def rate(self) -> float:
        """The learning rate."""
        return self.learning_rate if self.learning_rate is not None else 0.03 if self.optimiser == "sgd" else 0.01

    @property
    def feature_names(self) -> tuple[str, ...]:
        return FEATURES if self.features == "all" else tuple(self.features.split(","))

    @property
    def hidden(self) -> tuple[int, ...]:
        """Widths of the hidden layers."""
        return () if self.layers == "none" else tuple(map(int, self.layers.split("-")))

    def objective(self, classes: int) -> tuple[str, str]:
        """Loss and activation of the output for data of so many classes, 0 for a value.

        Raises:
            PellucidError: when the chosen ones do not suit such data.
        """
        several = classes > 2
        loss = self.loss or ("cross_entropy" if several else "squared_error")
        output = self.output or ("tanh" if classes and loss in ("squared_error", "absolute") else "linear")
        fitting = ["cross_entropy"] if several else ["squared_error", "absolute"]
        fitting += ["binary_cross_entropy", "hinge", "perceptron"] if classes == 2 else []
        if loss not in fitting:
            raise PellucidError(
                _("The loss {loss} does not fit these data.").format(loss=loss),
                "loss",
                _("Use one of {names}.").format(names=", ".join(fitting)),
            )
        if output == "tanh" and loss in ("cross_entropy", "binary_cross_entropy"):
            raise _useless("output", "loss", loss)
        return loss, output

    @classmethod
    def from_url(cls, url: str) -> Settings:
        """The settings of a link to the browser playground, its recipe included; switches of its page are left out.

        Points and first weights come from another generator than the page's: a link always gives the same ones here,
        but not those seen there.

        Raises:
            PellucidError: for a setting that the browser playground does not have, or that does nothing there.
        """
        return cls(**_from_link(url.partition("#")[2] if "#" in url or "://" in url else url))


# what cannot be

CHOICES: dict[str, tuple[object, ...]] = {
    "data": get_args(Data),
    "activation": get_args(Activation),
    "output": (*get_args(Output), None),
    "loss": (*get_args(Loss), None),
    "init": get_args(Init),
    "optimiser": get_args(Optimiser),
    "shuffle": get_args(Shuffle),
    "nesterov": (False, True),
    "l1_prunes": (False, True),
}
RANGES: dict[str, tuple[float, float]] = {
    "noise": (0, 80),
    "training": (1, 99),
    "data_seed": (0, 2**32 - 1),
    "seed": (0, 2**32 - 1),
    "learning_rate": (0, 1000),
    "batch": (1, 10_000),
    "momentum": (0, 0.9999),
    "beta1": (0, 0.9999),
    "beta2": (0, 0.9999),
    "eps": (0, 1),
    "weight_decay": (0, 1000),
    "l1": (0, 1000),
    "l2": (0, 1000),
}
DERIVED = ("learning_rate", "beta1", "beta2", "weight_decay")
WHOLE = ("data_seed", "seed", "batch")
ONLY = {  # settings that some optimisers have, and what they are when left alone
    "momentum": (("sgd", "rmsprop"), 0),
    "nesterov": (("sgd",), False),
    "beta1": (("adam", "adamw"), None),
    "beta2": (("rmsprop", "adam", "adamw"), None),
    "weight_decay": (("adamw",), None),
    "l1_prunes": (("sgd",), False),
}


def _check_choices(settings: Settings) -> None:
    for name, choices in CHOICES.items():
        value = getattr(settings, name)
        if value not in choices:
            raise PellucidError(
                _("There is no {name} {value}.").format(name=name, value=repr(value)),
                name,
                _("Use one of {names}.").format(
                    names=", ".join(str(choice) for choice in choices if choice is not None)
                ),
            )


def _check_ranges(settings: Settings) -> None:
    for name, (low, high) in RANGES.items():
        value = getattr(settings, name)
        if value is None and name in DERIVED:
            continue
        kinds = int if name in WHOLE else int | float
        if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:
            form = (
                _("It must be a whole number from {low} to {high}.")
                if name in WHOLE
                else _("It must be from {low} to {high}.")
            )
            raise PellucidError(
                _("{name} cannot be {value}.").format(name=name, value=repr(value)),
                name,
                form.format(low=f"{low:.10g}", high=f"{high:.10g}"),
            )


def _check_network(settings: Settings) -> None:
    names = settings.feature_names
    if not set(names) <= set(FEATURES) or len(set(names)) < len(names):
        raise PellucidError(
            _("The features cannot be {value}.").format(value=repr(settings.features)),
            "features",
            _("Use some of {names}, with commas between, each once; or all.").format(names=", ".join(FEATURES)),
        )
    fits = re.fullmatch(r"none|\d{1,4}(-\d{1,4})*", settings.layers) is not None
    if not fits or len(settings.hidden) > MOST_LAYERS or not all(1 <= n <= MOST_NEURONS for n in settings.hidden):
        raise PellucidError(
            _("The layers cannot be {value}.").format(value=repr(settings.layers)),
            "layers",
            _("Name 1 to {neurons} neurons for each of up to {layers} layers, such as 4-2; or none.").format(
                neurons=MOST_NEURONS, layers=MOST_LAYERS
            ),
        )


def _check_together(settings: Settings) -> None:
    for name, (optimisers, neutral) in ONLY.items():
        if getattr(settings, name) != neutral and settings.optimiser not in optimisers:
            raise _useless(name, "optimiser", settings.optimiser)
    if settings.nesterov and not settings.momentum:
        raise _useless("nesterov", "momentum", 0)
    if settings.l1_prunes and not settings.l1:
        raise _useless("l1_prunes", "l1", 0)
    if settings.l1_prunes and settings.momentum:
        raise _useless("l1_prunes", "momentum", settings.momentum)


def _useless(name: str, other: str, value: object) -> PellucidError:
    return PellucidError(
        _("{name} does not go together with {other} {value}.").format(name=name, other=other, value=value), name
    )


# links to the browser playground: github.com/tensorflow/playground, src/state.ts

_DATA = {"circle": "circle", "xor": "xor", "gauss": "gauss", "spiral": "spiral"}
_REGRESSION = {"reg-plane": "plane", "reg-gauss": "multi-gauss"}
_SWITCHES = dict(zip(("x", "y", "xSquared", "ySquared", "xTimesY", "sinX", "sinY"), FEATURES, strict=True))
_DEAD = ("cosX", "cosY")  # in its links, but with no feature behind them
_OTHERS = ("seed", "showTestData", "discretize", "collectStats", "tutorial", "hideText", "initZero")
_NAMES: dict[str, dict[str, Any]] = {
    "activation": {name: name for name in ("relu", "tanh", "sigmoid", "linear")},
    "regularization": {"none": None, "L1": "l1", "L2": "l2"},
    "dataset": _DATA,
    "regDataset": _REGRESSION,
    "problem": {"classification": _DATA, "regression": _REGRESSION},
}
_DEFAULTS = {
    "activation": "tanh",
    "regularization": "none",
    "batchSize": "10",
    "dataset": "circle",
    "regDataset": "reg-plane",
    "learningRate": "0.03",
    "regularizationRate": "0",
    "noise": "0",
    "networkShape": "4,2",
    "percTrainData": "50",
    "problem": "classification",
    "x": "true",
    "y": "true",
}


def _from_link(text: str) -> dict[str, Any]:
    """Arguments of `Settings` from what stands behind the # of a link."""
    said = dict(part.partition("=")[::2] for part in text.split("&") if part)
    hidden = {name.removesuffix("_hide") for name, value in said.items() if name.endswith("_hide") and value == "true"}
    known = {*_DEFAULTS, *_SWITCHES, *_DEAD, *_OTHERS}
    for name in said:
        if name not in known and not name.endswith("_hide"):
            raise _refused(name, said[name])
    # an empty value counts as none, except that no hidden layers are written so
    link = _DEFAULTS | {name: value for name, value in said.items() if value or name == "networkShape"}
    for name in _DEAD:
        if link.get(name, "false") != "false":
            raise _refused(name, link[name])
    for name, values in _NAMES.items():
        if link[name] not in values:
            raise _refused(name, link[name])
    penalty = _NAMES["regularization"][link["regularization"]]
    rate, batch = _number(link, "regularizationRate"), _number(link, "batchSize")
    source = "dataset" if link["problem"] == "classification" else "regDataset"
    on = [name for switch, name in _SWITCHES.items() if link.get(switch, "false") != "false" and switch not in hidden]
    return {
        "data": _NAMES[source][link[source]],
        "noise": _number(link, "noise"),
        "training": _number(link, "percTrainData"),
        "data_seed": zlib.crc32(said.get("seed", "").encode()),
        "features": ",".join(on),
        "layers": link["networkShape"].replace(",", "-") or "none",
        "activation": link["activation"],
        "init": "zero" if link.get("initZero", "false") != "false" else "uniform",
        "optimiser": "sgd",
        "learning_rate": _number(link, "learningRate"),
        "batch": int(batch) if batch.is_integer() else batch,
        "l1": rate if penalty == "l1" else 0.0,
        "l2": rate if penalty == "l2" else 0.0,
        "l1_prunes": penalty == "l1" and rate > 0,
        "shuffle": "once",
    }


def _number(link: dict[str, str], name: str) -> float:
    try:
        return float(link[name])
    except ValueError:
        raise _refused(name, link[name]) from None


def _refused(name: str, value: str) -> PellucidError:
    return PellucidError(
        _("The browser playground has no setting {name}={value}.").format(name=name, value=value),
        name,
        _("Copy the link again from the playground's address bar."),
    )
