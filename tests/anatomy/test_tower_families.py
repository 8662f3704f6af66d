"""SigLIP, and DINO with registers, by their configuration, against transformers."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub import check, counted_by_torch
from pellucid.anatomy import compute, families
from pellucid.errors import PellucidError

PICTURE = {"pixel_values": (1, 3, 32, 32)}


@st.composite
def tower(draw: st.DrawFn, **switches: st.SearchStrategy) -> dict[str, Any]:
    heads = draw(st.integers(1, 3))
    sizes = {"hidden_size": 4 * heads, "num_attention_heads": heads, "intermediate_size": draw(st.integers(1, 20))}
    sizes |= {
        "num_hidden_layers": draw(st.integers(1, 3)),
        "image_size": 32,
        "patch_size": draw(st.sampled_from([8, 16])),
    }
    return sizes | {name: draw(switch) for name, switch in switches.items()}


@settings(max_examples=6, deadline=None)
@given(text=tower(vocab_size=st.integers(8, 60), max_position_embeddings=st.integers(5, 9)), vision=tower())
def test_siglip(text: dict[str, Any], vision: dict[str, Any]) -> None:
    text = {name: value for name, value in text.items() if name not in ("image_size", "patch_size")}
    width = vision["hidden_size"]
    config = {"model_type": "siglip", "text_config": text | {"projection_size": width}, "vision_config": vision}
    check(config)
    found = compute.forward(families.describe(config), token=5).flops
    answer = 2 * width  # text by picture: no layer
    assert found == counted_by_torch(config, input_ids=(1, 5), **PICTURE) - answer


@settings(max_examples=6, deadline=None)
@pytest.mark.parametrize("kind", ["siglip_vision_model", "dinov2_with_registers", "dinov3_vit"])
@given(data=st.data())
def test_towers(kind: str, data: st.DataObject) -> None:
    switches = {
        "siglip_vision_model": {"vision_use_head": st.booleans()},
        "dinov2_with_registers": {"num_register_tokens": st.integers(0, 4), "use_swiglu_ffn": st.booleans()},
        "dinov3_vit": {
            "num_register_tokens": st.integers(0, 4),
            "key_bias": st.booleans(),
            "use_gated_mlp": st.booleans(),
        },
    }
    config = {"model_type": kind, "architectures": ["XModel"]} | data.draw(tower(**switches[kind]))
    check(config)
    assert compute.forward(families.describe(config)).flops == counted_by_torch(config, **PICTURE)


@pytest.mark.parametrize("kind", ["siglip", "siglip_vision_model", "dinov2_with_registers", "dinov3_vit"])
def test_the_defaults_of_the_class(kind: str) -> None:
    check({"model_type": kind, "architectures": ["XModel"]})


@pytest.mark.parametrize("change", [{"query_bias": False}, {"mlp_bias": False}, {"architectures": ["ForImages"]}])
def test_what_is_not_known_of_dinov3_is_named(change: dict[str, Any]) -> None:
    with pytest.raises(PellucidError):
        families.describe({"model_type": "dinov3_vit", "architectures": ["DINOv3ViTModel"]} | change)
