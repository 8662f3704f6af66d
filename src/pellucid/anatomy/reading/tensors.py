"""What the tensors of a file say of a network: its tree as far as names and shapes tell, and whether they fit another.

A file of tensors has no layers, only names. `blocks.0.attention.query.weight` and `.bias` are taken for one layer, and
equal ones with running numbers for a `Repeat`. How data flow from one to the next it does not say: see `Unread`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby, product
from math import prod
from typing import NamedTuple, NoReturn

from pellucid.anatomy.tree import (
    BatchNorm,
    Buffer,
    Embedding,
    Layer,
    Linear,
    Lone,
    Node,
    Norm,
    Part,
    Repeat,
    Sequence,
    Shape,
    Visit,
    walk,
)
from pellucid.checkpoints.headers import Stored
from pellucid.errors import PellucidError
from pellucid.language import _

KINDS = {  # what a name means, the first that occurs in it
    "norm": r"norm|(^|[._])(ln|bn)(_?\w)?\d*\b",
    "embedding": r"embed|emb\b|embd|wte|wpe",
    "attention": r"attn|attention",
    "head": r"^(\w+\.)?(lm_head|head|classifier|score|pooler|cls)\b|^(output|fc)\b",
    "feed-forward": r"mlp|ffn|feed_forward|experts|intermediate",
}
STATISTICS = {"running_mean", "running_var", "num_batches_tracked"}


@dataclass(frozen=True)
class Unread(Layer):
    """Parameters of which names and shapes do not tell how they are used: a convolution without the picture's size."""

    shapes: tuple[tuple[str, Shape], ...]

    @property
    def tensors(self) -> dict[str, Shape]:
        return dict(self.shapes)

    @property
    def neurons(self) -> int:
        self._refuse()

    @property
    def maps(self) -> int:
        self._refuse()

    def _refuse(self) -> NoReturn:
        said = ", ".join(f"{name} {_said(shape)}" for name, shape in self.shapes)
        raise PellucidError(
            _("How many neurons there are is not known: the file does not say where {tensor} is applied.").format(
                tensor=said
            ),
            "",
            _("Put its config.json beside it, or count the module itself: pl.anatomy(module, example)."),
        )


@dataclass(frozen=True)
class UnreadFlow(Layer):
    """Stands where a file does not say how data flow: whoever asks for work or dimensions is told so."""

    where: str

    @property
    def product(self) -> Shape:
        self._refuse()

    @property
    def output(self) -> Shape:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise PellucidError(
            _("A file of tensors does not say how data flow through the network, so this is not known."),
            self.where,
            _("Put its config.json beside it, or count the module itself: pl.anatomy(module, example)."),
        )


def tree_of(tensors: Mapping[str, Stored], where: str) -> Sequence:
    """The tree of the tensors of a file, in its order.

    A matrix is a dense layer, one that is called an embedding a table; vectors are norms. Parameters are exact, neurons
    where there is no `Unread`; nothing that depends on how data flow can be asked.
    """
    root = _Group()
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        group = root
        for step in path:
            group = group.children.setdefault(step, _Group())
        group.tensors[last] = tensor
    return Sequence((*_parts(root, ""), Part("flow", UnreadFlow(where), "dense")))


def is_bare(tree: Node) -> bool:
    """Whether the tree is `tree_of` tensors: of what depends on how data flow nothing can be asked."""
    return isinstance(tree, Sequence) and any(isinstance(part.node, UnreadFlow) for part in tree.parts)


@dataclass
class _Group:
    """What begins with the same names."""

    tensors: dict[str, Stored] = field(default_factory=dict)
    children: dict[str, _Group] = field(default_factory=dict)


def _parts(group: _Group, path: str) -> list[Part]:
    """The layers of a group, then its children; those with running numbers take the name of what they are in."""
    parts = _layers(group.tensors, path)
    numbered = {step: child for step, child in group.children.items() if step.isdigit()}
    for step, child in group.children.items():
        if step not in numbered:
            inner = f"{path}.{step}".strip(".")
            only_numbers = child.children and not child.tensors and all(key.isdigit() for key in child.children)
            parts += _runs(step, child.children, inner) if only_numbers else [_part(step, child, inner)]
    return parts + _runs("", numbered, path)


def _runs(name: str, numbered: dict[str, _Group], path: str) -> list[Part]:
    """Children with running numbers; equal ones that follow each other as one `Repeat`."""
    indices = sorted(map(int, numbered))
    parts = [_part(str(n), numbered[str(n)], f"{path}.{n}") for n in indices]
    runs = []
    for _key, run in groupby(enumerate(parts), key=lambda pair: (pair[1][1:], int(pair[1].name) - pair[0])):
        members = [part for _n, part in run]
        first, n = int(members[0].name), len(members)
        index = f".{first}" if n == 1 else "" if n == len(parts) and first == 0 and name else f"[{first}:{first + n}]"
        node = members[0].node if n == 1 else Repeat(n, members[0].node)
        runs.append(members[0]._replace(name=f"{name}{index}".strip("."), node=node))
    return runs


def _part(name: str, group: _Group, path: str) -> Part:
    parts = _parts(group, path)
    if len(parts) == 1 and not parts[0].name:
        return parts[0]._replace(name=name)
    return Part(name, Sequence(tuple(parts)))


def _layers(tensors: Mapping[str, Stored], path: str) -> list[Part]:
    """The layers that the tensors of one group make; the only one has no name of its own."""
    parts, biases = [], set()
    for name in sorted(tensors, key=lambda name: "bias" in name):  # a bias belongs to the weight that is found first
        tensor = tensors[name]
        kind = _kind(f"{path}.{name}".strip("."), tensor)
        if name in STATISTICS or tensor.is_whole:
            if "running_mean" not in tensors:
                parts.append(Part(name, Buffer(tensor.shape), kind))
        elif name not in biases:
            bias = name.replace("weight", "bias") if "weight" in name else ""
            shift = tensors.get(bias)
            biases |= {bias} if shift is not None else set()
            stem = name.removesuffix("weight").rstrip("_")
            parts.append(Part(stem, _layer(name, tensor, bias, shift, kind, "running_mean" in tensors), kind))
    return parts


def _layer(name: str, tensor: Stored, bias: str, shift: Stored | None, kind: str, statistics: bool) -> Layer:
    shape = tensor.shape
    if len(shape) == 2 and kind == "embedding" and shift is None:
        return Embedding(shape[0], shape[1])
    if len(shape) == 2 and name.endswith("weight"):
        # torch's own layers keep (outputs, inputs); GPT-2's keep (inputs, outputs), as the bias tells
        inputs, outputs = shape if shift is not None and shift.shape != shape[:1] else shape[::-1]
        if shift is None or shift.shape == (outputs,):
            return Linear(inputs, outputs, bias=shift is not None)
    if len(shape) == 1 and name == "weight" and (shift is None or shift.shape == shape):
        return BatchNorm(shape[0]) if statistics and shift is not None else Norm(shape[0], shift=shift is not None)
    if shift is None and (prod(shape) == max(shape, default=1) or "weight" not in name):
        return Lone(shape)
    return Unread(((name, shape), *(((bias, shift.shape),) if shift is not None else ())))


def _kind(name: str, tensor: Stored) -> str:
    if len(tensor.shape) > 2:
        return "convolution"
    kinds = (kind for kind, pattern in KINDS.items() if re.search(pattern, name.lower()))
    return next((kind for kind in kinds if kind != "norm" or len(tensor.shape) == 1), "dense")


class Misfit(NamedTuple):
    """A tensor that a configuration has no place for, where it has places for which there is no tensor."""

    name: str
    found: Shape
    path: str  # of the layer that may be meant
    expected: Shape


class Fit(NamedTuple):
    """What tensors say to a tree."""

    misfit: Misfit | None
    missing: tuple[str, ...]  # paths of layers whose tensors are not in the file
    surplus: tuple[str, ...]  # tensors that the tree has no place for


def fit(tree: Node, tensors: Mapping[str, Stored]) -> Fit:
    """Whether the tensors of a file are those of a tree: by their shapes, since names differ from family to family.

    A matrix may lie the other way round, layers that read the same may be put together or not, and so may experts.
    """
    numbers = {name: tensor.shape for name, tensor in tensors.items() if not tensor.is_whole}
    left = Counter(map(_plain, numbers.values()))
    stacked: Counter[Shape] = Counter()  # matrices of experts, so many in one tensor
    for shape in numbers.values():
        if len(shape) == 3:
            stacked[_plain(shape[1:])] += shape[0]
    missing, left, stacked = _placed(list(walk(tree)), left, stacked)
    surplus = []
    for name, shape in reversed(numbers.items()):  # of equal ones, those that come last
        if left[_plain(shape)] and (len(shape) != 3 or stacked[_plain(shape[1:])]):
            left[_plain(shape)] -= 1
            surplus.append(name)
    surplus.reverse()
    wide = [name for name in surplus if len(_plain(numbers[name])) > 1 and "scale" not in name]  # those of 8-bit blocks
    lacking = [visit for visit in missing if not visit.leaf.fixed and isinstance(visit.leaf, Linear | Embedding)]
    misfit = None
    if wide and lacking:
        kind = _kind(wide[0], tensors[wide[0]])
        visit = next((visit for visit in lacking if visit.kind == kind), lacking[0])
        misfit = Misfit(wide[0], numbers[wide[0]], visit.path, next(iter(visit.leaf.tensors.values())))
    return Fit(misfit, tuple(visit.path for visit in missing), tuple(surplus))


def _placed(
    visits: list[Visit], left: Counter[Shape], stacked: Counter[Shape]
) -> tuple[list[Visit], Counter[Shape], Counter[Shape]]:
    """The leaves that find no tensors, and the shapes that are left over.

    Layers of one name are all whole in a file, or all cut. Where d_ff = 3 d, a gate has the shape of queries, keys and
    values together, so that the first way that shapes allow need not be the right one: others are tried.
    """
    names = sorted({_name(visit) for visit in visits if isinstance(visit.leaf, Linear) and visit.leaf.parts})
    tries = []
    for way in product((False, True), repeat=len(names)):
        cut = {name for name, is_cut in zip(names, way, strict=True) if is_cut}
        rest, of_experts = left.copy(), stacked.copy()
        missing = []
        for visit in visits:
            forms = list(_forms(visit))
            forms = forms[::-1] if _name(visit) in cut else forms
            if not any(_take(some, Counter(form)) for form in forms for some in (rest, of_experts)):
                missing.append(visit)
        tries.append((missing, rest, of_experts))
        if not missing:
            break
    return min(tries, key=lambda found: len(found[0]))


def _name(visit: Visit) -> str:
    return visit.path.rpartition(".")[2]


def _forms(visit: Visit) -> Iterator[list[Shape]]:
    """The shapes, all copies' together, that a leaf's tensors may have in a file: whole, or cut into its parts."""
    leaf = visit.leaf
    shapes = [_plain(shape) for shape in leaf.tensors.values()]
    if isinstance(leaf, BatchNorm):
        shapes += [(leaf.channels,)] * 2
    yield shapes * visit.copies
    if isinstance(leaf, Linear) and leaf.parts:
        cut = [_plain((*shape[:-1], n)) for shape in leaf.tensors.values() for _name, n in leaf.parts]
        yield cut * visit.copies


def _take(left: Counter[Shape], wanted: Counter[Shape]) -> bool:
    """Take what is wanted, all or nothing."""
    if any(left[shape] < n for shape, n in wanted.items()):
        return False
    left.subtract(wanted)
    return True


def _plain(shape: Shape) -> Shape:
    """A shape without ones, in order: however it lies in the file."""
    return tuple(sorted(n for n in shape if n != 1))


def _said(shape: Shape) -> str:
    return " × ".join(map(str, shape))
