"""Boxes by the interface that every task has: squares and bars on noise, found again."""

import json
import re
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import pellucid as pl
from pellucid.cli import app as cli
from pellucid.data.boxes import Boxed, write_boxes
from pellucid.errors import PellucidError
from pellucid.networks.detection import detection_loss
from pellucid.networks.detector import Detector, DetectorConfig
from pellucid.tasks import recognise
from pellucid.tasks.average_precision import iou
from pellucid.tasks.boxes import BoxesTask
from pellucid.training.options import TrainOptions
from pellucid.training.plan import Plan
from pellucid.training.run import start

CACHE = Path(__file__).parents[2] / "cache"
NAMES = ("square", "bar")


def pictures(n: int, seed: int = 0, height: int = 48, width: int = 64) -> list[Boxed]:
    """On each a bright square, a long blue bar, or both."""
    rng, made = np.random.default_rng(seed), []
    for number in range(n):
        pixels = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
        boxes, classes = [], []
        for kind, (wide, high), colour in ((0, (14, 14), (250, 250, 250)), (1, (20, 8), (40, 40, 250))):
            if number % 3 != kind:
                left, top = rng.integers(width // 2 - wide) + kind * width // 2, rng.integers(height - high)
                pixels[top : top + high, left : left + wide] = colour
                boxes.append([left, top, left + wide, top + high])
                classes.append(kind)
        made.append(Boxed(pixels, np.array(boxes, np.float32), np.array(classes, np.int64)))
    return made


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("boxes") / "set"
    write_boxes(folder, NAMES, pictures(60))
    return folder


@pytest.fixture(scope="module")
def run(source, tmp_path_factory):
    """A run of 60 steps: its folder."""
    folder = tmp_path_factory.mktemp("runs") / "boxes"
    start(str(source), str(folder), TrainOptions(steps=60, evaluations=3, threads=1))
    return folder


@pytest.fixture(scope="module")
def trained(run):
    task = BoxesTask.restore(run)
    return task, task.open_network(run).eval()


@pytest.fixture(scope="module")
def plan(run) -> Plan:
    return Plan.open(run / "plan.json")


@pytest.fixture(scope="module")
def task(run, plan) -> BoxesTask:
    return BoxesTask.restore(run, plan.facts)


def test_is_recognised_by_its_annotations(source, tmp_path):
    kind, why = recognise(str(source), TrainOptions())
    assert kind is BoxesTask
    assert "annotations.json" in why
    assert BoxesTask.recognise(str(tmp_path), TrainOptions()) is None
    assert BoxesTask.recognise(None, TrainOptions()) is None


def test_three_parts_and_what_is_said_of_them(task):
    facts = task.facts()
    assert facts["classes"] == list(NAMES)
    assert facts["train_items"] + facts["held_out_items"] + facts["test_items"] == 60
    assert (facts["picture_size"], task.items) == (64, facts["train_items"])
    assert "60 pictures with 80 boxes of 2 classes" in task.summary()[0]


def test_parts_as_the_folders_say(tmp_path):
    for seed, name in enumerate(("train", "valid")):
        write_boxes(tmp_path / name, NAMES, pictures(40, seed))
    write_boxes(tmp_path / "test", NAMES, [*pictures(6, 2), *pictures(3, 0)])
    facts = BoxesTask.prepare(str(tmp_path), TrainOptions(), tmp_path / "out").facts()
    assert (facts["train_items"], facts["held_out_items"], facts["test_items"]) == (37, 40, 9)
    assert "3 training pictures that are also in the validation or test part were left out." in facts["notes"]


def test_a_part_that_the_folders_lack_is_split_off(tmp_path):
    write_boxes(tmp_path / "train", NAMES, pictures(60))
    write_boxes(tmp_path / "valid", NAMES, pictures(10, 1))
    facts = BoxesTask.prepare(str(tmp_path), TrainOptions(), tmp_path / "out").facts()
    assert facts["held_out_items"] == 10
    assert facts["test_items"] > 5
    assert facts["train_items"] + facts["test_items"] == 60


def test_parts_with_other_categories_are_refused(tmp_path):
    write_boxes(tmp_path / "train", NAMES, pictures(4))
    write_boxes(tmp_path / "test", ("square", "beam"), pictures(4))
    with pytest.raises(PellucidError, match="does not know: beam"):
        BoxesTask.prepare(str(tmp_path), TrainOptions(), tmp_path / "out")


def test_a_size_that_the_grid_does_not_divide_is_refused(source, tmp_path):
    with pytest.raises(PellucidError, match="multiple of 16, and 100 is not") as caught:
        BoxesTask.prepare(str(source), TrainOptions(picture_size=100), tmp_path)
    assert "96 or 112" in caught.value.fix


def test_few_pictures_are_all_trained_on_and_judged_by(tmp_path):
    write_boxes(tmp_path / "set", NAMES, pictures(5))
    task = BoxesTask.prepare(str(tmp_path / "set"), TrainOptions(), tmp_path / "out")
    assert task.judged_on == "the training pictures"
    assert task.baselines().data == "the data it was trained on"
    assert task.facts()["held_out_items"] == 5


def test_batches_go_on_exactly_where_they_were(task, plan):
    batches = task.batches("train", plan)
    for _batch in range(3):
        next(batches)
    position = json.loads(json.dumps(batches.position))
    again = task.batches("train", plan)
    again.position = position
    for _batch in range(5):
        (ours, boxes), (theirs, others) = next(batches), next(again)
        assert torch.equal(ours, theirs)
        assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(boxes, others, strict=True))


def test_no_answer_without_looking_is_better_than_the_simple_one(tmp_path):
    write_boxes(tmp_path / "set", NAMES, pictures(12))
    task = BoxesTask.prepare(str(tmp_path / "set"), TrainOptions(), tmp_path / "out")
    simple = task.baselines().simple
    (pixels, truth), config = next(task.batches("train", SimpleNamespace(batch=12, seed=0))), DetectorConfig(2)
    assert len(pixels) == 12
    boxes = Detector(config, seed=None)._in_pixels  # the answer of a head that says the same everywhere
    for p in (0.001, 0.01, 0.03, 0.1, 0.3):
        logits = torch.logit(torch.full((12, 2, 8, 8), p))
        for size in (8.0, 14.0, 20.0):
            said = torch.tensor([0.0, 0.0, size / 8, size / 8])[:, None, None].expand(12, 4, 8, 8)
            said = torch.cat([said[:, :2], said[:, 2:].log()], 1)
            loss, count = detection_loss(logits, boxes(said), truth, 8)
            assert simple <= loss.item() / count * 1.05  # its box is the median, which is nearly the best


def test_learns_to_find_squares_and_bars(run, trained, task, plan):
    _task, network = trained
    events = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    finished = next(event for event in events if event["event"] == "finished")
    assert finished["missed_precision_at_50"] < 0.3
    metrics = task.metrics(network, plan, whole=True)
    assert metrics["missed_precision"] == pytest.approx(finished["missed_precision"], abs=1e-6)
    assert finished["loss"] < task.baselines().simple / 2


def test_boxes_are_in_the_pictures_own_pixels(trained):
    task, network = trained
    (one,) = pictures(1, seed=9)
    small, large = Image.fromarray(one.pixels), Image.fromarray(one.pixels).resize((640, 480))
    for picture, scale in ((small, 1), (large, 10)):
        (prediction,) = task.predict(network, [picture], least=0.2)
        assert prediction.value[0]["name"] == "bar"
        assert iou(np.array([prediction.value[0]["box"]]), one.boxes * scale).item() > 0.5
        assert all(found["score"] >= 0.2 for found in prediction.value)
        assert task.draw(picture, prediction.value).size == picture.size


def test_reads_a_picture_or_a_folder(trained, source):
    task, network = trained
    assert [path.name for path in task.read(str(source))[:2]] == ["00001.png", "00002.png"]
    (prediction,) = task.predict(network, task.read(str(source / "00003.png")))
    assert prediction.input == str(source / "00003.png")
    assert json.loads(json.dumps(vars(prediction)))["value"] == prediction.value
    with pytest.raises(PellucidError, match="There are no pictures here"):
        task.read(str(source / "nothing"))
    with pytest.raises(PellucidError, match="cannot be read"):
        task.predict(network, task.read(str(source / "annotations.json")))


def test_the_report_counts_what_was_found(trained, task, tmp_path):
    _task, network = trained
    write_boxes(tmp_path / "set", NAMES, pictures(20, 5))
    report = task.evaluate(network, str(tmp_path / "set"))
    assert report.pictures == 20
    assert [score.name for score in report.by_class] == list(NAMES)
    assert [score.boxes for score in report.by_class] == [13, 13]
    assert [sum(row) for row in report.confusion[:2]] == [13, 13]
    assert report.ap <= report.ap50
    assert json.loads(json.dumps(report.json()))["ap50"] == report.ap50
    shown = StringIO()
    Console(file=shown, width=120).print(report)
    assert "20 pictures with 26 boxes" in shown.getvalue()
    own = task.evaluate(network)
    assert own.pictures == task.facts()["test_items"]


def test_why_this_box_is_a_bar_adds_up_to_the_pixels(trained):
    task, network = trained
    picture = Image.fromarray(pictures(1, seed=9)[0].pixels)
    reason = task.explain(network, [picture])
    assert reason.asked == "the logit of bar"
    found = task.predict(network, [picture], least=0.05)[0].value[0]
    assert torch.sigmoid(torch.tensor(reason.value)).item() == pytest.approx(found["score"], abs=1e-5)
    assert reason.parts[0].name.startswith("in the box [")
    assert [part.name for part in reason.parts[1:]] == ["around it"]
    assert abs(reason.residue) < 1e-3
    assert reason.maps["contributions"].shape == (3, 64, 64)
    assert reason.maps["contributions"].sum().item() == pytest.approx(sum(part.amount for part in reason.parts))
    rather = task.explain(network, [picture], "bar", "square")
    row, column = map(int, re.search(r"row (\d+), column (\d+)", rather.notes[0]).groups())
    logits = network(torch.tensor(np.asarray(_boxed(picture)))[None].permute(0, 3, 1, 2) / 255)[0]
    difference = (logits[0, 1, row, column] - logits[0, 0, row, column]).item()
    assert rather.value == pytest.approx(difference, abs=1e-4)
    assert abs(rather.residue) < 1e-3
    assert rather.answer.total == pytest.approx(rather.value, abs=1e-4)
    for value, rather_than, message in (
        ("cat", None, "no such box on this picture: cat"),
        ("bar#99", None, "no such box on this picture: bar#99"),
        ("bar", "cat", "'cat' is no other class"),
        ("bar", "bar", "'bar' is no other class"),
    ):
        with pytest.raises(PellucidError, match=message):
            task.explain(network, [picture], value, rather_than)


def _boxed(picture: Image.Image) -> Image.Image:
    square = Image.new("RGB", (64, 64), (114, 114, 114))
    square.paste(picture)
    return square


def test_the_commands(run, source, tmp_path, capfd):
    picture, drawn = str(source / "00001.png"), tmp_path / "drawn.png"
    assert cli.run(["predict", str(run), picture, "--save", str(drawn)]) == 0
    assert Image.open(drawn).size == (64, 48)
    assert cli.run(["predict", str(run), str(source), "--save", str(drawn)]) == 2
    assert "there are 60" in capfd.readouterr().err
    assert cli.run(["predict", str(run), picture]) == 0
    assert "bar" in capfd.readouterr().out
    assert cli.run(["evaluate", str(run)]) == 0
    assert "average precision" in capfd.readouterr().out
    assert cli.run(["why", str(run), picture]) == 0
    assert "the logit of bar" in capfd.readouterr().out


@pytest.mark.slow
def test_digits_on_photographs(tmp_path):
    """Digits and places that training never saw."""
    source = CACHE / "digit-scenes"
    if not source.exists():
        pytest.skip("run `python tests/fetch.py` first, as `make test-all` does")
    start(str(source), str(tmp_path / "run"), TrainOptions(steps=1500, evaluations=5))
    report = pl.open(tmp_path / "run").evaluate()
    assert report.pictures == 400
    assert report.ap50 >= 0.85
    assert report.ap >= 0.6
