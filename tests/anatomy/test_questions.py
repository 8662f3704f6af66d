"""What running and training take, what a budget buys, what there is: published figures, and sums that open."""

import json

import pytest

from pellucid.anatomy import catalogue, counts, families, questions
from pellucid.anatomy.cost import devices
from pellucid.anatomy.memory.serving import RUNTIME
from pellucid.anatomy.report import Anatomy
from pellucid.errors import PellucidError


def known(name: str, context: int | None = 4096) -> Anatomy:
    entry = catalogue.find(name)
    assert entry.config is not None
    return Anatomy(name, families.describe(entry.config), entry.config, name, entry, context)


def test_llama_2_70b_as_published():
    """Touvron et al. 2023, table 2: 1,720,320 hours; 6,000 GPUs for 12 days and 2 M$ are told of it."""
    training = known("llama-2-70b").training(devices=6000, price=1.16)
    assert training.published is not None
    assert training.published.days == pytest.approx(11.9467, abs=1e-3)
    assert training.published.money == pytest.approx(1.9956e6, rel=1e-4)
    assert training.utilisation == pytest.approx(0.428, abs=1e-3)
    dear = known("llama-2-70b").training(devices=6000, price=2)
    assert dear.published is not None
    assert dear.published.money == pytest.approx(3.44e6, rel=1e-3)
    assert known("llama-2-70b").serving("bf16").sizes["weights"] == 137_953_296_384


def test_gpt3_took_3e23_operations():
    """Brown et al. 2020, table D.1: 3.14e23 FLOPs."""
    training = known("gpt3", 2048).training()
    assert training.rule == pytest.approx(3.14e23, rel=2e-3)
    assert training.exact == pytest.approx(training.rule, rel=0.05)  # attention in, lookups out


@pytest.mark.parametrize(
    "network", [known("llama-2-7b"), known("mixtral-8x7b"), known("whisper-tiny", 448), known("resnet-50", None)]
)
def test_answers_open_and_are_plain_data(network):
    training = network.training(1e9, "a100-80gb", devices=8)
    serving = network.serving("bf16", "h100-sxm", batch=2)
    for answer in (training, serving):
        assert all(" = " in line or ": " in line for line in answer.explain())
        json.dumps(answer.json(), allow_nan=False)
    assert training.memory is not None
    assert training.memory.total == sum(part.bytes for part in training.memory.parts)
    assert serving.fits == (serving.sizes.total <= serving.device.memory)


def test_what_is_said_to_fit_fits():
    answer = known("llama-2-7b").serving("Q4_K_M", "rtx-4090", length=1024)
    assert answer.fits
    for context, fits in ((answer.largest_context, True), (answer.largest_context + 1, False)):
        assert known("llama-2-7b").serving("Q4_K_M", "rtx-4090", length=context).fits == fits
    for batch, fits in ((answer.largest_batch, True), (answer.largest_batch + 1, False)):
        assert known("llama-2-7b").serving("Q4_K_M", "rtx-4090", length=1024, batch=batch).fits == fits


def test_a_network_that_does_not_fit_has_no_speed():
    answer = known("llama-2-70b").serving("bf16", "rtx-4090")
    assert (answer.fits, answer.speed, answer.largest_context) == (False, None, 0)
    assert known("llama-2-70b").serving("bf16", "rtx-4090", devices=8).fits


def test_the_fewest_devices_are_enough():
    network = known("llama-2-7b", 512)
    answer = network.training(1e9, "a100-80gb", devices=2)
    assert answer.smallest is not None
    assert network.training(1e9, "a100-80gb", devices=answer.smallest, sharding="fsdp").fits
    assert not network.training(1e9, "a100-80gb", devices=answer.smallest - 1, sharding="fsdp").fits


def test_a_token_reads_the_experts_that_it_meets():
    mixture = known("mixtral-8x7b").tree
    total, active = counts.parameters(mixture).total, counts.parameters(mixture).active
    table = 32000 * 4096  # looked up, not read
    assert questions.read_share(mixture) * total == pytest.approx(active - table)
    assert questions.read_share(mixture, 1000) * total == pytest.approx(total - table)
    assert questions.read_share(known("gpt2").tree) * 124_439_808 == pytest.approx(124_439_808 - 1024 * 768)


def test_tokens_must_be_known():
    with pytest.raises(PellucidError, match="tokens"):
        known("resnet-50", None).training()


def test_rumours_are_marked():
    rows = {row.entry.name: row for row in questions.models("gpt").rows}
    assert rows["gpt4"].total is None
    assert rows["gpt4"].entry.status == "rumour"
    assert {rows[name].total for name in ("gpt1", "gpt2-xl", "gpt3")} == {116_534_784, 1_557_611_200, 174_604_259_328}
    assert {rows[name].entry.published for name in ("gpt1", "gpt2-xl", "gpt3")} == {"117M", "1558M", "175.0B"}


def test_what_is_asked_to_be_explained():
    assert questions.asked("feed-forward") == ("parameters", "feed-forward")
    assert questions.asked("multiply-adds head") == ("multiply-adds", "head")
    assert questions.asked("neurons") == ("neurons", "")
    assert questions.asked("all") == ("parameters", "")


@pytest.mark.parametrize(
    ("ask", "word"),
    [
        (lambda: known("gpt2").serving("q5_x"), "q5_x"),
        (lambda: known("gpt2").serving(device="a100"), "a100"),
        (lambda: known("gpt2").serving(batch=0), "batch"),
        (lambda: known("gpt2").training(-1), "tokens"),
        (lambda: known("gpt2").training(float("nan")), "tokens"),
        (lambda: known("gpt2").training(1e9, "h100-sxm", devices=0), "devices"),
        (lambda: known("gpt2").training(1e9, "h100-sxm", utilisation=1.5), "utilisation"),
        (lambda: known("gpt2").training(1e9, optimiser="adan"), "adan"),
        (lambda: questions.budget(1000), "device"),
        (lambda: questions.budget(0, "h100-sxm"), "money"),
        (lambda: questions.models("no such thing"), "no such thing"),
    ],
)
def test_bad_questions(ask, word):
    with pytest.raises(PellucidError) as error:
        ask()
    assert word in str(error.value)


def test_only_where_there_is_cuda_it_takes_memory(monkeypatch):
    processor = devices.Device(
        "this-machine", "a processor", {"fp32": 1e11, "bf16": 1e11}, 2e10, 10**10, "", has_cuda=False
    )
    monkeypatch.setattr(devices, "this_machine", lambda: processor)
    network = known("gpt2", 1024)
    for ask in (lambda name: network.serving(device=name).sizes, lambda name: network.training(1e9, name).memory):
        here, there, anywhere = (ask(name) for name in ("here", "l4", None))
        assert not any("CUDA" in line for line in here.explain())
        assert any("CUDA" in line for line in there.explain())
        assert here.total == there.total - RUNTIME
        assert anywhere.total == there.total
    two = network.serving(device="here", devices=2, batch=1)
    assert two.largest_batch > 2 * network.serving(device="here").largest_batch  # weights lie there once
