"""The playground's engine: against PyTorch's own loop, against the browser playground's rules, and by its results."""

import json
import math
from itertools import cycle, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils import parameters_to_vector

import pellucid as pl
from pellucid.cli import app
from pellucid.data import toys
from pellucid.errors import PellucidError
from pellucid.experiments.playground import Measured, Playground, Settings
from pellucid.networks import losses

ACTIVATIONS = ("tanh", "relu", "sigmoid", "linear", "leaky_relu")
TASKS = (  # every loss on data that suit it, with both output activations
    {"loss": "squared_error", "data": "spiral"},
    {"loss": "squared_error", "data": "multi-gauss"},
    {"loss": "absolute", "data": "plane"},
    {"loss": "absolute", "data": "circle"},
    {"loss": "cross_entropy", "data": "nearest"},
    {"loss": "binary_cross_entropy", "data": "xor"},
    {"loss": "hinge", "data": "circle"},
    {"loss": "perceptron", "data": "xor"},
)
OPTIMISERS = (  # slow enough that training is not chaotic: there PyTorch would not equal itself from a start 1e-16 away
    {"optimiser": "sgd", "learning_rate": 0.01},
    {"optimiser": "sgd", "learning_rate": 0.003, "momentum": 0.9},
    {"optimiser": "sgd", "learning_rate": 0.001, "momentum": 0.8, "nesterov": True},
    {"optimiser": "rmsprop", "learning_rate": 0.001},
    {"optimiser": "rmsprop", "learning_rate": 0.001, "momentum": 0.5, "beta2": 0.9},
    {"optimiser": "adam", "learning_rate": 0.003},
    {"optimiser": "adamw", "learning_rate": 0.003, "weight_decay": 0.1},
)
PENALTIES = ({}, {"l1": 0.01}, {"l2": 0.01})


def torch_loop(board: Playground, steps: int) -> list[float]:
    """The same training by PyTorch from the board's weights, which it leaves alone; all parameters in one list."""
    chosen = board.settings
    network = board.network()
    weights = [p for p in network.parameters() if p.ndim == 2]
    biases = [p for p in network.parameters() if p.ndim == 1]
    rate = chosen.learning_rate
    momentum = {"momentum": chosen.momentum}
    optimiser = {
        "sgd": lambda: torch.optim.SGD([*weights, *biases], rate, nesterov=chosen.nesterov, **momentum),
        "rmsprop": lambda: torch.optim.RMSprop([*weights, *biases], rate, alpha=chosen.beta2 or 0.99, **momentum),
        "adam": lambda: torch.optim.Adam([*weights, *biases], rate),
        "adamw": lambda: torch.optim.AdamW(
            [{"params": weights, "weight_decay": chosen.weight_decay}, {"params": biases, "weight_decay": 0}], rate
        ),
    }[chosen.optimiser]()
    loss = losses.LOSSES[board.settings.objective(len(board.points.classes))[0]]
    training, _ = board.points.split(chosen.training)
    x_NF = torch.from_numpy(toys.features(training.x, chosen.feature_names))
    y_N = torch.from_numpy(training.y)
    if board.config.outputs > 1:
        y_N = y_N.long()
    elif chosen.loss == "binary_cross_entropy":
        y_N = (y_N > 0).double()
    made, epoch = 0, 0
    while made < steps:
        order = torch.from_numpy(np.random.default_rng([chosen.seed, epoch]).permutation(len(y_N)))
        for batch in order.split(chosen.batch)[: steps - made]:
            optimiser.zero_grad()
            outputs_BK = network(x_NF[batch])
            (loss(outputs_BK, y_N[batch]) / len(batch)).backward()
            for weight in weights:
                weight.grad += chosen.l1 * weight.detach().sign() + chosen.l2 * weight.detach()
            optimiser.step()
            made += 1
        epoch += 1
    return parameters_to_vector(network.parameters()).tolist()


def _mixed() -> list:
    """Every activation with every loss; optimisers and penalties take turns, so that each meets most of the others."""
    turns = zip(cycle(OPTIMISERS), cycle(PENALTIES), strict=False)
    pairs = product(enumerate(ACTIVATIONS), enumerate(TASKS))
    return [
        pytest.param(
            {"activation": activation, **task, **optimiser, **penalty},
            marks=[pytest.mark.slow] if (i + j) % 3 else [],
            id="-".join(map(str, (activation, *task.values(), *optimiser.values(), *penalty))),
        )
        for ((i, activation), (j, task)), (optimiser, penalty) in zip(pairs, turns, strict=False)
    ]


@pytest.mark.parametrize("chosen", _mixed())
def test_a_thousand_steps_equal_the_torch_loop(chosen):
    board = Playground(Settings(layers="5-3", features="x1,x2,sinx1", batch=8, noise=5, **chosen))
    expected = torch_loop(board, 1000)
    board.steps(1000)
    np.testing.assert_allclose(board.weights, expected, rtol=0, atol=1e-12)


def test_the_gradient_is_autograds():
    board = Playground(Settings(data="nearest", features="all", layers="6-5-4", l2=0.1, batch=250))
    network = board.network()
    board.steps(1)
    training, _ = board.points.split(50)
    x_NF = torch.from_numpy(toys.features(training.x, list(toys.FEATURES)))
    (losses.cross_entropy(network(x_NF), torch.from_numpy(training.y).long()) / 250).backward()
    for name, parameter in network.named_parameters():
        penalty = 0.1 * parameter.detach() if parameter.ndim == 2 else 0
        np.testing.assert_allclose(board.gradients()[name], parameter.grad + penalty, rtol=0, atol=1e-14)


# the browser playground's own recipe


def browser(board: Playground, epochs: int) -> np.ndarray:
    """Its rules point by point (github.com/tensorflow/playground, nn.ts and playground.ts); tanh everywhere.

    Derivatives add up until a batch is full, over the end of an epoch too; a weight that L1 takes across zero is dead.
    """
    chosen = board.settings
    weights = [weight.copy() for name, weight in board.parameters().items() if name.endswith("weight")]
    biases = [bias.copy() for name, bias in board.parameters().items() if name.endswith("bias")]
    dead = [np.zeros(weight.shape, bool) for weight in weights]
    sums = [(np.zeros_like(w), np.zeros_like(b)) for w, b in zip(weights, biases, strict=True)]
    training, _ = board.points.split(chosen.training)
    x = toys.features(training.x, chosen.feature_names)
    collected = 0
    for _ in range(epochs):
        for i, (point, target) in enumerate(zip(x, training.y, strict=True)):
            outputs = [point]
            for weight, bias in zip(weights, biases, strict=True):
                outputs.append(np.tanh(weight @ outputs[-1] + bias))
            delta = outputs[-1] - target
            for layer in reversed(range(len(weights))):
                delta = delta * (1 - outputs[layer + 1] ** 2)
                sums[layer][0][:] += np.outer(delta, outputs[layer])
                sums[layer][1][:] += delta
                delta = weights[layer].T @ delta
            collected += 1
            if (i + 1) % chosen.batch == 0:
                for weight, bias, gone, (dw, db) in zip(weights, biases, dead, sums, strict=True):
                    bias -= chosen.rate / collected * db
                    learned = weight - chosen.rate / collected * dw
                    moved = learned - chosen.rate * (chosen.l1 * np.sign(weight) + chosen.l2 * weight)
                    crossed = (learned * moved < 0) & (chosen.l1 > 0)
                    weight[~gone] = np.where(crossed, 0, moved)[~gone]
                    gone |= crossed
                    dw[:], db[:] = 0, 0
                collected = 0
    return np.concatenate([part for pair in zip(weights, biases, strict=True) for part in (pair[0].ravel(), pair[1])])


@pytest.mark.parametrize(
    "penalty", ["", "&regularization=L1&regularizationRate=0.03", "&regularization=L2&regularizationRate=0.1"]
)
@pytest.mark.parametrize("batch", [10, 30])  # 250 points: nothing, or 10 points, are left over
def test_the_browser_playgrounds_recipe(batch, penalty):
    board = Playground(Settings.from_url(f"#batchSize={batch}&noise=20&networkShape=4,2{penalty}"))
    expected = browser(board, 20)
    board.epochs(20)
    np.testing.assert_allclose(board.weights, expected, rtol=0, atol=1e-12)
    assert board.dead.any() == ("L1" in penalty)
    assert not board.weights[board.dead].any()


def test_a_link_of_the_browser_playground():
    link = (
        "https://playground.tensorflow.org/#activation=relu&regularization=L2&batchSize=15&dataset=spiral"
        "&regDataset=reg-gauss&learningRate=0.1&regularizationRate=0.003&noise=25&networkShape=6,5,2&seed=0.17542"
        "&showTestData=true&discretize=false&percTrainData=70&x=true&y=false&xTimesY=true&xSquared=false"
        "&ySquared=true&cosX=false&sinX=true&cosY=false&sinY=false&collectStats=false&tutorial=dp"
        "&problem=classification&initZero=false&hideText=false&sinX_hide=true&playButton_hide=false"
    )
    made = Settings.from_url(link)
    assert made == Settings(
        data="spiral", noise=25, training=70, data_seed=made.data_seed, features="x1,x2sq,x1x2", layers="6-5-2",
        activation="relu", init="uniform", optimiser="sgd", learning_rate=0.1, batch=15, l2=0.003, shuffle="once",
    )  # fmt: skip
    assert made.data_seed == Settings.from_url(link).data_seed != Settings.from_url("#seed=0.17543").data_seed
    plain = Settings(init="uniform", optimiser="sgd", learning_rate=0.03, shuffle="once", data_seed=0)
    assert Settings.from_url("https://playground.tensorflow.org/") == plain
    assert Settings.from_url("#problem=regression&initZero=true&networkShape=").data == "plane"
    assert Settings.from_url("#initZero=true&networkShape=") == Settings(
        init="zero", optimiser="sgd", learning_rate=0.03, shuffle="once", layers="none"
    )


@pytest.mark.parametrize(
    "link",
    [
        "#cosX=true", "#dropout=0.5", "#activation=mish", "#dataset=moons", "#regularization=L3", "#batchSize=many",
        "#batchSize=2.5", "#networkShape=4,x", "#networkShape=4,-2", "#x=false&y=false", "#noise=90",
        "#learningRate=nan",
    ],
)  # fmt: skip
def test_links_that_say_what_does_not_exist(link):
    with pytest.raises(PellucidError):
        Settings.from_url(link)


# results


def epochs_until(below: float, most: int, **chosen) -> list[int | None]:
    """After which epoch the test loss was first below, with each of ten seeds."""
    found = []
    for seed in range(10):
        reached = np.flatnonzero(Playground(Settings(seed=seed, data_seed=seed, **chosen)).epochs(most)[:, 1] < below)
        found.append(int(reached[0]) + 1 if len(reached) else None)
    return found


@pytest.mark.parametrize("recipe", [{"optimiser": "sgd"}, {}], ids=["sgd", "default"])
def test_circle_is_learned_from_every_seed(recipe):
    assert None not in epochs_until(0.02, 200, data="circle", layers="4-2", **recipe)


@pytest.mark.slow
def test_spiral_is_learned_as_often_as_by_the_browsers_recipe():
    spiral = {"data": "spiral", "features": "all", "layers": "8-8"}
    browsers = epochs_until(0.05, 1500, init="uniform", optimiser="sgd", shuffle="once", **spiral)
    same_start = epochs_until(0.05, 1500, init="uniform", optimiser="sgd", **spiral)
    ours = epochs_until(0.05, 1500, **spiral)
    assert None in browsers
    assert same_start.count(None) <= browsers.count(None)
    assert None not in ours


def test_xor_needs_a_hidden_layer():
    without, within = Playground(Settings(data="xor", layers="none")), Playground(Settings(data="xor", layers="4"))
    for board in (without, within):
        board.epochs(100)
    assert without.measure().test_accuracy < 0.8  # a line has three of four squares at best
    assert within.measure().test_accuracy > 0.95


def test_the_plane_by_the_nearest_of_three_points():
    board = Playground(Settings(data="nearest", layers="8"))
    board.epochs(60)
    assert board.measure().test_accuracy > 0.95
    classes = board.surfaces(50)[-3:].argmax(axis=0)
    assert (classes[0, 25], classes[-1, 0], classes[-1, -1]) == (2, 0, 1)  # above, at the left, at the right


def test_perceptron_criterion_is_rosenblatts_rule():
    board = Playground(
        Settings(
            data="gauss", layers="none", loss="perceptron", optimiser="sgd", learning_rate=1.0, batch=1, init="zero"
        )
    )
    training, _ = board.points.split(50)
    w, b = np.zeros(2), 0.0
    for i in np.random.default_rng([0, 0]).permutation(250):
        if training.y[i] * (w @ training.x[i] + b) <= 0:
            w, b = w + training.y[i] * training.x[i], b + training.y[i]
    board.epochs()
    np.testing.assert_allclose(board.weights, [*w, b], atol=1e-12)
    assert board.measure().test_accuracy > 0.98


# looking, changing, saving


@given(data=st.data())
@settings(max_examples=20)
def test_what_is_seen_is_what_the_network_computes(data):
    hidden = data.draw(st.lists(st.integers(1, 8), max_size=6))
    board = Playground(
        Settings(
            layers="-".join(map(str, hidden)) or "none",
            activation=data.draw(st.sampled_from(ACTIVATIONS)),
            features=",".join(data.draw(st.lists(st.sampled_from(list(toys.FEATURES)), min_size=1, unique=True))),
            data=data.draw(st.sampled_from(list(toys.TOYS))),
        )
    )
    board.steps(data.draw(st.integers(0, 60)))
    surfaces, names, network = board.surfaces(7), board.neurons(), board.network()
    assert len(surfaces) == len(names) == len(board.settings.feature_names) + sum(hidden) + board.config.outputs
    x = np.array([[2.0, 4.0]])  # column 4 of -6, -4 .. 6; row 1 from above
    seen = board.activations(x[0])
    np.testing.assert_allclose(surfaces[:, 1, 4], np.concatenate(seen), atol=1e-12)
    value = torch.from_numpy(toys.features(x, board.settings.feature_names))
    for layer, found in zip(network.layers, seen[1:], strict=True):
        value = layer(value)
        np.testing.assert_allclose(value[0].detach(), found, rtol=1e-12, atol=1e-12)


def test_every_number_can_be_asked_why():
    board = Playground(Settings(features="all"))
    board.epochs(5)
    x = toys.features(np.array([[1.0, 2.0]]), list(toys.FEATURES))
    trace = pl.trace(board.network(), torch.from_numpy(x))
    why = trace.why("layers.2:out[0,0]")
    assert why.value == pytest.approx(board.activations(np.array([1.0, 2.0]))[-1][0], abs=1e-12)
    assert abs(why.residue) < 1e-12


def test_neurons_as_formulas():
    board = Playground(Settings(layers="2", features="x1,sinx2"))
    board.weights[:] = [0.5, -1.25, 1e-9, 2, 0.125, -3, 1, -2, 0]
    assert board.formulas() == [
        "layers.0[0] = tanh(0.5 x1 - 1.25 sinx2 + 0.125)",
        "layers.0[1] = tanh(1e-09 x1 + 2 sinx2 - 3)",
        "layers.1[0] = tanh(1 layers.0[0] - 2 layers.0[1] + 0)",
    ]


def test_weights_set_by_hand():
    board = Playground()
    board.set_weight("layers.1.linear.weight[1, 3]", 2.5)
    board.set_weight("layers.2.linear.bias[0]", -1.0)
    assert board.network().layers[1].linear.weight[1, 3] == 2.5
    assert board.weights[-1] == -1.0
    for address in ("layers.1.linear.weight[2,0]", "layers.1.linear.weight[0]", "layers.9.linear.bias[0]", "w", ""):
        with pytest.raises(PellucidError, match="no weight"):
            board.set_weight(address, 1.0)
    with pytest.raises(PellucidError, match="nan"):
        board.set_weight("layers.2.linear.bias[0]", math.nan)


@given(
    before=st.integers(0, 120),
    after=st.integers(1, 60),
    batch=st.integers(1, 300),
    shuffle=st.sampled_from(["epoch", "once"]),
)
@settings(max_examples=25)
def test_saved_and_opened_it_goes_on_exactly(before, after, batch, shuffle):
    board = Playground(Settings(batch=batch, shuffle=shuffle, seed=7, features="x1,sinx2"))
    board.steps(before)
    opened = Playground.from_json(json.loads(json.dumps(board.to_json(), allow_nan=False)))
    assert opened.measure() == board.measure()
    for _ in range(after):  # one by one is the same as at once
        opened.steps(1)
    board.steps(after)
    np.testing.assert_array_equal(opened.weights, board.weights)
    assert opened.to_json() == board.to_json()
    board.reset()
    assert board.to_json() == Playground(board.settings).to_json()


def test_points_of_ones_own():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4))
    y = (x[:, 0] > x[:, 3]).astype(float) + (x[:, 0] > x[:, 3] + 1)
    points = toys.Points(x, y, "classification", ("low", "middle", "high"), ("a", "b", "c", "d", "label"))
    board = Playground(Settings(layers="6"), points)
    assert board.neurons()[:4] == ["a", "b", "c", "d"]
    board.epochs(100)
    assert board.measure().test_accuracy > 0.9
    assert Playground.from_json(json.loads(json.dumps(board.to_json()))).measure() == board.measure()
    with pytest.raises(PellucidError, match="plane"):
        board.surfaces()


def test_settings_change_while_it_learns():
    board = Playground(Settings(optimiser="sgd"))
    board.steps(30)
    before = board.weights.copy()
    board.change(learning_rate=0.0)
    board.steps(5)
    np.testing.assert_array_equal(board.weights, before)
    board.change(learning_rate=0.1, batch=25)
    assert (board.epoch, board.position) == (2, 0)
    board.epochs()
    assert board.updates == 45
    with pytest.raises(PellucidError, match="layers cannot change"):
        board.change(layers="8")


def test_a_run_that_diverges_is_said_and_can_be_saved():
    board = Playground(Settings(data="plane", layers="4", activation="linear", optimiser="sgd", learning_rate=10.0))
    with pytest.raises(PellucidError, match="no longer a number"):
        list(board.play(10_000))
    opened = Playground.from_json(json.loads(json.dumps(board.to_json(), allow_nan=False)))
    np.testing.assert_array_equal(opened.weights, board.weights)


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = app.run(["playground", *arguments])
    return code, *capsys.readouterr()


def test_the_command_prints_what_python_gives(capsys):
    spiral = ("--data", "spiral", "--features", "all", "--layers", "8-8", "--steps", "60", "--every", "1")
    code, printed, _ = run(capsys, *spiral, "--json")
    report = json.loads(printed)
    board = Playground(Settings(data="spiral", features="all", layers="8-8"))
    assert [Measured(**measured) for measured in report["history"]] == list(board.play(60))
    assert Settings(**report["settings"]) == board.settings
    assert report["parameters"] == {name: value.tolist() for name, value in board.parameters().items()}
    code, printed, _ = run(capsys, *spiral)
    assert code == 0
    assert board.formulas()[-1] in printed
    assert f"{board.measure().test_accuracy:.1%}" in printed


def test_the_command_takes_links_and_values(capsys):
    code, printed, _ = run(capsys, "--url", "#problem=regression&networkShape=", "--steps", "100")
    assert code == 0
    assert "layers.0[0] = 0." in printed
    assert "%" not in printed


@pytest.mark.parametrize(
    "arguments",
    [
        ("--layers", "8-0"), ("--features", "x9"), ("--data", "moons"), ("--activation", "gelu"), ("--batch", "0"),
        ("--loss", "hinge", "--data", "plane"), ("--steps", "-1"), ("--every", "0"), ("--momentum", "0.9"),
        ("--url", "#activation=mish"), ("--url", "#", "--seed", "3"), ("--noise", "90"), ("--steps", "many"),
        ("--optimiser", "sgd", "--learning-rate", "100", "--activation", "linear", "--data", "plane"),
    ],
)  # fmt: skip
def test_the_command_refuses(arguments, capsys):
    code, printed, said = run(capsys, *arguments, "--json")
    assert code == 2
    assert not printed
    assert 1 <= len(said.splitlines()) <= 3
    assert "fault" not in said


def test_play_measures_what_was_asked_for():
    board = Playground()
    found = list(board.play(110, every=2))
    assert [(m.epoch, m.steps) for m in found] == [(0, 0), (2, 50), (4, 100), (4, 110)]
    assert (found[-1].training_loss, found[-1].test_loss) == board.losses()
    assert found[-1].test_loss < found[0].test_loss


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"activation": "gelu"}, "Use one of tanh, relu, sigmoid, linear, leaky_relu"),
        ({"loss": "huber"}, "squared_error, absolute, cross_entropy"),
        ({"optimiser": "muon"}, "sgd, rmsprop, adam, adamw"),
        ({"data": "moons"}, "circle, xor"),
        ({"init": "orthogonal"}, "he, xavier"),
        ({"features": "x1,x3"}, "x1sq"),
        ({"features": "x1,x1"}, "each once"),
        ({"features": ""}, "features"),
        ({"layers": "8-0"}, "layers"),
        ({"layers": "65"}, "1 to 64"),
        ({"layers": "-".join(["2"] * 17)}, "up to 16"),
        ({"layers": "many"}, "layers"),
        ({"batch": 0}, "from 1 to 10000"),
        ({"batch": 1.5}, "whole"),
        ({"learning_rate": math.nan}, "learning_rate cannot be nan"),
        ({"learning_rate": -1}, "from 0"),
        ({"training": 100}, "from 1 to 99"),
        ({"noise": True}, "noise cannot be True"),
        ({"optimiser": "adam", "momentum": 0.9}, "momentum does not go together with optimiser adam"),
        ({"optimiser": "sgd", "nesterov": True}, "nesterov does not go together with momentum 0"),
        ({"optimiser": "sgd", "weight_decay": 0.1}, "weight_decay"),
        ({"optimiser": "sgd", "l1_prunes": True}, "l1_prunes"),
        ({"optimiser": "sgd", "l1_prunes": True, "l1": 0.1, "momentum": 0.9}, "l1_prunes"),
        ({"loss": "cross_entropy"}, "does not fit these data"),
        ({"loss": "hinge", "data": "plane"}, "Use one of squared_error, absolute"),
        ({"loss": "squared_error", "data": "nearest"}, "Use one of cross_entropy"),
        ({"loss": "binary_cross_entropy", "output": "tanh"}, "output does not go together"),
    ],
)
def test_refused(chosen, says):
    with pytest.raises(PellucidError, match=says):
        Playground(Settings(**chosen))


@pytest.mark.parametrize(
    "broken", [{}, {"settings": {"depth": 3}}, {"weights": [1.0]}, {"position": 99}, {"dead": [4711]}]
)
def test_no_saved_playground(broken):
    saved = Playground().to_json() | broken if broken else {}
    with pytest.raises(PellucidError, match="no saved playground"):
        Playground.from_json(saved)
