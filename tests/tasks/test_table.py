"""Tables: recognised, trained by the loop, judged, predicted, explained; and what cannot be used is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris, make_friedman1

import pellucid as pl
from pellucid.cli import app as cli
from pellucid.tasks import recognise
from pellucid.training.options import TrainOptions
from runs import Stop, digest, snapshot

PEOPLE = 120
MEASURES = ("sepal length", "sepal width", "petal length", "petal width")


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Rows with numbers of very different sizes, a category, and missing values."""
    draw = np.random.default_rng(0)
    height, sex = draw.normal(170, 10, PEOPLE), draw.choice(["F", "M"], PEOPLE)
    income = draw.normal(40_000, 9_000, PEOPLE)
    weight = 0.9 * height - 95 + 8 * (sex == "M") + 1e-4 * income + draw.normal(0, 1, PEOPLE)
    path = tmp_path_factory.mktemp("people") / "people.csv"
    rows = [
        f"{h:.1f},{s},{'' if n % 10 == 0 else f'{i:.0f}'},{w:.2f}"
        for n, (h, s, i, w) in enumerate(zip(height, sex, income, weight, strict=True))
    ]
    path.write_text("height,sex,income,weight\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def trained(people, tmp_path_factory):
    return pl.train(people, tmp_path_factory.mktemp("runs") / "people", target="weight", steps=600, layers="8")


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    iris = load_iris()
    path = tmp_path_factory.mktemp("iris") / "iris.csv"
    rows = [[*map(str, x), iris.target_names[k]] for x, k in zip(iris.data, iris.target, strict=True)]
    path.write_text("\n".join(",".join(row) for row in [[*MEASURES, "species"], *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def classified(flowers, tmp_path_factory):
    return pl.train(flowers, tmp_path_factory.mktemp("runs") / "iris", target="species", steps=600, evaluations=5)


@pytest.mark.parametrize(
    ("options", "task", "said"),
    [
        ({"target": "weight"}, "table", "weight is a number"),
        ({"target": "sex"}, "table", "sex is a category"),
        ({"task": "table", "target": "sex"}, "table", "as given"),
        ({}, "table", "a table"),
        ({"text": "sex"}, "text", "predict the next token"),
    ],
)
def test_the_task_is_recognised_and_why_is_said(people, options, task, said):
    found, why = recognise(str(people), TrainOptions(**options))
    assert found.name == task
    assert said in why


def test_numbers_are_predicted_in_the_users_units(trained, people):
    report = trained.evaluate()
    assert report.name == "weight"
    assert report.r2 > 0.8
    assert 0.5 < report.rmse < 4
    row = {"height": 180.0, "sex": "M", "income": 40_000.0}
    (answer,) = trained.predict([row])
    assert answer.input == row
    assert answer.value == pytest.approx(0.9 * 180 - 95 + 8 + 4, abs=3)
    assert answer.probabilities is None
    assert trained.predict("height=180,sex=M,income=40000")[0].value == answer.value
    assert trained.predict(json.dumps(row))[0].value == answer.value
    assert len(trained.predict(people)) == PEOPLE


def test_why_is_the_sum_of_the_columns(trained):
    row = {"height": 180.0, "sex": "M", "income": None}
    found = trained.why([row])
    assert [part.name for part in found.parts] == ["height", "sex", "income"]
    assert [part.given for part in found.parts] == [180.0, "M", "(missing)"]
    assert found.value == pytest.approx(trained.predict([row])[0].value, rel=1e-5)
    assert found.value == pytest.approx(sum(p.amount for p in found.parts) + sum(found.constants.values()), rel=1e-5)
    assert abs(found.residue) < 1e-3
    # a small step in centimetres changes the weight by the slope that is shown
    near = trained.predict([{**row, "height": 180.001}])[0].value - found.value
    assert near / 0.001 == pytest.approx(found.parts[0].coefficient, rel=0.1)


def test_classes_have_probabilities_and_a_reason(classified):
    report = classified.evaluate()
    assert report.examples == 21
    assert report.accuracy > 0.85
    assert [score.examples for score in report.by_class] == [sum(row) for row in report.confusion]
    row = {"sepal length": 6.3, "sepal width": 3.3, "petal length": 6.0, "petal width": 2.5}
    (answer,) = classified.predict([row])
    assert answer.value == "virginica"
    assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-6)
    found = classified.why([row], rather_than="setosa")
    odds = np.log(answer.probabilities["virginica"] / answer.probabilities["setosa"])
    assert found.value == pytest.approx(odds, rel=1e-3)
    assert abs(found.residue) < 1e-4 * max(abs(part.amount) for part in found.parts)
    assert classified.why([row], value="setosa", rather_than="virginica").value == pytest.approx(-found.value)
    with pytest.raises(pl.PellucidError, match="no class 'rose'"):
        classified.why([row], value="rose")


def test_any_number_inside_can_be_asked(classified):
    trace = classified.trace([{"sepal length": 6.3, "sepal width": 3.3, "petal length": 6.0, "petal width": 2.5}])
    answer = trace.why("layers.0.linear[0,3]")
    assert answer.value == pytest.approx(answer.total, rel=1e-5)


def test_two_files_are_a_model(trained, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(trained.folder / name, tmp_path / name)
    alone = pl.open(tmp_path)
    row = "height=165,sex=F,income=30000"
    assert alone.predict(row)[0].value == trained.predict(row)[0].value
    with pytest.raises(pl.PellucidError, match="no test data"):
        alone.evaluate()


def test_an_interrupted_run_goes_on_bit_for_bit(flowers, tmp_path):
    options = {"target": "species", "steps": 60, "evaluations": 4, "layers": "6", "dropout": 0.1, "batch": 7}
    pl.train(flowers, tmp_path / "whole", **options)
    with pytest.raises(pl.PellucidError, match="Stopped at step 23"):
        pl.train(flowers, tmp_path / "parts", progress=Stop(23), **options)
    pl.resume(tmp_path / "parts")
    assert digest(tmp_path / "whole" / "model.safetensors") == digest(tmp_path / "parts" / "model.safetensors")


def test_a_plan_is_followed_to_the_letter(flowers, tmp_path):
    pl.train(flowers, tmp_path / "first", target="species", minutes=0.02)
    again = pl.train(flowers, tmp_path / "again", target="species", plan=str(tmp_path / "first" / "plan.json"))
    assert digest(tmp_path / "first" / "model.safetensors") == digest(again.folder / "model.safetensors")


def test_a_test_table_of_ones_own_is_what_is_judged_on(flowers, tmp_path):
    lines = flowers.read_text().splitlines()
    draw = np.random.default_rng(1).permutation(150)
    for name, rows in (("train.csv", draw[:100]), ("test.csv", draw[100:])):
        (tmp_path / name).write_text("\n".join([lines[0], *(lines[1 + row] for row in rows)]) + "\n")
    model = pl.train(
        tmp_path / "train.csv", tmp_path / "run", target="species", test=str(tmp_path / "test.csv"), steps=200
    )
    assert model.evaluate().examples == 50
    assert model.evaluate(tmp_path / "test.csv") == model.evaluate()


def test_rare_classes_count_as_much_when_asked(tmp_path):
    draw = np.random.default_rng(0)
    x = np.r_[draw.normal(0, 1, 190), draw.normal(1.5, 1, 10)]
    lines = [f"{value:.3f},{'rare' if n >= 190 else 'common'}" for n, value in enumerate(x)]
    (tmp_path / "t.csv").write_text("x,class\n" + "\n".join(lines) + "\n")
    options = {"target": "class", "layers": "0", "steps": 300, "validation": str(tmp_path / "t.csv")}
    plain = pl.train(tmp_path / "t.csv", tmp_path / "plain", **options).evaluate(tmp_path / "t.csv")
    even = pl.train(tmp_path / "t.csv", tmp_path / "even", class_weights="balanced", **options).evaluate(
        tmp_path / "t.csv"
    )
    assert even.by_class[1].recall > 0.6 > plain.by_class[1].recall


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "hinge", "perceptron"])
def test_every_loss_for_classes_separates_what_can_be_separated(loss, tmp_path):
    draw = np.random.default_rng(0)
    points = draw.normal(0, 1, (80, 2))
    points += 0.5 * np.sign(points.sum(1, keepdims=True))
    lines = [f"{a:.3f},{b:.3f},{'up' if a + b > 0 else 'down'}" for a, b in points]
    (tmp_path / "t.csv").write_text("a,b,side\n" + "\n".join(lines) + "\n")
    model = pl.train(tmp_path / "t.csv", tmp_path / "run", target="side", loss=loss, layers="0", steps=500)
    assert model.evaluate(tmp_path / "t.csv").accuracy == 1
    (answer,) = model.predict("a=2,b=1")
    assert answer.value == "up"
    assert (answer.probabilities is None) == (loss in ("hinge", "perceptron"))
    found = model.why("a=2,b=1")
    assert found.value > (found.threshold or 0)
    assert abs(found.residue) < 1e-4


@pytest.mark.parametrize("optimiser", ["sgd", "rmsprop", "adam", "adamw"])
def test_every_optimiser_finds_the_line(optimiser, tmp_path):
    x = np.linspace(0, 1, 40)
    (tmp_path / "t.csv").write_text("x,y\n" + "\n".join(f"{a:.4f},{3 * a - 1:.5f}" for a in x) + "\n")
    model = pl.train(
        tmp_path / "t.csv",
        tmp_path / optimiser,
        target="y",
        layers="0",
        steps=800,
        optimiser=optimiser,
        schedule="stable",
    )
    assert model.evaluate(tmp_path / "t.csv").rmse < 0.01


SLIPS = [
    ([], "Which column is to be predicted"),
    (["--target", "spezies"], "Did you mean species"),
    (["--target", "species", "--layers", "3-x"], "cannot be read"),
    (["--target", "species", "--layers", "3-0"], "cannot have 0 neurons"),
    (["--target", "species", "--activation", "rleu"], "no activation 'rleu'"),
    (["--target", "species", "--init", "best"], "no initialisation 'best'"),
    (["--target", "species", "--loss", "hinge"], "tells two classes apart"),
    (["--target", "species", "--loss", "huber"], "no loss 'huber'"),
    (["--target", "species", "--columns", "petal"], "no column petal"),
    (["--target", "species", "--family", "gpt2"], "means nothing to the task table"),
    (["--target", "species", "--validation", "none.csv"], "no such file"),
    (["--target", "sepal length", "--columns", "sepal width", "--test", "{folder}/other.csv"], "lacks columns"),
]


@pytest.mark.parametrize(("arguments", "said"), SLIPS, ids=[said for _arguments, said in SLIPS])
def test_a_slip_gets_one_clear_message_and_leaves_nothing(flowers, tmp_path, capfd, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.csv").write_text("sepal length,b\n1,2\n2,3\n")
    before = snapshot(tmp_path)
    arguments = [argument.format(folder=tmp_path) for argument in arguments]
    assert cli.run(["train", str(flowers), "--out", "new", *arguments]) == 2
    error = capfd.readouterr().err
    assert said in error
    assert len(error.splitlines()) <= 3
    assert snapshot(tmp_path) == before


TABLES = [
    ("", "is empty"),
    ("a,b\n", "no rows"),
    ("a,b\n1,2\n2,2\n3,2\n", "is 2 in every row"),
    ("a,b\n1,2\n2,nan\n", "no number to learn from"),
    ("a,b\n1,2\n2,inf\n", "no number to learn from"),
    ("a,b\n1,2\ninf,3\n4,5\n", "no number to learn from"),
    ("a,b\n1,x\n2,x\n3,y\n4,x\n5,x\n6,x\n", "Only one example"),
    ("a,b\n1,2\n1,2,3\n", "columns"),
]


@pytest.mark.parametrize(("content", "said"), TABLES, ids=[said for _content, said in TABLES])
def test_a_table_that_cannot_be_learned_from_is_refused(content, said, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text(content)
    before = snapshot(tmp_path)
    assert cli.run(["train", "t.csv", "--target", "b", "--out", "new"]) == 2
    assert said in capfd.readouterr().err
    assert snapshot(tmp_path) == before


def test_predict_reads_a_table_and_writes_one(classified, flowers, tmp_path, capfd):
    run, out = str(classified.folder), tmp_path / "answers.csv"
    assert cli.run(["predict", run, str(flowers), "--save", str(out)]) == 0
    head, first, *_rest = out.read_text().splitlines()
    assert head == ("sepal length,sepal width,petal length,petal width,prediction,p(setosa),p(versicolor),p(virginica)")
    assert first.split(",")[4] == "setosa"
    capfd.readouterr()
    assert cli.run(["predict", run, str(flowers), "--json"]) == 0
    answers = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert len(answers) == 150
    assert answers[0]["value"] == "setosa"
    for slip, said in ((("petal width=1",), "lacks columns"), (("what",), "neither a table's file nor a row")):
        assert cli.run(["predict", run, *slip]) == 2
        assert said in capfd.readouterr().err
    assert cli.run(["generate", run, "x"]) == 2
    assert "does not write text" in capfd.readouterr().err


def test_why_on_the_command_line(classified, capfd, tmp_path):
    run = str(classified.folder)
    row = "sepal length=6.3,sepal width=3.3,petal length=6.0,petal width=2.5"
    assert cli.run(["why", run, row, "--rather-than", "versicolor", "--save", str(tmp_path / "why.html")]) == 0
    out = capfd.readouterr().out
    assert "virginica rather than versicolor" in out
    assert "petal width" in out
    assert "<html" in (tmp_path / "why.html").read_text()[:200].lower()
    assert cli.run(["why", run, row, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    total = sum(part["amount"] for part in found["parts"]) + sum(found["constants"].values())
    assert total + found["residue"] == pytest.approx(found["value"])
    assert cli.run(["why", run, row, "--about", "layers.0.linear[0,3]"]) == 0
    assert cli.run(["why", run, row, "--about", "layers.9"]) == 2


def test_the_report_shows_who_is_taken_for_whom(classified, capfd):
    assert cli.run(["evaluate", str(classified.folder)]) == 0
    out = capfd.readouterr().out
    for word in ("precision", "recall", "setosa", "versicolor", "true class below"):
        assert word in out


def test_gradients_reach_every_weight(flowers, tmp_path):
    """The plan's network, its loss and its batches: what the loop is given is what is trained."""
    plan = pl.plan(flowers, target="species", layers="5-4", activation="tanh")
    found, _why = recognise(str(flowers), TrainOptions(target="species"))
    task = found.prepare(str(flowers), TrainOptions(target="species"), tmp_path)
    network = task.network(plan)
    loss, n = task.loss(network, next(task.batches("train", plan)))
    loss.backward()
    assert n == plan.batch
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in network.parameters())
    assert torch.isfinite(loss)


def test_weights_decay_where_rows_are_held_out(tmp_path):
    """Friedman's function with noise and five columns that say nothing: hidden weights that fade learn it better."""
    x, y = make_friedman1(400, 10, noise=1.0, random_state=0)
    path = tmp_path / "friedman.csv"
    rows = [[f"x{n}" for n in range(10)] + ["y"], *np.c_[x, y].round(4).astype(str).tolist()]
    path.write_text("\n".join(map(",".join, rows)) + "\n")
    ours = pl.train(path, tmp_path / "ours", target="y", steps=3000)
    without = pl.train(path, tmp_path / "without", target="y", steps=3000, weight_decay=0.0)
    assert ours.evaluate().rmse < 0.8 * without.evaluate().rmse
    line = pl.train(path, tmp_path / "line", target="y", steps=5, layers="0")
    assert json.loads((line.folder / "plan.json").read_text())["weight_decay"] == 0


@pytest.mark.parametrize("scaling", ["standard", "minmax"])
def test_a_line_is_found_by_absolute_errors_too(scaling, tmp_path):
    """Their gradient does not shrink near the best line: only a learning rate that falls comes to rest there."""
    rows = [f"{n / 10:.1f},{100 + 3 * n + n % 2}" for n in range(60)]
    (tmp_path / "line.csv").write_text("x,y\n" + "\n".join(rows) + "\n")
    options = {"target": "y", "layers": "0", "loss": "absolute", "scaling": scaling, "steps": 1500}
    assert pl.train(tmp_path / "line.csv", tmp_path / "run", **options).evaluate().mae < 1.5
