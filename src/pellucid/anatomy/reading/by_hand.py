"""A decoder typed by hand: a family and a few sizes become the fields of its `config.json`."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from pellucid.anatomy.arguments import whole
from pellucid.anatomy.families.defaults import DEFAULTS
from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.networks.decoder_config import FAMILIES, decoder_config

TYPES = {name: "openai-gpt" if name == "gpt1" else name for name in FAMILIES if name != "sinusoidal"}
OPENAI = {
    "d_model": "n_embd",
    "n_layers": "n_layer",
    "n_heads": "n_head",
    "context": "n_positions",
    "vocab_size": "vocab_size",
}
LLAMA = {
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "d_ff": "intermediate_size",
    "context": "max_position_embeddings",
    "vocab_size": "vocab_size",
}
HEAD = 64  # entries of a head, where their number is not given: that of GPT and of every small model since


def config_by_hand(family: str, sizes: dict[str, int]) -> tuple[dict[str, Any], str]:
    """The configuration of a family with these sizes, and what was derived, for the reader.

    Width of the feed-forward layer, heads of keys and values and their size as in `decoder_config`; vocabulary and
    context as in Hugging Face's class.

    Args:
        family: A key of `TYPES`.
        sizes: By the names of `DecoderConfig`.

    Raises:
        PellucidError: when there is no such family, or a size is missing, not possible, or none of the family's.
    """
    if family not in TYPES:
        nearest = get_close_matches(family, TYPES, n=3, cutoff=0.4) or list(TYPES)
        raise PellucidError(
            _("There is no family {name!r} to build by hand.").format(name=family),
            "--family",
            _("There are {names}.").format(names=", ".join(nearest)),
        )
    for name in ("n_layers", "d_model"):
        if name not in sizes:
            raise PellucidError(
                _("A {family} needs at least its layers and its width.").format(family=family),
                name,
                _("For example: --family llama --layers 32 --d-model 4096 --heads 32"),
            )
    for name, size in sizes.items():
        whole(size, name)
    names = OPENAI | ({"d_ff": "n_inner"} if family == "gpt2" else {}) if family in ("gpt1", "gpt2") else LLAMA
    for name in sizes:
        if name not in names:
            raise PellucidError(
                _("A {family} has no {name} of its own.").format(family=family, name=name),
                f"--family {family}",
                _("Leave it out, or choose another family: llama has all of them."),
            )
    fixed = DEFAULTS[TYPES[family]]
    filled = {
        "n_heads": max(1, sizes["d_model"] // sizes.get("head_dim", HEAD)),
        **{name: fixed[names[name]] for name in ("vocab_size", "context")},
    }
    if "head_dim" not in sizes and sizes["d_model"] % sizes.get("n_heads", 1):
        raise PellucidError(
            _("{heads} heads cannot share a width of {width}.").format(heads=sizes["n_heads"], width=sizes["d_model"]),
            "n_heads",
            _("Give a number that divides it, or the size of a head."),
        )
    settings = decoder_config(family, **filled | sizes)
    derived = [f"{name} = {getattr(settings, name)}" for name in names if name not in sizes]
    config = {
        "model_type": TYPES[family],
        **{field: getattr(settings, name) for name, field in names.items()},
        "tie_word_embeddings": fixed["tie_word_embeddings"],
    }
    if family == "mistral":
        config["sliding_window"] = None  # ours has none unless it is given one
    derived.append(_("head tied to the embedding") if config["tie_word_embeddings"] else _("head of its own"))
    return config, _("derived: {names}").format(names=", ".join(derived))
