"""State spaces in place of attention, from the fields of their `config.json`."""

from pellucid.anatomy.families.fields import Fields
from pellucid.anatomy.tree import Activation, Convolution, Embedding, Linear, Node, Norm, Part, Repeat, Scan, Sequence


def mamba(fields: Fields) -> Sequence:
    """Mamba (Gu and Dao 2023, figure 3): no attention and no positions. Falcon Mamba norms what is selected, too."""
    return _network(
        fields,
        selective(
            fields.size("hidden_size"),
            width=fields.size("intermediate_size", int(fields.positive("expand") * fields.size("hidden_size"))),
            states=fields.size("state_size"),
            rank=step_rank(fields, "time_step_rank"),
            kernel=fields.size("conv_kernel"),
            bias=fields.flag("use_bias"),
            conv_bias=fields.flag("use_conv_bias"),
        ),
    )


def mamba2(fields: Fields) -> Sequence:
    """Mamba-2 (Dao and Gu 2024, figure 6)."""
    return _network(
        fields,
        by_heads(
            fields.size("hidden_size"),
            width=int(fields.positive("expand") * fields.size("hidden_size")),
            states=fields.size("state_size"),
            heads=fields.size("num_heads"),
            groups=fields.size("n_groups"),
            kernel=fields.size("conv_kernel"),
            bias=fields.flag("use_bias"),
            conv_bias=fields.flag("use_conv_bias"),
        ),
    )


def selective(
    d_model: int, width: int, states: int, rank: int, kernel: int, bias: bool, conv_bias: bool, normed: bool = False
) -> Sequence:
    """Mamba's mixer; where `normed` what is selected passes norms (Jamba)."""
    selected = (("step", rank), ("B", states), ("C", states))
    norms = [(f"{name}_norm", Norm(size, shift=False)) for name, size in selected] if normed else []
    mixer: tuple[tuple[str, Node], ...] = (
        ("in", Linear(d_model, 2 * width, bias, parts=(("stream", width), ("gate", width)))),
        ("convolution", Convolution(width, width, (1, kernel), 1, 1, conv_bias, groups=width)),
        ("activation", Activation("silu", width)),
        ("select", Linear(width, rank + 2 * states, bias=False, parts=selected)),
        *norms,
        ("step", Linear(rank, width)),
        ("scan", Scan(width, states)),
        ("gate", Activation("silu", width, gated=True)),
        ("out", Linear(width, d_model, bias)),
    )
    return Sequence(tuple(Part(*part) for part in mixer))


def by_heads(
    d_model: int, width: int, states: int, heads: int, groups: int, kernel: int, bias: bool, conv_bias: bool
) -> Sequence:
    """Mamba-2's mixer: all is selected at once, and convolved but for gates and steps."""
    selected = 2 * groups * states
    parts = (("gate", width), ("stream", width), ("B and C", selected), ("step", heads))
    convolved = width + selected
    mixer: tuple[tuple[str, Node], ...] = (
        ("in", Linear(d_model, width + convolved + heads, bias, parts=parts)),
        ("convolution", Convolution(convolved, convolved, (1, kernel), 1, 1, conv_bias, groups=convolved)),
        ("activation", Activation("silu", convolved)),
        ("scan", Scan(width, states, heads)),
        ("gate", Activation("silu", width, gated=True)),
        ("norm", Norm(width, shift=False)),
        ("out", Linear(width, d_model, bias)),
    )
    return Sequence(tuple(Part(*part) for part in mixer))


def step_rank(fields: Fields, name: str) -> int:
    """The width that steps are made from: a sixteenth of the model's, if nothing says otherwise."""
    return -(-fields.size("hidden_size") // 16) if fields.content.get(name) == "auto" else fields.size(name)


def _network(fields: Fields, mixer: Sequence) -> Sequence:
    d_model, vocab_size = fields.size("hidden_size"), fields.size("vocab_size")
    norm = Part("norm", Norm(d_model, shift=False), "norm")
    block = Sequence((norm, Part("mixer", mixer, "mixer")))
    tied_to = "embedding" if fields.flag("tie_word_embeddings") else None
    parts = (
        Part("embedding", Embedding(vocab_size, d_model), "embedding"),
        Part("blocks", Repeat(fields.layers("num_hidden_layers"), block)),
        norm,
        Part("head", Linear(d_model, vocab_size, bias=False, tied_to=tied_to), "head"),
    )
    return Sequence(tuple(part._replace(positions="token") for part in parts))
