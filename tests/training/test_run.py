"""Runs from start to end on a real text: exact resumption, nothing lost, nothing left behind, plans to the letter."""

import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch

import pellucid as pl
from pellucid.training import journal
from pellucid.training.progress import Progress
from runs import Stop, digest, snapshot

TINY = {"width": 32, "depth": 2, "heads": 2, "context": 32, "vocab": 300, "batch": 4, "threads": 1}


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    """Six topics of the Python language reference, about 60 kB."""
    path = tmp_path_factory.mktemp("text") / "topics.txt"
    path.write_text(
        "\n".join(topics[name] for name in ("compound", "exprlists", "lambda", "naming", "objects", "import"))
    )
    return path


def models(folder: Path) -> tuple[str, str]:
    """The bytes of the best and of the last model."""
    return digest(folder / "model.safetensors"), digest(folder / "checkpoints" / "last" / "model.safetensors")


def losses(folder: Path) -> list[tuple]:
    events = journal.read(folder / "journal.jsonl")
    return [
        (event["event"], event["step"], event["loss"]) for event in events if event["event"] in ("step", "evaluation")
    ]


@pytest.fixture(scope="module")
def straight(text, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "straight"
    pl.train(text, out, steps=24, evaluations=4, dropout=0.1, accumulation=2, seed=3, **TINY)
    return out


def test_one_seed_gives_one_result(text, straight, tmp_path):
    pl.train(text, tmp_path / "again", steps=24, evaluations=4, dropout=0.1, accumulation=2, seed=3, **TINY)
    assert models(tmp_path / "again") == models(straight)
    assert losses(tmp_path / "again") == losses(straight)
    pl.train(text, tmp_path / "other", steps=24, evaluations=4, dropout=0.1, accumulation=2, seed=4, **TINY)
    assert models(tmp_path / "other") != models(straight)


@pytest.mark.parametrize("at", [1, 6, 7, 12, 23])
def test_stopped_and_resumed_gives_the_same_bytes(text, straight, tmp_path, at):
    out = tmp_path / "run"
    with pytest.raises(pl.PellucidError, match="everything is saved") as caught:
        pl.train(text, out, steps=24, evaluations=4, dropout=0.1, accumulation=2, seed=3, progress=Stop(at), **TINY)
    assert caught.value.exit_code == 130
    assert f"--resume {out}" in caught.value.fix
    assert len([entry for entry in losses(out) if entry[0] == "step"]) == at
    pl.open(out)  # what there is so far can be used
    torch.manual_seed(99)  # whatever else the process drew meanwhile
    pl.resume(out)
    assert models(out) == models(straight)
    assert losses(out) == losses(straight)


def test_resumed_twice_with_adamw_and_cosine(text, tmp_path):
    options = {"steps": 15, "evaluations": 3, "optimiser": "adamw", "schedule": "cosine", **TINY}
    pl.train(text, tmp_path / "straight", **options)
    with pytest.raises(pl.PellucidError):
        pl.train(text, tmp_path / "run", progress=Stop(4, signal.SIGTERM), **options)
    with pytest.raises(pl.PellucidError):
        pl.resume(tmp_path / "run", progress=Stop(11))
    pl.resume(tmp_path / "run")
    assert models(tmp_path / "run") == models(tmp_path / "straight")
    assert losses(tmp_path / "run") == losses(tmp_path / "straight")


def test_the_journal_is_cut_back_to_the_checkpoint(text, straight, tmp_path):
    """Steps made after the last checkpoint, by a process that was then killed, are made again and written once."""
    out = tmp_path / "run"
    with pytest.raises(pl.PellucidError):
        pl.train(text, out, steps=24, evaluations=4, dropout=0.1, accumulation=2, seed=3, progress=Stop(13), **TINY)
    with (out / "journal.jsonl").open("a") as file:
        file.write('{"event": "step", "step": 13, "loss": 1.0}\n{"event": "step", "st')
    pl.resume(out)
    assert losses(out) == losses(straight)


def test_a_plan_gives_the_same_bytes_again(text, straight, tmp_path):
    pl.train(text, tmp_path / "again", plan=str(straight / "plan.json"), vocab=TINY["vocab"])
    assert models(tmp_path / "again") == models(straight)


def test_an_early_decay_is_written_into_the_plan_and_followed_again(text, tmp_path):
    class SlowMachine(Progress):
        """Makes the run believe that a quarter of the time had been promised."""

        def started(self, plan, task, step):
            plan.budget_seconds = plan.forecast["training_seconds"] / 4

    out = tmp_path / "slow"
    options = {"steps": 60, "evaluations": 2, **TINY}
    pl.train(text, out, progress=SlowMachine(), **options)
    plan = json.loads((out / "plan.json").read_text())
    assert plan["events"], "the clock fell behind, and the plan does not say so"
    event = plan["events"][-1]
    steps = [entry for entry in losses(out) if entry[0] == "step"]
    assert len(steps) == event["steps"] < 60
    assert [e["event"] for e in journal.read(out / "journal.jsonl", "early decay")] == ["early decay"] * len(
        plan["events"]
    )
    rates = [e["rate"] for e in journal.read(out / "journal.jsonl", "step")]
    assert rates[event["step"] :] == sorted(rates[event["step"] :], reverse=True)
    # the first step of a decay is still at the full rate: on a busy machine there may be no second one
    assert rates[-1] < rates[event["step"] - 1] or event["steps"] == event["step"] + 1
    hurried = tmp_path / "hurried.json"
    hurried.write_text(json.dumps(plan | {"budget_seconds": 1e-3}))  # no machine is as fast as that
    pl.train(text, tmp_path / "again", plan=str(hurried), vocab=TINY["vocab"])
    assert models(tmp_path / "again") == models(out)


def test_early_stopping_keeps_the_best_model(tmp_path):
    path = tmp_path / "short.txt"
    path.write_text(topics["lambda"] + topics["with"][:2000])
    options = {**TINY, "learning_rate": 0.05, "decay": 0.0, "dropout": 0.0, "weight_decay": 0.0}
    model = pl.train(path, tmp_path / "run", steps=400, evaluations=40, patience=3, **options)
    events = list(journal.read(tmp_path / "run" / "journal.jsonl"))
    stopped = next(event for event in events if event["event"] == "stopped early")
    assert stopped["step"] < 400
    evaluations = {event["step"]: event["bits_per_byte"] for event in events if event["event"] == "evaluation"}
    assert min(evaluations, key=evaluations.get) == stopped["best_step"] == stopped["step"] - 30
    finished = events[-1]
    assert finished["event"] == "finished"
    assert finished["best_step"] == stopped["best_step"]
    assert model.folder == tmp_path / "run"


def test_an_existing_run_is_never_overwritten(text, straight):
    before = snapshot(straight.parent)
    with pytest.raises(pl.PellucidError, match="not overwritten") as caught:
        pl.train(text, straight, steps=2, **TINY)
    assert "--resume" in caught.value.fix
    assert snapshot(straight.parent) == before


def test_a_finished_run_says_so(straight):
    before = snapshot(straight)
    with pytest.raises(pl.PellucidError, match="finished"):
        pl.resume(straight)
    assert snapshot(straight) == before


def test_planning_leaves_nothing_behind(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = pl.plan(text, minutes=0.1, threads=1)
    assert plan.steps > 0
    assert plan.forecast["memory_bytes"] > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"context": 100_000}, "--context"),
        ({"width": 30, "heads": 4}, "--heads"),
        ({"width": 24, "heads": 8}, "--heads"),
        ({"tokenizer": "nowhere.json"}, "nowhere.json"),
        ({"start_from": "nowhere"}, "nowhere"),
        ({"plan": "nowhere.json"}, "nowhere.json"),
        ({"validation": "nowhere.txt"}, "nowhere.txt"),
        ({"text": "column"}, "column"),
    ],
)
def test_refused_options_leave_nothing_behind(text, tmp_path, options, named):
    with pytest.raises(pl.PellucidError) as caught:
        pl.train(text, tmp_path / "run", steps=2, **{"threads": 1, **options})
    assert named in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_damaged_runs_are_refused_and_left_as_they_are(straight, text, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(pl.PellucidError):
        pl.train(text, out, steps=24, evaluations=4, progress=Stop(7), **TINY)
    whole = tmp_path / "whole"
    shutil.copytree(out, whole)
    for damage in ("journal.jsonl", "checkpoints/last/model.safetensors", "checkpoints/last/optimiser.safetensors"):
        shutil.rmtree(out)
        shutil.copytree(whole, out)
        content = (out / damage).read_bytes()
        (out / damage).write_bytes(content[: len(content) // 2])
        before = snapshot(out)
        with pytest.raises(pl.PellucidError) as caught:
            pl.resume(out)
        assert damage.split("/")[-1] in str(caught.value)
        assert snapshot(out) == before


def test_weights_that_are_not_finite_are_never_saved(text, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(pl.PellucidError, match="not a finite number") as caught:
        pl.train(text, out, steps=200, learning_rate=1e30, embedding_rate=1e30, clip=1e30, warmup=0.0, **TINY)
    assert "step" in caught.value.where
    last = out / "checkpoints" / "last" / "model.safetensors"
    if last.exists():
        from safetensors.torch import load_file

        assert all(torch.isfinite(tensor).all() for tensor in load_file(last).values())


def test_going_on_from_a_model_keeps_its_shape_and_tokenizer(text, straight, tmp_path):
    model = pl.train(text, tmp_path / "more", steps=4, evaluations=1, start_from=str(straight), threads=1)
    assert model.network.config.d_model == 32
    assert digest(tmp_path / "more" / "tokenizer.json") == digest(straight / "tokenizer.json")
    first = next(iter(journal.read(tmp_path / "more" / "journal.jsonl", "step")))
    start = next(iter(journal.read(straight / "journal.jsonl", "step")))
    assert first["loss"] < 0.9 * start["loss"], "it began anew"


@pytest.mark.slow
def test_killed_twenty_times_it_ends_as_if_undisturbed(text, tmp_path):
    """kill -9 at moments spread over the wall time, many inside a save; what is left resumes to the same bytes."""
    options = ["--steps", "150", "--evaluations", "6", "--save-seconds", "0", "--dropout", "0.1", "--seed", "3"]
    for name, value in TINY.items():
        options += [f"--{name}", str(value)]
    command = [sys.executable, "-m", "pellucid", "train"]
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "killed"
    subprocess.run([*command, str(text), "--out", str(undisturbed), *options], check=True, capture_output=True)
    started = (undisturbed / "plan.json").stat().st_mtime
    a_step = ((undisturbed / "journal.jsonl").stat().st_mtime - started) / 150

    arguments = [str(text), "--out", str(out), "--plan", str(undisturbed / "plan.json"), "--vocab", "300"]
    moments, saves, errors = random.Random(0), 0, tmp_path / "errors"
    for kill in range(1, 21):
        with errors.open("wb") as file:
            process = subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL, stderr=file)
        while _steps(out) < 7 * kill:  # of 150 steps: spread evenly over the run, whatever else the machine does
            assert not _ended(process, 0.005), errors.read_text()
        assert not _ended(process, 2 * a_step * moments.random()), errors.read_text()
        process.kill()
        process.wait()
        last = out / "checkpoints" / "last"
        saves += any(last.with_name(last.name + suffix).exists() for suffix in (".new", ".previous"))
        arguments = ["--resume", str(out)]
    subprocess.run([*command, *arguments], check=True, capture_output=True)
    assert saves >= 5, f"only {saves} of the kills fell into a save"
    assert models(out) == models(undisturbed)
    assert losses(out) == losses(undisturbed)


def _ended(process: subprocess.Popen, seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _steps(out: Path) -> int:
    """How many steps the journal tells of."""
    try:
        content = (out / "journal.jsonl").read_bytes()
    except OSError:
        return 0
    return content.count(b'"event": "step"')
