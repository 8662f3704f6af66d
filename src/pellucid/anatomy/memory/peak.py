"""How much memory a training takes: the peak resident size of the process, foretold from shapes alone.

The peak is the largest of a few moments of a training, each the sum of what is alive then. In the formulas N is the
network's parameters, M those in matrices inside blocks, n the vectors that go through a leaf at once, and e the bytes
of a number in a matrix product (2 under bf16 autocast, else 4). Weights, gradients, optimiser state and the residual
stream are fp32 always. What each leaf keeps for the backward pass is in `kept`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from pellucid.anatomy import counts
from pellucid.anatomy.memory.kept import Pass, Run, blocks, passes
from pellucid.anatomy.tree import Embedding, Linear, Node, walk
from pellucid.language import _

if TYPE_CHECKING:
    from pellucid.training.plan import Plan

PROCESS = 356_000_000  # Python, torch and its kernels, after steps of a network of next to no size: measured
HELD = 0.34  # share of what comes and goes that the C library holds but cannot use again, where it keeps: fitted
TOGETHER = 2**22  # as in `training/optimisers.py`, a room above


@dataclass(frozen=True)
class Training:
    """What a forecast must know of a training beside the network."""

    run: Run
    optimiser: str = "adamw"  # or adam, muon, rmsprop, sgd
    momentum: bool = False  # of sgd and rmsprop
    accumulation: int = 1  # micro-batches in a step
    recompute: bool = False  # whether blocks keep their inputs only
    data: int = 0  # bytes that the task holds all along
    outside: int = 0  # and those that it takes for a while outside of steps: to make the data ready, or to judge

    @classmethod
    def of(cls, plan: Plan, inputs: int = 0, data: int = 0, outside: int = 0) -> Training:
        """That of a plan; `inputs` are the numbers in an example that is no text."""
        run = Run(plan.batch, 1 if inputs else plan.items, inputs, 2 if plan.precision == "bf16" else 4, plan.device)
        return cls(run, plan.optimiser, bool(plan.momentum), plan.accumulation, plan.recompute, data, outside)


@dataclass(frozen=True)
class Memory:
    """The peak: what is alive then, in bytes by name, adding up to the total."""

    parts: dict[str, int]
    moment: str  # when it comes: a key of `moments`
    moments: dict[str, int]  # the total at each moment

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    def __str__(self) -> str:
        names = _names()
        rows = {names[part]: size for part, size in self.parts.items() if size} | {_("peak"): self.total}
        return "\n".join(f"{size / 1e6:>10,.1f} MB  {name}" for name, size in rows.items())


def _names() -> dict[str, str]:
    """The parts in the user's language."""
    return {
        "process": _("Python, torch and its kernels"),
        "data": _("the data, and the batches of a step"),
        "weights": _("weights"),
        "optimiser state": _("state of the optimiser"),
        "activations": _("activations kept for the backward pass"),
        "bf16 copies of weights": _("copies of the weights in bf16"),
        "gradients": _("gradients of the weights"),
        "passing gradients": _("gradients of activations in passage"),
        "tied gradients": _("gradients of the embedding before they are added up"),
        "outputs": _("what the network says"),
        "update": _("what the optimiser needs for a while"),
        "outside": _("what making the data ready, or judging, takes for a while"),
        "best model": _("the best model, read back"),
        "holes between blocks": _("held by the allocator between blocks"),
    }


def forecast(tree: Node, training: Training, process: int = PROCESS, held: float | None = None) -> Memory:
    """Forecast the peak resident size of a training.

    Always there: the process, the data, 4N of weights, and the optimiser's state (see `state`). Beside them:

    - outside of steps: what making the data ready, or judging, takes.
    - forward: when the forward pass ends. What `passes` says of every leaf, the casts of all matrices, the outputs.
    - backward at a leaf: see `backward`.
    - update: 4N of gradients, and what the optimiser needs for a while (see `updating`).
    - finish: 4N for reading the best model from its file, and of a transformer 4M for bringing it into our form. What
      was free has been given back before.

    Args:
        tree: The network's shapes.
        training: What goes through it, and how it is trained.
        process: Bytes that the process takes without any network; 0 on a GPU.
        held: Share of what comes and goes that is lost to holes between blocks; 0 gives the bytes that torch asks for.
            When left out, what was fitted to measurements of decoders; 0 for networks that read no text and where
            blocks are computed again, since large blocks are given back there (`training/allocator.py`).
    """
    run, total, inside = training.run, counts.parameters(tree).total, counts.matrices(tree)
    through = list(blocks(passes(tree, run)))
    inputs = 4 * run.batch * run.inputs * training.accumulation
    always = {
        "process": process,
        "data": training.data + inputs,
        "weights": 4 * total,
        "optimiser state": state(training, total, inside),
    }
    gradients = {"gradients": 4 * total}
    finish = 4 * total + (0 if run.inputs else 4 * inside)
    moments = {
        "outside": {"outside": training.outside},
        "forward": forward(through, training),
        **backward(through, training),
        "update": {**gradients, "update": updating(tree, training, total)},
        "finish": {"best model": finish if run.device == "cpu" else 0},
    }
    if held is None:
        held = 0 if run.inputs or training.recompute else HELD
    for name, parts in moments.items():
        parts["holes between blocks"] = round(held * sum(parts.values())) if name != "finish" else 0
    totals = {name: sum(always.values()) + sum(parts.values()) for name, parts in moments.items()}
    moment = max(totals, key=totals.__getitem__)
    return Memory(always | moments[moment], moment, totals)


def state(training: Training, total: int, inside: int) -> int:
    """Bytes of the optimiser's state: Adam's two moments 8N; Muon's momentum 4M, and 8(N - M) beside the matrices."""
    match training.optimiser:
        case "sgd":
            return 4 * total if training.momentum else 0
        case "rmsprop":
            return 8 * total if training.momentum else 4 * total
        case "muon":
            return 4 * inside + 8 * (total - inside)
    return 8 * total


def forward(through: list[tuple[bool, list[Pass]]], training: Training) -> dict[str, int]:
    """When the forward pass ends: bf16 casts of matrices are held until then, even where they are made again later."""
    leaves = [one for _inside, block in through for one in block]
    return {
        "activations": sum(_kept(inside and training.recompute, block) for inside, block in through),
        "bf16 copies of weights": sum(one.cast for one in leaves),
        "gradients": 4 * sum(one.visit.parameters for one in leaves) if training.accumulation > 1 else 0,
        "outputs": leaves[-1].written,
    }


def backward(through: list[tuple[bool, list[Pass]]], training: Training) -> dict[str, dict[str, int]]:
    """What is alive while the backward pass is in a leaf; of equal children, in that which finds most.

    What this leaf and those before it keep, of activations and of casts; 4 bytes for each parameter of this leaf and
    those behind it (of all, if earlier micro-batches left theirs); the gradients of what the leaf wrote and read, of
    its matrix in bf16, and of the residual stream that goes past it. With recomputation, blocks before this one keep
    their inputs only. A tied table has two gradients until they are added up.
    """
    activations = [0, *accumulate(_kept(inside and training.recompute, block) for inside, block in through)]
    casts = [0, *accumulate(_casts(inside and training.recompute, block) for inside, block in through)]
    total = 4 * sum(one.visit.parameters for _inside, block in through for one in block)
    moments: dict[str, dict[str, int]] = {}
    behind = tied = 0
    for i, (inside, block) in reversed(list(enumerate(through))):
        past = block[0].entering if inside and _is_residual(block, training) else 0
        input_kept = block[0].shared if inside and training.recompute else 0
        for j, one in reversed(list(enumerate(block))):
            leaf = one.visit.leaf
            own = 4 * one.visit.parameters
            if isinstance(leaf, Linear) and leaf.tied_to is not None:
                own = tied = 4 * leaf.weights
            behind += 4 * one.visit.parameters
            # a gradient that the product made in bf16 becomes one in fp32 when that of the output is gone
            written = max(one.written - own, 0) if one.cast else one.written
            both = tied if isinstance(leaf, Embedding) and leaf.parameters * 4 == tied else 0
            parts = {
                "activations": activations[i] + input_kept + sum(other.kept for other in block[: j + 1]),
                "bf16 copies of weights": casts[i] + sum(other.cast for other in block[: j + 1]),
                "gradients": total if training.accumulation > 1 else behind,
                "passing gradients": one.read + written + one.cast + past,
                "tied gradients": tied + both,
            }
            moments[one.visit.path] = max(parts, moments.get(one.visit.path, {}), key=lambda p: sum(p.values()))
    return moments


def _kept(recomputed: bool, block: list[Pass]) -> int:
    """Bytes that a block keeps until its backward pass begins."""
    return block[0].entering if recomputed else sum(one.kept for one in block)


def _casts(recomputed: bool, block: list[Pass]) -> int:
    """And of its matrices in bf16."""
    return 0 if recomputed else sum(one.cast for one in block)


def _is_residual(block: list[Pass], training: Training) -> bool:
    """Whether a gradient goes past its leaves: in transformers, and in the convolutional networks' piece `residual`."""
    return not training.run.inputs or ".block." in block[0].visit.path


def updating(tree: Node, training: Training, total: int) -> int:
    """Bytes that the optimiser needs for a while: RMSprop the roots of its means; Muon what it orthogonalises."""
    if training.optimiser == "rmsprop":
        return 4 * total
    return orthogonalising(tree) if training.optimiser == "muon" else 0


def orthogonalising(tree: Node) -> int:
    """Bytes that Muon needs for a while: of one shape it orthogonalises `TOGETHER` numbers at once, G in all.

    4G for the looked-ahead gradients, 4G for them in one tensor, 2G + 2G for the iterate and the next one in bf16, and
    two bf16 products of the iterate with itself, as wide as the matrix's shorter side.
    """
    matrices: Counter[tuple[int, int]] = Counter()
    for visit in walk(tree):
        if isinstance(visit.leaf, Linear) and visit.kind != "head":
            matrices[visit.leaf.inputs, visit.leaf.outputs] += visit.copies
    return max(
        (min(n, max(1, TOGETHER // (i * o))) * (12 * i * o + 4 * min(i, o) ** 2) for (i, o), n in matrices.items()),
        default=0,
    )
