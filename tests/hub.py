"""The classes of transformers, against which what we read from a configuration is held, and drawn configurations."""

from typing import Any

import torch
import transformers
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from pellucid.anatomy import counts, families

CLASSES = {  # where it is not the language model's
    **dict.fromkeys(
        ("albert", "bert", "camembert", "clip", "data2vec-text", "deberta", "deberta-v2", "distilbert", "electra"),
        "AutoModel",
    ),
    **dict.fromkeys(("dinov2_with_registers", "dinov3_vit", "siglip", "siglip_vision_model"), "AutoModel"),
    **dict.fromkeys(
        ("eurobert", "modernbert", "mpnet", "nomic_bert", "roberta", "xlm-roberta", "xlm-roberta-xl"), "AutoModel"
    ),
    **dict.fromkeys(("bart", "m2m_100", "marian", "mbart", "mt5", "pegasus", "t5", "umt5"), "AutoModelForSeq2SeqLM"),
    "whisper": "AutoModelForSpeechSeq2Seq",
    "gemma3": "AutoModelForImageTextToText",
    "llama4": "AutoModelForImageTextToText",
}


def counted_by_torch(config: dict[str, Any], device: str = "meta", **shapes: tuple[int, ...]) -> int:
    """FLOPs of a forward pass with inputs of these shapes, by torch's own counter; on "meta" nothing is computed."""
    network = build(config, device=device).eval().requires_grad_(False)
    if network._can_set_attn_implementation():
        network.set_attn_implementation("eager")
    if network._can_set_experts_implementation():
        network.set_experts_implementation("eager")
    inputs = {
        name: torch.zeros(shape, dtype=torch.long if name.endswith("ids") else torch.float32, device=device)
        for name, shape in shapes.items()
    }
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(**inputs)
    return counter.get_total_flops()


def build(config: dict[str, Any], auto: str | None = None, device: str = "meta") -> torch.nn.Module:
    """The class of transformers."""
    kind = config["model_type"]
    content = {name: value for name, value in config.items() if name not in ("model_type", "architectures")}
    auto = auto or CLASSES.get(kind, "AutoModelForCausalLM")
    with torch.device(device):
        setting = transformers.AutoConfig.for_model(kind, **content)
        made = getattr(transformers, auto)
        return made.from_config(setting) if auto.startswith("Auto") else made(setting)


def check(config: dict[str, Any], auto: str | None = None) -> None:
    """Parameters, those that stay fixed and saved buffers are those of the class of transformers."""
    kind, network = config["model_type"], build(config, auto)
    parameters = list(network.parameters())
    names = {name for name, _parameter in network.named_parameters(remove_duplicate=False)}
    found = counts.parameters(families.describe(config))
    # the class ties T5's head until it has seen a file in which the two differ
    untied = kind in ("t5", "mt5") and not config.get("tie_word_embeddings", True)
    head = config["vocab_size"] * config["d_model"] if untied else 0
    assert found.total == sum(p.numel() for p in parameters) + head
    assert found.fixed == sum(p.numel() for p in parameters if not p.requires_grad)
    assert found.buffers == sum(b.numel() for name, b in network.state_dict().items() if name not in names)


@st.composite
def modern(draw: st.DrawFn, **switches: st.SearchStrategy) -> dict[str, Any]:
    """Llama's fields."""
    kv_heads, head_dim = draw(st.integers(1, 3)), 2 * draw(st.integers(1, 4))
    heads = kv_heads * draw(st.integers(1, 3))
    sizes = {
        "vocab_size": draw(st.integers(8, 60)),
        "hidden_size": heads * head_dim,
        "intermediate_size": draw(st.integers(1, 40)),
        "num_hidden_layers": draw(st.integers(1, 7)),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": draw(st.integers(4, 40)),
        "tie_word_embeddings": draw(st.booleans()),
        "pad_token_id": None,
    }
    return sizes | {name: draw(switch) for name, switch in switches.items()}


@st.composite
def renamed(draw: st.DrawFn, names: dict[str, str], **switches: st.SearchStrategy) -> dict[str, Any]:
    """The sizes of `modern` under other names; those without one are left out."""
    sizes = draw(modern(**switches))
    return {names.get(name, name): value for name, value in sizes.items() if name in names or name in switches}


def same(*names: str) -> dict[str, str]:
    return {name: name for name in names}
