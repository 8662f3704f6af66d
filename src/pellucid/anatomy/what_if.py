"""A configuration with other values."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from pellucid.errors import PellucidError
from pellucid.language import _

# this house's words, and what the configurations of others call the same
WORDS: dict[str, tuple[str, ...]] = {
    "d_model": ("hidden_size", "n_embd", "d_model", "dim"),
    "n_layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "n_heads": ("num_attention_heads", "n_head", "num_heads", "n_heads"),
    "n_kv_heads": ("num_key_value_heads", "num_kv_heads"),
    "head_dim": ("head_dim", "d_kv"),
    "d_ff": ("intermediate_size", "n_inner", "ffn_dim", "d_ff", "hidden_dim"),
    "vocab_size": ("vocab_size",),
    "context": ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"),
    "tied": ("tie_word_embeddings",),
}


def changed(config: dict[str, Any], changes: dict[str, Any], where: str = "") -> dict[str, Any]:
    """`config` with `changes`, which name its own fields or are words of `WORDS`.

    Raises:
        PellucidError: when it has no such field: the nearest are named.
    """
    result = dict(config)
    for name, value in changes.items():
        field = next((field for field in (name, *WORDS.get(name, ())) if field in config), None)
        if field is None and name in WORDS and config.get("model_type"):
            field = FIELDS.get(str(config["model_type"]), {}).get(name, WORDS[name][0])  # left out: a default changes
        if field is None:
            known = [*config, *(word for word, fields in WORDS.items() if {*fields} & {*config})]
            near = get_close_matches(name, known, 5, 0.4) or sorted({*known} - {"model_type", "architectures"})
            raise PellucidError(
                _("There is no setting {name!r}.").format(name=name),
                where,
                _("There are {names}.").format(names=", ".join(near)),
            )
        result[field] = value
    return result


# what a family calls a setting that its configurations often leave out
FIELDS: dict[str, dict[str, str]] = {
    "gpt2": {"d_ff": "n_inner", "context": "n_positions"},
    "opt": {"d_ff": "ffn_dim"},
    "t5": {"d_ff": "d_ff", "head_dim": "d_kv"},
    "falcon": {"n_kv_heads": "num_kv_heads", "d_ff": "ffn_hidden_size"},
}
