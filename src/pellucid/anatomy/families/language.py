"""What all readers of language models share, and Pellucid's own kind of decoder."""

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
