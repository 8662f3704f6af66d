"""What all readers of language models share, and Pellucid's own kind of decoder."""

from collections.abc import Callable
from typing import Any

from pellucid.anatomy.families.decoder import DecoderShape, decoder_tree
from pellucid.anatomy.families.fields import Fields
from pellucid.anatomy.tree import Linear, Part, Sequence
from pellucid.language import _


def language_model(fields: Fields, **settings: Any) -> Sequence:
    """The tree of a `DecoderShape` with these settings, and on it the head that `architectures` names."""
    own = fields.under("pellucid", {})  # a folder of ours notes here what the family has no field for
    shape = DecoderShape(**settings | ({"dropout": own.rate("dropout")} if "dropout" in own else {}))
    tree, named = decoder_tree(shape), fields.architecture("ForCausalLM")
    if named.endswith(("LMHeadModel", "ForCausalLM")):
        return tree
    body = tuple(part for part in tree.parts if part.name != "head")
    if named.endswith("ForSequenceClassification"):
        width = shape.embedding_width or shape.d_model
        return Sequence((*body, Part("head", Linear(width, fields.classes(), bias=False), "head")))
    if named.endswith("Model") and "DoubleHeads" not in named:
        return Sequence(body)
    return fields.refuse("architectures", _("Name …ForCausalLM, …ForSequenceClassification or the bare …Model."))


def llama_like(fields: Fields, **settings: Any) -> Sequence:
    """The language model of Llama's fields; the settings, `DecoderShape`'s, say what is done otherwise."""
    return language_model(fields, **llama_settings(fields, **settings))


def llama_settings(fields: Fields, **settings: Any) -> dict[str, Any]:
    """What Llama's fields say of a `DecoderShape`, and these settings in place of it."""
    n_heads = fields.size("num_attention_heads")
    if "num_key_value_heads" in fields:
        fields.share("num_attention_heads", "num_key_value_heads")
    shape: dict[str, Any] = {
        "vocab_size": fields.size("vocab_size"),
        "d_model": fields.size("hidden_size"),
        "n_layers": fields.layers("num_hidden_layers"),
        "n_heads": n_heads,
        "n_kv_heads": fields.size("num_key_value_heads", n_heads),
        "d_ff": fields.size("intermediate_size"),
        "context": fields.size("max_position_embeddings"),
        "tied": fields.flag("tie_word_embeddings"),
    }
    if "head_dim" not in settings:
        shape["head_dim"] = (
            fields.size("head_dim") if "head_dim" in fields else fields.share("hidden_size", "num_attention_heads")
        )
    if "activation" not in settings:
        shape["activation"] = fields.activation("hidden_act")
    return shape | settings


def biases(fields: Fields) -> dict[str, bool]:
    """All of attention's layers have one, or none has."""
    bias = fields.flag("attention_bias")
    return {"qkv_bias": bias, "output_bias": bias}


def windows(fields: Fields, slides: Callable[[int], bool]) -> tuple[int | None, ...] | None:
    """Each layer's window: of those that `layer_types` names, or else `slides`; None where there is none at all."""
    if "sliding_window" not in fields:
        return None
    window, n_layers = fields.size("sliding_window"), fields.layers("num_hidden_layers")
    kinds = fields.content.get("layer_types")
    if kinds is None:
        kinds = ["sliding_attention" if slides(n) else "full_attention" for n in range(n_layers)]
    known = ("sliding_attention", "full_attention")
    if not isinstance(kinds, list) or len(kinds) != n_layers or any(kind not in known for kind in kinds):
        fields.refuse(
            "layer_types", _("Give {names} for each of {n} layers.").format(names=" / ".join(known), n=n_layers)
        )
    found = tuple(window if kind == "sliding_attention" else None for kind in kinds)
    return found if any(found) else None


def pellucid(fields: Fields) -> Sequence:
    """A decoder that Hugging Face has no family for: its own configuration stands under "decoder"."""
    own = fields.under("decoder", {})
    for name in ("vocab_size", "d_model", "n_heads", "n_kv_heads", "head_dim", "d_ff", "context"):
        own.size(name)
    own.share("n_heads", "n_kv_heads")
    n_layers, windows = own.layers("n_layers"), own.content.get("sliding_windows") or None
    if windows is not None and (not isinstance(windows, list | tuple) or len(windows) != n_layers):
        own.refuse("sliding_windows", _("Give one for each of {n} layers.").format(n=n_layers))
    shape = {name: value for name, value in own.content.items() if name in DecoderShape.__dataclass_fields__}
    shape |= {"sliding_windows": windows, "order": "post" if own.flag("post_norm", False) else "pre"}
    return decoder_tree(DecoderShape(**shape))
