"""Translators and other networks that read and write, by their configuration, against transformers."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub import check, counted_by_torch
from pellucid.anatomy import compute, families
from pellucid.errors import PellucidError

KINDS = ["bart", "m2m_100", "mbart", "pegasus", "umt5"]


@st.composite
def sizes(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    heads = draw(st.integers(1, 3))
    if kind == "umt5":
        width = {"d_kv": draw(st.integers(1, 9)), "num_heads": heads, "d_ff": draw(st.integers(1, 20))}
        layers = {"num_layers": draw(st.integers(1, 3)), "num_decoder_layers": draw(st.none() | st.integers(1, 3))}
        form = draw(st.sampled_from(["relu", "gated-gelu"]))
        return {"vocab_size": draw(st.integers(8, 60)), "d_model": 6, "feed_forward_proj": form} | width | layers
    found = {"vocab_size": draw(st.integers(8, 60)), "d_model": 12, "max_position_embeddings": 16, "pad_token_id": 1}
    for side in ("encoder", "decoder"):
        found |= {f"{side}_layers": draw(st.integers(1, 3)), f"{side}_ffn_dim": draw(st.integers(1, 20))}
        found |= {f"{side}_attention_heads": heads}
    return found


@settings(max_examples=5, deadline=None)
@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_drawn_configurations_against_transformers(kind: str, data: st.DataObject) -> None:
    config = {"model_type": kind} | data.draw(sizes(kind))
    check(config)
    found = compute.forward(families.describe(config), source=7, token=5).flops
    assert found == counted_by_torch(config, input_ids=(1, 7), decoder_input_ids=(1, 5))


@pytest.mark.parametrize("kind", KINDS)
def test_the_defaults_of_the_class(kind: str) -> None:
    check({"model_type": kind})


@pytest.mark.parametrize("kind", ["m2m_100", "mbart", "pegasus"])
def test_several_tables_are_refused(kind: str) -> None:
    with pytest.raises(PellucidError, match="tie_word_embeddings"):
        families.describe({"model_type": kind, "tie_word_embeddings": False})
