"""The cases of the systems table from one neuron to the multilayer network (S1 to S7, S9 to S11)."""

import json
import shutil

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import pellucid as pl
from pellucid.data import toys
from pellucid.networks.dense import Dense, DenseConfig

WEATHER, PRICE, COMPANY, THRESHOLD = 8.0, 4.0, 4.0, 8.0
EVENINGS = [(w, p, c, "yes" if 8 * w + 4 * p + 4 * c > 8 else "no") for w in (0, 1) for p in (0, 1) for c in (0, 1)]


def table(path, names, rows):
    path.write_text("\n".join([",".join(names), *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


# S1


def test_a_perceptron_weighs_and_decides():
    network = Dense(DenseConfig(3, 1, output_activation="step"))
    with torch.no_grad():
        network.layers[0].linear.weight.copy_(torch.tensor([[WEATHER, PRICE, COMPANY]]))
        network.layers[0].threshold.fill_(THRESHOLD)
    for inputs, total, decision in (((1, 1, 1), 16, 1), ((1, 1, 0), 12, 1), ((0, 1, 0), 4, 0)):
        trace = pl.trace(network, torch.tensor([inputs], dtype=torch.float32))
        assert trace[":out"].item() == decision
        weighed = trace.why("layers.0.linear[0,0]")
        assert weighed.value == total == sum(term.contribution for term in weighed.terms)
        assert sorted((t.coefficient, t.value) for t in weighed.terms) == sorted(
            zip((WEATHER, PRICE, COMPANY), inputs, strict=True)
        )
        answer = trace.why(":out[0,0]")
        assert answer.kind == "decision"
        assert answer.margin == pytest.approx(total - THRESHOLD)


def test_a_perceptron_learns_weights_that_decide_alike(tmp_path):
    source = table(tmp_path / "evenings.csv", ("weather", "price", "company", "go"), EVENINGS)
    model = pl.train(source, tmp_path / "run", target="go", loss="perceptron", scaling="none")
    assert model.evaluate(source).accuracy == 1
    found = model.why("weather=1,price=1,company=0")
    assert found.value > found.threshold
    assert found.value == sum(part.amount for part in found.parts)  # whole numbers, exactly
    assert model.why("weather=0,price=1,company=0").value <= found.threshold


# S2


def test_two_points_give_the_line_exactly(tmp_path):
    source = table(tmp_path / "people.csv", ("height", "weight"), [(170, 60), (160, 50)])
    model = pl.train(source, tmp_path / "run", target="weight", layers="0")
    found = model.why("height=175")
    assert found.value == pytest.approx(65, abs=1e-4)
    assert found.parts[0].coefficient == pytest.approx(1, abs=1e-6)
    assert sum(found.constants.values()) == pytest.approx(-110, abs=1e-4)
    # two files are all that somebody else needs
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tmp_path / "run" / name, tmp_path / name)
    assert pl.open(tmp_path).predict("height=180")[0].value == pytest.approx(70, abs=1e-4)


def test_a_third_point_gives_the_line_of_least_squares(tmp_path):
    points = [(170, 60), (160, 50), (180, 75)]
    source = table(tmp_path / "people.csv", ("height", "weight"), points)
    model = pl.train(source, tmp_path / "run", target="weight", layers="0")
    slope, intercept = np.polyfit(*np.array(points, float).T, 1)
    found = model.why("height=175")
    assert found.parts[0].coefficient == pytest.approx(slope, rel=1e-5)
    assert sum(found.constants.values()) == pytest.approx(intercept, rel=1e-5)


# S3


def test_linear_layers_are_one_layer_until_something_bends_between_them():
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for activation, same in (("linear", True), ("tanh", False)):
        deep = Dense(DenseConfig(5, 3, hidden=(7, 6), activation=activation), seed=1).double()
        whole = Dense(DenseConfig(5, 3)).double()
        with torch.no_grad():
            zero = deep(torch.zeros(1, 5, dtype=torch.float64))
            columns = deep(torch.eye(5, dtype=torch.float64)) - zero
            whole.layers[0].linear.weight.copy_(columns.T)
            whole.layers[0].linear.bias.copy_(zero[0])
            assert torch.allclose(deep(x), whole(x), atol=1e-12) == same


# S4


def test_dead_neurons_are_found_counted_and_brought_back():
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(500, 4, generator=draw)  # all positive: a neuron whose weights are negative never speaks
    network = Dense(DenseConfig(4, 1, hidden=(32,), bias=False, initialisation="normal"), seed=0)
    (found,) = pl.silent_neurons(network, x)
    weights = network.layers[0].linear.weight
    certainly = [n for n in range(32) if (weights[n] <= 0).all()]
    assert certainly
    assert set(certainly) <= set(found.neurons)
    assert found.of == 32
    with torch.no_grad():
        lifted = Dense(DenseConfig(4, 1, hidden=(32,), initialisation="normal"), seed=0)
        lifted.layers[0].linear.weight.copy_(weights)
        lifted.layers[0].linear.bias.fill_(10.0)
    assert pl.silent_neurons(lifted, x)[0].neurons == ()
    leaky = Dense(DenseConfig(4, 1, hidden=(32,), bias=False, activation="leaky_relu"), seed=0)
    leaky(x).sum().backward()
    assert (leaky.layers[0].linear.weight.grad.abs().sum(1) > 0).all()
    network(x).sum().backward()
    assert [n for n, g in enumerate(weights.grad) if not g.any()] == list(found.neurons)


# S5, with `pellucid sweep`: see tests/experiments/test_sweep.py


@pytest.mark.parametrize(("layers", "fits"), [("0", False), ("4", True)])
def test_xor_needs_a_hidden_layer(layers, fits, tmp_path):
    toys.make("xor", seed=0).save(tmp_path / "xor.csv")
    model = pl.train(
        tmp_path / "xor.csv", tmp_path / "run", target="label", layers=layers, activation="tanh", steps=1000
    )
    assert (model.evaluate().accuracy > 0.95) == fits


# S7


def test_softmax_regression_reads_digits_as_well_as_scikit_learn(tmp_path):
    digits = load_digits()
    names = [f"p{n}" for n in range(64)]
    rows = [[*x.astype(int), f"d{y}"] for x, y in zip(digits.data, digits.target, strict=True)]
    draw = np.random.default_rng(0).permutation(len(rows))
    train = table(tmp_path / "train.csv", [*names, "digit"], [rows[n] for n in draw[:1200]])
    test = table(tmp_path / "test.csv", [*names, "digit"], [rows[n] for n in draw[1200:]])
    model = pl.train(train, tmp_path / "run", target="digit", layers="0", test=str(test), steps=1500)
    theirs = LogisticRegression(max_iter=2000).fit(digits.data[draw[:1200]] / 16, digits.target[draw[:1200]])
    score = theirs.score(digits.data[draw[1200:]] / 16, digits.target[draw[1200:]])
    assert model.evaluate().accuracy >= score - 0.01
    digit = {name: float(x) for name, x in zip(names, rows[draw[1200]][:64], strict=True)}
    said = model.predict([digit])[0].value
    found = model.why([digit], value=said, rather_than="d1" if said != "d1" else "d7")
    assert abs(found.residue) < 1e-3


# S9


def test_the_plane_is_coloured_by_the_nearest_of_three_points(tmp_path):
    points = toys.make("nearest", seed=0)
    points.save(tmp_path / "near.csv")
    model = pl.train(tmp_path / "near.csv", tmp_path / "run", target="label", layers="8", steps=1500)
    assert model.evaluate().accuracy > 0.95
    # what every neuron does can be looked at
    x1, x2 = points.x[0]
    trace = model.trace(f"x1={x1},x2={x2}")
    for n in range(8):
        answer = trace.why(f"layers.0.linear[0,{n}]")
        assert answer.value == pytest.approx(answer.total, abs=1e-5)


# S10


def test_scores_are_scaled_to_the_range(tmp_path):
    scores = [90, 80, 70, 60, 50]
    source = table(tmp_path / "scores.csv", ("score", "grade"), [(s, 3 * s + 1) for s in scores])
    model = pl.train(source, tmp_path / "run", target="grade", layers="0", scaling="minmax")
    scaled = model.network.inputs(torch.tensor([[float(s)] for s in scores]))
    assert scaled.flatten().tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert model.predict("score=75")[0].value == pytest.approx(226, abs=0.01)


def test_the_same_net_learns_with_scaling_and_not_without(tmp_path):
    draw = np.random.default_rng(0)
    age, income = draw.uniform(20, 60, 300), draw.uniform(1e4, 1e5, 300)
    rows = zip(age.round(1), income.round(0), (age / 10 + income / 1e4).round(3), strict=True)
    source = table(tmp_path / "t.csv", ("age", "income", "score"), rows)
    options = {"target": "score", "layers": "8", "steps": 400}
    with_it = pl.train(source, tmp_path / "with", **options).evaluate()
    without = pl.train(source, tmp_path / "without", scaling="none", **options).evaluate()
    assert with_it.rmse < 0.5 * without.rmse


@pytest.mark.parametrize("norm", ["layer", "rms", "batch"])
def test_every_norm_trains(norm, tmp_path):
    toys.make("circle", seed=0).save(tmp_path / "circle.csv")
    model = pl.train(tmp_path / "circle.csv", tmp_path / "run", target="label", layers="8-8", norm=norm, steps=400)
    assert model.evaluate().accuracy > 0.95
    found = model.why("x1=1,x2=0.5")
    assert abs(found.residue) < 1e-4


# S8 and S11


def test_an_overfitted_net_does_better_on_unseen_rows_when_it_is_held_back(tmp_path):
    draw = np.random.default_rng(0)
    x = draw.normal(0, 1, (460, 20))
    y = np.where(x[:, 0] + x[:, 1] + draw.normal(0, 0.8, 460) > 0, "up", "down")
    names = [*(f"x{n}" for n in range(20)), "side"]
    rows = [[*(f"{v:.4f}" for v in values), side] for values, side in zip(x, y, strict=True)]
    train = table(tmp_path / "train.csv", names, rows[:60])
    test = table(tmp_path / "test.csv", names, rows[60:])
    options = {"target": "side", "layers": "64-64", "steps": 1500, "test": str(test), "validation": str(train)}

    def unseen(name, **more):
        return pl.train(train, tmp_path / name, **(options | more)).evaluate().loss

    overfitted = unseen("plain", patience=0)
    assert overfitted > 1.0  # nats: worse than guessing evenly, ln 2
    assert unseen("l2", l2=0.05, patience=0) < 0.7 * overfitted
    assert unseen("dropout", dropout=0.5, patience=0) < 0.9 * overfitted
    held_out = table(tmp_path / "held.csv", names, rows[300:])
    assert unseen("stopped", validation=str(held_out), patience=3) < 0.7 * overfitted


def test_all_zero_weights_never_learn_and_every_other_start_does(tmp_path):
    toys.make("circle", seed=0).save(tmp_path / "circle.csv")
    options = {"target": "label", "layers": "8", "steps": 400}
    zero = pl.train(tmp_path / "circle.csv", tmp_path / "zero", init="zero", **options)
    assert zero.evaluate().accuracy < 0.7
    verdicts = [json.loads(line) for line in (tmp_path / "zero" / "journal.jsonl").read_text().splitlines()]
    assert verdicts[-1]["verdict"] == "learned nothing yet"
    assert pl.train(tmp_path / "circle.csv", tmp_path / "he", init="he", **options).evaluate().accuracy > 0.9
