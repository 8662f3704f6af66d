"""A state space in place of attention, from the fields of its `config.json`."""

from pellucid.anatomy.families.fields import Fields
from pellucid.anatomy.tree import Activation, Convolution, Embedding, Linear, Node, Norm, Part, Repeat, Scan, Sequence


def mamba(fields: Fields) -> Sequence:
    """Mamba (Gu and Dao 2023, figure 3): no attention and no positions."""
    d_model, states = fields.size("hidden_size"), fields.size("state_size")
    width = int(fields.positive("expand") * d_model)
    rank = fields.content.get("time_step_rank")
    rank = -(-d_model // 16) if rank == "auto" else fields.size("time_step_rank")
    bias, window = fields.flag("use_bias"), (1, fields.size("conv_kernel"))
    mixer: tuple[tuple[str, Node], ...] = (
        ("in", Linear(d_model, 2 * width, bias, parts=(("stream", width), ("gate", width)))),
        ("convolution", Convolution(width, width, window, 1, 1, fields.flag("use_conv_bias"), groups=width)),
        ("activation", Activation("silu", width)),
        ("select", Linear(width, rank + 2 * states, bias=False, parts=(("step", rank), ("B", states), ("C", states)))),
        ("step", Linear(rank, width)),
        ("scan", Scan(width, states)),
        ("gate", Activation("silu", width, gated=True)),
        ("out", Linear(width, d_model, bias)),
    )
    norm = Part("norm", Norm(d_model, shift=False), "norm")
    block = Sequence((norm, Part("mixer", Sequence(tuple(Part(*part) for part in mixer)), "mixer")))
    tied_to = "embedding" if fields.flag("tie_word_embeddings") else None
    vocab_size = fields.size("vocab_size")
    parts = (
        Part("embedding", Embedding(vocab_size, d_model), "embedding"),
        Part("blocks", Repeat(fields.layers("num_hidden_layers"), block)),
        norm,
        Part("head", Linear(d_model, vocab_size, bias=False, tied_to=tied_to), "head"),
    )
    return Sequence(tuple(part._replace(positions="token") for part in parts))
