"""What the forward pass of a training keeps for the backward pass, by formula.

A decoder's layer with dropout, in 16 bits and without fused attention, keeps sbh (34 + 5as/h) bytes, for s tokens, b
sequences, a width of h and a heads; where layers are computed again, 2sbh.

A recurrent layer keeps what PyTorch's own steps do; cuDNN's and oneDNN's kernels have workspaces of their own sizes.

Source: Korthikanti et al. 2022 (Reducing Activation Recomputation in Large Transformer Models), equations 1 and 2.
"""

from collections import Counter
from math import prod

from pellucid.anatomy.compute import pairs
from pellucid.anatomy.counts import positions
from pellucid.anatomy.memory.layers import runs, stack
from pellucid.anatomy.memory.sizes import Size
from pellucid.anatomy.tree import (
    Activation,
    Attention,
    BatchNorm,
    Convolution,
    Dropout,
    Linear,
    Norm,
    Pool,
    Recurrence,
    Scan,
    Visit,
)
from pellucid.language import _


def kept(
    visits: list[Visit], batch: int, lengths: dict[str, int], size: int, stream: int, fused: bool, recompute: bool
) -> tuple[Size, Size]:
    """The bytes that are kept; and, where layers are computed again, those of one while its turn is.

    Args:
        visits: The network's leaves.
        batch: Examples at once.
        lengths: Tokens of each: token=..., source=...
        size: Bytes of a number in matrix products.
        stream: Bytes of a number in the residual stream, which norms read.
        fused: Whether attention's scores are never stored.
        recompute: Whether only the inputs of layers are kept.
    """
    depth = runs(visits)
    total, inputs, read = Counter[str](), dict[str, int](), 0
    for visit in (visit for visit in visits if visit.times):
        rows, name = batch * positions(visit.positions, lengths), stack(visit)
        inputs.setdefault(name, read)
        total[name] += visit.times * _of_leaf(visit, rows, read, lengths, size, stream, fused)
        read = rows * prod(visit.leaf.output) if visit.leaf.output else read
    outside, layers = total.pop("", 0), {name: (depth[name], total[name] // depth[name]) for name in total}
    if recompute:
        said = [f"{n} × {inputs[name]:,} × {stream}" for name, (n, _each) in layers.items()]
        between = sum(n * inputs[name] * stream for name, (n, _each) in layers.items())
        again = max((each for _n, each in layers.values()), default=0)
    else:
        said = [f"{n} × {each:,}" for n, each in layers.values()]
        between, again = sum(n * each for n, each in layers.values()), 0
    text = _("outside of layers + layers × bytes of each: {formula}")
    formula = text.format(formula=" + ".join([f"{outside:,}", *said]))
    return Size("activations", outside + between, formula), Size("recomputed", again, _("as much as a layer keeps"))


def _of_leaf(visit: Visit, rows: int, read: int, lengths: dict[str, int], size: int, stream: int, fused: bool) -> int:
    """Bytes that the backward pass needs of a leaf that read so many numbers, at `rows` positions."""
    match visit.leaf:
        case Linear() as leaf:  # its input
            return size * rows * leaf.inputs
        case Norm() as leaf:  # its input
            return stream * rows * leaf.width if leaf.heads is None else size * rows * leaf.width * leaf.heads
        case Attention() as leaf:  # queries, keys, values; and 4 bytes a query, or scores, dropout's mask, what it left
            made = leaf.heads * leaf.head_dim + leaf.kv_heads * (leaf.head_dim + (leaf.value_dim or leaf.head_dim))
            return rows * (size * made + leaf.heads * (4 if fused else (2 * size + 1) * pairs(visit, lengths)[1]))
        case Activation(gated=True) as leaf:  # both halves of its input, one of them activated
            return 3 * size * rows * leaf.width
        case Activation(name="relu"):  # its output, which is the next layer's input
            return 0
        case Activation() as leaf:  # its input
            return size * rows * leaf.width
        case Dropout(p=p) as leaf:  # one byte an entry
            return rows * leaf.width if p else 0
        case Convolution() | BatchNorm() | Pool():  # its input
            return size * read
        case Recurrence() as leaf:  # its input and, with gates: they, the new state, and what these were made of
            inputs = 0 if visit.path.endswith("_reverse") else leaf.inputs  # of both directions one
            return size * rows * (inputs + (leaf.width if leaf.gates == 1 else 7 * leaf.width))
        case Scan() as leaf:  # its input, the steps, and what is selected; states are made again (Gu and Dao 2023)
            return size * rows * 2 * (leaf.width + leaf.states)
    return 0


def logits(visits: list[Visit], batch: int, lengths: dict[str, int]) -> Size:
    """Of PyTorch's cross entropy, in fp32: logarithms of probabilities, their gradients, and the logits' gradients."""
    heads = [visit for visit in visits if visit.kind == "head" and isinstance(visit.leaf, Linear)]
    rows, width = (batch * positions(heads[-1].positions, lengths), heads[-1].leaf.neurons) if heads else (0, 0)
    return Size("logits", 12 * rows * width, f"{rows:,} × {width:,} × (4 + 4 + 4)")
