"""The memory of a network that writes or answers: its weights, what it keeps of past tokens, and what passes through.

A token's keys and values take 2 x layers x heads that hold them x head size numbers; a layer with a window keeps its
last tokens only, one with a latent vector keeps that instead, and one that looks at a source keeps the source's.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from math import prod
from typing import Any

from pellucid.anatomy.arguments import whole
from pellucid.anatomy.counts import positions
from pellucid.anatomy.memory import formats
from pellucid.anatomy.memory.layers import runs, stack
from pellucid.anatomy.memory.sizes import Size, Sizes
from pellucid.anatomy.tree import Attention, Convolution, Linear, Node, Norm, Scan, Visit, walk
from pellucid.language import _

RUNTIME = 500_000_000  # of CUDA's context and kernels; 0.3 GB and more are reported (pytorch/pytorch#107667)
TOGETHER = 2048  # tokens of a prompt at once, as vLLM's servers; llama.cpp takes 512
LIMIT = 2**24  # tokens or sequences, up to which is looked


def serve(
    tree: Node,
    number_format: str = "bf16",
    batch: int = 1,
    length: int = 1,
    cache_format: str = "bf16",
    source: int = 1,
    together: int = TOGETHER,
    runtime: int = RUNTIME,
) -> Sizes:
    """The memory of serving `batch` sequences of `length` tokens at once.

    Args:
        tree: The network; for one that reads no text, `length` says nothing.
        number_format: Of the weights, one of `formats.FORMATS`.
        batch: Sequences, or pictures, at once.
        length: Tokens of each, prompt and answer together.
        cache_format: Of keys and values, one of `formats.CACHES`.
        source: Tokens of each that a translator reads.
        together: Tokens of prompts that go through the network at once.
        runtime: Bytes that the runtime takes without any network: assumed, not derived.

    Raises:
        PellucidError: when a number is not possible or a format not known.
    """
    running = _running(tree, number_format, batch, length, cache_format, source, together, runtime)
    return Sizes((*formats.weights(tree, number_format).parts, *running.parts))


def _running(
    tree: Node,
    number_format: str,
    batch: int,
    length: int,
    cache_format: str = "bf16",
    source: int = 1,
    together: int = TOGETHER,
    runtime: int = RUNTIME,
) -> Sizes:
    """All but the weights."""
    lengths = {"token": whole(length, "length"), "source": whole(source, "source")}
    size = 4 if formats.known(number_format, formats.FORMATS, "format") in ("fp32", "F32") else 2
    passing = _passing(list(walk(tree)), whole(batch, "batch"), lengths, whole(together, "together"), size)
    kept = cache(tree, batch, length, cache_format, source).parts
    assumed = [Size("runtime", runtime, _("assumed: CUDA's context and kernels"))] if runtime else []
    return Sizes((*kept, *passing, *assumed))


def cache(tree: Node, batch: int = 1, length: int = 1, cache_format: str = "bf16", source: int = 1) -> Sizes:
    """What is kept of past tokens, layers that see equally far together; arguments as those of `serve`."""
    numbers, size = formats.CACHES[formats.known(cache_format, formats.CACHES, "cache format")]
    batch, lengths = whole(batch, "batch"), {"token": whole(length, "length"), "source": whole(source, "source")}
    layers: Counter[tuple[int, int]] = Counter()  # by the numbers kept of a token, and the tokens
    states = 0
    for visit in walk(tree):
        if isinstance(visit.leaf, Attention) and (tokens := _kept_tokens(visit, lengths)):
            layers[visit.leaf.kept, tokens] += visit.times
        elif isinstance(visit.leaf, Scan):
            states += visit.times * visit.leaf.width * visit.leaf.states
        elif isinstance(visit.leaf, Convolution) and visit.positions == "token":
            states += visit.times * visit.leaf.inputs * prod(visit.leaf.window)
    said = _("sequences × layers × numbers kept of a token × tokens × bytes: {formula}")
    parts = []
    for (kept, tokens), n in layers.items():
        formula = f"{batch:,} × {n} × {kept:,} × {tokens:,} × {size}" + (f" / {numbers}" if numbers > 1 else "")
        parts.append(Size("cache", -(-batch * n * kept * tokens * size // numbers), said.format(formula=formula)))
    if states:
        parts.append(Size("state", 2 * batch * states, f"{batch:,} × {states:,} × 2"))
    return Sizes(tuple(parts))


def token_bytes(tree: Node, cache_format: str = "bf16") -> int:
    """The bytes that one more token of a sequence adds to the cache while no window is full."""
    return cache(tree, 1, 2, cache_format)["cache"] - cache(tree, 1, 1, cache_format)["cache"]


def _kept_tokens(visit: Visit, lengths: dict[str, int]) -> int:
    """Of how many tokens a layer's keys and values are kept: none where nothing is written token by token."""
    leaf = visit.leaf
    assert isinstance(leaf, Attention)
    if visit.positions != "token" or (leaf.keys is None and not leaf.causal):
        return 0
    tokens = positions("token" if leaf.keys is None else leaf.keys, lengths)
    return min(tokens, leaf.window or tokens)


def _passing(visits: list[Visit], batch: int, lengths: dict[str, int], together: int, size: int) -> list[Size]:
    """What passes through: at the worst leaf what it reads and writes and the residual stream, and one fp32 logit each.

    Kernels are taken to be fused: no scores of attention are stored. Logits are those of the last position.
    """
    depth, read, stream, parts = runs(visits), 0, 0, []
    said = _("(read + written + residual stream) × bytes, at {path}: {formula}")
    for visit in visits:
        if not visit.times or (visit.kind == "head" and isinstance(visit.leaf, Linear)):
            continue
        rows = batch * positions(visit.positions, lengths)
        rows = min(rows, together) if isinstance(visit.positions, str) else rows
        if isinstance(visit.leaf, Norm) and visit.leaf.heads is None:
            stream = visit.leaf.width
        if visit.leaf.output:
            written = rows * max(1, visit.times // depth[stack(visit)]) * prod(visit.leaf.output)
            formula = f"({read:,} + {written:,} + {rows:,} × {stream:,}) × {size}"
            alive = (read + written + rows * stream) * size
            parts.append(Size("activations", alive, said.format(path=visit.path, formula=formula)))
            read = written
    largest = [max(parts, key=lambda part: part.bytes)] if parts else []
    heads = [v.leaf.outputs for v in visits if v.kind == "head" and isinstance(v.leaf, Linear)]
    return [*largest, *(Size("logits", 4 * batch * n, f"{batch:,} × {n:,} × 4") for n in heads[-1:])]


def largest_context(tree: Node, memory: float, number_format: str = "bf16", batch: int = 1, **options: Any) -> int:
    """The longest text that fits, in tokens; 0 where none does, `LIMIT` where any does.

    Args:
        tree: The network.
        memory: Bytes, of a device of the table: `devices.find("a100-80gb").memory`.
        number_format: Of the weights.
        batch: Sequences at once.
        options: Others of `serve`.

    Raises:
        PellucidError: as `serve`.
    """
    left = memory - formats.weights(tree, number_format).total
    return _largest(lambda n: _running(tree, number_format, batch, n, **options).fits(left))


def largest_batch(tree: Node, memory: float, number_format: str = "bf16", length: int = 1, **options: Any) -> int:
    """The most sequences of `length` tokens that fit at once; otherwise as `largest_context`."""
    left = memory - formats.weights(tree, number_format).total
    return _largest(lambda n: _running(tree, number_format, n, length, **options).fits(left))


def _largest(fits: Callable[[int], bool]) -> int:
    return bisect_left(range(1, LIMIT + 1), True, key=lambda n: not fits(n))
