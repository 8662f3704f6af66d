"""A configuration with other values."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from pellucid.anatomy.families.defaults import DEFAULTS
from pellucid.errors import PellucidError
from pellucid.language import _

# this house's words, and what the configurations of others call the same
WORDS: dict[str, tuple[str, ...]] = {
    "d_model": ("hidden_size", "n_embd", "d_model", "dim"),
    "n_layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "N"),
    "n_heads": ("num_attention_heads", "n_head", "num_heads", "n_heads", "h"),
    "n_kv_heads": ("num_key_value_heads", "num_kv_heads"),
    "head_dim": ("head_dim", "d_kv"),
    "d_ff": ("intermediate_size", "n_inner", "ffn_dim", "d_ff", "hidden_dim"),
    "vocab_size": ("vocab_size",),
    "context": (
        *("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "block_size", "seq_length"),
        "max_target_positions",
    ),
    "tied": ("tie_word_embeddings",),
}
# the options of `pellucid anatomy --family` that are called otherwise
WORDS |= {"layers": WORDS["n_layers"], "heads": WORDS["n_heads"], "kv_heads": WORDS["n_kv_heads"]}
WORDS |= {"vocab": WORDS["vocab_size"]}
# settings that a configuration may leave out with no fixed default: they follow from others until they are given
FOLLOWING = {
    **dict.fromkeys(("gpt2", "gptj"), ("n_inner",)),
    **dict.fromkeys(("llama", "mistral", "mixtral", "qwen2", "qwen3_moe"), ("num_key_value_heads", "head_dim")),
}
INNER = ("text_config", "decoder")  # where a network of pictures and text keeps the settings of its text


def context(config: dict[str, Any]) -> int | None:
    """The longest text, in tokens, by the names that families have for it."""
    kind = str(config.get("model_type"))
    inner: dict[str, Any] = next((config[name] for name in INNER if isinstance(config.get(name), dict)), {})
    filled = DEFAULTS.get(kind, {}) | inner | config
    sizes = (filled.get(name) for name in ("context", *WORDS["context"]))
    return next((size for size in sizes if isinstance(size, int)), None)


def changed(config: dict[str, Any], changes: dict[str, Any], where: str = "") -> dict[str, Any]:
    """`config` with `changes`, which name its own fields or are words of `WORDS`.

    Raises:
        PellucidError: when it has no such field: the nearest are named.
    """
    kind = str(config.get("model_type"))
    known, result = [*DEFAULTS.get(kind, {}), *FOLLOWING.get(kind, ()), *config], dict(config)
    inner = {name: result[name] for name in INNER if isinstance(result.get(name), dict)}
    for name, value in changes.items():
        if name == "model_type":
            raise PellucidError(
                _("Another family has other settings: model_type cannot be changed alone."),
                where,
                _("Compare two networks with --compare, or give sizes to --family."),
            )
        field = next((field for field in (name, *WORDS.get(name, ())) if field in known), None)
        if field is None and inner:
            part = next(iter(inner))
            kinds = {"model_type": f"{kind}_text"} if "model_type" not in result[part] else {}
            result[part] = changed(result[part] | kinds, {name: value}, where)
            continue
        if field is None:
            words = [word for word, fields in WORDS.items() if {*fields} & {*known}]
            near = get_close_matches(name, [*known, *words], 5, 0.6) or sorted({*config} - {"model_type"})
            raise PellucidError(
                _("There is no setting {name!r}.").format(name=name),
                where,
                _("There are {names}.").format(names=", ".join(dict.fromkeys(near))),
            )
        result[field] = value
    return result
