"""What an operation is in a network: the rule for each that is a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from pellucid.anatomy import tree
from pellucid.anatomy.reading.live.masks import hidden, is_causal
from pellucid.anatomy.reading.records import Claim, Record

if TYPE_CHECKING:
    from pellucid.anatomy.reading.live.watch import Watch


@dataclass
class Known:
    """What is known of a tensor."""

    data: bool = False  # it depends on the example; else on parameters and constants only
    made: tuple[Claim, ...] = ()  # the parameters that it is made of, if not data
    linear: Record | None = None  # the linear layer that wrote it, if nothing was done to it since
    scores: Record | None = None  # the product of queries and keys that it comes from
    weights: bool = False  # and they have passed a softmax
    masks: tuple[Tensor | None, ...] = ()  # laid on them before: True where a pair is hidden; None: not known
    numbers: Tensor | None = None  # its own, where the run is without and they are known all the same
    sources: frozenset[Record] = frozenset()  # the layers with weights that it comes from, with none since
    lead: tuple[int, ...] = ()  # the dimensions that were merged into its first one: examples and heads
    shared: int | None = None  # heads that were repeated, to be as many as the queries'
    at: int = 0


class Call(NamedTuple):
    """An operation that ran."""

    name: str
    named: dict[str, Any]  # its arguments
    given: list[Tensor]
    outs: list[Tensor]
    result: Known  # what is known of its results whatever the operation is


PRODUCTS = {  # the two factors
    "mm": ("self", "mat2"),
    "addmm": ("mat1", "mat2"),
    "bmm": ("self", "mat2"),
    "baddbmm": ("batch1", "batch2"),
    "addbmm": ("batch1", "batch2"),
    "mv": ("self", "vec"),
    "addmv": ("mat", "vec"),
    "dot": ("self", "tensor"),
    "vdot": ("self", "other"),
    "_grouped_mm": ("self", "mat2"),
    "grouped_mm_fallback": ("input", "weight"),
}
GROUPED = {"_grouped_mm", "grouped_mm_fallback"}  # each row with one of several matrices
ACTIVATIONS = {
    "relu", "gelu", "silu", "sigmoid", "tanh", "hardtanh", "hardswish", "hardsigmoid", "leaky_relu", "elu", "celu",
    "mish", "softplus", "log_sigmoid_forward", "_prelu_kernel", "_softmax", "_log_softmax", "_safe_softmax",
    "threshold", "softshrink", "hardshrink", "glu", "rrelu_with_noise",
}  # fmt: skip
HEADS = ("num_heads", "n_heads", "num_attention_heads", "n_head")


def rule(name: str) -> Callable[[Watch, Call], Known] | None:
    """The rule for an operation, by its name without the _ of those that write in place; None: it is no layer."""
    if name in RULES:
        return RULES[name]
    if "scaled_dot_product" in name:
        return _attention
    if "batch_norm" in name:
        return _norm
    return _pool if "pool" in name else None


def _product(watch: Watch, call: Call) -> Known:
    """Data by a parameter is a dense layer; data by data may be an attention's."""
    a, b = (call.named[key] for key in PRODUCTS[call.name])
    known = watch.known(a), watch.known(b)
    copies, rows, inner, columns = _sizes(a, b)
    if known[0].data == known[1].data or not (known[0].made or known[1].made):
        return _data_by_data(watch, call, known, (copies, rows, inner, columns))
    data, weight = known if known[0].data else known[::-1]
    inputs, outputs, positions = (inner, columns, rows) if known[0].data else (inner, rows, columns)
    one, several = inputs * outputs, copies * inputs * outputs
    claim = next((c for size in (several, one) for c in weight.made if c.numbers == size), None)
    runs = 1
    if claim is None or claim.numbers == one:
        copies, positions = 1, positions * copies
    elif call.name in GROUPED:
        tokens = watch.frames[-1].rows
        runs = positions // tokens if positions % tokens == 0 else 1
        positions //= runs
    else:
        runs = copies
    record = watch.add(
        _path(watch, claim, "linear"),
        tree.Linear(inputs, outputs, bias=False),
        positions,
        (claim,) if claim else (),
        runs=runs,
        copies=copies if claim else 0,
        reads=data.linear if copies == 1 and data.linear and data.linear.leaf.output == (inputs,) else None,
        sources=data.sources,
    )
    _read(data)
    result = _from(record, linear=record)
    added = call.named.get("self") if call.name in ("addmm", "baddbmm", "addmv") else None
    return _biased(record, watch.known(added), result) if isinstance(added, Tensor) else result


def _sizes(a: Tensor, b: Tensor) -> tuple[int, int, int, int]:
    """Of a product: how many of it, rows, what is summed over, and columns."""
    if a.ndim == 2 and b.ndim == 3:
        return b.shape[0], a.shape[0], b.shape[1], b.shape[2]
    copies = a.shape[0] if a.ndim == 3 else 1
    rows = a.shape[-2] if a.ndim > 1 else 1
    return copies, rows, a.shape[-1], b.shape[-1] if b.ndim > 1 else 1


def _sum(watch: Watch, call: Call) -> Known:
    """With a parameter as wide as the layer that wrote the other summand it is that layer's bias."""
    known = [watch.known(tensor) for tensor in call.given]
    if call.result.scores:
        return _masked(watch, call)
    for wrote, added in (known, known[::-1]) if len(known) == 2 else ():
        if wrote.linear and added.made and not added.data:
            wrote.linear.readers -= 1
            return _biased(wrote.linear, added, wrote)
    return call.result


def _biased(record: Record, added: Known, result: Known) -> Known:
    leaf = record.leaf
    fits = len(added.made) == 1 and added.made[0].numbers == max(1, record.copies) * prod(leaf.output)
    if isinstance(leaf, tree.Linear) and not leaf.bias and record.claims and fits:
        record.leaf, record.claims = replace(leaf, bias=True), (*record.claims, added.made[0])
        return result
    return replace(result, linear=None)


def _data_by_data(watch: Watch, call: Call, known: tuple[Known, Known], sizes: tuple[int, int, int, int]) -> Known:
    copies, rows, inner, columns = sizes
    for which, k in enumerate(known):
        _read(k)
        if k.scores and k.weights and isinstance(k.scores.leaf, tree.Product):
            queries, keys, width = (rows, inner, columns) if which == 0 else (columns, inner, rows)
            n, *between, head_dim = k.scores.leaf.factors
            if n == copies and sorted(between) == sorted((queries, keys)):
                heads = _heads(watch, n, k.lead)
                shared = known[1 - which].shared
                causal = is_causal(k.masks, queries, keys)
                k.scores.leaf = _attention_of(heads, shared or heads, head_dim, width, queries, keys, causal)
                k.scores.positions, k.scores.runs = queries, n // heads
                k.scores.sources |= known[1 - which].sources
                return _from(k.scores)
    product = tree.Product((copies, rows, columns, inner))
    record = watch.add(_path(watch, None, "product"), product, sources=_few(*known))
    if not call.result.data:
        return call.result
    lead = next((k.lead for k in known if k.lead and prod(k.lead) == copies), ())
    shared = known[1].shared or known[0].shared
    masks = _masks(watch, [call.named["self"]]) if call.name == "baddbmm" else []
    return replace(call.result, scores=record, weights=False, masks=(*masks,), lead=lead, shared=shared)


def _masked(watch: Watch, call: Call) -> Known:
    """Scores on which a mask is laid: added to them, or where it chooses them."""
    named = call.named
    if not call.result.scores or call.result.weights:
        return call.result
    if "condition" in named:  # `where`
        mask = watch.numbers(named["condition"])
        is_kept = watch.known(named["self"]).scores is not None
        masks = [mask.logical_not() if mask is not None and is_kept else mask]
    elif "mask" in named:
        masks = [watch.numbers(named["mask"])]
    else:
        masks = _masks(watch, call.given)
    return replace(call.result, masks=(*call.result.masks, *masks))


def _masks(watch: Watch, added: list[Tensor]) -> list[Tensor | None]:
    """What is added to scores, if it is no bias that parameters or layers with weights make."""
    found = list[Tensor | None]()
    for tensor in added:
        known, numbers = watch.known(tensor), watch.numbers(tensor)
        if numbers is not None:
            found.append(hidden(numbers))
        elif not (known.scores or known.sources or known.made):
            found.append(None)
    return found


def _heads(watch: Watch, n: int, lead: tuple[int, ...]) -> int:
    """How many heads `n` products for examples and heads are: by the shape they had, their module, or the example."""
    own = next((h for name in HEADS if isinstance(h := getattr(watch.frames[-1].module, name, None), int)), 0)
    if len(lead) == 2:
        return lead[1]
    if own and n % own == 0:
        return own
    return n // watch.batch if n % watch.batch == 0 else n


def _attention(watch: Watch, call: Call) -> Known:
    q, k, v = (call.named[name] for name in ("query", "key", "value"))
    (batch, heads, queries, head_dim), keys = q.shape, k.shape[-2]
    shared = watch.known(k).shared or k.shape[-3]
    given = call.named.get("attn_mask")
    masks = _masks(watch, [given]) if given is not None else []
    causal = bool(call.named.get("is_causal")) or is_causal(masks, queries, keys)
    leaf = _attention_of(heads, shared, head_dim, v.shape[-1], queries, keys, causal)
    sources = _few(*(watch.known(x) for x in (q, k, v)))
    return _from(watch.add(_path(watch, None, "product"), leaf, queries, runs=batch, sources=sources))


def _attention_of(
    heads: int, shared: int, head_dim: int, width: int, queries: int, keys: int, causal: bool | None
) -> tree.Attention:
    return tree.Attention(
        heads,
        shared,
        head_dim,
        value_dim=width if width != head_dim else None,
        keys=keys if keys != queries else None,
        causal=causal if keys == queries else False,
    )


def _softmax(watch: Watch, call: Call) -> Known:
    if call.result.scores:
        return replace(call.result, weights=True)
    return _activation(watch, call)


def _activation(watch: Watch, call: Call) -> Known:
    """Named by its module where it has one: GELU may be written as a tanh."""
    name, (out, *_rest), frame = call.name, call.outs, watch.frames[-1]
    if not call.result.data:
        return call.result
    if frame.is_simple and len(watch.frames) > 1:
        if frame.is_activated:
            return call.result
        frame.is_activated = True
        name = type(frame.module).__name__.lower().removesuffix("activation")
    name = name.strip("_").removesuffix("_kernel").removesuffix("_forward").removeprefix("safe_")
    width = out.shape[-1] if out.ndim in (2, 3) else prod(out.shape[1:])
    watch.add(_path(watch, None, "activation"), tree.Activation(name, width), out.numel() // max(1, width))
    return call.result


def _convolution(watch: Watch, call: Call) -> Known:
    x, weight, bias = (call.named[name] for name in ("input", "weight", "bias"))
    out, groups, known = call.outs[0], call.named["groups"], watch.known(weight)
    size = (1, *weight.shape[2:])[-max(2, weight.ndim - 2) :]
    inputs, outputs = x.shape[1], out.shape[1]
    places = prod(x.shape[2:]) if call.named["transposed"] else None
    if known.data or not known.made:
        factors = (places or prod(out.shape[2:]), outputs, inputs // groups, *size)
        watch.add(_path(watch, None, "product"), tree.Product(factors), x.shape[0])
        return call.result
    claim = next((c for c in known.made if c.numbers == weight.numel()), None)
    added = watch.known(bias).made if claim and bias is not None else ()
    *rows, width = out.shape[2:]
    leaf = tree.Convolution(inputs, outputs, size, prod(rows), width, bool(added), groups, places=places)
    claims = (claim, *added) if claim else added
    path = _path(watch, claim, "convolution")
    return _from(watch.add(path, leaf, x.shape[0], claims, copies=1 if claim else 0, sources=call.result.sources))


def _lookup(watch: Watch, call: Call) -> Known:
    """Rows of a table of parameters."""
    table = call.named.get("weight", call.named.get("self"))
    indices: Any = call.named.get("indices", call.named.get("index"))
    chosen = [i for i in indices if i is not None] if isinstance(indices, (list, tuple)) else [indices]
    assert isinstance(table, Tensor)
    made = watch.known(table).made
    is_whole = len(made) == 1 and table.ndim == 2 and made[0].numbers == table.numel()
    if not is_whole or len(chosen) > 1 or chosen[0].is_floating_point() or call.named.get("dim", 0):
        return call.result
    leaf = tree.Embedding(*table.shape)
    return _from(watch.add(_path(watch, made[0], "embedding"), leaf, chosen[0].numel(), made))


def _norm(watch: Watch, call: Call) -> Known:
    x = call.named["input"]
    given = [p for name in ("weight", "bias") if (p := call.named.get(name)) is not None]
    if not call.result.data:
        return call.result
    claims = tuple(claim for p in given for claim in watch.known(p).made)
    width = claims[0].numbers if claims else prod(call.named.get("normalized_shape") or x.shape[1:2])
    leaf: tree.Layer = tree.Norm(width, shift=len(claims) == 2, plain=not claims)
    positions = x.numel() // width
    if len(claims) == 2 and call.named.get("running_mean") is not None:
        leaf, positions = tree.BatchNorm(width), x.shape[0]
    watch.add(_path(watch, claims[0] if claims else None, "norm"), leaf, positions, claims)
    return call.result


def _pool(watch: Watch, call: Call) -> Known:
    given, out = call.given[0], call.outs[0]
    if given.ndim > 2 and out.shape[:2] == given.shape[:2]:
        *rows, width = out.shape[2:] or (1,)
        leaf = tree.Pool("max" if "max" in call.name else "average", out.shape[1], prod(rows), width)
        watch.add(_path(watch, None, "pool"), leaf, out.shape[0])
    return call.result


def _mean(watch: Watch, call: Call) -> Known:
    """Over height and width it is a pooling."""
    over = call.named.get("dim") or ()
    is_pool = call.given[0].ndim == 4 and len(over) == 2 and {n % 4 for n in over} == {2, 3}
    return _pool(watch, call._replace(outs=[call.given[0].mean((2, 3))])) if is_pool else call.result


def _bilinear(watch: Watch, call: Call) -> Known:
    """nn.Bilinear: each output is a weighted sum of all products of two entries."""
    weight = call.named["i2"]
    outputs, first, second = weight.shape[-3:]
    made = watch.known(weight).made
    leaf = tree.Linear(first * second, outputs, bias=False)
    record = watch.add(_path(watch, made[0], "linear"), leaf, call.outs[0].numel() // outputs, made)
    return _from(record, linear=record)


RULES: dict[str, Callable[[Watch, Call], Known]] = {
    **dict.fromkeys(PRODUCTS, _product),
    **dict.fromkeys(ACTIVATIONS, _activation),
    **dict.fromkeys(("_softmax", "_safe_softmax"), _softmax),
    **dict.fromkeys(("native_layer_norm", "native_group_norm", "_fused_rms_norm"), _norm),
    **dict.fromkeys(("embedding", "_embedding_bag", "index", "index_select"), _lookup),
    **dict.fromkeys(("convolution", "_convolution"), _convolution),
    "add": _sum,
    "mean": _mean,
    "masked_fill": _masked,
    "where": _masked,
    "_trilinear": _bilinear,
}


def _from(record: Record, linear: Record | None = None) -> Known:
    """What a layer with weights, or an attention, wrote."""
    return Known(data=True, linear=linear, sources=frozenset([record]))


def _few(*known: Known) -> frozenset[Record]:
    """The layers that made these; none if they come from the residual stream, which many made."""
    if any(len(k.sources) > 2 for k in known):
        return frozenset()
    return frozenset[Record]().union(*(k.sources for k in known))


def _read(known: Known) -> None:
    if known.linear:
        known.linear.readers += 1


def _path(watch: Watch, claim: Claim | None, otherwise: str) -> str:
    """Where a layer stands: its module's path, and there the parameter's name if the module has parts."""
    if not watch.frames:
        return otherwise
    frame = watch.frames[-1]
    if claim is None:
        return frame.path if frame.is_simple and frame.path else join(frame.path, otherwise)
    for name, parameter in frame.module._parameters.items():
        if parameter is not None and claim.name in {c.name for c in watch.own(parameter)}:
            return join(frame.path, _short(name))
    if isinstance(frame.module, (nn.Linear, nn.Embedding, nn.modules.conv._ConvNd)):
        return frame.path
    owner, _dot, name = claim.name.rpartition(".")
    is_new = all(claim not in record.claims for record in watch.records)
    if is_new and (owner.startswith(f"{frame.path}.") or not frame.path):
        return join(owner, _short(name))
    return join(frame.path, otherwise)


def join(path: str, name: str) -> str:
    return f"{path}.{name}".strip(".")


def _short(name: str) -> str:
    """in_proj_weight: in_proj; weight: nothing, the module itself is the layer."""
    return name.removesuffix("weight").strip("_")
