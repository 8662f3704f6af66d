"""What serving takes, against published caches and measured programs."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid import PellucidError
from pellucid.anatomy import catalogue, families
from pellucid.anatomy.cost.devices import find
from pellucid.anatomy.counts import parameters
from pellucid.anatomy.families.decoder import DecoderShape, decoder_tree
from pellucid.anatomy.memory.serving import LIMIT, RUNTIME, cache, largest_batch, largest_context, serve, token_bytes

TOKEN = {  # bytes of the keys and values of a token at 16 bits
    "gpt2": 36_864,
    "gpt2-xl": 307_200,
    "gpt3": 4_718_592,
    "llama-2-7b": 524_288,
    "llama-2-13b": 819_200,
    "llama-2-70b": 327_680,
    "llama-3-8b": 131_072,
    "llama-3-70b": 327_680,
    "llama-3.1-405b": 516_096,
    "llama-3.2-1b": 32_768,
    "mistral-7b": 131_072,
    "mixtral-8x7b": 131_072,
    "qwen2.5-0.5b": 12_288,
    "qwen2.5-7b": 57_344,
    "qwen2.5-72b": 327_680,
    "qwen3-8b": 147_456,
    "qwen3-32b": 262_144,
    "gemma-2b": 18_432,
    "falcon-7b": 8_192,
    "deepseek-v3": (512 + 64) * 61 * 2,
}


def tree(name):
    return families.describe(catalogue.find(name).config)


def small(**settings):
    shape = {"vocab_size": 100, "d_model": 64, "n_layers": 4, "n_heads": 4, "n_kv_heads": 2, "head_dim": 32, "d_ff": 96}
    return decoder_tree(DecoderShape(**shape | {"context": 1024} | settings))


@pytest.mark.parametrize("model", TOKEN)
def test_a_tokens_keys_and_values(model):
    assert token_bytes(tree(model)) == TOKEN[model]


@pytest.mark.parametrize(
    ("model", "length", "gib"),
    [  # unslothai/unsloth#4757, where other estimates are up to eight times as large
        ("gemma-3-27b", 131_072, 10.41),
        ("deepseek-v3", 163_840, 10.72),
        ("qwen3-0.6b", 40_960, 4.38),
    ],
)
def test_long_caches(model, length, gib):
    assert cache(tree(model), 1, length).total / 2**30 == pytest.approx(gib, abs=0.006)


def test_a_measured_cache_grows_as_foretold():
    """unslothai/unsloth#9525, Qwen3.8-27B: 16 of its layers keep keys and values (4 heads of 256 each)."""
    sixteen = small(n_layers=16, n_kv_heads=4, head_dim=256)
    grown = cache(sixteen, 1, 262_144).total - cache(sixteen, 1, 40_223).total
    assert grown / 2**30 == pytest.approx(16.15 - 2.61, abs=0.01)


def test_windows_bound_the_cache_layer_by_layer():
    windowed = small(sliding_windows=(16, 16, None, 16))
    a_layer = 2 * 2 * 32 * 2  # keys and values, heads, head size, bytes
    assert cache(windowed, 3, 10).total == 3 * 4 * 10 * a_layer
    assert cache(windowed, 3, 100).total == 3 * (3 * 16 + 100) * a_layer
    assert [part.bytes for part in cache(windowed, 1, 100).parts] == [3 * 16 * a_layer, 100 * a_layer]


def test_a_translator_keeps_its_source_once():
    assert cache(tree("t5-base"), 1, 100, source=7).total == 12 * 2 * 768 * 2 * (100 + 7)
    assert token_bytes(tree("t5-base")) == 12 * 2 * 768 * 2


def test_what_writes_no_text_keeps_nothing():
    assert cache(tree("bert-base"), 8, 512).total == 0
    assert cache(tree("resnet-50"), 8).total == 0
    states = cache(tree("mamba-2.8b"), 2, 100)
    assert states.total == cache(tree("mamba-2.8b"), 2, 100_000).total == 2 * 64 * 5120 * (16 + 4) * 2


def test_quantised_caches():
    full = cache(tree("llama-3-8b"), 1, 4096).total
    assert cache(tree("llama-3-8b"), 1, 4096, "q8_0").total == full * 34 // 64
    assert cache(tree("llama-3-8b"), 1, 4096, "q4_0").total == full * 18 // 64
    assert cache(tree("llama-3-8b"), 1, 4096, "fp8").total == full // 2


def test_all_of_llama_2_70b():
    serving = serve(tree("llama-2-70b"), "bf16", batch=4, length=4096)
    assert serving["weights"] == 2 * 68_976_648_192
    assert serving["cache"] == 4 * 4096 * 327_680
    assert serving["logits"] == 4 * 32_000 * 4
    assert serving["activations"] == 2048 * (2 * 28_672 + 28_672 + 8192) * 2
    assert serving.total == sum(part.bytes for part in serving.parts)
    assert not serving.fits(find("a100-80gb").memory)
    assert serve(tree("llama-2-70b"), "int4", length=4096).fits(find("a100-80gb").memory)


def test_gemma_3_27b_at_128k_needs_30_gb_not_139():
    """gpustack/gpustack#2101 has 139 GB."""
    assert serve(tree("gemma-3-27b"), "Q4_K_M", length=131_072).total == pytest.approx(29.4e9, rel=0.01)


def test_every_part_opens_and_adds_up():
    for model in ("llama-3-8b", "deepseek-v3", "gemma-2-9b", "googlenet", "whisper-tiny", "mamba-2.8b"):
        serving = serve(tree(model), batch=3, length=5000, cache_format="bf16")
        for part in serving.parts:
            if product := re.search(r"[\d(][\d,() ×+/]+$", part.formula):
                assert eval(product[0].replace(",", "").replace("×", "*")) == part.bytes, part
        assert str(serving).count("\n") == len({part.name for part in serving.parts})
        assert serving.json()["total"] == serving.total


@settings(max_examples=30, deadline=None)
@given(st.integers(40, 200), st.sampled_from(["bf16", "q4_0"]), st.integers(1, 4), st.booleans())
def test_the_largest_that_fits_is_the_largest(megabytes, cache_format, other, windowed):
    windows = (64, None, None, 64) if windowed else None
    network, memory = small(sliding_windows=windows), RUNTIME + megabytes * 1e6
    context = largest_context(network, memory, batch=other, cache_format=cache_format)
    assert serve(network, "bf16", other, context, cache_format).fits(memory)
    assert not serve(network, "bf16", other, context + 1, cache_format).fits(memory)
    batch = largest_batch(network, memory, length=100 * other, cache_format=cache_format)
    assert serve(network, "bf16", batch, 100 * other, cache_format).fits(memory)
    assert not serve(network, "bf16", batch + 1, 100 * other, cache_format).fits(memory)


def test_the_largest_at_the_ends():
    assert largest_context(small(), RUNTIME) == 0
    assert largest_batch(small(), RUNTIME, length=8) == 0
    assert largest_context(tree("mamba-2.8b"), 80e9) == LIMIT  # its memory does not grow with the text
    assert largest_context(tree("llama-3.1-8b"), 24e9) < largest_context(tree("llama-3.1-8b"), 24e9, "Q4_K_M")


@given(st.integers(1, 64), st.integers(1, 10**6))
def test_more_is_more(batch, length):
    network = small(sliding_windows=(16, None, 16, None))
    one, more = serve(network, batch=batch, length=length), serve(network, batch=batch + 1, length=length + 1)
    assert one.total < more.total
    assert one["weights"] == more["weights"] == 2 * parameters(network).total


@pytest.mark.parametrize(
    "wrong",
    [{"batch": 0}, {"length": -1}, {"length": 1.5}, {"cache_format": "q9_0"}, {"number_format": "fp31"}, {"source": 0}],
)
def test_what_is_wrong_is_told(wrong):
    with pytest.raises(PellucidError):
        serve(small(), **wrong)
    with pytest.raises(PellucidError, match="q8_0"):
        cache(small(), cache_format="q8")
