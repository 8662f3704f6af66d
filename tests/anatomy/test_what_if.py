"""Settings changed, and two networks side by side."""

import pytest

from pellucid.anatomy import counts, families
from pellucid.anatomy.report import Anatomy
from pellucid.errors import PellucidError

GPT2 = {"model_type": "gpt2", "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12}
GPT3 = GPT2 | {"n_positions": 2048, "n_embd": 12288, "n_layer": 96, "n_head": 96}
LLAMA = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}


def of(config: dict) -> Anatomy:
    return Anatomy(config["model_type"], families.describe(config), config)


@pytest.mark.parametrize(
    ("changes", "total"),
    [
        ({"n_layers": 24, "d_model": 1024, "n_heads": 16}, 354_823_168),  # GPT-2 medium
        ({"n_embd": 1600, "n_layer": 48, "n_head": 25}, 1_557_611_200),  # GPT-2 XL
        ({"context": 2048}, 125_226_240),  # GPT-3 Small
        ({"d_ff": 768}, 124_439_808 - 12 * (2 * 768 * 4 * 768 + 4 * 768 - (2 * 768 * 768 + 768))),
        ({"n_head": 1}, 124_439_808),
    ],
)
def test_what_if(changes, total):
    assert of(GPT2).what_if(**changes).parameters.total == total


def test_the_original_stays():
    anatomy = of(GPT2)
    anatomy.what_if(d_model=64, n_heads=2)
    assert anatomy.config == GPT2


def test_settings_that_follow_from_others_can_be_given():
    grouped = of(LLAMA).what_if(n_kv_heads=8)
    assert of(LLAMA).parameters.total - grouped.parameters.total == 32 * 2 * 4096 * (4096 - 1024)


@pytest.mark.parametrize("changes", [{"layres": 3}, {"n_head": 7}, {"n_embd": 0}, {"n_embd": "wide"}, {"n_experts": 4}])
def test_what_cannot_be(changes):
    with pytest.raises(PellucidError) as error:
        of(GPT2).what_if(**changes)
    assert next(iter(changes)) in error.value.what
    assert error.value.fix


def test_without_a_configuration_there_is_nothing_to_change():
    with pytest.raises(PellucidError, match="configuration"):
        Anatomy("module", families.describe(GPT2)).what_if(n_embd=3)


@pytest.mark.parametrize(("left", "right"), [(GPT2, GPT3), (GPT3, GPT2), (GPT2, GPT2), (GPT2, LLAMA)])
def test_a_comparison_adds_up(left, right):
    comparison = of(left).compare(of(right))
    difference = counts.parameters(families.describe(right)).total - counts.parameters(families.describe(left)).total
    assert comparison.total.difference == difference == sum(row.difference for row in comparison.kinds)
    if left["model_type"] == right["model_type"]:
        assert sum(change.parameters for change in comparison.changes) == difference
    else:
        assert comparison.changes == ()


def test_settings_that_only_fit_together_change_together():
    narrow, wide = (
        LLAMA | {"hidden_size": 100, "num_attention_heads": 10},
        LLAMA | {"hidden_size": 77, "num_attention_heads": 7},
    )
    (change,) = of(narrow).compare(of(wide)).changes
    assert change.fields == ("hidden_size", "num_attention_heads")
    assert (change.left, change.right) == ((100, 10), (77, 7))


def test_a_longer_context_is_the_new_one_s():
    assert Anatomy("gpt2", families.describe(GPT2), GPT2, context=1024).what_if(context=2048).context == 2048


def test_an_anatomy_prints_itself():
    network = of(GPT2)
    assert "124,439,808 parameters" in str(network)
    assert all(len(line) <= 80 for line in str(network).splitlines())
    assert repr(network) == "<Anatomy of gpt2: 124,439,808 parameters, 133,201 neurons; print() shows all>"


def test_a_family_is_no_setting():
    with pytest.raises(PellucidError, match="model_type"):
        of(GPT2).what_if(model_type="llama")


def test_a_text_is_shown_as_one():
    with pytest.raises(PellucidError, match="'24'"):
        of(GPT2).what_if(n_layers="24")
