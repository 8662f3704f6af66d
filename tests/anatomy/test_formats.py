"""Bytes of weights against published files."""

import re

import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from hypothesis import given
from hypothesis import strategies as st

from pellucid import PellucidError
from pellucid.anatomy import catalogue, families
from pellucid.anatomy.counts import parameters
from pellucid.anatomy.memory import gguf
from pellucid.anatomy.memory.formats import FORMATS, known, weights
from pellucid.anatomy.memory.sizes import as_bytes
from pellucid.anatomy.tree import Linear, Part, Sequence

LLAMA_3_1_8B = {  # bits a weight and GiB, llama.cpp's tools/quantize/README.md
    "IQ1_S": ("2.0042", 1.87),
    "IQ1_M": ("2.1460", 2.01),
    "IQ2_XXS": ("2.3824", 2.23),
    "IQ2_XS": ("2.5882", 2.42),
    "IQ2_S": ("2.7403", 2.56),
    "IQ2_M": ("2.9294", 2.74),
    "IQ3_XXS": ("3.2548", 3.04),
    "IQ3_XS": ("3.4977", 3.27),
    "IQ3_S": ("3.6606", 3.42),
    "IQ3_M": ("3.7628", 3.52),
    "IQ4_XS": ("4.4597", 4.17),
    "IQ4_NL": ("4.6818", 4.38),
    "Q2_K_S": ("2.9697", 2.78),
    "Q2_K": ("3.1593", 2.95),
    "Q3_K_S": ("3.6429", 3.41),
    "Q3_K_L": ("4.2979", 4.02),
    "Q4_K_S": ("4.6672", 4.36),
    "Q4_K_M": ("4.8944", 4.58),
    "Q5_K_S": ("5.5704", 5.21),
    "Q5_K_M": ("5.7036", 5.33),
    "Q6_K": ("6.5633", 6.14),
    "Q8_0": ("8.5008", 7.95),
    "F16": ("16.0005", 14.96),
}


def tree(name):
    return families.describe(catalogue.find(name).config)


@pytest.mark.parametrize("kind", LLAMA_3_1_8B)
def test_llama_3_1_8b_in_every_kind_of_llama_cpps_table(kind):
    bits, gib = LLAMA_3_1_8B[kind]
    size = weights(tree("llama-3.1-8b"), kind).total
    assert f"{8 * size / 8_030_261_248:.4f}" == bits
    assert size / 2**30 == pytest.approx(gib, abs=0.0051)


@pytest.mark.parametrize(
    ("model", "kind", "gb"),
    [  # sizes of files on the hub, or of their parts together
        ("llama-3.1-8b", "Q4_K_M", 4.92),
        ("llama-3.1-70b", "Q4_K_M", 42.5),  # llama.cpp's README says 43.1: 8B's bits a weight, times 70B
        ("llama-3.1-70b", "Q4_K_S", 40.3),
        ("llama-3-70b", "Q3_K_S", 30.9),
        ("llama-3-70b", "IQ3_XS", 29.3),
        ("llama-3-70b", "IQ1_S", 15.3),
        ("llama-2-7b", "Q4_K_M", 4.08),
        ("llama-2-70b", "Q4_K_M", 41.42),
        ("deepseek-v2", "Q2_K", 85.9),
        ("deepseek-v2", "Q4_K_S", 133.9),
        ("deepseek-v3", "Q4_K_M", 404.3),
        ("deepseek-v3", "Q3_K_M", 319.0),
    ],
)
def test_gguf_files_of_the_hub(model, kind, gb):
    assert weights(tree(model), kind).total / 1e9 == pytest.approx(gb, rel=0.003)


@pytest.mark.parametrize(
    ("model", "number_format", "gb"),
    [
        ("llama-2-7b", "bf16", 13.48),
        ("llama-2-13b", "bf16", 26.03),
        ("llama-2-70b", "bf16", 137.95),
        ("llama-3-8b", "bf16", 16.06),
        ("llama-3.1-405b", "bf16", 811.7),
        ("mixtral-8x7b", "bf16", 93.4),
        ("llama-3.1-8b", "fp32", 32.12),
        ("llama-2-7b", "int4", 3.89),  # the hub's AWQ files with groups of 128
        ("llama-2-13b", "int4", 7.25),
        ("llama-2-70b", "int4", 36.61),
    ],
)
def test_files_of_safetensors(model, number_format, gb):
    assert weights(tree(model), number_format).total / 1e9 == pytest.approx(gb, abs=0.06 if gb > 90 else 0.006)


def test_the_blocks_are_ggufs_own():
    theirs = {name: GGML_QUANT_SIZES[GGMLQuantizationType[name]] for name in gguf.BLOCKS}
    assert theirs == gguf.BLOCKS


def test_what_is_not_a_multiple_of_a_block_falls_back():
    odd = families.describe({**catalogue.find("gpt2").config, "n_embd": 96, "n_head": 4, "n_layer": 2})
    assert set(gguf.types(odd, "Q4_K_M")) <= {"F32", "Q5_0", "Q5_1", "Q8_0"}
    assert "F16" in gguf.types(
        families.describe({**catalogue.find("gpt2").config, "n_embd": 40, "n_head": 4}), "Q4_K_M"
    )


def test_a_small_matrix_by_hand():
    alone = Sequence((Part("up", Linear(256, 100), "feed-forward", "token"),))
    assert weights(alone, "int8").total == 256 * 100 + 4 * 100 + 2 * 100
    assert weights(alone, "fp8").total == 256 * 100 + 4 * 2 * 1 + 2 * 100
    assert weights(alone, "nf4").total == 128 * 100 + 400 + 4 * 2 + 2 * 100
    assert weights(alone, "int4").total == 128 * 100 + 500 + 2 * 100


@pytest.mark.parametrize("model", ["gpt2", "llama-2-70b", "mixtral-8x7b", "deepseek-v3", "gemma-2-9b", "bloom-560m"])
def test_every_number_is_stored_once_and_opens(model):
    counted = parameters(tree(model))
    for kind in gguf.KINDS:
        assert sum(gguf.types(tree(model), kind).values()) == counted.total + counted.buffers
    for name in FORMATS:
        for line in weights(tree(model), name).explain():
            formula, size = re.fullmatch(r"[^:]+: (.*) = ([\d.,]+ \w?B) \(.*\)", line).groups()
            if re.fullmatch(r"(\w+: )?[\d,× /]+", formula):
                value = eval(re.sub(r"^\w+: |,", "", formula).replace("×", "*"))
                assert as_bytes(value).startswith(size)


@given(st.sampled_from(FORMATS), st.sampled_from(FORMATS))
def test_more_bits_are_more_bytes(one, other):
    def bits(name):
        return {"fp32": 32, "F32": 32, "fp8": 8, "nf4": 4}.get(name) or float(re.search(r"\d+", name)[0])

    small = tree("gpt2-medium")  # all of its layers are multiples of a block
    if bits(one) > bits(other) + 2:
        assert weights(small, one).total > weights(small, other).total


def test_what_is_wrong_is_told():
    with pytest.raises(PellucidError, match="Q4_K_M"):
        weights(tree("gpt2"), "Q4_K_X")
    with pytest.raises(PellucidError, match="fp32"):
        weights(tree("gpt2"), "fp31")
    with pytest.raises(PellucidError, match="language models"):
        weights(tree("lenet-5"), "Q4_K_M")
    assert known("q4_k_m", FORMATS, "format") == "Q4_K_M"
    assert [known(name, FORMATS, "format") for name in ("bf16", "BF16")] == ["bf16", "BF16"]


def test_gb_and_gib_are_both_said():
    assert as_bytes(4_912_898_048) == "4.91 GB (4.58 GiB)"
    assert (as_bytes(1500), as_bytes(2e6), as_bytes(12)) == ("1.50 kB (1.46 KiB)", "2.00 MB (1.91 MiB)", "12 B")
