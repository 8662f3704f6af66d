"""The text task at its public face: what it prepares, how it scores, what it begins with."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pellucid import PellucidError
from pellucid.generation.score import score
from pellucid.networks.decoder import Decoder, decoder_config
from pellucid.tasks.text import TextTask
from pellucid.training.options import TrainOptions

TEXT = "".join(
    f"Line {n} of a text about {thing}, which is {n * 7 % 13} long.\n" for n, thing in enumerate(["tea", "rain"] * 150)
)


@pytest.fixture
def task(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    return TextTask.prepare(str(tmp_path / "text.txt"), TrainOptions(vocab=300), tmp_path / "run")


def small(task, context=16):
    shape = {"vocab_size": task.tokenizer.vocab_size, "d_model": 16, "n_layers": 1, "n_heads": 2, "context": context}
    return Decoder(decoder_config("qwen3", **shape), seed=1)


def test_the_two_parts_make_up_the_text_and_do_not_overlap(task):
    parts = [task.tokenizer.decode(file.ids[:-1].tolist()) for file in (task.train, task.validation)]
    assert "".join(parts) == TEXT
    assert 0.03 < len(parts[1]) / len(TEXT) < 0.08


def test_metrics_on_everything_equal_the_score_of_every_token(task):
    network = small(task)
    plan = SimpleNamespace(items=16, batch=4, evaluate_items=64)
    metrics = task.metrics(network, plan, whole=True)
    ids = task.validation.ids.tolist()
    nats = score(network, ids, task._start, context=16).double().sum().item()
    size = len(task.tokenizer.decode(ids[:-1]).encode())
    assert metrics["loss"] == pytest.approx(nats / len(ids), rel=1e-5)
    assert metrics["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    part = task.metrics(network, plan)
    assert part != metrics
    assert part["loss"] == pytest.approx(metrics["loss"], rel=0.2)


def test_loss_is_the_sum_over_targets_that_are_not_masked(task):
    network = small(task)
    ids = torch.arange(20).reshape(2, 10)
    targets = ids.clone()
    targets[:, ::2] = -100
    loss, count = task.loss(network, (ids, targets))
    log_p = network(ids).log_softmax(-1)
    expected = -sum(log_p[b, t, targets[b, t]] for b in range(2) for t in range(1, 10, 2))
    assert count == 10
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


def test_baselines(task):
    found = task.baselines(thorough=True)
    counts = np.bincount(task.train.ids, minlength=task.tokenizer.vocab_size) + 1
    probability = counts / counts.sum()
    rivals = {rival.key: rival.value for rival in found.rivals}
    assert found.simple == pytest.approx(-np.log(probability[task.validation.ids]).mean())
    assert rivals["xz_given_training_bits_per_byte"] < rivals["xz_bits_per_byte"]
    assert found.even == pytest.approx(np.log(task.tokenizer.vocab_size))
    assert not found.notes


def test_one_document_begins_after_a_line_and_many_after_an_end(task, tmp_path):
    assert task.tokenizer.token_bytes(task._start).endswith(b"\n")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"text": "Poem {n} about {n % 9} things.\\n"}}\n' for n in range(60)))
    many = TextTask.prepare(str(rows), TrainOptions(vocab=300), tmp_path / "many")
    assert many._start == many.tokenizer.end_id


def test_a_given_validation_text_is_held_out_and_nothing_else(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.txt").write_text("Quite another text.\nWith two lines.\n")
    options = TrainOptions(vocab=300, validation=str(tmp_path / "b.txt"))
    task = TextTask.prepare(str(tmp_path / "a.txt"), options, tmp_path / "run")
    assert task.tokenizer.decode(task.validation.ids[:-1].tolist()) == (tmp_path / "b.txt").read_text()
    assert task.facts()["repeated"] == 0


def test_designs_grow_and_options_fix_them(task):
    designs = task.designs(TrainOptions())
    sizes = [design.parameters for design in designs]
    assert sizes == sorted(sizes)
    assert len(designs) > 10
    (fixed,) = task.designs(TrainOptions(width=48, depth=3, heads=3, family="gpt2", context=20, feed_forward=100))
    network = fixed.network
    assert (network["d_model"], network["n_layers"], network["n_heads"], network["d_ff"]) == (48, 3, 3, 100)
    assert (network["family"], network["context"], fixed.items) == ("gpt2", 20, 20)
    live = Decoder(
        decoder_config(
            "gpt2", **{k: network[k] for k in ("vocab_size", "d_model", "n_layers", "n_heads", "d_ff", "context")}
        )
    )
    assert fixed.parameters == sum(p.numel() for p in live.parameters())


def test_a_context_longer_than_the_text_is_refused_and_the_longest_named(task):
    with pytest.raises(PellucidError) as caught:
        task.designs(replace(TrainOptions(), context=10**6))
    assert str(len(task.train) - 1) in caught.value.fix
