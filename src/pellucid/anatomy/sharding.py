"""The memory of one device in a training on several, by formula.

Every parameter has a weight, a gradient and the optimiser's state; each of these is whole on every device, or shared
out over all. Beside them are the activations of the device's own sequences, and buffers for what devices exchange.

Sources: Rajbhandari et al. 2020 (ZeRO), section 3 and figure 1; Korthikanti et al. 2022 (Reducing Activation
Recomputation), equations 1 and 2, for activations; for what FSDP and DDP hold, their documentation in PyTorch.
"""

from bisect import bisect_left
from collections import Counter
from math import ceil, prod
from typing import Any, NamedTuple

from pellucid.anatomy.compute import pairs
from pellucid.anatomy.counts import matrices, parameters, positions
from pellucid.anatomy.formats import known
from pellucid.anatomy.layers import indices, stack
from pellucid.anatomy.serving import RUNTIME
from pellucid.anatomy.sizes import Size, Sizes, whole
from pellucid.anatomy.tree import (
    Activation,
    Attention,
    BatchNorm,
    Convolution,
    Dropout,
    Linear,
    Node,
    Norm,
    Pool,
    Scan,
    Visit,
    walk,
)
from pellucid.language import _


class Precision(NamedTuple):
    """Bytes of a number."""

    weight: int
    gradient: int
    master: int  # of the fp32 copy that is updated, where weights are 16 bits
    state: int  # of the optimiser
    product: int  # in matrix products
    stream: int  # in the residual stream


PRECISIONS = {
    "fp32": Precision(4, 4, 0, 4, 4, 4),
    "autocast": Precision(4, 4, 0, 4, 2, 4),  # PyTorch's: 16 bytes a parameter with Adam, and a 16-bit copy of matrices
    "mixed": Precision(2, 2, 4, 4, 2, 2),  # Micikevicius et al. 2018, ZeRO: 16 bytes
    "mixed-fp32": Precision(2, 4, 4, 4, 2, 2),  # gradients added up in fp32, as Megatron-LM and DeepSpeed do: 18 bytes
    "bf16": Precision(2, 2, 0, 2, 2, 2),  # all of it: 8 bytes, and small updates are rounded away
}
OPTIMISERS = ("adamw", "adamw-8bit", "muon", "momentum", "sgd")
SHARDED = {  # what is shared out
    "none": (),
    "ddp": (),
    "zero1": ("optimiser",),
    "zero2": ("optimiser", "gradients"),
    "zero3": ("optimiser", "gradients", "weights"),
    "fsdp": ("optimiser", "gradients", "weights"),
}
MOST = 2**16  # devices, up to which is looked


def train(
    tree: Node,
    batch: int = 1,
    length: int = 1,
    devices: int = 1,
    sharding: str = "none",
    precision: str = "mixed",
    optimiser: str = "adamw",
    recompute: bool = False,
    fused: bool = True,
    source: int = 1,
    runtime: int = RUNTIME,
) -> Sizes:
    """The memory of each device when the backward pass begins at the head, or within a layer: whichever takes more.

    Gradients are counted at both moments, as where those of several batches are added up.

    Args:
        tree: The network.
        batch: Sequences, or pictures, that each device takes through the network at once.
        length: Tokens of each.
        devices: How many.
        sharding: A key of `SHARDED`; "fsdp" and "zero3" are the same idea.
        precision: A key of `PRECISIONS`.
        optimiser: One of `OPTIMISERS`.
        recompute: Whether only the inputs of layers are kept, and the rest is computed again in the backward pass.
        fused: Whether attention's scores are never stored (FlashAttention).
        source: Tokens of each that a translator reads.
        runtime: Bytes that the runtime takes without any network: assumed, not derived.

    Raises:
        PellucidError: when a number is not possible or a name not known.
    """
    used = PRECISIONS[known(precision, PRECISIONS)]
    sharding, optimiser = known(sharding, SHARDED), known(optimiser, OPTIMISERS)
    gathers = "weights" in SHARDED[sharding]
    used = (
        used._replace(stream=used.product) if gathers else used
    )  # what is gathered is cast, and with it all it writes
    lengths = {"token": whole(length, "length"), "source": whole(source, "source")}
    visits = list(walk(tree))
    always, layer = _activations(visits, whole(batch, "batch"), lengths, used, recompute, fused)
    copies, own = _exchanged(visits, used, sharding, gathers)
    at_the_head = [_logits(visits, batch, lengths)]
    in_a_layer = [layer, own]
    parts = [
        *_states(tree, used, optimiser, whole(devices, "devices"), SHARDED[sharding]),
        *copies,
        always,
        *max(at_the_head, in_a_layer, key=lambda sizes: sum(size.bytes for size in sizes)),
        Size("runtime", runtime, _("assumed: CUDA's context and kernels")),
    ]
    return Sizes(tuple(part for part in parts if part.bytes))


def fewest_devices(tree: Node, memory: float, sharding: str = "fsdp", **options: Any) -> int | None:
    """The fewest devices of so many bytes on which the training fits; None where it fits on no number of them.

    Args:
        tree: The network.
        memory: Of one device, in bytes: `devices.find("a100-80gb").memory`.
        sharding: A key of `SHARDED`.
        options: Others of `train`.

    Raises:
        PellucidError: as `train`.
    """

    def fits(n: int) -> bool:
        return train(tree, devices=n, sharding=sharding, **options).fits(memory)

    fewest = bisect_left(range(1, MOST + 1), True, key=fits) + 1
    return fewest if fewest <= MOST else None


def _states(tree: Node, used: Precision, optimiser: str, devices: int, shared: tuple[str, ...]) -> list[Size]:
    """Weights, gradients, and what the optimiser keeps: of all parameters, or of this device's share."""
    counted, inside = parameters(tree), matrices(tree)
    trained = counted.trainable

    def part(name: str, numbers: int, each: float, kind: str) -> Size:
        among = devices if kind in shared else 1
        formula = f"{numbers:,} × {each:g}" + (f" / {among}" if among > 1 else "")
        return Size(name, ceil(numbers * each / among), formula)

    two, one = {  # numbers of which Adam keeps two moments, and those of which one momentum is kept
        "muon": (trained - inside, inside),
        "momentum": (0, trained),
        "sgd": (0, 0),
    }.get(optimiser, (trained, 0))
    moments = 2 * used.state if optimiser != "adamw-8bit" else 2 * (1 + 4 / 2048)  # Dettmers et al. 2022: blocks
    return [
        part("weights", counted.total, used.weight, "weights"),
        part("master weights", trained, used.master, "optimiser"),
        part("gradients", trained, used.gradient, "gradients"),
        part("optimiser", two, moments, "optimiser"),
        part("optimiser", one, used.state, "optimiser"),
    ]


def _exchanged(visits: list[Visit], used: Precision, sharding: str, gathers: bool) -> tuple[list[Size], Size]:
    """Copies that are there beside the states: always, and of gradients within a layer.

    Autocast makes 16-bit copies of matrices. DDP copies every gradient into a bucket, unless `gradient_as_bucket_view`.
    FSDP gathers a layer while another is at work, keeps what stands outside of layers gathered, and shares gradients
    out layer by layer. ZeRO-2 has a device's own gradients before it shares them, as DeepSpeed's estimator counts.
    """
    trained, size = sum(visit.parameters for visit in visits if not visit.leaf.fixed), used.product
    if gathers:
        depth = {name: len(layers) for name, layers in indices(visits).items()}
        units = Counter[str]()
        for visit in visits:
            units[stack(visit)] += visit.parameters // depth[stack(visit)]
        outside, layer = units.pop("", 0), max(units.values(), default=0)
        formula = f"(2 × {layer:,} + {outside:,}) × {size}"
        own = Size("own gradients", max(layer, outside) * size, f"{max(layer, outside):,} × {size}")
        return [Size("gathered weights", (2 * layer + outside) * size, formula)], own
    cast = sum(v.copies * v.leaf.weights for v in visits if isinstance(v.leaf, Linear | Convolution))
    cast, bucket = cast if used.weight > size else 0, trained if sharding == "ddp" else 0
    whole_gradients = trained if sharding == "zero2" else 0
    return [
        Size("casts", cast * size, f"{cast:,} × {size}"),
        Size("buckets", bucket * used.gradient, f"{bucket:,} × {used.gradient}"),
    ], Size("own gradients", whole_gradients * size, f"{whole_gradients:,} × {size}")


def _logits(visits: list[Visit], batch: int, lengths: dict[str, int]) -> Size:
    """PyTorch's cross entropy: logarithms of probabilities, their gradients and the logits' gradients, all in fp32."""
    heads = [visit for visit in visits if visit.kind == "head" and isinstance(visit.leaf, Linear)]
    rows, width = (batch * positions(heads[-1].positions, lengths), heads[-1].leaf.neurons) if heads else (0, 0)
    return Size("logits", 12 * rows * width, f"{rows:,} × {width:,} × (4 + 4 + 4)")


def _activations(
    visits: list[Visit], batch: int, lengths: dict[str, int], used: Precision, recompute: bool, fused: bool
) -> tuple[Size, Size]:
    """What the forward pass keeps for the backward pass, and the layer that is computed again.

    A decoder's layer with dropout, in 16 bits and not fused, keeps sbh (34 + 5as/h) bytes, for s tokens, b sequences, a
    width of h and a heads (Korthikanti et al. 2022, equation 1); recomputed, 2sbh and one layer for a while.
    """
    depth = {name: len(layers) for name, layers in indices(visits).items()}
    kept, inputs, read = Counter[str](), dict[str, int](), 0
    for visit in visits:
        rows, name = batch * positions(visit.positions, lengths), stack(visit)
        inputs.setdefault(name, read)
        kept[name] += visit.times * _kept(visit, rows, read, lengths, used, fused)
        read = rows * prod(visit.leaf.output) if visit.leaf.output else read
    outside = kept.pop("", 0)
    if recompute:
        between = sum(depth[name] * inputs[name] * used.stream for name in kept)
        layer = max((kept[name] // depth[name] for name in kept), default=0)
        said = _("outside of layers + the layers' inputs: {n}").format(n=f"{outside:,} + {between:,}")
        return Size("activations", outside + between, said), Size("recomputed", layer, _("the largest layer's"))
    each = [f"{depth[name]} × {kept[name] // depth[name]:,}" for name in kept]
    said = _("outside of layers + layers × bytes of one: {n}").format(n=" + ".join([f"{outside:,}", *each]))
    return Size("activations", outside + sum(kept.values()), said), Size("recomputed", 0, "0")


def _kept(visit: Visit, rows: int, read: int, lengths: dict[str, int], used: Precision, fused: bool) -> int:
    """Bytes that the backward pass needs of a leaf that read so many numbers, at `rows` positions."""
    size = used.product
    match visit.leaf:
        case Linear() as leaf:  # its input
            return size * rows * leaf.inputs
        case Norm() as leaf:  # its input
            return used.stream * rows * leaf.width if leaf.heads is None else size * rows * leaf.width * leaf.heads
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
        case Scan() as leaf:  # its input, the steps, and what is selected; states are made again (Gu and Dao 2023)
            return size * rows * 2 * (leaf.width + leaf.states)
    return 0
