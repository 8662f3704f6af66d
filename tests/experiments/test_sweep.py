"""Trying a range: how many layers, how many neurons; as a table, a file and a picture."""

import csv
import json

import matplotlib.image
import numpy as np
import pytest

import pellucid as pl
from pellucid.cli.app import run
from pellucid.data import toys
from pellucid.errors import StoppedError
from runs import Stop, snapshot

QUICK = {"target": "label", "learning_rate": 0.03, "evaluations": 4, "patience": 0}


@pytest.fixture(scope="module")
def xor(tmp_path_factory):
    path = tmp_path_factory.mktemp("sweep") / "xor.csv"
    toys.make("xor", samples=200).save(path)
    return path


@pytest.fixture(scope="module")
def swept(xor):
    """No hidden layer, and one of eight neurons, on what no line separates."""
    return pl.sweep(xor, xor.parent / "swept", {"layers": ["0", "8"]}, 2, steps=400, **QUICK)


def test_no_hidden_layer_fails_at_xor_and_one_fits_it(swept):
    none, one = swept.settings
    assert none.mean("training") > 0.25
    assert one.mean("training") < 0.05
    assert one.mean("test") < 0.15
    assert (swept.state(none), swept.state(one)) == ("underfits", "")
    assert swept.best is swept.smallest is one
    assert "layers=0 underfits" in swept.sentence(none)


def test_every_training_is_a_run_of_its_own(swept):
    for trained in swept.runs:
        model = pl.open(swept.folder / trained.folder)
        assert 1 - model.evaluate().accuracy == pytest.approx(trained.test["error"])
        assert model.weights().total == trained.parameters


def test_results_are_saved_as_json_csv_and_pictures(swept):
    found = json.loads((swept.folder / "results.json").read_text())
    assert found["best"] == "layers=8"
    assert [s["state"] for s in found["settings"]] == ["underfits", ""]
    with (swept.folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["layers"], row["seed"]) for row in rows] == [("0", "0"), ("0", "1"), ("8", "0"), ("8", "1")]
    errors = [float(row["best_error"]) for row in rows if row["layers"] == "8"]
    assert found["settings"][1]["best"]["mean"] == pytest.approx(np.mean(errors))
    assert found["settings"][1]["best"]["spread"] == pytest.approx(np.std(errors, ddof=1))
    for name in ("sweep.png", "surfaces.png"):
        assert min(matplotlib.image.imread(swept.folder / name).shape[:2]) > 300


def test_what_is_finished_is_not_made_again(swept, xor, capsys):
    runs = {name: what for name, what in snapshot(swept.folder).items() if "seed=" in name}
    again = pl.sweep(xor, swept.folder, {"layers": ["0", "8"]}, 2, steps=400, made=_fail, **QUICK)
    assert again.json() == swept.json()
    assert run(["sweep", "--out", str(swept.folder)]) == 0
    assert "← best" in capsys.readouterr().out
    assert {name: what for name, what in snapshot(swept.folder).items() if "seed=" in name} == runs


def _fail(*what):
    raise AssertionError("made again")


def test_ctrl_c_loses_nothing(xor, tmp_path):
    options = {"steps": 40, **QUICK}
    with pytest.raises(StoppedError, match="0 of 4"):
        pl.sweep(xor, tmp_path / "cut", {"layers": ["0", "2"]}, 2, progress=Stop(15), **options)
    made = []
    cut = pl.sweep(None, tmp_path / "cut", made=lambda *what: made.append(what[1:]))
    whole = pl.sweep(xor, tmp_path / "whole", {"layers": ["0", "2"]}, 2, **options)
    assert made == [(n, 4) for n in (1, 2, 3, 4)]
    for one, other in zip(cut.runs, whole.runs, strict=True):
        assert (one.training, one.unseen, one.best, one.test) == (other.training, other.unseen, other.best, other.test)


def test_values_and_seeds_can_be_added(xor, tmp_path):
    options = {"steps": 5, **QUICK}
    pl.sweep(xor, tmp_path / "s", {"layers": ["0"]}, 1, **options)
    made = []
    found = pl.sweep(
        xor, tmp_path / "s", {"layers": ["0", "2"]}, 2, made=lambda t, *n: made.append(t.folder), **options
    )
    assert made == ["layers=0/seed=1", "layers=2/seed=0", "layers=2/seed=1"]
    assert len(found.runs) == 4


def test_a_training_that_diverges_is_told_and_the_others_go_on(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=40)
    (tmp_path / "line.csv").write_text("a,b\n" + "".join(f"{v},{3 * v}\n" for v in x))
    options = {"target": "b", "optimiser": "sgd", "layers": "0", "steps": 300, "evaluations": 3}
    found = pl.sweep(tmp_path / "line.csv", tmp_path / "s", {"learning_rate": [0.1, 50.0]}, 1, **options)
    good, bad = found.settings
    assert found.state(bad) == "diverged"
    assert found.best is good
    assert found.figure == "rmse"
    assert not list(found.folder.glob("surfaces.*"))


def test_two_options_are_all_combined(xor, tmp_path, capsys):
    arguments = ["sweep", str(xor), "--out", str(tmp_path / "s"), "--target", "label", "--steps", "5", "--seeds", "1"]
    assert run([*arguments, "--vary", "layers=0,2-2", "--vary", "activation=relu,tanh", "--json"]) == 0
    captured = capsys.readouterr()
    names = [s["name"] for s in json.loads(captured.out)["settings"]]
    assert names[1:3] == ["layers=0, activation=tanh", "layers=2-2, activation=relu"]
    assert captured.err.count("on unseen data") == 4


def test_a_text_is_compared_by_its_loss(tmp_path):
    text = tmp_path / "poem.txt"
    text.write_text("The quick brown fox jumps over the lazy dog.\n" * 60)
    shape = {"depth": 1, "context": 16, "tokenizer": "bytes", "batch": 4, "steps": 4, "evaluations": 2}
    found = pl.sweep(text, tmp_path / "s", {"width": ["16", "32"]}, 1, **shape)
    assert found.figure == "loss"
    assert "bits_per_byte" in found.runs[0].test


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--vary", "neurons=3"], "neurons"),
        (["--vary", "seed=1,2"], "--seeds"),
        (["--vary", "layers"], "no range"),
        (["--vary", "layers=0,"], "cannot be ''"),
        (["--vary", "layers=0,0"], "twice"),
        (["--vary", "layers=4,many"], "--layers many"),
        (["--vary", "activation=relu,cosine"], "cosine"),
        (["--vary", "loss=cross_entropy,best"], "best"),
        (["--vary", "learning_rate=0.1,fast"], "fast"),
        (["--vary", "learning_rate=0.1,-1"], "-1"),
        (["--vary", "optimiser=adam,newton"], "newton"),
        (["--vary", "width=8,16"], "--width"),
        (["--vary", "layers=0,2", "--layers", "3"], "at once"),
        (["--vary", "layers=0,2", "--seeds", "0"], "--seeds"),
        ([], "nothing to try"),
    ],
)
def test_bad_ranges_are_refused_before_anything_is_trained(xor, tmp_path, capsys, arguments, said):
    out = tmp_path / "s"
    assert run(["sweep", str(xor), "--target", "label", "--out", str(out), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_other_folders_are_refused(swept, xor, tmp_path, capsys):
    (tmp_path / "letter.txt").write_text("Dear")
    arguments = ["sweep", str(xor), "--target", "label", "--vary", "layers=0,2", "--out"]
    assert run([*arguments, str(tmp_path)]) == 2
    assert "no sweep" in capsys.readouterr().err
    assert run([*arguments, str(swept.folder)]) == 2
    assert "Another sweep" in capsys.readouterr().err
    assert run(["sweep", "--out", str(tmp_path)]) == 2
    assert "There is no sweep here" in capsys.readouterr().err


@pytest.mark.slow
def test_two_hidden_layers_fit_the_spiral(tmp_path):
    toys.make("spiral").save(tmp_path / "spiral.csv")
    options = {"target": "label", "learning_rate": 0.01, "steps": 4000, "patience": 0, "batch": 16}
    options["optimiser"] = (
        "adam"  # the default for more parameters than rows decays weights, which a spiral needs large
    )
    found = pl.sweep(tmp_path / "spiral.csv", tmp_path / "s", {"layers": ["0", "2", "16-16"]}, 2, **options)
    line, few, two = found.settings
    assert found.state(line) == found.state(few) == "underfits"
    assert two.mean("test") < 0.06
    assert found.best is two


@pytest.mark.slow
def test_too_many_neurons_overfit_noisy_points(tmp_path):
    toys.make("circle", noise=50, samples=300).save(tmp_path / "noisy.csv")
    options = {"target": "label", "learning_rate": 0.01, "steps": 2000, "patience": 0, "batch": 32}
    found = pl.sweep(tmp_path / "noisy.csv", tmp_path / "s", {"layers": ["0", "16", "128-128"]}, 2, **options)
    assert [found.state(setting) for setting in found.settings] == ["underfits", "", "overfits"]
    assert found.best is found.settings[1]
