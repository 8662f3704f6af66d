"""State spaces, and networks that mix them with attention, by their configuration, against transformers."""

import contextlib
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from hub import build, check, modern
from pellucid.anatomy import compute, counts, families
from pellucid.anatomy.families.defaults import DEFAULTS
from pellucid.anatomy.memory import serving
from pellucid.anatomy.tree import Attention, Scan, walk
from pellucid.errors import PellucidError

BOOL = st.booleans()
SMALL = st.integers(1, 4)
SIZES = {"hidden_size": st.just(8), "num_attention_heads": st.just(2), "num_key_value_heads": st.integers(1, 2)}
MAMBA_2 = {
    "mamba_n_heads": st.sampled_from([2, 4]),
    "mamba_d_head": st.just("auto"),
    "mamba_d_state": SMALL,
    "mamba_n_groups": st.sampled_from([1, 2]),
    "mamba_conv_bias": BOOL,
    "mamba_proj_bias": BOOL,
    "attention_bias": BOOL,
}
DELTA = {
    "head_dim": st.sampled_from([8, 16]),
    "full_attention_interval": SMALL,
    "linear_key_head_dim": SMALL,
    "linear_num_key_heads": st.integers(1, 2),
    "linear_num_value_heads": st.sampled_from([2, 4]),
    "linear_value_head_dim": SMALL,
}
ROUTED = {"num_experts": st.integers(3, 5), "num_experts_per_tok": st.integers(1, 3)}
SPARSE = ROUTED | {"moe_intermediate_size": SMALL, "shared_expert_intermediate_size": SMALL}
MAMBA = {"state_size": SMALL, "conv_kernel": st.integers(2, 4), "use_bias": BOOL, "use_conv_bias": BOOL}
DRAWN: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "bamba": modern(**SIZES, **MAMBA_2, attn_layer_indices=st.none() | st.just([0, 2]), mlp_bias=BOOL),
    "falcon_mamba": modern(**SIZES, **MAMBA, time_step_rank=st.just("auto") | SMALL),
    "granitemoehybrid": modern(
        **SIZES, **MAMBA_2, num_local_experts=st.sampled_from([0, 3]), shared_intermediate_size=SMALL
    ),
    "jamba": modern(
        **SIZES,
        **ROUTED,
        attn_layer_offset=st.just(1),
        attn_layer_period=st.just(3),
        mamba_d_state=SMALL,
        mamba_dt_rank=st.just("auto") | SMALL,
        mamba_proj_bias=BOOL,
    ),
    "lfm2": modern(
        **SIZES,
        block_auto_adjust_ff_dim=BOOL,
        block_multiple_of=SMALL,
        conv_bias=BOOL,
        full_attn_idxs=st.none() | st.just([0, 2]),
    ),
    "mamba2": modern(
        **SIZES, **MAMBA, expand=st.just(2), head_dim=st.just(4), n_groups=st.just(2), num_heads=st.just(4)
    ),
    "qwen3_5_moe_text": modern(**SIZES, **SPARSE, **DELTA),
    "qwen3_5_text": modern(**SIZES, **DELTA),
    "qwen3_next": modern(**SIZES, **SPARSE, **DELTA, attention_bias=BOOL, decoder_sparse_step=st.integers(1, 2)),
}
KINDS = {"qwen3_next": "linear_attention", "granitemoehybrid": "linear_attention", "lfm2": "conv"}


@settings(max_examples=6, deadline=None)
@pytest.mark.parametrize("kind", DRAWN)
@given(data=st.data())
def test_drawn_configurations_against_transformers(kind: str, data: st.DataObject) -> None:
    check({"model_type": kind} | data.draw(DRAWN[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_layers_that_are_named_one_by_one(kind: str) -> None:
    kinds = [KINDS[kind], "full_attention", KINDS[kind]]
    config = {"model_type": kind, "num_hidden_layers": 3, "layer_types": kinds}
    check(config)
    times = {type(v.leaf): v.times for v in walk(families.describe(config)) if isinstance(v.leaf, Attention | Scan)}
    assert times[Attention] == 1


def test_granites_of_the_hub_call_their_layers_otherwise() -> None:
    named = {"layer_types": ["mamba", "attention"]}
    newer = {"layer_types": ["linear_attention", "full_attention"]}
    config = {"model_type": "granitemoehybrid", "num_hidden_layers": 2}
    assert families.describe(config | named) == families.describe(config | newer)


def test_the_work_of_dense_layers_and_attention_is_torchs_own_count() -> None:
    """Convolutions torch counts with their margins, and how states are computed differs from chunk to chunk."""
    config = {"model_type": "qwen3_5_text", "num_hidden_layers": 4}
    network = build(config).eval()
    network.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(input_ids=torch.zeros(1, 16, dtype=torch.long, device="meta"))
    dense = counter.get_flop_counts()["Global"][torch.ops.aten.mm]
    found = compute.forward(families.describe(config), token=16).by_path
    ours = sum(n for path, n in found.items() if not path.endswith((".scan", ".convolution", ".product")))
    assert 2 * ours == dense


def test_a_state_is_kept_in_place_of_keys_and_values() -> None:
    tree = families.describe({"model_type": "mamba2", "num_hidden_layers": 3})
    state, window = 8192 * 128, (8192 + 2 * 8 * 128) * 4
    assert serving.cache(tree, length=1000).total == 2 * 3 * (state + window)


@pytest.mark.parametrize("kind", ["jamba", "qwen3_next", "qwen3_5_moe_text"])
def test_sizes_of_published_models(kind: str) -> None:
    found = counts.parameters(families.describe({"model_type": kind}))
    total, active = {"jamba": (51.6, 12.1), "qwen3_next": (79.7, 3.9), "qwen3_5_moe_text": (34.7, 3.5)}[kind]
    assert (round(found.total / 1e9, 1), round(found.active / 1e9, 1)) == (total, active)


@pytest.mark.parametrize("kind", DRAWN)
def test_whatever_stands_in_a_field_is_read_or_refused(kind: str) -> None:
    for field in sorted({*DEFAULTS[kind], "architectures", "layer_types", "attn_layer_indices", "full_attn_idxs"}):
        for junk in (None, "x", -1, 0, 1.5, [], {}, True, [[1]], ["a"], {"a": 1}, float("nan"), 10**30):
            with contextlib.suppress(PellucidError):
                counts.parameters(families.describe({"model_type": kind, "num_hidden_layers": 2, field: junk}))
