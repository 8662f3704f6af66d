"""The configuration that each class of transformers has by itself: described, or refused for a reason that is true."""

import json

import pytest
import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from pellucid import PellucidError
from pellucid.anatomy import counts, families

KINDS = sorted(set(families.READERS) & set(CONFIG_MAPPING_NAMES))
REFUSED = {  # what their classes leave open: a network of it does not run (topk of None), or cannot be built
    "deepseek_v2": "64 experts, and does not say num_experts_per_tok",
    "dots1": "does not say n_routed_experts",
}


def written(kind: str) -> dict:
    """What `save_pretrained` writes of it, and the fields that it leaves out."""
    return json.loads(transformers.AutoConfig.for_model(kind).to_json_string(use_diff=False))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in REFUSED])
def test_what_a_class_says_by_itself_is_described(kind):
    assert counts.parameters(families.describe(written(kind))).total > 0


@pytest.mark.parametrize("kind", REFUSED)
def test_what_a_class_leaves_open_is_refused(kind):
    with pytest.raises(PellucidError, match=REFUSED[kind]) as error:
        families.describe(written(kind))
    assert "num_experts_per_tok" in error.value.fix or "n_routed_experts" in error.value.fix


@pytest.mark.parametrize(
    ("kind", "name"), [("glm4_moe", "Glm4MoeForCausalLM"), ("gemma3", "Gemma3ForConditionalGeneration")]
)
def test_heads_that_do_not_share_the_width_evenly_and_a_tower_with_a_head(kind, name):
    with torch.device("meta"):
        model = getattr(transformers, name)(transformers.AutoConfig.for_model(kind))
    total = sum(parameter.numel() for parameter in model.parameters())
    assert counts.parameters(families.describe(written(kind))).total == total
