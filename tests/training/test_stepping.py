"""One training step: the loop's own, with every number that can be checked by hand."""

import csv
import json

import numpy as np
import pytest
import torch

import pellucid as pl
from pellucid.cli.app import run
from pellucid.training.journal import read
from pellucid.training.plan import Plan
from runs import Stop, snapshot

PLAIN = {"optimiser": "sgd", "schedule": "constant", "clip": 0.0}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("step") / "plane.csv"
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["length", "width", "price"])
        for length, width in rng.uniform(1, 9, (40, 2)).tolist():
            writer.writerow([length, width, 3 * length - width + 20])
    return path


@pytest.fixture(scope="module")
def trained(table):
    """A small network after 30 steps of plain gradient descent."""
    out = table.parent / "run"
    options = {"target": "price", "layers": "3", "activation": "tanh", "batch": 8, "steps": 30, "learning_rate": 0.05}
    pl.train(table, out, **options, **PLAIN)
    return out


def test_small_step_changes_the_loss_by_minus_eta_times_the_squared_gradient(trained):
    for rate, tolerance in ((1e-2, 5e-2), (1e-3, 5e-3)):
        shown = pl.step(trained, at="start", learning_rate=rate)
        assert shown.descent == pytest.approx(-rate * shown.gradient_norm**2)
        assert shown.change == pytest.approx(shown.descent, rel=tolerance)
        assert shown.first_order == pytest.approx(shown.descent, rel=1e-3)


def test_gradients_equal_finite_differences(trained):
    shown = pl.step(trained, at="start")
    walk_task = shown.walk.task
    plan = Plan.open(trained / "plan.json")
    batch = next(walk_task.batches("train", plan))
    network = walk_task.network(plan).double()
    batch = tuple(x.double() for x in batch)
    for update in shown.updates:
        parameter = dict(network.named_parameters())[update.name]
        for flat in range(parameter.numel()):
            losses = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter.view(-1)[flat] += sign * 1e-5
                    loss, count = walk_task.loss(network, batch)
                    parameter.view(-1)[flat] -= sign * 1e-5
                losses.append(loss.item() / count)
            assert update.gradient.view(-1)[flat].item() == pytest.approx((losses[0] - losses[1]) / 2e-5, abs=2e-6)


def test_one_update_by_hand(trained):
    shown = pl.step(trained, at="start", batch=4)
    update = shown.updates[0]
    torch.testing.assert_close(update.after, update.before - shown.learning_rate * update.gradient)
    answer = shown.why(f'updated("{update.name}[0,1]")')
    assert answer.value == update.after[0, 1].item()
    assert answer.terms.contributions.sum().item() == pytest.approx(answer.value, rel=1e-6)
    gradient = shown.why(f"{update.name}:grad[0,1]")
    assert {term.source for term in gradient.terms[:4]} == {f"example {n}" for n in range(4)}
    assert abs(gradient.residue) <= gradient.budget
    assert shown.why(shown.loss_addresses[0]).value / shown.targets == pytest.approx(shown.loss)


def test_examples_are_in_the_users_units(trained):
    shown = pl.step(trained, at="start", batch=4)
    for example in shown.examples:
        assert example["price"] == pytest.approx(3 * example["length"] - example["width"] + 20, rel=1e-5)
    assert shown.layers[0].address == "network.layers.0.linear:in"
    assert [layer.kind for layer in shown.layers] == ["input", "Linear", "Tanh", "Linear"]


def test_steps_from_the_start_are_the_runs_own(trained):
    journal = list(read(trained / "journal.jsonl", "step"))
    shown = pl.step(trained, at="start")
    for event in journal[:3]:
        assert (shown.number, shown.loss, shown.gradient_norm) == (event["step"], event["loss"], event["gradient_norm"])
        shown = shown.next()
    assert pl.step(trained, at="start", skip=20).loss == journal[20]["loss"]


def test_step_after_the_last_checkpoint_is_the_one_that_the_run_makes_next(table, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(pl.PellucidError):
        pl.train(table, out, progress=Stop(7), target="price", layers="3", dropout=0.2, steps=12, batch=4)
    before = snapshot(out)
    generator, threads = torch.get_rng_state(), torch.get_num_threads()
    shown = pl.step(out)
    assert torch.equal(generator, torch.get_rng_state())
    assert threads == torch.get_num_threads()
    assert snapshot(out) == before
    again = shown.next()
    pl.resume(out)
    losses = [event["loss"] for event in read(out / "journal.jsonl", "step")]
    assert [shown.loss, again.loss] == losses[7:9]
    assert shown.descent is None


def test_a_finished_run_goes_on_at_its_peak(table, tmp_path):
    pl.train(table, tmp_path / "run", target="price", layers="3", steps=10, schedule="stable", learning_rate=0.02)
    shown = pl.step(tmp_path / "run")
    assert shown.number == 10
    assert shown.learning_rate == 0.02
    assert "is over" in shown.notes[0]


def test_momentum_is_compared_to_first_order(table, tmp_path):
    pl.train(table, tmp_path / "run", target="price", layers="0", steps=5, momentum=0.9, l2=0.1, optimiser="sgd")
    shown = pl.step(tmp_path / "run", at="start", skip=2, learning_rate=1e-3)
    assert shown.descent is None
    assert shown.change == pytest.approx(shown.first_order, rel=1e-2)


def test_the_best_model_is_stepped_from_with_a_new_optimiser(trained):
    shown = pl.step(trained, at="best")
    best = pl.open(trained).network.state_dict()
    for update in shown.updates:
        assert torch.equal(update.before, best[update.name])


def test_text_is_summarised_and_its_gradients_name_tokens(tmp_path, capsys):
    text = tmp_path / "poem.txt"
    text.write_text("The quick brown fox jumps over the lazy dog.\n" * 60)
    shape = {"width": 16, "depth": 1, "context": 16, "tokenizer": "bytes", "precision": "fp32"}
    pl.train(text, tmp_path / "run", steps=2, batch=2, accumulation=2, **shape)
    shown = pl.step(tmp_path / "run")
    assert not shown.small
    assert all(set(example["text"]) <= set(text.read_text()) for example in shown.examples)
    found = shown.json()
    assert {layer["address"].split("#")[0] for layer in found["layers"]} >= {"embedding", "blocks.0.attention.qkv"}
    largest = found["largest_gradients"][0]
    assert shown.why(largest["address"]).value == pytest.approx(largest["value"])
    assert run(["step", str(tmp_path / "run"), "--why", "blocks.0.attention.qkv.weight:grad", "--top", "3"]) == 0
    assert "example 0, position" in capsys.readouterr().out
    assert run(["step", str(tmp_path / "run")]) == 0
    assert "largest gradients" in capsys.readouterr().out


def test_command_line(trained, capsys):
    assert run(["step", str(trained), "--at", "start", "--batch", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    weight = found["parameters"][0]
    after = np.array(weight["before"]) - found["learning_rate"] * np.array(weight["gradient"])
    np.testing.assert_allclose(after, weight["after"], rtol=1e-6)
    assert run(["step", str(trained), "--at", "start", "--batch", "4"]) == 0
    page = capsys.readouterr().out
    assert "network.layers.0.linear.weight[2,1]" in page
    assert "−η |∇C|²" in page
    assert run(["step", str(trained), "--why", weight["addresses"]["after"] + "[0,0]"]) == 0
    assert "made by SGD" in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--batch", "0"], ["--skip", "-1"], ["--learning-rate", "0"], ["--seed", "-1"]])
def test_senseless_options_are_refused(trained, capsys, options):
    assert run(["step", str(trained), *options]) == 2
    assert options[0] in capsys.readouterr().err


def test_no_run_is_refused(tmp_path, capsys):
    assert run(["step", str(tmp_path)]) == 2
    assert "There is no run here" in capsys.readouterr().err


def test_the_line_is_saved_in_the_users_units_and_used_by_somebody_else(tmp_path, capsys):
    (tmp_path / "line.csv").write_text("height,weight\n170,60\n160,50\n")
    pl.train(tmp_path / "line.csv", tmp_path / "run", target="weight", layers="0", steps=200)
    assert run(["weights", str(tmp_path / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    weight, bias = (np.array(p["values"]) for p in found["parameters"].values())
    assert (found["inputs"], found["outputs"]) == (["height"], ["weight"])
    np.testing.assert_allclose([weight.item(), bias.item()], [1, -110], rtol=1e-5)
    said = pl.open(tmp_path / "run").predict([{"height": 180.0}])[0].value
    assert (weight @ [180.0] + bias).item() == pytest.approx(said, rel=1e-5)
    assert run(["weights", str(tmp_path / "run")]) == 0
    assert "from height to weight" in capsys.readouterr().out
