"""Published totals from configurations alone, and agreement with the live network for drawn configurations."""

import subprocess
import sys
from collections import defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.anatomy import compute, counts, families
from pellucid.networks.decoder import FAMILIES, Decoder, decoder_config


def shape(vocab_size, context, d_model, n_layers, n_heads, n_kv_heads, head_dim, d_ff, **rest) -> dict:
    return {key: value for key, value in locals().items() if key != "rest"} | rest


# name: family, shape, parameters (counted with transformers on the meta device, or printed on the model's card)
PUBLISHED = {
    "gpt-1": ("gpt1", shape(40478, 512, 768, 12, 12, 12, 64, 3072), 116_534_784),
    "gpt-2": ("gpt2", shape(50257, 1024, 768, 12, 12, 12, 64, 3072), 124_439_808),
    "gpt-2-xl": ("gpt2", shape(50257, 1024, 1600, 48, 25, 25, 64, 6400), 1_557_611_200),
    "gpt-3": ("gpt2", shape(50257, 2048, 12288, 96, 96, 96, 128, 49152), 174_604_259_328),
    "llama-2-7b": ("llama", shape(32000, 4096, 4096, 32, 32, 32, 128, 11008, tied=False), 6_738_415_616),
    "llama-2-70b": ("llama", shape(32000, 4096, 8192, 80, 64, 8, 128, 28672, tied=False), 68_976_648_192),
    "mistral-7b": ("mistral", shape(32000, 32768, 4096, 32, 32, 8, 128, 14336, tied=False), 7_241_732_096),
    "qwen2-7b": ("qwen2", shape(152064, 32768, 3584, 28, 28, 4, 128, 18944, tied=False), 7_615_616_512),
    "qwen3-0.6b": ("qwen3", shape(151936, 40960, 1024, 28, 16, 8, 128, 3072, tied=True), 596_049_920),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_totals(name):
    family, sizes, total = PUBLISHED[name]
    counted = counts.parameters(families.decoder(decoder_config(family, **sizes)))
    assert counted.total == total
    assert sum(counted.by_kind.values()) == sum(counted.by_path.values()) == total


@st.composite
def configs(draw):
    kv_heads, layers = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    heads = kv_heads * draw(st.integers(1, 3))
    head_dim = 2 * draw(st.integers(1, 6))
    family = draw(st.sampled_from(sorted(FAMILIES)))
    if family in ("gpt1", "gpt2", "sinusoidal"):  # these have as many keys as queries, and heads that fill the width
        kv_heads, d_model = heads, heads * head_dim
    else:
        d_model = 2 * draw(st.integers(2, 12))
    sizes = {
        "vocab_size": draw(st.integers(1, 70)),
        "d_model": d_model,
        "n_layers": layers,
        "n_heads": heads,
        "n_kv_heads": kv_heads,
        "head_dim": head_dim,
        "d_ff": draw(st.integers(1, 40)),
        "context": draw(st.integers(1, 40)),
        "tied": draw(st.booleans()),
        "qkv_bias": draw(st.booleans()),
        "output_bias": draw(st.booleans()),
        "ff_bias": draw(st.booleans()),
        "qk_norm": draw(st.booleans()),
        "dropout": draw(st.sampled_from([0.0, 0.1])),
    }
    return family, sizes


@given(configs())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_equals_the_live_network(drawn):
    config = decoder_config(drawn[0], **drawn[1])
    with torch.device("meta"):
        network = Decoder(config)
    counted = counts.parameters(families.decoder(config))
    assert counted.total == sum(p.numel() for p in network.parameters())
    assert counted.by_kind == live_kinds(network)
    assert counted.by_path == live_paths(network)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_matrices_are_what_is_two_dimensional_inside_blocks(family):
    config = small(family)
    inside = sum(p.numel() for p in Decoder(config).blocks.parameters() if p.ndim == 2)
    assert counts.matrices(families.decoder(config)) == inside


def test_layers_that_see_unequally_far_count_the_same():
    alike, mixed = small("mistral"), small("mistral", n_layers=4, sliding_windows=(4, 4, None, 4))
    trees = [families.decoder(config) for config in (small("mistral", n_layers=4), mixed)]
    assert counts.parameters(trees[0]).total == counts.parameters(trees[1]).total
    assert alike.n_layers == 2


def test_training_flops_of_gpt_2_are_nanogpts():
    # nanoGPT's estimate_mfu: 6N + 12LHQT with N = all parameters but the positions
    config = decoder_config("gpt2", **PUBLISHED["gpt-2"][1])
    flops = compute.training_flops(families.decoder(config), context=1024)
    assert flops.weights == 6 * (124_439_808 - 1024 * 768)
    assert flops.attention == 12 * 12 * 12 * 64 * 1024
    assert flops.total == flops.weights + flops.attention


def test_untied_embedding_is_looked_up_and_does_not_multiply():
    tied, untied = (families.decoder(small("llama", tied=tied)) for tied in (True, False))
    assert counts.multiplied(tied) == counts.multiplied(untied)
    assert counts.parameters(untied).total > counts.parameters(tied).total


def test_a_window_bounds_the_arithmetic_of_attention():
    wide, narrow = (families.decoder(small("mistral", sliding_windows=(w, w))) for w in (None, 4))
    assert compute.training_flops(wide, 16).attention == 4 * compute.training_flops(narrow, 16).attention


def test_counting_imports_neither_torch_nor_numpy():
    code = (
        "import sys; from types import SimpleNamespace; from pellucid.anatomy import counts, families, compute; "
        "from pellucid.anatomy.memory import peak;"
        f"config = SimpleNamespace(**{vars(small('qwen3'))!r});"
        "assert counts.parameters(families.decoder(config)).total > 0;"
        "peak.forecast(families.decoder(config), peak.Training(peak.Run(2, 8)));"
        "assert not {'torch', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def small(family: str, **changes):
    return decoder_config(family, **(shape(11, 16, 16, 2, 2, 2, 8, 20) | changes))


def live_kinds(network) -> dict[str, int]:
    """Sort the live parameters by their names alone, so that the tree is checked against something else."""
    kinds = dict.fromkeys(counts.KINDS, 0)
    for name, parameter in network.named_parameters():
        if "norm" in name:
            kind = "norm"
        elif "feed_forward" in name:
            kind = "feed-forward"
        elif "attention" in name:
            kind = "attention"
        else:
            kind = "head" if name.startswith("head") else "embedding"
        kinds[kind] += parameter.numel()
    return kinds


def live_paths(network) -> dict[str, int]:
    paths = defaultdict(int)
    for name, parameter in network.named_parameters():
        module = name.rsplit(".", 1)[0]
        paths[".".join("*" if part.isdigit() else part for part in module.split("."))] += parameter.numel()
    return dict(paths)
