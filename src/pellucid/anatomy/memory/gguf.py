"""The size of a model as a GGUF file: which type each tensor gets, by the rules of llama.cpp.

A kind such as Q4_K_M is a mixture: most matrices have its usual type, those that matter more have one of more bits.
What is no matrix of weights stays fp32: norms, biases, routers, tables of positions.

Source: llama.cpp, src/llama-quant.cpp as of 2026. An importance matrix is taken to be at hand for IQ1 to IQ3, which
need one, and not for others. The published sizes of Llama 3.1 8B in 23 kinds come out to the last digit.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from pellucid.anatomy.memory.layers import indices, stack
from pellucid.anatomy.tree import Attention, Embedding, Linear, Node, Norm, Visit, walk
from pellucid.errors import PellucidError
from pellucid.language import _

SIZES = {  # bytes of a block, by the numbers in it
    1: {"F32": 4, "F16": 2, "BF16": 2},
    32: {"Q4_0": 18, "Q4_1": 20, "Q5_0": 22, "Q5_1": 24, "Q8_0": 34, "IQ4_NL": 18},
    256: {"Q2_K": 84, "Q3_K": 110, "Q4_K": 144, "Q5_K": 176, "Q6_K": 210, "IQ1_S": 50, "IQ1_M": 56}
    | {"IQ2_XXS": 66, "IQ2_XS": 74, "IQ2_S": 82, "IQ3_XXS": 98, "IQ3_S": 110, "IQ4_XS": 136},
}
BLOCKS = {name: (numbers, size) for numbers, sizes in SIZES.items() for name, size in sizes.items()}
PLAIN = ("F32", "F16", "BF16")
LOW = ("IQ1", "IQ2")  # their rules for values and keys are complete
FALLBACK = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}  # others: IQ4_NL


class Mixture(NamedTuple):
    """The types of a kind: the usual one, and `rules` by role: "where type, where type, type", the first that holds.

    Where: "more" bits (the first and last eighth of the layers, and each third between), "eighth" or "sixteenth" (the
    first of the layers), "middle" (all but the first and last eighth), "two" or "four" (the first layers), "grouped"
    (at least four queries share a key), "experts" (there are at least four), "eight" (there are eight).
    """

    usual: str
    rules: Mapping[str, str] = MappingProxyType({})
    head: str = "Q6_K"  # also of a table of tokens that is the head too


_IQ2_VALUE = "grouped Q4_K, experts Q4_K, "
_IQ2 = {"value": _IQ2_VALUE + "Q2_K", "key": "eight Q4_K", "down": "eighth Q2_K", "output": "eight Q5_K"}
_IQ2_S = {"value": _IQ2_VALUE + "IQ3_S", "key": "eight Q4_K", "down": "eighth IQ3_S", "output": "eight Q5_K, IQ3_S"}
KINDS = {
    **{name: Mixture(name, head=name) for name in ("F32", "F16", "BF16", "Q8_0")},
    **{name: Mixture(name) for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q6_K")},
    "IQ1_S": Mixture("IQ1_S", _IQ2 | {"embedding": "Q2_K", "output": "eight Q5_K, IQ2_XXS"}, "Q5_K"),
    "IQ1_M": Mixture("IQ1_M", _IQ2 | {"embedding": "Q2_K", "output": "eight Q5_K, IQ2_XXS"}, "Q5_K"),
    "IQ2_XXS": Mixture("IQ2_XXS", _IQ2 | {"embedding": "Q2_K"}, "Q5_K"),
    "IQ2_XS": Mixture("IQ2_XS", _IQ2 | {"embedding": "Q2_K"}, "Q5_K"),
    "IQ2_S": Mixture("IQ2_XS", _IQ2_S | {"embedding": "IQ3_S"}, "Q5_K"),
    "IQ2_M": Mixture("IQ2_S", _IQ2_S | {"embedding": "IQ3_S"}, "Q5_K"),
    "IQ3_XXS": Mixture(
        "IQ3_XXS",
        {"embedding": "IQ3_S", "value": "grouped Q4_K", "output": "eight Q5_K, IQ3_S"}
        | dict.fromkeys(("query", "key"), "IQ2_S"),
        "Q5_K",
    ),
    "IQ3_XS": Mixture(
        "IQ3_S",
        {"value": "grouped Q4_K", "query": "IQ3_XXS", "key": "IQ3_XXS", "output": "eight Q5_K"}
        | dict.fromkeys(("gate", "up"), "middle IQ3_XXS"),
    ),
    "IQ3_S": Mixture("IQ3_S", {"value": "grouped Q4_K", "output": "eight Q5_K"}),
    "IQ3_M": Mixture("IQ3_S", {"value": "Q4_K", "down": "eighth Q4_K", "output": "eight Q5_K, Q4_K", "qkv": "Q4_K"}),
    "IQ4_NL": Mixture("IQ4_NL", {"value": "grouped Q5_K", "down": "eighth Q5_K", "output": "eight Q5_K"}),
    "IQ4_XS": Mixture("IQ4_XS", {"value": "grouped Q5_K", "down": "eighth Q5_K", "output": "eight Q5_K"}),
    "Q2_K": Mixture("Q2_K", {"value": "grouped Q4_K, Q3_K", "down": "Q3_K", "output": "eight Q5_K, Q3_K"}),
    "Q2_K_S": Mixture("Q2_K", {"value": "grouped Q4_K", "down": "eighth Q4_K"}),
    "Q3_K_S": Mixture("Q3_K", {"output": "eight Q5_K"}),
    "Q3_K_M": Mixture(
        "Q3_K",
        {"value": "two Q5_K, Q4_K", "down": "sixteenth Q5_K, Q4_K", "output": "eight Q5_K, Q4_K", "qkv": "Q4_K"},
    ),
    "Q3_K_L": Mixture("Q3_K", {"value": "Q5_K", "down": "Q5_K", "output": "eight Q3_K, Q5_K", "qkv": "Q4_K"}),
    "Q4_K_S": Mixture("Q4_K", {"value": "four Q5_K", "down": "eighth Q5_K", "output": "eight Q5_K"}),
    "Q4_K_M": Mixture("Q4_K", {"value": "more Q6_K", "down": "more Q6_K", "output": "eight Q5_K", "qkv": "Q5_K"}),
    "Q5_K_S": Mixture("Q5_K"),
    "Q5_K_M": Mixture("Q5_K", {"value": "more Q6_K", "down": "more Q6_K", "qkv": "Q6_K"}),
}


class Asked(NamedTuple):
    """What the rules ask of a network."""

    layers: int
    shared: int  # queries that share a key
    experts: int  # of one layer; 0: no mixture of experts


def types(tree: Node, kind: str) -> dict[str, int]:
    """How many numbers have which type (a key of `BLOCKS`) in a file of `kind` (a key of `KINDS`).

    A network whose norms shift is taken for one whose queries, keys and values are one matrix, as GPT-2's are ("qkv",
    whose rules are those that files of today were made by). What reads pictures has a file of its own, at 16 bits. Left
    out are llama.cpp's exceptions for Falcon, and the file's vocabulary and settings: some megabytes.

    Raises:
        PellucidError: when the network reads no text.
    """
    every = list(walk(tree))
    visits = [visit for visit in every if isinstance(visit.positions, str)]
    if not any(isinstance(visit.leaf, Embedding) for visit in visits):
        raise PellucidError(_("Files of the kind {kind} hold language models only.").format(kind=kind))
    layers = indices(every)
    routers = [v.leaf.outputs for v in visits if isinstance(v.leaf, Linear) and v.path.endswith(".router")]
    asked = Asked(
        layers=len({layer for visit in visits if stack(visit) for layer in layers[stack(visit)]}),
        shared=max((v.leaf.heads // v.leaf.kv_heads for v in visits if isinstance(v.leaf, Attention)), default=1),
        experts=max(routers, default=0),
    )
    tied = {visit.leaf.tied_to for visit in visits if isinstance(visit.leaf, Linear)}
    fused = any(isinstance(visit.leaf, Norm) and visit.leaf.shift for visit in visits)
    counts: dict[str, int] = {}
    for visit in every:
        own = layers[stack(visit)]
        for role, row, numbers in _tensors(visit, tied, fused):
            for layer in own:
                name = _type(kind, role, row, layer, asked) if isinstance(visit.positions, str) else _apart(kind, role)
                counts[name] = counts.get(name, 0) + numbers * visit.copies // len(own)
    return {name: numbers for name, numbers in counts.items() if numbers}


def _apart(kind: str, role: str) -> str:
    """The type of a tensor that reads pictures: those have a file of their own, at 16 bits."""
    return "F32" if role == "plain" or kind == "F32" else "F16"


def _tensors(visit: Visit, tied: set[str | None], fused: bool) -> Iterator[tuple[str, int, int]]:
    """A leaf's tensors: the role of each, the length of a row, and how many numbers it has.

    The role is a key of `Mixture.rules`, "head", "plain" for what stays fp32, or any other name: the usual type.
    """
    leaf, name, rest = visit.leaf, visit.path.rsplit(".", 1)[-1], visit.leaf.parameters + visit.leaf.buffers
    if isinstance(leaf, Linear) and "weight" in leaf.tensors and name != "router" and leaf.outputs > 1:
        for part, width in ((name, leaf.outputs),) if fused or not leaf.parts else leaf.parts:
            yield part, leaf.inputs, leaf.inputs * width
        rest -= leaf.weights
    elif isinstance(leaf, Embedding) and name == "embedding":
        yield "head" if visit.path in tied else "embedding", leaf.width, rest
        rest = 0
    yield "plain", 1, rest


def _type(kind: str, role: str, row: int, layer: int, asked: Asked) -> str:
    """The type of a tensor of that role, whose rows have `row` numbers."""
    if role == "plain":
        return "F32"
    mixture = KINDS[kind]
    if role == "head":
        return mixture.head if row % BLOCKS[mixture.usual][0] == 0 else "Q8_0"
    name = _ruled(mixture.rules.get(role, ""), layer, asked) or mixture.usual
    if role == "value" and asked.layers == 80 and asked.shared > 1 and name in ("Q3_K", "Q4_K") and kind[:3] not in LOW:
        name = "Q5_K"  # in 70B models, where eight queries share a value, it costs next to nothing
    if role in ("value", "key") and asked.experts == 8 and mixture.usual not in PLAIN and kind[:3] not in LOW:
        name = "Q8_0"
    while row % BLOCKS[name][0]:
        name = "F16" if BLOCKS[name][0] == 32 else FALLBACK.get(name, "IQ4_NL")
    return name


def _ruled(rules: str, layer: int, asked: Asked) -> str:
    """The type that the first rule names that holds; "" where none does."""
    eighth, last = asked.layers // 8, 7 * asked.layers // 8
    holds = {
        "": True,
        "more": layer < eighth or layer >= last or (layer - eighth) % 3 == 2,
        "eighth": layer < eighth,
        "sixteenth": layer < asked.layers // 16,
        "middle": eighth <= layer < last,
        "two": layer < 2,
        "four": layer < 4,
        "grouped": asked.shared >= 4,
        "experts": asked.experts >= 4,
        "eight": asked.experts == 8,
    }
    pairs = (rule.rpartition(" ") for rule in rules.split(", "))
    return next((name for where, _space, name in pairs if holds[where]), "")
