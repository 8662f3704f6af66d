"""More parameters, more ability: several sizes on one text, the curve through them, the next one foretold."""

import json
import math
import warnings
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest

import pellucid as pl
from pellucid import language
from pellucid.anatomy import counts, families
from pellucid.errors import PellucidError, StoppedError
from pellucid.experiments.course import SHAPES, Rung, Size, Trained, shapes_of
from pellucid.experiments.ladder import Ladder
from runs import Stop, snapshot

SIZES = ["8x1", "16x1", "24x2", "32x2"]
QUICK = {"steps": 24, "vocab": 300, "context": 32, "batch": 16, "evaluations": 2, "precision": "fp32", "threads": 1}


@pytest.fixture(scope="module", autouse=True)
def _speed_known():
    """No training here needs to know how fast the machine is, which takes two seconds to measure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pellucid.training.run.seconds_per_step", lambda task, plan: 0.01)
        yield


@pytest.fixture(scope="module")
def climbed(tmp_path_factory):
    """Four tiny sizes on the demo text, and the next one trained to check the forecast."""
    return pl.ladder(None, tmp_path_factory.mktemp("ladder") / "demo", sizes=SIZES, check=True, **QUICK)


def test_larger_networks_reach_less_loss_on_the_same_text(climbed):
    losses = [rung.loss for rung in climbed.rungs]
    assert losses == sorted(losses, reverse=True)
    assert [rung.name for rung in climbed.rungs] == SIZES
    assert {rung.tokens for rung in climbed.rungs} == {24 * 16 * 32}
    tokenizers = {
        (climbed.folder / run.folder / "tokenizer.json").read_bytes() for r in climbed.rungs for run in r.runs
    }
    data = {(climbed.folder / run.folder / "data/train.bin").read_bytes() for r in climbed.rungs for run in r.runs}
    assert len(tokenizers) == len(data) == 1


def test_every_training_is_a_run_of_its_own(climbed):
    for rung in [*climbed.rungs, climbed.checked]:
        model = pl.open(climbed.folder / rung.runs[0].folder)
        found = counts.parameters(families.decoder(model.network.config))
        assert rung.size.parameters == found.total == sum(p.numel() for p in model.network.parameters())
        assert rung.size.without_embeddings == found.total - 300 * rung.size.width  # the head is the embedding


def test_a_loss_is_of_all_held_out_text(climbed):
    lines = (climbed.folder / "text" / "held-out.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    run = climbed.rungs[-1].runs[0]
    found = pl.open(climbed.folder / run.folder).evaluate(texts)
    assert run.bits_per_byte == pytest.approx(found.bits_per_byte, rel=0.02)  # read in other windows


def test_the_forecast_was_made_without_the_check(climbed):
    alone = pl.ladder(out=climbed.folder)
    assert alone.json() == climbed.json()
    assert climbed.next.name == climbed.checked.name == "48x2"
    forecast = climbed.forecast()
    assert forecast.parameters == climbed.next.without_embeddings
    assert forecast.holds(climbed.checked.loss) == climbed.json()["checked"]["inside"]
    assert forecast.bits_per_byte == pytest.approx(climbed.fit(forecast.parameters) * climbed.bits_per_nat)


def test_what_is_finished_is_not_trained_again_and_sizes_can_be_added(climbed, tmp_path, capsys):
    before = {name: what for name, what in snapshot(climbed.folder).items() if "seed=" in name}
    again = pl.ladder(out=climbed.folder, made=_fail)
    assert again.json() == climbed.json()
    more = pl.ladder(None, climbed.folder, sizes=[*SIZES, "48x2"], made=_fail)  # the check becomes a rung
    assert [rung.name for rung in more.rungs] == [*SIZES, "48x2"]
    assert (more.next.name, more.checked) == ("64x3", None)
    assert {name: what for name, what in snapshot(climbed.folder).items() if "seed=" in name} == before
    pl.ladder(out=climbed.folder, sizes=SIZES, next_size="48x2")


def _fail(*what):
    raise AssertionError("made again")


def test_ctrl_c_loses_nothing(climbed, tmp_path):
    with pytest.raises(StoppedError, match="0 of 4"):
        pl.ladder(None, tmp_path / "cut", sizes=SIZES, progress=Stop(9), **QUICK)
    made = []
    cut = pl.ladder(out=tmp_path / "cut", made=lambda size, trained, *told: made.append((size.name, *told)))
    assert [told[:3] for told in made] == [(name, n, 4) for n, name in enumerate(SIZES, 1)]
    assert [left > 0 for *_told, left in made] == [True, True, True, False]
    for one, other in zip(cut.rungs, climbed.rungs, strict=True):
        assert one.loss == other.loss


def test_results_pictures_and_pages_are_saved(climbed, tmp_path):
    saved = json.loads((climbed.folder / "results.json").read_text())
    assert saved == json.loads(json.dumps(climbed.json()))
    climbed.save(tmp_path / "ladder.png")
    assert min(matplotlib.image.imread(tmp_path / "ladder.png").shape[:2]) > 300
    for spoken, said in (("en", "without embeddings"), ("zh", "参数")):
        with language.speaking(spoken):
            climbed.save(tmp_path / "ladder.svg")
            climbed.save(tmp_path / "ladder.html")
        assert said in "".join(ElementTree.parse(tmp_path / "ladder.svg").getroot().itertext())
        page = (tmp_path / "ladder.html").read_text()
        assert "<svg" in page
        assert said in page
        assert f"{climbed.rungs[0].size.parameters:,}" in page
        assert "<script" not in page


def test_a_picture_without_a_chinese_font_is_in_english(climbed, tmp_path, monkeypatch):
    monkeypatch.setattr("pellucid.experiments.sweep_pictures.CHINESE", ())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is missing in English, nor where the reader's fonts draw the text
        climbed.save(tmp_path / "en.png")
        with language.speaking("zh"):
            climbed.save(tmp_path / "zh.svg")
    with language.speaking("zh"):
        with pytest.warns(UserWarning, match=r"zh\.png 用英文绘制") as said:
            climbed.save(tmp_path / "zh.png")
        assert language._("trained") == "已训练"
    assert len(said) == 1
    assert np.array_equal(*(matplotlib.image.imread(tmp_path / f"{name}.png") for name in ("en", "zh")))


def test_a_chinese_name_has_no_empty_boxes(climbed, tmp_path, monkeypatch):
    monkeypatch.setattr("pellucid.experiments.sweep_pictures.CHINESE", ())
    poems, text = (replace(climbed, source=name) for name in ("春晓.txt", "text"))
    text.save(tmp_path / "text.png")
    with pytest.warns(UserWarning, match=r"poems\.png is in English"):
        poems.save(tmp_path / "poems.png")
    assert np.array_equal(*(matplotlib.image.imread(tmp_path / f"{name}.png") for name in ("text", "poems")))


def test_it_is_shown_with_table_chart_and_forecast(climbed, capsys):
    climbed.show()
    told = capsys.readouterr().out
    for rung in climbed.rungs:
        assert f"{rung.size.without_embeddings:,}" in told
        assert f"{rung.loss:.3f}" in told
    assert told.count("●") == len(SIZES) + 1  # and in the legend
    assert "the check" in told
    assert "Forecast for 48x2" in told


def test_each_size_can_have_its_own_number_of_tokens(tmp_path):
    options = {name: value for name, value in QUICK.items() if name != "steps"}
    found = pl.ladder(None, tmp_path / "own", sizes=SIZES[:3], tokens_per_parameter=1, **options)
    for rung in found.rungs:
        assert rung.tokens == pytest.approx(rung.size.parameters, rel=0.05, abs=16 * 32 / 2)
    assert found.fit.noise is None
    assert "nothing says how sure" in " ".join(found.remarks())
    assert found.json()["forecast"]["interval"] is None
    found.show()


def made_up(losses, seeds=1, early=False, **fields):
    sizes = [Size(w, d, 12 * w * w * d + 300 * w, 12 * w * w * d) for w, d in SHAPES[: len(losses)]]
    rungs = tuple(
        Rung(s, tuple(Trained(n, "", loss, loss / 2, 10, 5 if early else 10, 100, 1.0) for n in range(seeds)))
        for s, loss in zip(sizes, losses, strict=True)
    )
    told = {"source": "", "folder": None, "rungs": rungs, "next": Size(999, 9, 10**8, 9 * 10**7)}
    return Ladder(**told | {"embeddings": False, "checked": None, "passes": 1.0, "notes": ()} | fields)


def test_it_says_what_speaks_against_the_curve():
    assert made_up([5.0, 4.2, 3.7, 3.4, 3.2]).remarks() == []
    assert "tell E from 0" in made_up([5.0, 4.6, 4.1, 3.9]).remarks()[0]
    assert "96x4 is no better than 64x3" in made_up([5.0, 4.2, 3.9, 3.95, 3.8]).remarks()[0]
    assert "9.0 times" in made_up([5.0, 4.2, 3.7, 3.4, 3.2], passes=9.0).remarks()[0]
    assert "Best long before" in made_up([5.0, 4.2, 3.7, 3.4, 3.2], early=True).remarks()[0]


def test_parameters_are_counted_with_or_without_embeddings():
    without, counted = made_up([5.0, 4.2, 3.7, 3.4]), made_up([5.0, 4.2, 3.7, 3.4], embeddings=True)
    assert (without.forecast().parameters, counted.forecast().parameters) == (9 * 10**7, 10**8)
    assert without.fit.alpha < counted.fit.alpha  # the same losses over a smaller range
    assert without.json()["axis"] == "without_embeddings"
    with pytest.raises(PellucidError, match="no network"):
        without.forecast(0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"sizes": 2}, "Too few sizes"),
        ({"sizes": 99}, "sizes to choose from"),
        ({"sizes": "16x1,32x2"}, "Too few sizes"),
        ({"sizes": "16x1,wide,32x2"}, "'wide' is no size"),
        ({"sizes": "16x1,24x1,16x1"}, "parameters each: 16x1 and 16x1"),
        ({"sizes": "16x1,24x1,32x1", "next_size": "24x1"}, "parameters each: 24x1"),
        ({"sizes": "16x1,24x1,33x1"}, "33"),
        ({"seeds": 0}, "--seeds 0"),
        ({"tokens": -5}, "--tokens -5"),
        ({"width": 64}, "--width"),
        ({"tokens": 5000}, "how long"),
        ({"target": "label"}, "--target"),
        ({"learning_rate": -1.0}, "--learning-rate"),
        ({"out": ""}, "Where"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_kept(tmp_path, arguments, said):
    out = tmp_path / "new" / "ladder"
    with pytest.raises(PellucidError) as refused:
        pl.ladder(None, **{"out": out, "sizes": SIZES} | QUICK | arguments)
    assert said in " ".join((refused.value.what, refused.value.where, refused.value.fix))
    assert not out.parent.exists()


def test_a_text_too_short_to_judge_sizes_on_is_refused(tmp_path):
    (tmp_path / "short.txt").write_text("The quick brown fox jumps over the lazy dog.\n" * 60)
    with pytest.raises(PellucidError, match="too short"):
        pl.ladder(tmp_path / "short.txt", tmp_path / "out", sizes=SIZES, **QUICK)
    assert not (tmp_path / "out").exists()


def test_other_folders_and_other_ladders_are_refused(climbed, tmp_path):
    (tmp_path / "letter.txt").write_text("Dear")
    with pytest.raises(PellucidError, match="no ladder"):
        pl.ladder(None, tmp_path, sizes=SIZES, **QUICK)
    for changed in ({"steps": 25}, {"tokens": 5000.0}):
        with pytest.raises(PellucidError, match="Another ladder"):
            pl.ladder(None, climbed.folder, **changed)
    with pytest.raises(PellucidError, match="Another ladder"):
        pl.ladder(tmp_path / "letter.txt", climbed.folder)


def test_sizes_are_read_as_numbers_or_names():
    assert shapes_of(4) == shapes_of("4") == list(SHAPES[:4])
    assert shapes_of("8x1, 16×2，24*3") == [(8, 1), (16, 2), (24, 3)]
    assert all(math.prod((b, b, d)) > 1.5 * math.prod((a, a, c)) for (a, c), (b, d) in pairwise(SHAPES))
