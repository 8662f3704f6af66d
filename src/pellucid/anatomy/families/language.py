"""What all readers of language models share, and Pellucid's own kind of decoder."""

from typing import Any

from pellucid.anatomy.families.decoder import DecoderShape, decoder_tree
from pellucid.anatomy.families.fields import Fields
from pellucid.anatomy.tree import Sequence
from pellucid.language import _


def language_model(fields: Fields, **settings: Any) -> Sequence:
    """The tree of a `DecoderShape` with these settings; without the head where `architectures` names the bare model."""
    own = fields.under("pellucid", {})  # a folder of ours notes here what the family has no field for
    tree = decoder_tree(DecoderShape(**settings | ({"dropout": own.rate("dropout")} if "dropout" in own else {})))
    named = fields.architecture("ForCausalLM")
    if named.endswith(("LMHeadModel", "ForCausalLM")):
        return tree
    if named.endswith("Model") and "DoubleHeads" not in named:
        return Sequence(tuple(part for part in tree.parts if part.name != "head"))
    return fields.refuse("architectures", _("Name the language model, …ForCausalLM, or the bare …Model."))


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
