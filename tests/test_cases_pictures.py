"""Pictures as users have them: digits by LeNet, textures, faces, and a network of others that answers."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pellucid as pl
from pellucid.training import journal

CACHE = Path(__file__).parents[1] / "cache"
pytestmark = pytest.mark.slow


def found(name: str) -> Path:
    if not (CACHE / name).exists():
        pytest.skip("run `python tests/fetch.py` first, as `make test-all` does")
    return CACHE / name


def finished(folder: Path) -> dict:
    return list(journal.read(folder / "journal.jsonl", "finished"))[-1]


def test_lenet_reads_the_digits_of_mnist(tmp_path):
    """98.5 % of the 10,000 test digits within 6 minutes on 2 cores; on a busy machine by the time of its own."""
    mnist = found("mnist")
    command = [sys.executable, "-m", "pellucid", "train", str(mnist / "train.parquet"), "--target", "label"]
    command += ["--test", str(mnist / "test.parquet"), "--minutes", "20", "--out", str(tmp_path / "run")]
    started = os.times()
    clock = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.PIPE)
    ended = os.times()
    busy = ended.children_user - started.children_user + ended.children_system - started.children_system
    print(f"{busy:.0f} s of one core, {time.perf_counter() - clock:.0f} s by the clock")
    assert busy < 360
    model = pl.open(tmp_path / "run")
    report = model.evaluate()
    assert report.examples == 10_000
    assert report.accuracy >= 0.985
    assert finished(model.folder)["error"] == pytest.approx(1 - report.accuracy)
    seven = next(p for p in model.predict(mnist / "test.parquet")[:50] if p.value == "7")
    why = model.why([model.task.read(str(mnist / "test.parquet"))[0]], value="7", rather_than="1")
    assert seven.probabilities["7"] > 0.5
    assert abs(why.residue) < 1e-4 * abs(why.value)


@pytest.mark.parametrize(
    ("name", "target", "test", "accuracy"),
    [
        ("digits-5000.parquet", "label", None, 0.97),
        ("textures/train", None, "textures/test", 0.75),
        ("faces", None, None, 0.9),
    ],
)
def test_beats_the_commonest_class_and_a_linear_model(name, target, test, accuracy, tmp_path):
    source = found(name)
    model = pl.train(source, tmp_path / "run", target=target, test=test and str(found(test)), minutes=5)
    end = finished(model.folder)
    print(name, end["error"], end["evidence"])
    assert 1 - end["error"] >= accuracy
    assert end["error"] <= min(end["evidence"]["commonest_class"], end["evidence"]["linear_model"])


def test_efficientnet_knows_a_cat_a_cup_and_a_rocket():
    model = pl.open(found("efficientnet-lite0"))
    said = {Path(p.input).stem: p for p in model.predict(found("photographs"))}
    assert said["chelsea"].value in ("Egyptian cat", "tiger cat", "tabby")
    assert said["coffee"].value in ("espresso", "cup", "coffee mug")
    assert said["rocket"].value in ("missile", "projectile", "space shuttle")
    why = model.why(CACHE / "photographs" / "coffee.png", value="espresso", rather_than="cup")
    assert abs(why.residue) < 1e-3 * abs(why.value)
    assert why.maps["contributions"].shape == (3, 224, 224)
