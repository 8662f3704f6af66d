"""Language models of recent years by their configuration, against transformers."""

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub import build, check, counted_by_torch, modern, renamed, same
from pellucid.anatomy import compute, counts, families
from pellucid.anatomy.families.defaults import DEFAULTS
from pellucid.anatomy.tree import Attention, walk
from pellucid.errors import PellucidError

BOOL = st.booleans()
HEAD_DIM = st.integers(1, 5).map(lambda n: 2 * n)
ROUTED = {"num_local_experts": st.integers(3, 5), "num_experts_per_tok": st.integers(1, 3)}
FIRST_DENSE = {
    "n_routed_experts": st.integers(3, 6),
    "n_shared_experts": st.integers(1, 2),
    "num_experts_per_tok": st.integers(1, 3),
    "moe_intermediate_size": st.integers(1, 9),
    "first_k_dense_replace": st.integers(0, 8),
    "attention_bias": BOOL,
}
CLASSIC = same("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
CLASSIC |= same("max_position_embeddings", "pad_token_id", "tie_word_embeddings")
DENSE: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "arcee": modern(attention_bias=BOOL, mlp_bias=BOOL),
    "biogpt": renamed(CLASSIC, pad_token_id=st.just(1)),
    "codegen": renamed(
        {"num_hidden_layers": "n_layer", "max_position_embeddings": "n_positions"}
        | same("vocab_size", "tie_word_embeddings"),
        n_embd=st.just(16),
        n_head=st.just(4),
        n_inner=st.none() | st.integers(1, 40),
        rotary_dim=st.just(2),
    ),
    "cohere2": modern(attention_bias=BOOL, sliding_window_pattern=st.integers(1, 4)),
    "ernie4_5": modern(head_dim=HEAD_DIM, use_bias=BOOL),
    "exaone4": modern(sliding_window_pattern=st.integers(1, 4)),
    "glm": modern(head_dim=HEAD_DIM, attention_bias=BOOL),
    "hunyuan_v1_dense": modern(head_dim=HEAD_DIM, attention_bias=BOOL),
    "ministral3": modern(head_dim=HEAD_DIM),
    "nemotron": modern(attention_bias=BOOL, mlp_bias=BOOL),
    "persimmon": renamed(CLASSIC, hidden_size=st.just(24), num_attention_heads=st.integers(1, 3), qk_layernorm=BOOL),
    "seed_oss": modern(head_dim=HEAD_DIM, attention_bias=BOOL, attention_out_bias=BOOL, mlp_bias=BOOL),
    "vaultgemma": modern(head_dim=HEAD_DIM, attention_bias=BOOL),
    "xglm": renamed(
        {"num_hidden_layers": "num_layers", "intermediate_size": "ffn_dim"}
        | same("vocab_size", "max_position_embeddings", "tie_word_embeddings"),
        attention_heads=st.integers(1, 3),
        d_model=st.just(12),
        pad_token_id=st.just(1),
    ),
}
MIXTURES: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "dots1": modern(**FIRST_DENSE),
    "ernie4_5_moe": modern(
        moe_intermediate_size=st.integers(1, 9),
        moe_k=st.integers(1, 3),
        moe_num_experts=st.integers(3, 5),
        moe_num_shared_experts=st.integers(0, 2),
        moe_layer_start_index=st.integers(0, 3),
        moe_layer_end_index=st.sampled_from([-1, 2, 5]),
        moe_layer_interval=st.integers(1, 2),
        use_bias=BOOL,
    ),
    "flex_olmo": modern(num_experts=st.integers(3, 5), num_experts_per_tok=st.integers(1, 3), attention_bias=BOOL),
    "glm4_moe": modern(**FIRST_DENSE, head_dim=HEAD_DIM, use_qk_norm=BOOL),
    "granitemoe": modern(**ROUTED, attention_bias=BOOL),
    "granitemoeshared": modern(**ROUTED, attention_bias=BOOL, shared_intermediate_size=st.integers(0, 9)),
    "hunyuan_v1_moe": modern(
        num_experts=st.integers(3, 5), moe_topk=st.integers(1, 3), head_dim=HEAD_DIM, attention_bias=BOOL
    ),
    "minimax_m2": modern(**ROUTED, head_dim=HEAD_DIM),
    "phimoe": modern(**ROUTED | {"num_experts_per_tok": st.just(2)}, attention_bias=BOOL, lm_head_bias=BOOL),
}
DRAWN = DENSE | MIXTURES


@settings(max_examples=6, deadline=None)
@pytest.mark.parametrize("kind", DRAWN)
@given(data=st.data())
def test_drawn_configurations_against_transformers(kind: str, data: st.DataObject) -> None:
    check({"model_type": kind} | data.draw(DRAWN[kind]))


@settings(max_examples=2, deadline=None)
@pytest.mark.parametrize("kind", DRAWN)
@given(data=st.data())
def test_the_work_is_torchs_own_count(kind: str, data: st.DataObject) -> None:
    config = {"model_type": kind} | data.draw(DRAWN[kind])
    device = "cpu" if kind in MIXTURES else "meta"  # a router's choice has to be computed
    assert compute.forward(families.describe(config), token=4).flops == counted_by_torch(
        config, device, input_ids=(1, 4)
    )


@settings(max_examples=2, deadline=None)
@pytest.mark.parametrize("kind", MIXTURES)
@given(data=st.data())
def test_a_token_meets_all_but_the_experts_that_it_is_not_sent_to(kind: str, data: st.DataObject) -> None:
    config = {"model_type": kind} | data.draw(MIXTURES[kind])
    network, found = build(config), counts.parameters(families.describe(config))
    routed = sum(p.numel() for name, p in network.named_parameters() if ".experts." in name)
    names = ("num_local_experts", "num_experts", "moe_num_experts", "n_routed_experts")
    n = next(config[name] for name in names if name in config)
    k = next(config[name] for name in ("num_experts_per_tok", "moe_topk", "moe_k") if name in config)
    assert found.total - found.active == routed * (n - k) // n


def test_every_fourth_layer_sees_all() -> None:
    for kind in ("cohere2", "exaone4"):
        tree = families.describe({"model_type": kind, "num_hidden_layers": 8})
        seen = [(v.leaf.window, v.times) for v in walk(tree) if isinstance(v.leaf, Attention)]
        assert seen == [(4096, 6), (None, 2)]


@pytest.mark.parametrize("kind", DRAWN)
def test_whatever_stands_in_a_field_is_read_or_refused(kind: str) -> None:
    for field in sorted({*DEFAULTS[kind], "architectures", "layer_types", "n_routed_experts"}):
        for junk in (None, "x", -1, 0, 1.5, [], {}, True, [[1]], ["a"], {"a": 1}, float("nan"), 10**30):
            with contextlib.suppress(PellucidError):
                counts.parameters(families.describe({"model_type": kind, "num_hidden_layers": 2, field: junk}))
