"""The catalogue: its tables are whole and honest, and a name is found however it is written."""

import re
import subprocess
import sys
from collections import Counter

import pytest

from pellucid.anatomy import catalogue, questions
from pellucid.anatomy.cost import devices
from pellucid.errors import PellucidError


def test_names_and_aliases_are_unique() -> None:
    keys = [catalogue._key(name) for entry in catalogue.entries() for name in (entry.name, *entry.aliases)]
    assert [key for key, count in Counter(keys).items() if count > 1] == []


def test_every_row_says_what_it_is_and_where_it_is_from() -> None:
    for entry in catalogue.entries():
        assert all((entry.title, entry.family, entry.source)), entry.name
        assert re.fullmatch(r"[a-z0-9.-]+", entry.name), entry.name
        assert 1800 < entry.year < 2030, entry.name  # least squares are of 1805


def test_a_row_has_a_configuration_or_says_why_not() -> None:
    for entry in catalogue.entries():
        assert (entry.config is None) == (entry.status is not None), entry.name
        assert entry.status in (None, "rumour", "undisclosed"), entry.name
        if entry.config is not None:
            assert isinstance(entry.config["model_type"], str), entry.name


def test_training_is_what_a_planner_can_use() -> None:
    for entry in catalogue.entries():
        if (training := entry.training) is not None:
            assert training.tokens is None or training.tokens > 1e9, entry.name
            assert training.hours is None or training.device is not None, entry.name


def test_ninety_models_and_more() -> None:
    assert len(catalogue.entries()) >= 90


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("gpt3", "gpt3"),
        ("GPT-3", "gpt3"),
        ("GPT-3 175B", "gpt3"),
        ("llama2-70b", "llama-2-70b"),
        ("meta-llama/Llama-2-70b-hf", "llama-2-70b"),
        ("bert-base-uncased", "bert-base"),
        ("deepseek-r1", "deepseek-v3"),
    ],
)
def test_a_name_is_found_however_it_is_written(written: str, name: str) -> None:
    assert catalogue.find(written).name == name


def test_an_unknown_name_is_answered_by_the_nearest() -> None:
    with pytest.raises(PellucidError) as error:
        catalogue.find("lama-2-70b")
    assert "lama-2-70b" in error.value.what
    assert "llama-2-70b" in error.value.fix
    with pytest.raises(PellucidError) as error:
        catalogue.find("xyzzy")
    assert "--list" in error.value.fix


def test_search_finds_every_row_that_has_all_words() -> None:
    assert {entry.name for entry in catalogue.search("bert large")} >= {"bert-large", "roberta-large", "albert-large"}
    assert catalogue.search("bert nonesuch") == []
    assert len(catalogue.search("")) == len(catalogue.entries())


def test_null_is_jsons_null() -> None:
    assert catalogue.find("deepseek-v2-lite").config["q_lora_rank"] is None  # type: ignore[index]


def test_a_rumour_is_marked() -> None:
    gpt4 = catalogue.find("gpt-4")
    assert (gpt4.status, gpt4.config) == ("rumour", None)


def test_the_catalogue_needs_no_torch() -> None:
    code = (
        "import sys; from pellucid.anatomy import catalogue; catalogue.find('gpt3'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_device_is_one_that_we_know() -> None:
    used = {entry.training.device for entry in catalogue.entries() if entry.training} - {None}
    assert used <= set(devices.table())


@pytest.mark.parametrize(
    ("published", "size"),
    [
        ("124M", (124e6, 0.5e6)),
        ("1558M", (1558e6, 0.5e6)),
        ("1.76B", (1.76e9, 5e6)),
        ("46.7B, 12.9B active", (46.7e9, 50e6)),
        ("60 million", (60e6, 0.5e6)),
        ("85,000", (85_000, 0.5)),
        ("2-4-2-1", None),
        ("1.76T–1.8T", None),
        (None, None),
    ],
)
def test_what_was_published_is_read_as_a_number_and_its_rounding(published, size) -> None:
    entry = catalogue.Entry("a", "A", "family", 2024, "source", published=published)
    assert entry.published_size == (size and pytest.approx(size))


def test_an_exact_total_that_was_published_is_not_rounded() -> None:
    assert catalogue.find("resnet-50").published_size == (25_557_032, 0)


def test_every_count_is_near_to_what_was_published() -> None:
    """A number that was misread is off by a thousand; GoogLeNet's auxiliary heads make 96 %."""
    for row in questions.models().rows:
        assert row.difference is None or abs(row.difference) < 1, row.entry.name
