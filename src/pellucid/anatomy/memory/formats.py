"""How many bytes a network's weights take at a number format.

fp32, fp16, bf16: every number as it is. fp8, int8, nf4, int4: the matrices of dense layers at 8 or 4 bits with their
scales, all else (embeddings, norms, biases, routers, convolutions, the head) at 16. GGUF kinds: see `gguf`.
"""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from math import ceil
from typing import NamedTuple

from pellucid.anatomy.counts import parameters
from pellucid.anatomy.memory import gguf
from pellucid.anatomy.memory.sizes import Size, Sizes
from pellucid.anatomy.tree import Linear, Node, walk
from pellucid.errors import PellucidError
from pellucid.language import _

PLAIN = {"fp32": 4, "fp16": 2, "bf16": 2}  # bytes of a number


class Packed(NamedTuple):
    bits: int  # of a number in a matrix
    scales: Callable[[int, int], int]  # bytes of what a matrix from so many inputs to so many outputs needs beside them


PACKED = {
    "fp8": Packed(8, lambda inputs, outputs: 4 * ceil(inputs / 128) * ceil(outputs / 128)),
    "int8": Packed(8, lambda inputs, outputs: 4 * outputs),
    "nf4": Packed(4, lambda inputs, outputs: ceil(inputs * outputs / 64) + 4 * ceil(inputs * outputs / (64 * 256))),
    "int4": Packed(4, lambda inputs, outputs: ceil(2.5 * ceil(inputs / 128) * outputs)),
}
FORMATS = (*PLAIN, *PACKED, *gguf.KINDS)
CACHES = {  # of keys and values: numbers in a block, and its bytes
    **{name: (1, size) for name, size in {**PLAIN, "fp8": 1, "int8": 1}.items()},  # one scale for all does not count
    **{name.lower(): gguf.BLOCKS[name] for name in ("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL")},  # llama.cpp's
}


def weights(tree: Node, number_format: str = "bf16") -> Sizes:
    """The bytes of a network's weights, and of its buffers (fp32).

    Args:
        tree: The network; a tensor that is used twice (a tied head) is stored once.
        number_format: One of `FORMATS`. Capitals matter only where two differ by them: "BF16" is llama.cpp's file, with
            norms in fp32, "bf16" is bf16 throughout.

    Raises:
        PellucidError: when there is no such format, or a GGUF kind is asked of a network that reads no text.
    """
    name = known(number_format, FORMATS, "format")
    if name in gguf.KINDS:
        return Sizes(tuple(_of_type(block, numbers) for block, numbers in gguf.types(tree, name).items()))
    counted = parameters(tree)
    parts = _packed(tree, counted.total, name) if name in PACKED else [_plain(name, counted.total)]
    parts.append(Size("buffers", 4 * counted.buffers, f"fp32: {counted.buffers:,} × 4"))
    return Sizes(tuple(part for part in parts if part.bytes))


def _of_type(name: str, numbers: int) -> Size:
    count, size = gguf.BLOCKS[name]
    return Size("weights", numbers * size // count, f"{name}: {numbers:,} × {size} / {count}")


def _plain(name: str, numbers: int) -> Size:
    return Size("weights", numbers * PLAIN[name], f"{name}: {numbers:,} × {PLAIN[name]}")


def _packed(tree: Node, total: int, name: str) -> list[Size]:
    """The matrices of dense layers at few bits, their scales, and the rest at 16 bits."""
    packed = PACKED[name]
    matrices = [
        (v.copies, v.leaf)
        for v in walk(tree)
        if isinstance(v.leaf, Linear) and v.leaf.tied_to is None and v.kind != "head" and not v.path.endswith(".router")
    ]
    numbers = sum(copies * leaf.weights for copies, leaf in matrices)
    scales = sum(copies * packed.scales(leaf.inputs, leaf.outputs) for copies, leaf in matrices)
    return [
        Size("weights", ceil(numbers * packed.bits / 8), f"{name}: {numbers:,} × {packed.bits} / 8"),
        Size("weights", scales, _scale_rules()[name].format(n=sum(copies for copies, _leaf in matrices))),
        _plain("bf16", total - numbers),
    ]


def _scale_rules() -> dict[str, str]:
    """What `Packed.scales` counts, in the user's language."""
    return {
        "fp8": _("scales of {n:,} matrices, 4 bytes a block of 128 × 128 (DeepSeek-AI 2024, DeepSeek-V3, section 3.3)"),
        "int8": _("scales of {n:,} matrices, 4 bytes a neuron (Dettmers et al. 2022, LLM.int8)"),
        "nf4": _("scales of {n:,} matrices, 1 byte for 64 weights, 4 for 256 such bytes (Dettmers et al. 2023, QLoRA)"),
        "int4": _("scales and zeros of {n:,} matrices, 2.5 bytes for 128 weights (Lin et al. 2023, AWQ)"),
    }


def known(name: str, names: Iterable[str], where: str = "") -> str:
    """The one of `names` that is meant.

    Raises:
        PellucidError: when there is none; the nearest are named.
    """
    names, key = list(names), name.strip().lower()
    found = [name] if name in names else [other for other in names if other.lower() == key]
    if not found:
        near = get_close_matches(key, [other.lower() for other in names], 4, 0.5) if len(names) > 8 else []
        near = [other for other in names if other.lower() in near] or names
        raise PellucidError(
            _("{name!r} is not known here.").format(name=name),
            where,
            _("There are {names}.").format(names=", ".join(near)),
        )
    return found[0]
