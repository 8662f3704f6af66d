"""The memory of one device in a training on several, by formula.

Every parameter has a weight, a gradient and the optimiser's state; each of these is whole on every device, or shared
out over all. Beside them are the activations of the device's own sequences, and buffers for what devices exchange.

Sources: Rajbhandari et al. 2020 (ZeRO), section 3 and figure 1; what DDP and FSDP hold: their documentation in PyTorch.
"""

from bisect import bisect_left
from collections import Counter
from math import ceil
from typing import Any, NamedTuple

from pellucid.anatomy.arguments import whole
from pellucid.anatomy.counts import matrices, parameters
from pellucid.anatomy.memory.activations import kept, logits
from pellucid.anatomy.memory.formats import known
from pellucid.anatomy.memory.layers import indices, stack
from pellucid.anatomy.memory.serving import RUNTIME
from pellucid.anatomy.memory.sizes import Size, Sizes
from pellucid.anatomy.tree import Convolution, Linear, Node, Visit, walk
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
OPTIMISERS = {  # how many moments are kept of a matrix inside blocks, and of any other parameter
    "adamw": (2, 2),
    "adamw-8bit": (2, 2),
    "muon": (1, 2),
    "momentum": (1, 1),
    "sgd": (0, 0),
}
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
        optimiser: A key of `OPTIMISERS`.
        recompute: Whether only the inputs of layers are kept, and the rest is computed again in the backward pass.
        fused: Whether attention's scores are never stored (FlashAttention).
        source: Tokens of each that a translator reads.
        runtime: Bytes that the runtime takes without any network: assumed, not derived.

    Raises:
        PellucidError: when a number is not possible or a name not known.
    """
    used = PRECISIONS[known(precision, PRECISIONS, "precision")]
    sharding, optimiser = known(sharding, SHARDED, "sharding"), known(optimiser, OPTIMISERS, "optimiser")
    gathers = "weights" in SHARDED[sharding]
    if gathers:  # weights are cast as they are gathered, and so is all that layers write
        used = used._replace(stream=used.product)
    lengths = {"token": whole(length, "length"), "source": whole(source, "source")}
    visits = list(walk(tree))
    always, again = kept(visits, whole(batch, "batch"), lengths, used.product, used.stream, fused, recompute)
    copies, own = _exchanged(visits, used, sharding, gathers)
    at_the_head, in_a_layer = [logits(visits, batch, lengths)], [again, own]
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
    counted = parameters(tree)
    trained, inside = counted.trainable, min(matrices(tree), counted.trainable)
    of_matrices, of_others = OPTIMISERS[optimiser]
    moments = of_matrices * inside + of_others * (trained - inside)
    # moments in 8 bits have an fp32 scale for 2,048 numbers (Dettmers et al. 2022, 8-bit Optimizers)
    moment, said = (1 + 4 / 2048, "(1 + 4 / 2048)") if optimiser == "adamw-8bit" else (used.state, f"{used.state}")

    def part(name: str, kind: str, numbers: int, each: float, said: str) -> Size:
        among = devices if kind in shared else 1
        return Size(name, ceil(numbers * each / among), f"{numbers:,} × {said}" + (f" / {among}" if among > 1 else ""))

    return [
        part("weights", "weights", counted.total, used.weight, f"{used.weight}"),
        part("master weights", "optimiser", trained, used.master, f"{used.master}"),
        part("gradients", "gradients", trained, used.gradient, f"{used.gradient}"),
        part("optimiser", "optimiser", moments, moment, said),
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
