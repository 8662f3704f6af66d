"""Tables on the command line: what goes wrong gets one clear message, what is not known is said."""

import json
import re
import shutil
import signal

import numpy as np
import pytest

import pellucid as pl
from pellucid.cli import app as cli
from pellucid.data import tables
from runs import snapshot

MANY = [f"measurement number {n}" for n in range(30)]  # a row of them is longer than a file's name may be


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A table with holes and a category, one with many columns, and a run of each."""
    folder = tmp_path_factory.mktemp("workshop")
    draw = np.random.default_rng(0)
    rows = ["age,colour,city,answer"]
    for n in range(60):
        age, colour = draw.normal(40, 9), "red" if n % 3 else "blue"
        rows.append(f"{age:.1f},{colour},{'' if n % 11 == 0 else 'Rome'},{'yes' if age > 40 else 'no'}")
    (folder / "people.csv").write_text("\n".join(rows) + "\n")
    wide = [",".join([*MANY, "y"])] + [",".join(map(str, row)) for row in draw.normal(size=(40, 31)).round(3)]
    (folder / "wide.csv").write_text("\n".join(wide) + "\n")
    (folder / "only.csv").write_text("answer\n" + "yes\nno\n" * 20)
    (folder / "pictures").mkdir()
    pl.train(folder / "people.csv", folder / "people", target="answer", steps=4)
    pl.train(folder / "wide.csv", folder / "wide", target="y", steps=4)
    return folder


@pytest.fixture
def pellucid(workshop, monkeypatch, capsys):
    monkeypatch.chdir(workshop)

    def run(*arguments):
        code = cli.run(list(arguments))
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("train pictures --target answer --out new", "this is none.*pictures"),
        ("train only.csv --target answer --out new", "no column beside answer"),
        ("train people.csv --target answer --columns answer --out new", "no column beside answer"),
        ("train people.csv --target answer --columns age,size --out new", "There is no column size"),
        ("train people.csv --target answer --size 1M --out new", "only one network"),
        ("train people.csv --target answer --from people --out new", "--from means nothing"),
        ("train people.csv --target answer --optimiser sgd --weight-decay 0.1 --out new", "no weight decay"),
        ("predict people missing.csv", "There is no such file"),
        ("predict people pictures", "This folder is not a table"),
        ("predict people age=1,age=2,colour=red,city=Rome", "named twice"),
        ("predict people people.csv --save nowhere/a.csv", "cannot be written: No such file or directory"),
        ("evaluate people people.csv --text colour", "--text"),
        ("evaluate people --show probabilities", "--show"),
        ("why wide people.csv --rather-than no", "y is a number"),
    ],
)
def test_a_slip_is_refused(pellucid, workshop, command, says):
    before = snapshot(workshop)
    code, _out, error = pellucid(*command.split())
    assert code == 2
    assert 1 <= len(error.splitlines()) <= 3
    assert re.search(says, error, re.DOTALL), error
    assert snapshot(workshop) == before


def test_a_row_may_be_longer_than_the_name_of_a_file(pellucid):
    row = ",".join(f"{name}=0.5" for name in MANY)
    assert pellucid("predict", "wide", row)[0] == 0
    assert pellucid("why", "wide", row)[0] == 0


def test_what_training_never_saw_is_said(pellucid):
    row = "age=30,colour=green,city="
    code, out, error = pellucid("predict", "people", row)
    assert (code, len(out.splitlines())) == (0, 1)
    assert "colour: green has no input of its own" in error
    _code, out, _error = pellucid("predict", "people", row, "--json")
    assert json.loads(out)["notes"] == ["colour: green has no input of its own and counts as nothing."]
    _code, out, error = pellucid("predict", "people", "age=,colour=red,city=Rome", "--json")
    assert "age is missing, as in no training row" in error
    _code, out, _error = pellucid("predict", "people", "age=30,colour=red,city=Rome", "--json")
    assert "notes" not in json.loads(out)
    _code, out, _error = pellucid("why", "people", row)
    assert "green has no input" in out
    assert "(missing)" in out


def test_why_says_which_row_it_explains(pellucid):
    assert "the first of 60 rows" in pellucid("why", "people", "people.csv")[1]


def test_reports_have_no_holes(pellucid, workshop):
    (workshop / "one.csv").write_text("age,colour,city,answer\n50,red,Rome,yes\n")
    _code, out, _error = pellucid("evaluate", "people", "one.csv")
    assert "nan" not in out
    assert "true class below, said class across" in out.splitlines()
    assert "null" in pellucid("evaluate", "people", "one.csv", "--json")[1]


def test_the_plan_speaks_of_rows(pellucid):
    _code, out, _error = pellucid("train", "people.csv", "--target", "answer", "--steps", "4", "--dry-run")
    assert "embedding" not in out
    assert "all 9 held-out rows each time" in " ".join(out.split())
    assert "6 steps a pass over the rows" in " ".join(out.split())


@pytest.mark.parametrize(
    ("file", "change", "command"),
    [
        ("config.json", {"pellucid": "a table"}, "predict"),
        ("config.json", {"pellucid": {"task": "table"}}, "predict"),
        ("config.json", {"pellucid": {"task": "table", "encoding": [], "loss": "hinge"}}, "predict"),
        ("config.json", {"pellucid": {"task": "pictures"}}, "predict"),
        ("plan.json", {"facts": {}}, "evaluate"),
        ("plan.json", {"facts": None}, "evaluate"),
        ("plan.json", {"task": "pictures"}, "step"),
    ],
)
def test_a_damaged_run_is_refused(pellucid, workshop, tmp_path, file, change, command):
    shutil.copytree(workshop / "people", tmp_path / "run")
    path = tmp_path / "run" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    before = snapshot(tmp_path)
    code, _out, error = pellucid(
        command, str(tmp_path / "run"), *["age=1,colour=red,city=Rome"] * (command == "predict")
    )
    assert code == 2, error
    assert "Traceback" not in error
    assert snapshot(tmp_path) == before


def test_columns_and_network_must_fit(pellucid, workshop, tmp_path):
    shutil.copytree(workshop / "people", tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    content = json.loads(path.read_text())
    content["pellucid"]["encoding"]["inputs"].pop()
    path.write_text(json.dumps(content))
    code, _out, error = pellucid("predict", str(tmp_path / "run"), "age=1,colour=red,city=Rome")
    assert code == 2
    assert "columns do not fit" in error


def test_data_that_are_gone_are_missed(pellucid, workshop, tmp_path):
    shutil.copytree(workshop / "people", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "data")
    for command in (("evaluate", str(tmp_path / "run")), ("train", "--resume", str(tmp_path / "run"))):
        code, _out, error = pellucid(*command)
        assert code == 2
        assert "There is no train.safetensors here." in error
    assert pellucid("predict", str(tmp_path / "run"), "age=1,colour=red,city=Rome")[0] == 0


def test_a_finished_run_names_what_its_task_can_do(pellucid):
    code, _out, error = pellucid("train", "--resume", "people")
    assert code == 2
    assert "--from" not in error


def test_ctrl_c_that_a_library_turns_into_its_own_error_is_still_ctrl_c(pellucid, monkeypatch):
    def interrupted(*_arguments, **_options):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("cannot load module more than once per process") from None

    monkeypatch.setattr(tables, "read", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    code, _out, error = pellucid("train", "people.csv", "--target", "answer", "--out", "new")
    assert (code, error) == (130, "Stopped.\n")
    assert signal.getsignal(signal.SIGINT) is handler
