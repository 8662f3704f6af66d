"""Encoders after BERT by their configuration: DeBERTa, ModernBERT and others, against transformers."""

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub import check, counted_by_torch, modern, renamed, same
from pellucid.anatomy import compute, counts, families
from pellucid.anatomy.families.defaults import DEFAULTS
from pellucid.anatomy.tree import Attention, walk
from pellucid.errors import PellucidError

V3 = {  # DeBERTa V3's choices
    "relative_attention": True,
    "max_relative_positions": -1,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
}
V3_BASE = V3 | {"model_type": "deberta-v2", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
V3_BASE |= {"intermediate_size": 3072}
BASE = {"model_type": "deberta", "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
HEADS = ["MaskedLM", "SequenceClassification", "TokenClassification"]
BOOL = st.booleans()
BERT = same("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
BERT |= same("max_position_embeddings", "pad_token_id")
BY_DISTANCE = {
    "relative_attention": BOOL,
    "pos_att_type": st.sampled_from([[], ["c2p"], ["p2c"], ["c2p", "p2c"], "p2c|c2p"]),
    "max_relative_positions": st.sampled_from([-1, 7]),
    "position_biased_input": BOOL,
    "type_vocab_size": st.integers(0, 2),
}
DRAWN: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "camembert": renamed(BERT, type_vocab_size=st.integers(1, 3)),
    "deberta": renamed(BERT, **BY_DISTANCE),
    "deberta-v2": renamed(
        BERT,
        **BY_DISTANCE,
        position_buckets=st.sampled_from([-1, 3]),
        share_att_key=BOOL,
        norm_rel_ebd=st.sampled_from(["none", "layer_norm"]),
        conv_kernel_size=st.sampled_from([0, 3]),
    ),
    "eurobert": modern(attention_bias=BOOL, mlp_bias=BOOL),
    "modernbert": renamed(
        BERT | same("tie_word_embeddings"),
        attention_bias=BOOL,
        classifier_bias=BOOL,
        decoder_bias=BOOL,
        global_attn_every_n_layers=st.integers(1, 3),
        mlp_bias=BOOL,
        norm_bias=BOOL,
    ),
    "nomic_bert": renamed(
        BERT,
        head_dim=st.none() | st.sampled_from([2, 4]),
        pad_token_id=st.just(0),
        type_vocab_size=st.integers(1, 3),
    ),
    "xlm-roberta-xl": renamed(BERT, type_vocab_size=st.integers(1, 3)),
}


@pytest.mark.parametrize("kind", [*DRAWN, "data2vec-text"])
def test_the_defaults_of_the_class(kind: str) -> None:
    check({"model_type": kind})


@settings(max_examples=8, deadline=None)
@pytest.mark.parametrize("kind", DRAWN)
@given(data=st.data())
def test_drawn_configurations_against_transformers(kind: str, data: st.DataObject) -> None:
    content = data.draw(DRAWN[kind])
    head = data.draw(st.sampled_from(HEADS))
    check({"model_type": kind, "architectures": [f"XFor{head}"]} | content, f"AutoModelFor{head}")
    check({"model_type": kind} | content)


@pytest.mark.parametrize("kind", ["camembert", "eurobert", "modernbert", "nomic_bert", "xlm-roberta-xl"])
def test_the_work_of_reading_is_torchs_own_count(kind: str) -> None:
    config = {"model_type": kind}
    assert compute.forward(families.describe(config), token=16).flops == counted_by_torch(config, input_ids=(1, 16))


@pytest.mark.parametrize(
    ("change", "tokens"),
    [
        (V3 | {"model_type": "deberta-v2", "position_buckets": 4}, 9),
        (BASE | {"model_type": "deberta-v2", "conv_kernel_size": 3}, 9),
        (BASE, 16),  # as many as the table of distances has: its class cuts it for shorter texts
        (BASE | {"pos_att_type": ["p2c"]}, 16),
    ],
)
def test_the_work_of_distances_is_torchs_own_count(change: dict[str, Any], tokens: int) -> None:
    config = change | {"vocab_size": 50, "hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 3}
    config |= {"intermediate_size": 20, "max_position_embeddings": 16}
    found = compute.forward(families.describe(config), token=tokens).flops
    assert found == counted_by_torch(config, "cpu", input_ids=(1, tokens))


def test_published_sizes() -> None:
    assert counts.parameters(families.describe(V3_BASE)).total == 183_831_552  # the model's card: 86 M and 98 M
    assert counts.parameters(families.describe({"model_type": "modernbert"})).total == 149_014_272  # 149 M


def test_modernbert_sees_both_ways_and_every_third_layer_sees_all() -> None:
    tree = families.describe({"model_type": "modernbert"})
    leaves = [(v.leaf.window, v.leaf.causal, v.times) for v in walk(tree) if isinstance(v.leaf, Attention)]
    assert leaves == [(None, False, 1), (129, False, 14), (None, False, 7)]  # 64 on each side and itself


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (V3_BASE | {"pos_att_type": "c2c"}, "pos_att_type"),
        (V3_BASE | {"embedding_size": 128}, "embedding_size"),
        (BASE | {"talking_head": True}, "talking_head"),
        ({"model_type": "modernbert", "architectures": ["ModernBertForMultipleChoice"]}, "architectures"),
        ({"model_type": "modernbert", "layer_types": ["sliding_attention"]}, "layer_types"),
        ({"model_type": "eurobert", "architectures": ["EuroBertForQuestionAnswering"]}, "architectures"),
    ],
)
def test_what_is_not_known_is_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(PellucidError) as error:
        families.describe(change)
    assert field in error.value.what


@pytest.mark.parametrize("kind", ["deberta", "deberta-v2", "eurobert", "modernbert"])
def test_whatever_stands_in_a_field_is_read_or_refused(kind: str) -> None:
    for field in sorted({*DEFAULTS[kind], *V3, "architectures", "layer_types", "conv_kernel_size"}):
        for junk in (None, "x", -1, 0, 1.5, [], {}, True, [[1]], ["a"], {"a": 1}, float("nan"), 10**30):
            with contextlib.suppress(PellucidError):
                counts.parameters(families.describe({"model_type": kind} | V3 | {field: junk}))
