"""Pairs of texts by the interface that every task has: a small language whose words change places."""

import json
import random
from io import StringIO
from itertools import product

import numpy as np
import pytest
import torch
from rich.console import Console
from sacrebleu import corpus_bleu
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import pellucid as pl
from pellucid.cli.app import run as command
from pellucid.data.pair_tokens import MASKED, ROUND, PairBatches, PairTokens
from pellucid.data.tokenizer import Tokenizer
from pellucid.errors import PellucidError, StoppedError
from pellucid.generation.translate import translate
from pellucid.tasks import recognise, word_by_word
from pellucid.tasks.pairs import PairsTask
from pellucid.tasks.translation_scores import score, tokenizer_for
from pellucid.training.options import TrainOptions
from pellucid.training.plan import Plan
from pellucid.training.run import resume, start
from runs import Stop, digest, snapshot

COLOURS = {"red": "rojo", "black": "negro", "white": "blanco", "small": "chico", "old": "viejo"}
ANIMALS = {"dog": "perro", "cat": "gato", "horse": "caballo", "bird": "pájaro", "wolf": "lobo", "bear": "oso"}
VERBS = {"sees": "ve a", "follows": "sigue a", "hears": "oye a"}
TINY = {"width": 32, "depth": 1, "heads": 2, "vocab": 400, "threads": 1, "batch": 32, "precision": "fp32"}
TINY |= {"learning_rate": 0.02, "embedding_rate": 0.01}


@pytest.fixture(autouse=True)
def _measured_elsewhere(monkeypatch):
    """The plan's timing is tested elsewhere, and takes a second and a half each time."""
    monkeypatch.setattr("pellucid.training.run.seconds_per_step", lambda task, plan: 0.01)


def sentences(n: int = 400, seed: int = 0) -> list[dict[str, str]]:
    """Adjectives stand before the noun on one side and behind it on the other."""
    everything = [
        {
            "en": f"the {c} {a} {v} the {b}.",
            "es": f"el {ANIMALS[a]} {COLOURS[c]} {VERBS[v]} el {ANIMALS[b]}.",
        }
        for c, a, v, b in product(COLOURS, ANIMALS, VERBS, ANIMALS)
    ]
    return random.Random(seed).sample(everything, n)


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write(tmp_path_factory.mktemp("pairs") / "animals.jsonl", sentences())


@pytest.fixture(scope="module")
def run(source, tmp_path_factory):
    """A run that has learned the language: its folder."""
    folder = tmp_path_factory.mktemp("runs") / "pairs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pellucid.training.run.seconds_per_step", lambda task, plan: 0.01)
        start(str(source), str(folder), TrainOptions(target="es", steps=160, evaluations=3, dropout=0.0, **TINY))
    return folder


@pytest.fixture(scope="module")
def model(run):
    return pl.open(run)


def finished(run) -> dict:
    return json.loads((run / "journal.jsonl").read_text("utf-8").splitlines()[-1])


# recognising and preparing


def test_a_text_beside_a_text_is_a_pair(source):
    task, why = recognise(str(source), TrainOptions(target="es"))
    assert task is PairsTask
    assert "es is text" in why


def test_two_files_line_by_line(tmp_path):
    rows = sentences(60)
    for side in ("en", "es"):
        (tmp_path / f"{side}.txt").write_text("\n".join(row[side] for row in rows), "utf-8")
    options = TrainOptions(target=str(tmp_path / "es.txt"), vocab=300)
    task, why = recognise(str(tmp_path / "en.txt"), options)
    assert task is PairsTask
    assert "two files" in why
    made = PairsTask.prepare(str(tmp_path / "en.txt"), options, tmp_path / "run")
    assert sum(made.facts()["pairs"].values()) == 60


def test_a_category_of_texts_is_no_pair(tmp_path):
    rows = [{"text": f"this is the text number {n}", "kind": "ab"[n % 2]} for n in range(40)]
    assert PairsTask.recognise(str(write(tmp_path / "rows.jsonl", rows)), TrainOptions(target="kind")) is None


def test_equal_texts_are_never_in_two_parts(tmp_path):
    rows = sentences(120)
    rows += [{"en": row["en"], "es": row["es"] + " ¡ya!"} for row in rows[:60]]
    rows += [{"en": row["en"] + " now!", "es": row["es"]} for row in rows[30:90]]
    task = PairsTask.prepare(str(write(tmp_path / "r.jsonl", rows)), TrainOptions(target="es", vocab=300), tmp_path)
    parts = [task._texts(part, np.arange(len(part))) for part in task._parts.values()]
    assert all(len(sources) for sources, _targets in parts)
    for side in (0, 1):
        for a, b in ((0, 1), (0, 2), (1, 2)):
            assert not set(parts[a][side]) & set(parts[b][side])


def test_the_tokenizer_sees_the_training_part_only(tmp_path):
    rows = sentences(200)
    options = TrainOptions(target="es", vocab=400)
    task = PairsTask.prepare(str(write(tmp_path / "r.jsonl", rows)), options, tmp_path / "run")
    sources, targets = task._texts(task._parts["train"], np.arange(len(task._parts["train"])))
    texts = [text for row in rows if row["en"] in sources for text in (row["en"], row["es"])]
    assert Tokenizer.train(texts, 400, "gpt2").digest == task.tokenizer.digest
    assert set(targets) <= {row["es"] for row in rows}


def test_pairs_that_are_too_long_are_left_out_and_said(tmp_path):
    rows = sentences(100)
    rows[0]["en"] = "the red dog " * 100
    options = TrainOptions(target="es", vocab=300, context=40)
    task = PairsTask.prepare(str(write(tmp_path / "r.jsonl", rows)), options, tmp_path / "run")
    assert sum(task.facts()["pairs"].values()) == 99
    assert any("1 of 100 pairs were left out: a side has more than 40 tokens" in note for note in task.facts()["notes"])


def test_own_validation_and_test_pairs_without_what_is_trained_on(tmp_path):
    rows = sentences(150)
    train, other = write(tmp_path / "train.jsonl", rows[:100]), write(tmp_path / "other.jsonl", rows[90:])
    options = TrainOptions(target="es", vocab=300, validation=str(other), test=str(other))
    task = PairsTask.prepare(str(train), options, tmp_path / "run")
    assert task.facts()["pairs"] == {"train": 100, "validation": 50, "test": 50}
    assert sum("10 pairs of" in note for note in task.facts()["notes"]) == 2


# batches


@pytest.fixture(scope="module")
def tokens():
    rows = sentences(90) + [{"en": "dog " * n, "es": "perro " * (30 - n)} for n in range(1, 30)]
    tokenizer = Tokenizer.byte_level("gpt2")
    return PairTokens.encode([row["en"] for row in rows], [row["es"] for row in rows], tokenizer)


def test_a_pass_has_every_pair_once_in_batches_of_bounded_size(tokens):
    batches = tokens.in_batches(np.arange(len(tokens)), 400, np.random.default_rng(0))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(tokens)))
    for rows in batches:
        assert len(rows) == 1 or len(rows) * tokens.batch(rows, 0, 0).target.shape[1] <= 400
    spread = np.mean([np.ptp(tokens.source_lengths[rows] + tokens.target_lengths[rows]) for rows in batches])
    assert spread < 0.2 * np.ptp(tokens.source_lengths + tokens.target_lengths)


def test_a_batch_is_shifted_masked_and_padded(tokens):
    rows = np.array([0, len(tokens) - 1, 5])
    batch = tokens.batch(rows, start_id=7, pad_id=9)
    for n, row in enumerate(rows):
        source, target = tokens.source(row), tokens.target(row)
        assert batch.source[n, batch.mask[n]].tolist() == source.tolist()
        assert (batch.source[n, ~batch.mask[n]] == 9).all()
        assert batch.wanted[n, : len(target)].tolist() == target.tolist()
        assert (batch.wanted[n, len(target) :] == MASKED).all()
        assert batch.target[n, : len(target)].tolist() == [7, *target[:-1]]
        assert (batch.target >= 0).all()
        assert batch.source.shape[1] % ROUND == batch.target.shape[1] % ROUND == 0


def test_batches_go_on_from_any_position(tokens):
    def fresh():
        return PairBatches(tokens, 300, 3, 256, 256)

    one = fresh()
    seen, positions = [], []
    for _ in range(40):  # more than one pass
        positions.append(one.position)
        seen.append(next(one))
    assert positions[-1]["pass"] > 0
    for at in (0, 7, 39):
        other = fresh()
        other.position = positions[at]
        assert all(torch.equal(a, b) for a, b in zip(next(other), seen[at], strict=True))


def test_damaged_data_are_said(tokens, tmp_path):
    tokens.save(tmp_path / "train.npz")
    whole = (tmp_path / "train.npz").read_bytes()
    (tmp_path / "train.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PellucidError, match=r"train\.npz is damaged"):
        PairTokens.open(tmp_path / "train.npz", 256)


# training


def test_it_learns_words_and_their_order(run):
    end = finished(run)
    assert end["missed_bleu"] < 20
    evidence = end["evidence"]
    assert end["missed_bleu"] < evidence["missed_bleu_words"] - 20  # word by word, the order is wrong
    assert evidence["missed_bleu_words"] < evidence["missed_bleu_copy"]
    assert any("word by word BLEU" in sentence for sentence in end["sentences"])


def test_training_is_smoothed_and_judging_is_not(run):
    plan = Plan.open(run / "plan.json")
    task = PairsTask.restore(run, plan.facts)
    network, batch = task.open_network(run).eval(), next(task.batches("train", plan))
    with torch.no_grad():
        logits = network(batch.source, batch.target, batch.mask).flatten(0, 1)
        for mode, smoothing in ((False, 0.0), (True, 0.1)):
            loss, count = task.loss(network.train(mode), batch)
            wanted = torch.nn.functional.cross_entropy(
                logits, batch.wanted.flatten(), ignore_index=MASKED, reduction="sum", label_smoothing=smoothing
            )
            assert loss.item() == pytest.approx(wanted.item(), rel=1e-4)
            assert count == (batch.wanted != MASKED).sum()


def test_it_resumes_bit_for_bit(source, tmp_path):
    options = TrainOptions(target="es", steps=14, evaluations=3, dropout=0.1, **TINY)
    start(str(source), str(tmp_path / "whole"), options)
    with pytest.raises(StoppedError):
        start(str(source), str(tmp_path / "stopped"), options, Stop(at=8))
    resume(str(tmp_path / "stopped"))
    assert digest(tmp_path / "whole" / "model.safetensors") == digest(tmp_path / "stopped" / "model.safetensors")


def test_too_few_pairs_to_hold_any_out_still_train(tmp_path):
    start(
        str(write(tmp_path / "few.jsonl", sentences(12))),
        str(tmp_path / "run"),
        TrainOptions(target="es", steps=3, evaluations=1, **TINY),
    )
    assert "missed_bleu" in finished(tmp_path / "run")


# answers


def test_it_translates_texts_files_and_tables(model, tmp_path):
    rows = sentences(5, seed=1)
    texts = [row["en"] for row in rows]
    answers = [answer.value for answer in model.predict(texts)]
    assert sum(said == row["es"] for said, row in zip(answers, rows, strict=True)) >= 3
    (tmp_path / "texts.txt").write_text("\n".join(["", *texts]) + "\n", "utf-8")
    assert [answer.value for answer in model.predict(tmp_path / "texts.txt")] == ["", *answers]
    write(tmp_path / "rows.jsonl", rows)
    assert [answer.value for answer in model.predict(tmp_path / "rows.jsonl")] == answers
    assert [answer.input for answer in model.predict(texts[0])] == [texts[0]]


def test_the_command_predicts_and_evaluates(run, source, capsys):
    text = sentences(1, seed=2)[0]["en"]
    assert command(["predict", str(run), text, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["input"] == text
    assert command(["evaluate", str(run), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["bleu"] == pytest.approx(100 - finished(run)["missed_bleu"], abs=1e-6)
    assert report["loss"] == pytest.approx(finished(run)["loss"], rel=1e-4)
    assert set(report["rivals"]) == {"the source as it is", "word by word"}
    assert command(["evaluate", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "chrF" in shown
    assert "reference:" in shown


def test_a_text_that_is_too_long_is_refused(model):
    with pytest.raises(PellucidError, match="too long"):
        model.predict(["the dog " * 200])


def test_evaluating_counts_as_sacrebleu_does(model, tmp_path):
    rows = sentences(20, seed=3)
    report = model.evaluate(write(tmp_path / "more.jsonl", rows))
    said = [answer.value for answer in model.predict([row["en"] for row in rows])]
    assert report.score.bleu == pytest.approx(corpus_bleu(said, [[row["es"] for row in rows]]).score)
    assert "tok:13a" in report.signature


def test_transformers_opens_the_run_and_says_the_same(model, run):
    theirs = AutoModelForSeq2SeqLM.from_pretrained(run).eval()
    tokenizer = AutoTokenizer.from_pretrained(run)
    text = sentences(1, seed=4)[0]["en"]
    source = torch.tensor([[*tokenizer(text, add_special_tokens=False).input_ids, model.network.config.end_id]])
    (ours,) = translate(model.network, source)
    written = theirs.generate(source, attention_mask=torch.ones_like(source), num_beams=1, max_new_tokens=60)[0, 1:]
    assert written[: len(ours.ids)].tolist() == list(ours.ids)


def test_a_folder_of_others_is_a_translator(run, tmp_path):
    config = json.loads((run / "config.json").read_text())
    del config["pellucid"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    theirs, text = pl.open(tmp_path), sentences(1, seed=5)[0]["en"]
    assert theirs.task.name == "pairs"
    assert theirs.predict(text)[0].value == pl.open(run).predict(text)[0].value
    with pytest.raises(PellucidError, match="no test data"):
        theirs.evaluate()


# why


def test_why_a_word_adds_up_over_both_sides(model):
    text = "the red dog sees the wolf."
    found = model.why(text, value="rojo", rather_than="negro")
    assert found.asked == "rojo rather than negro"
    total = sum(part.amount for part in found.parts) + sum(found.constants.values()) + found.residue
    assert total == pytest.approx(found.value)
    assert abs(found.residue) < 1e-3 * max(1.0, abs(found.value))
    read = [part.name for part in found.parts if part.given == "in the text"]
    assert read == ["the", "red", "dog", "sees", "the", "wolf", ".", "(end)"]
    assert [part.name for part in found.parts if part.given == "written before"] == ["(start)", "el", "perro"]
    strongest = max(found.parts, key=lambda part: part.amount)
    assert (strongest.name, strongest.given) == ("red", "in the text")


def test_the_alignment_is_shown_in_the_terminal_and_on_the_page(model, tmp_path):
    found = model.why("the old bear hears the cat.")
    (alignment,) = found.beside
    assert torch.allclose(alignment.weights.sum(1), torch.ones(len(alignment.written)), atol=1e-5)
    console = Console(file=StringIO(), width=100)
    console.print(alignment)
    assert "oso" in console.file.getvalue()
    found.save(tmp_path / "why.html")
    assert "What each word looks at" in (tmp_path / "why.html").read_text("utf-8")
    json.dumps(found.json())


def test_what_cannot_be_asked_is_said(model):
    with pytest.raises(PellucidError, match="no such word") as refused:
        model.why("the red dog sees the wolf.", value="elefante")
    assert "perro" in refused.value.fix
    with pytest.raises(PellucidError, match="same token"):
        model.why("the red dog sees the wolf.", value="perro", rather_than="perro")
    with pytest.raises(PellucidError, match="no text"):
        model.why("  ")


# baselines


def test_the_dictionary_finds_the_words():
    rows = sentences(200)
    found = word_by_word.learn([row["en"] for row in rows], [row["es"] for row in rows])
    assert {name: found.entries[name] for name in {**COLOURS, **ANIMALS}} == {**COLOURS, **ANIMALS}
    assert found.translate("the red zebra") == "el rojo zebra"


@pytest.mark.parametrize(
    ("text", "how"), [("El perro rojo.", "13a"), ("红色的狗看见了狼。", "zh"), ("赤い犬が狼を見ています。", "char")]
)
def test_what_counts_as_a_word(text, how):
    assert tokenizer_for([text]) == how
    assert score([text], [text], how).bleu > 99


# mistakes


def one_side_longer(folder):
    (folder / "en.txt").write_text("one\ntwo\nthree\n")
    (folder / "es.txt").write_text("uno\ndos\n")
    return ["en.txt", "--target", "es.txt"], "unequal length"


def no_such_column(folder):
    write(folder / "rows.jsonl", sentences(40))
    return ["rows.jsonl", "--target", "fr"], "no column"


def nothing_on_one_side(folder):
    write(folder / "rows.jsonl", [{"en": f"the dog number {n} sees", "es": ""} for n in range(40)])
    return ["rows.jsonl", "--target", "es", "--task", "pairs"], "No row has both"


def no_text_beside(folder):
    write(folder / "rows.jsonl", [{"n": n, "es": row["es"]} for n, row in enumerate(sentences(40))])
    return ["rows.jsonl", "--target", "es"], "No column beside es holds text"


def nothing_fits(folder):
    rows = sentences(40)
    write(folder / "rows.jsonl", [{"en": row["en"] * 9, "es": row["es"]} for row in rows])
    return ["rows.jsonl", "--target", "es", "--context", "7"], "No pair fits into 8 tokens a side"


def no_target(folder):
    write(folder / "rows.jsonl", sentences(40))
    return ["rows.jsonl", "--task", "pairs"], "What are the texts to become?"


def odd_width(folder):
    write(folder / "rows.jsonl", sentences(40))
    return ["rows.jsonl", "--target", "es", "--width", "30", "--heads", "4"], "cannot be shared"


MISTAKES = [one_side_longer, no_such_column, nothing_on_one_side, no_text_beside, nothing_fits, no_target, odd_width]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_said_once_and_leave_nothing(mistake, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments, what = mistake(tmp_path)
    before = snapshot(tmp_path)
    assert command(["train", *arguments, "--out", "run"]) == 2
    assert what in capsys.readouterr().err
    assert snapshot(tmp_path) == before
