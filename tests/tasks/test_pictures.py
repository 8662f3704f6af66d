"""Pictures: what the task recognises, reads, trains on and answers; the bytes of a resumed run; what it refuses."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import pellucid as pl
from pellucid.tasks import recognise
from pellucid.training import journal
from pellucid.training.options import TrainOptions
from runs import Stop, digest, snapshot

SMALL = "conv 4 3 padding=1, relu, max 2; conv 8 3, relu, average all; dense 2"
OPTIONS = {"network": SMALL, "steps": 60, "evaluations": 3, "threads": 1}


@pytest.fixture(autouse=True)
def _measured_elsewhere(monkeypatch):
    """The plan's timing is tested elsewhere, and takes a second and a half each time."""
    monkeypatch.setattr("pellucid.training.run.seconds_per_step", lambda task, plan: 0.01)


def drawn(kind: str, seed: int, size: int = 12, colours: bool = False) -> Image.Image:
    """Noise with bright lines across or down."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 60, (size, size, 3) if colours else (size, size)).astype(np.uint8)
    line = int(generator.integers(2, size - 2))
    pixels[(slice(line, line + 2), slice(None)) if kind == "across" else (slice(None), slice(line, line + 2))] = 220
    return Image.fromarray(pixels)


def folder_of(path: Path, n: int = 60, **settings) -> Path:
    for k, kind in enumerate(("across", "down")):
        (path / kind).mkdir(parents=True)
        for i in range(n):
            drawn(kind, 1000 * k + i, **settings).save(path / kind / f"{i:03}.png")
    return path


@pytest.fixture(scope="module")
def lines(tmp_path_factory) -> Path:
    return folder_of(tmp_path_factory.mktemp("pictures") / "lines")


@pytest.fixture(scope="module")
def trained(lines, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pellucid.training.run.seconds_per_step", lambda task, plan: 0.01)
        out = tmp_path_factory.mktemp("runs") / "lines"
        return pl.train(lines, out, **OPTIONS | {"steps": 300})


def parquet(path: Path, n: int = 40) -> Path:
    rows = []
    for k, kind in enumerate(("across", "down")):
        for i in range(n):
            file = path.parent / "one.png"
            drawn(kind, 1000 * k + i).save(file)
            rows.append({"image": {"bytes": file.read_bytes(), "path": None}, "kind": kind})
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_recognises_folders_of_classes_and_tables_with_pictures(lines, tmp_path):
    kind, why = recognise(str(lines), TrainOptions())
    assert kind.name == "pictures"
    assert "a folder for each class" in why
    table = parquet(tmp_path / "lines.parquet")
    assert recognise(str(table), TrainOptions(target="kind"))[0].name == "pictures"
    (tmp_path / "rows.csv").write_text("a,b\n" + "\n".join(f"{n},{n % 2}" for n in range(40)))
    assert recognise(str(tmp_path / "rows.csv"), TrainOptions(target="b"))[0].name == "table"
    with pytest.raises(pl.PellucidError, match="means nothing to the task pictures"):
        recognise(str(lines), TrainOptions(layers="16-8"))


def test_learns_what_a_linear_model_does_not(trained):
    report = trained.evaluate()
    assert report.accuracy >= 0.9
    assert report.examples == 18
    assert [score.name for score in report.by_class] == ["across", "down"]
    finished = list(journal.read(trained.folder / "journal.jsonl", "finished"))[-1]
    assert finished["error"] == pytest.approx(1 - report.accuracy)
    assert finished["evidence"]["commonest_class"] == pytest.approx(0.5, abs=0.01)
    assert finished["evidence"]["linear_model"] > finished["error"]


def test_predicts_one_picture_a_folder_a_table_and_pictures_in_memory(trained, lines, tmp_path):
    one = trained.predict(lines / "across" / "000.png")
    assert [p.value for p in one] == ["across"]
    assert sum(one[0].probabilities.values()) == pytest.approx(1, abs=1e-6)
    whole = trained.predict(lines)
    assert len(whole) == 120
    assert sum(Path(p.input).parts[0] == p.value for p in whole) > 108
    from_table = trained.predict(parquet(tmp_path / "lines.parquet"))
    assert [p.value for p in from_table[:40]] == [p.value for p in whole[:40]]
    assert trained.predict([drawn("across", 0)])[0].probabilities == pytest.approx(one[0].probabilities)
    larger = tmp_path / "larger.png"
    drawn("across", 5).resize((48, 48), Image.Resampling.NEAREST).save(larger)
    assert trained.predict(larger)[0].value == "across"


def test_evaluates_other_pictures_with_their_classes(trained, lines):
    report = trained.evaluate(lines)
    assert report.examples == 120
    assert np.array(report.confusion).sum(1).tolist() == [60, 60]


def test_the_saved_network_is_given_pixels_and_scales_them_itself(trained, lines):
    reopened = pl.open(trained.folder)
    pixels = torch.from_numpy(np.array(drawn("down", 1003)))[None, None].float()
    train = torch.cat([part.flatten() for part in _train_pixels(trained.folder)]).double()
    scaling = reopened.network.inputs
    assert scaling.shift.item() == pytest.approx(train.mean().item(), rel=1e-5)
    assert scaling.scale.item() == pytest.approx(train.std(unbiased=False).item(), rel=1e-5)
    logits = reopened.network.network((pixels - scaling.shift) / scaling.scale)
    torch.testing.assert_close(reopened.network(pixels), logits)
    torch.testing.assert_close(trained.network(pixels), logits)


def _train_pixels(folder: Path) -> list[torch.Tensor]:
    from safetensors.torch import load_file

    return list(load_file(folder / "data" / "train.safetensors")["x"].float())


def test_why_one_class_rather_than_another_adds_up_to_the_pixels(trained, lines):
    path = lines / "down" / "003.png"
    found = trained.why(path, value="down", rather_than="across")
    pixels = torch.from_numpy(np.array(Image.open(path)))[None, None].float()
    logits = trained.network(pixels)[0]
    assert found.value == pytest.approx((logits[1] - logits[0]).item(), abs=1e-4)
    assert abs(found.residue) < 1e-4 * max(1.0, abs(found.value))
    amounts = found.maps["contributions"]
    assert amounts.shape == (1, 12, 12)
    assert amounts.sum().item() == pytest.approx(sum(part.amount for part in found.parts), abs=1e-4)
    opposite = trained.why(path, value="across", rather_than="down")
    assert opposite.value == pytest.approx(-found.value, abs=1e-5)
    with pytest.raises(pl.PellucidError, match="no class"):
        trained.why(path, value="slanted")


@pytest.mark.parametrize("at", [7, 20, 33])
def test_stopped_and_resumed_gives_the_same_bytes(lines, tmp_path, at):
    """With pictures moved about, and a norm that keeps running statistics."""
    options = OPTIONS | {"network": "conv 4 3, batch, relu; residual 8 stride=2; average all, dense 2"}
    pl.train(lines, tmp_path / "straight", **options)
    with pytest.raises(pl.PellucidError, match="everything is saved"):
        pl.train(lines, tmp_path / "run", progress=Stop(at), **options)
    torch.manual_seed(99)
    pl.resume(tmp_path / "run")
    for file in ("model.safetensors", "checkpoints/last/model.safetensors", "checkpoints/last/optimiser.safetensors"):
        assert digest(tmp_path / "run" / file) == digest(tmp_path / "straight" / file)


def test_a_test_set_of_its_own_and_the_parts_of_a_folder(lines, tmp_path):
    test = folder_of(tmp_path / "more", n=10)
    for i in range(10):  # new ones: those above are also among the ones to train on
        drawn("down", 5000 + i).save(test / "down" / f"{i:03}.png")
    model = pl.train(lines, tmp_path / "run", test=str(test), **OPTIONS | {"steps": 3})
    rows = json.loads((model.folder / "plan.json").read_text())["facts"]["rows"]
    assert rows["test"] == 20
    assert rows["train"] + rows["validation"] == 110  # ten of them stand in the test set
    assert model.evaluate().examples == 20


def test_class_weights_make_rare_classes_count_as_much(tmp_path):
    source = folder_of(tmp_path / "lines", n=60, colours=True)
    for i in range(15, 60):
        (source / "down" / f"{i:03}.png").unlink()
    model = pl.train(source, tmp_path / "run", class_weights="balanced", **OPTIONS | {"steps": 3})
    facts = json.loads((model.folder / "plan.json").read_text())["facts"]
    counts = np.array([42, 11])
    assert facts["class_weights"] == pytest.approx((counts.sum() / (2 * counts)).tolist(), rel=0.05)
    assert facts["picture"] == [3, 12, 12]


def test_the_plan_says_why(lines, tmp_path):
    plan = pl.train(lines, tmp_path / "run", **OPTIONS | {"steps": 2}).folder / "plan.json"
    found = json.loads(plan.read_text())
    assert found["reasons"]["network"] == "as given"
    assert "moved a little" in found["reasons"]["shift"]
    assert found["network"]["layers"] == SMALL.split("; ")
    again = pl.train(lines, tmp_path / "again", plan=str(plan))
    assert digest(again.folder / "model.safetensors") == digest(plan.parent / "model.safetensors")


def unreadable(path: Path) -> Path:
    (folder_of(path, n=20) / "down" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    return path


def mixed(path: Path) -> Path:
    drawn("down", 1, size=20).save(folder_of(path, n=20) / "down" / "large.png")
    return path


def single(path: Path) -> Path:
    (folder_of(path, n=20) / "slanted").mkdir()
    drawn("down", 1).save(path / "slanted" / "1.png")
    return path


def one_class(path: Path) -> Path:
    (path / "across").mkdir(parents=True)
    for i in range(20):
        drawn("across", i).save(path / "across" / f"{i}.png")
    return path


def small_for_lenet(path: Path) -> Path:
    return folder_of(path, n=20)


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        (unreadable, {}, "This picture cannot be read"),
        (mixed, {}, "2 different sizes"),
        (single, {}, "Only one picture of: slanted"),
        (one_class, {}, "All pictures are of one class: across"),
        (small_for_lenet, {"network": "lenet5"}, "too small for this network"),
        (small_for_lenet, {"network": "flatten, dense 3"}, "ends in 3 numbers; there are 2 classes"),
        (small_for_lenet, {"network": "alexnet"}, "no convolutional network 'alexnet'"),
        (small_for_lenet, {"dropout": 0.5}, "Dropout is a layer here"),
        (small_for_lenet, {"init": "ones"}, "no initialisation 'ones'"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_message(source, options, says, tmp_path):
    path = source(tmp_path / "pictures")
    before = snapshot(tmp_path)
    with pytest.raises(pl.PellucidError, match=says) as caught:
        pl.train(path, tmp_path / "run", **{"steps": 2, "threads": 1} | options)
    assert caught.value.exit_code == 2
    assert caught.value.fix
    assert snapshot(tmp_path) == before


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for options in ({}, {"task": "pictures"}):
        with pytest.raises(pl.PellucidError):
            pl.train(tmp_path / "empty", tmp_path / "run", steps=2, **options)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


def test_a_bad_picture_among_those_to_predict_is_named(trained, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"nothing")
    with pytest.raises(pl.PellucidError, match="cannot be read"):
        trained.predict(tmp_path / "bad.png")
