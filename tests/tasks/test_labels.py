"""Texts with a category, by the interface that every task has: words that mean up or down, told apart again."""

import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from tests.runs import Stop, snapshot
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertTokenizer,
)

import pellucid as pl
from pellucid.cli import app as cli
from pellucid.data.by_length import ByLength
from pellucid.errors import PellucidError
from pellucid.tasks import recognise
from pellucid.tasks.labels import LabelTask, linear_model
from pellucid.training.options import TrainOptions
from pellucid.training.plan import Plan
from pellucid.training.run import start

WORDS = {
    "up": ["wonderful", "很好", "superb"],
    "down": ["dreadful", "太差", "boring"],
    "flat": ["usual", "一般", "plain"],
}
FILLERS = ["the", "a", "book", "film", "story", "was", "it", "really", "quite", "very", "long", "we", "我们", "看了"]
TINY = {"width": 32, "depth": 1, "heads": 2, "threads": 1, "precision": "fp32", "evaluations": 2}


@pytest.fixture(autouse=True)
def _measured_elsewhere(monkeypatch):
    """The plan's timing is tested elsewhere, and takes a second and a half each time."""
    monkeypatch.setattr("pellucid.training.run.seconds_per_step", lambda task, plan: 0.01)


def rows(n: int = 300, kinds: int = 2, seed: int = 0) -> list[dict[str, str]]:
    """Fillers with one word that decides; every tenth text stands there twice, one in nine is long."""
    draw, made = random.Random(seed), []
    for number in range(n):
        label = draw.choice(list(WORDS)[:kinds])
        fill = [draw.choice(FILLERS) for _ in range(draw.randint(2, 9 if number % 9 else 60))]
        fill.insert(draw.randrange(min(8, len(fill))), draw.choice(WORDS[label]))
        made += [{"text": " ".join([*fill, str(number)]), "label": label}] * (1 if number % 10 else 2)
    return made


def written(path: Path, found: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), "utf-8")
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("texts") / "texts.jsonl", rows())


@pytest.fixture(scope="module")
def run(source, tmp_path_factory) -> Path:
    """A run of 120 steps: its folder."""
    folder = tmp_path_factory.mktemp("runs") / "labels"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pellucid.training.run.seconds_per_step", lambda task, plan: 0.01)
        start(str(source), str(folder), TrainOptions(target="label", steps=120, dropout=0.1, **TINY))
    return folder


@pytest.fixture
def bert(tmp_path) -> Path:
    """A small random BERT of others, without a head."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set("abcdefghijklmnopqrstuvwxyz"))]
    vocabulary += [f"##{letter}" for letter in vocabulary[5:]] + ["the", "book", "was"]
    BertTokenizer(vocab={word: n for n, word in enumerate(vocabulary)}).save_pretrained(tmp_path / "bert")
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=24, **shape)
    BertModel(config).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


# what it is for, and how it is split


def test_a_category_beside_one_text_is_recognised(source, tmp_path):
    task, why = recognise(str(source), TrainOptions(target="label"))
    assert task is LabelTask
    assert "label is a category" in why
    table = written(tmp_path / "numbers.jsonl", [row | {"n": n} for n, row in enumerate(rows())])
    assert LabelTask.recognise(str(table), TrainOptions(target="n")) is None
    assert recognise(str(table), TrainOptions(target="label", text="text"))[0] is LabelTask
    assert LabelTask.recognise(str(source), TrainOptions(target="text")) is None
    assert LabelTask.recognise(str(source), TrainOptions()) is None


def test_equal_texts_are_in_one_part_and_long_ones_are_cut_and_counted(source, tmp_path):
    task = LabelTask.prepare(str(source), TrainOptions(target="label", context=24), tmp_path)
    again = LabelTask.restore(tmp_path, task.facts())
    texts = [set(part.texts) for part in again._parts.values()]
    assert not any(one & other for one, other in itertools.combinations(texts, 2))
    assert sum(len(part) for part in again._parts.values()) == len(rows())
    longer = sum(len(task.tokenizer.encode(row["text"])) > 24 for row in rows())
    assert f"{longer} of {len(rows())} texts are longer than 24 tokens" in " ".join(task.facts()["notes"])
    for part in again._parts.values():
        for ids, text in zip(part.ids, part.texts, strict=True):
            whole = task.tokenizer.encode(text)
            assert ids == (whole if len(whole) <= 24 else [*whole[:23], whole[-1]])


def test_parts_of_their_own_are_used_as_they_are(source, tmp_path):
    test = written(tmp_path / "test.jsonl", rows(40, seed=1))
    task = LabelTask.prepare(str(source), TrainOptions(target="label", test=str(test)), tmp_path)
    assert task.facts()["texts"]["test"] == len(rows(40, seed=1))
    assert sum(task.facts()["texts"].values()) == len(rows()) + len(rows(40, seed=1))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=200), st.integers(1, 9), st.integers(0, 5), st.integers(0, 60))
def test_each_pass_has_every_example_once_and_goes_on_from_anywhere(lengths, size, seed, start):
    batches = ByLength(np.array(lengths), size, seed, lambda rows_: rows_.tolist())
    per_pass = -(-len(lengths) // size)
    drawn = [next(batches) for _ in range(3 * per_pass)]
    for n in range(0, len(drawn), per_pass):
        assert sorted(itertools.chain(*drawn[n : n + per_pass])) == list(range(len(lengths)))
    assert max(map(len, drawn)) <= size
    start %= len(drawn)
    again = ByLength(np.array(lengths), size, seed, lambda rows_: rows_.tolist())
    again.position = {"batches": start}
    assert [next(again) for _ in drawn[start:]] == drawn[start:]


# learning


def test_it_learns_what_a_word_means_and_others_open_it(run, source):
    finished = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()][-1]
    assert finished["event"] == "finished"
    assert finished["error"] < 0.05
    assert finished["evidence"]["commonest_class"] > 0.3
    ours, theirs = pl.open(run), AutoModelForSequenceClassification.from_pretrained(run).eval()
    tokenizer = AutoTokenizer.from_pretrained(run)
    assert theirs.config.id2label == {0: "down", 1: "up"}
    texts = [row["text"] for row in rows(30, seed=2)]
    given_ = tokenizer(texts, return_tensors="pt", padding=True, truncation=True)
    with torch.no_grad():
        p_NK = theirs(**given_).logits.softmax(1)
    for answer, p_K in zip(ours.predict(texts), p_NK, strict=True):
        assert list(answer.probabilities.values()) == pytest.approx(p_K.tolist(), abs=1e-4)
        assert answer.value == theirs.config.id2label[int(p_K.argmax())]


def test_the_loss_is_that_of_torch_weighted_and_padding_changes_nothing(source, tmp_path):
    options = TrainOptions(target="label", class_weights="balanced", steps=4, **TINY)
    start(str(source), str(tmp_path / "run"), options)
    plan = Plan.open(tmp_path / "run" / "plan.json")
    task = LabelTask.restore(tmp_path / "run", plan.facts)
    network = task.open_network(tmp_path / "run").eval()
    ids_BT, mask_BT, classes_B = batch = next(task.batches("train", plan))
    single_BK = torch.cat([network(ids[mask][None]) for ids, mask in zip(ids_BT, mask_BT, strict=True)])
    weights_K = torch.tensor(plan.facts["class_weights"])
    loss, count = task.loss(network, batch)
    torch.testing.assert_close(loss, F.cross_entropy(single_BK, classes_B, weights_K, reduction="sum"))
    assert count == pytest.approx(weights_K[classes_B].sum().item())
    shares_K = np.bincount(task._parts["train"].classes) / task.items
    assert (weights_K.numpy() * shares_K) == pytest.approx(1 / 2)


def test_stopped_and_resumed_gives_the_same_bytes(source, tmp_path):
    options = {"target": "label", "steps": 30, "dropout": 0.2, **TINY}
    pl.train(source, tmp_path / "straight", **options)
    with pytest.raises(PellucidError, match="everything is saved"):
        pl.train(source, tmp_path / "run", progress=Stop(13), **options)
    torch.manual_seed(99)  # whatever else the process drew meanwhile
    pl.resume(tmp_path / "run")
    for file in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "run" / file).read_bytes() == (tmp_path / "straight" / file).read_bytes()


def test_a_bert_is_fine_tuned_in_its_shape_with_its_tokenizer(bert, source, tmp_path):
    options = TrainOptions(target="label", start_from=str(bert), steps=2, threads=1, evaluations=1)
    start(str(source), str(tmp_path / "run"), options)
    plan = Plan.open(tmp_path / "run" / "plan.json")
    assert (plan.network["d_model"], plan.network["context"], plan.network["classes"]) == (16, 24, 2)
    task = LabelTask.restore(tmp_path / "run", plan.facts)
    theirs = BertModel.from_pretrained(bert).eval()
    ids_1T = torch.tensor([task.tokenizer.encode("the book")])
    assert ids_1T.tolist() == AutoTokenizer.from_pretrained(bert)(["the book"]).input_ids
    with torch.no_grad():
        begun_1TD = task.network(plan).eval().encoder(ids_1T)
        torch.testing.assert_close(begun_1TD, theirs(ids_1T).last_hidden_state, atol=1e-5, rtol=0)
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")
    again = TrainOptions(target="label", start_from=str(tmp_path / "run"), steps=1, threads=1, evaluations=1)
    start(str(source), str(tmp_path / "again"), again)  # a head for the same classes goes on too
    going_on = LabelTask.restore(tmp_path / "again", plan.facts).network(Plan.open(tmp_path / "again" / "plan.json"))
    saved = task.open_network(tmp_path / "run")
    assert torch.equal(going_on.head.weight, saved.head.weight)


def test_the_linear_model_counts_words_or_pairs_of_characters():
    for texts in (["a good day", "a bad day"] * 9, ["今天很好", "今天很坏"] * 9):
        name, said = linear_model(texts, np.array([0, 1] * 9), texts[:2])
        assert said.tolist() == [0, 1]
        assert ("characters" in name) == (texts[0][0] == "今")
    assert linear_model(["!", "?"], np.array([1, 1]), ["!"])[1].tolist() == [1]


# answers


def test_one_text_or_files_of_them_are_answered(run, tmp_path, capsys, monkeypatch):
    model = pl.open(run)
    assert [answer.value for answer in model.predict("it was really wonderful")] == ["up"]
    (tmp_path / "lines.txt").write_text("a dreadful book\n\n这本书 很好\n", "utf-8")
    assert [answer.value for answer in model.predict(tmp_path / "lines.txt")] == ["down", "up"]
    table = written(tmp_path / "table.jsonl", [{"n": 1, "text": "it was boring"}, {"n": 2, "text": "it was superb"}])
    assert [answer.value for answer in model.predict(table)] == ["down", "up"]
    assert [answer.input for answer in model.predict(tmp_path)] == ["a dreadful book\n\n这本书 很好"]
    assert cli.run(["predict", str(run), str(table), "--save", str(tmp_path / "answers.csv")]) == 0
    assert (tmp_path / "answers.csv").read_text().splitlines()[0] == "input,prediction,p(down),p(up)"
    monkeypatch.setattr("sys.stdin", open(tmp_path / "lines.txt", encoding="utf-8"))  # noqa: SIM115
    capsys.readouterr()
    assert cli.run(["predict", str(run), "-", "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no such file"), ('{"body": "x"}\n', "no column text"), ('{"text": null}\n', "no text")],
)
def test_what_cannot_be_read_is_said(run, tmp_path, content, said):
    path = tmp_path / "other.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(PellucidError, match=said):
        pl.open(run).predict(path)
    with pytest.raises(PellucidError, match="no text"):
        pl.open(run).predict(" ")


def test_it_is_judged_by_class_on_its_test_part_or_another_table(run, tmp_path, capsys):
    model = pl.open(run)
    report = model.evaluate()
    assert report.examples == json.loads((run / "plan.json").read_text())["facts"]["texts"]["test"]
    assert report.accuracy > 0.95
    other = rows(50, seed=3)
    found = model.evaluate(written(tmp_path / "other.jsonl", other))
    said = [answer.value for answer in model.predict([row["text"] for row in other])]
    true = [row["label"] for row in other]
    assert found.confusion[0][1] == sum(t == "down" and s == "up" for t, s in zip(true, said, strict=True))
    assert found.examples == len(other)
    assert cli.run(["evaluate", str(run), str(tmp_path / "other.jsonl"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == found.accuracy


# why


@pytest.mark.parametrize(
    "text",
    [
        "it was  really\twonderful, unexpectedly",
        "我们 看了 这本书，太差！👩‍👩‍👧",
        " ".join(["superb"] + FILLERS * 9),
        "",
        "x",
    ],
)
def test_the_words_of_a_text_add_up_to_what_decides(run, text):
    model = pl.open(run)
    found = model.task.explain(model.network, [text], None, None)
    logits = model.trace([text]).value(":out")[0].double()
    words = [part.name for part in found.parts]
    assert (words[0], words[-1]) == ("[CLS]", "[SEP]")
    spelled = "".join(words[1:-1])
    assert text.startswith(spelled)
    if not found.notes:
        assert spelled == text.rstrip("\n") or not text
    assert found.value == pytest.approx((logits.max() - logits.min()).item(), abs=1e-5)
    assert abs(found.residue) < 1e-5 * max(1, sum(abs(part.amount) for part in found.parts))


def test_the_deciding_word_is_whole_and_first(run):
    found = pl.open(run).why("it was really wonderful", rather_than="down")
    largest = max(found.parts, key=lambda part: part.amount)
    assert largest.name == " wonderful"
    assert found.asked == "up rather than down"
    backwards = pl.open(run).why("it was really wonderful", value="down")
    assert backwards.value == pytest.approx(-found.value)


def test_what_is_cut_off_is_said_in_the_answer(run):
    found = pl.open(run).why("superb " * 99)
    assert found.notes[0].startswith("Only the first")
    with pytest.raises(PellucidError, match="no class 'sideways'"):
        pl.open(run).why("x", value="sideways")


def test_three_classes_are_compared_by_name(tmp_path):
    source = written(tmp_path / "three.jsonl", rows(200, kinds=3))
    model = pl.train(source, tmp_path / "run", target="label", steps=5, **TINY)
    found = model.why("usual", value="flat", rather_than="up")
    logits = model.trace(["usual"]).value(":out")[0]
    assert found.value == pytest.approx((logits[1] - logits[2]).item(), abs=1e-5)
    assert model.evaluate().classes == ("down", "flat", "up")


# encoders of others


def test_a_bert_without_classes_makes_vectors_and_predicts_nothing(bert):
    model = pl.open(bert)
    with pytest.raises(PellucidError, match="encoder without classes"):
        model.predict("the book")
    theirs, tokenizer = BertModel.from_pretrained(bert).eval(), AutoTokenizer.from_pretrained(bert)
    texts = ["the book was", "a"]
    with torch.no_grad():
        vectors = [theirs(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0) for text in texts]
    torch.testing.assert_close(model.task.embed(model.network, texts), F.normalize(torch.stack(vectors)))
    expected = F.cosine_similarity(*vectors, dim=0).item()
    assert model.similarity(*texts) == pytest.approx(expected, abs=1e-5)


def test_a_bert_with_classes_answers_at_once(bert, tmp_path):
    names = {0: "left", 1: "right"}
    theirs = BertForSequenceClassification.from_pretrained(bert, num_labels=2, id2label=names).eval()
    theirs.save_pretrained(bert)
    [answer] = pl.open(bert).predict("the book was")
    with torch.no_grad():
        given_ = AutoTokenizer.from_pretrained(bert)("the book was", return_tensors="pt")
        p_K = theirs(**given_).logits[0].softmax(0)
    assert answer.probabilities == pytest.approx(dict(zip(names.values(), p_K.tolist(), strict=True)), abs=1e-5)


def test_a_table_has_no_similarity(tmp_path):
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(f"{n},{2 * n}\n" for n in range(60)))
    model = pl.train(tmp_path / "t.csv", tmp_path / "run", target="y", steps=1, threads=1)
    with pytest.raises(PellucidError, match="no vectors"):
        model.similarity("a", "b")


# mistakes


BAD = {
    "no text column": ([{"n": n, "label": "ab"[n % 2]} for n in range(60)], ["--task", "labels"]),
    "one class": ([{"text": f"a text number {n}", "label": "a"} for n in range(60)], []),
    "empty texts": ([{"text": " ", "label": "ab"[n % 2]} for n in range(60)], ["--text", "text"]),
    "no labels": ([{"text": f"a text number {n}", "label": None} for n in range(60)], ["--task", "labels"]),
    "no such column": ([{"text": f"a text number {n}", "kind": "ab"[n % 2]} for n in range(60)], ["--task", "labels"]),
    "heads": (rows(60), ["--width", "32", "--heads", "5"]),
    "context": (rows(60), ["--context", "2"]),
    "vocabulary": (rows(60), ["--vocab", "100"]),
    "another task's option": (rows(60), ["--layers", "3"]),
    "no tokenizer": (rows(60), ["--tokenizer", "nowhere"]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_has_one_message_and_leaves_nothing(name, tmp_path, capsys):
    found, options = BAD[name]
    source = written(tmp_path / "texts.jsonl", found)
    before = snapshot(tmp_path)
    out = ["--out", str(tmp_path / "run"), "--steps", "2", "--threads", "1"]
    assert cli.run(["train", str(source), "--target", "label", *out, *options]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "fault" not in error
    assert error.strip()
    assert snapshot(tmp_path) == before


def test_a_class_with_one_example_is_refused_and_rows_without_label_or_text_are_counted(tmp_path):
    found = [*rows(60), {"text": "no label", "label": None}, {"text": "", "label": "up"}]
    lonely = written(tmp_path / "lonely.jsonl", [*found, {"text": "the only one of its kind", "label": "flat"}])
    with pytest.raises(PellucidError, match="Only one example of: flat"):
        start(str(lonely), str(tmp_path / "run"), TrainOptions(target="label", steps=1))
    assert not (tmp_path / "run").exists()
    task = LabelTask.prepare(str(written(tmp_path / "few.jsonl", found)), TrainOptions(target="label"), tmp_path)
    notes = " ".join(task.facts()["notes"])
    assert "1 rows without a text" in notes
    assert "1 rows without a label" in notes
