"""Masks that are given as numbers: what is known of tensors' numbers in a run without them, and which keys these hide.

Numbers are known of the example, of buffers, and of what is made of these and of constants alone: masks are. What the
network computes with its parameters has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.utils._pytree import tree_leaves, tree_map

MANY = 2**24  # numbers: more of them are not followed
HIDES = -1e4  # what is added to a score to hide it is at most this


def results(op: Any, args: Any, kwargs: Any, numbers: Callable[[Tensor], Tensor | None]) -> list[Tensor | None]:
    """The numbers of an operation's results, where those of all that it reads are known.

    Where a mask is laid on a bias that is not known (T5), those of the mask: what it hides stays hidden.
    """
    if torch.Tag.nondeterministic_seeded in op.tags:
        return []
    lays_mask = op._schema.name in ("aten::add", "aten::where", "aten::masked_fill")
    with unset_fake_temporarily():
        read = {id(x): (x, numbers(x)) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        unknown = [x for x, found in read.values() if found is None]
        if unknown and not (lays_mask and len(unknown) < len(read)):
            return []

        def known(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            found = read[id(x)][1]
            return torch.zeros((), dtype=x.dtype, device="cpu").expand(x.shape) if found is None else found

        args, kwargs = tree_map(known, (args, kwargs))
        try:
            outs = [x for x in tree_leaves(op(*args, **kwargs)) if isinstance(x, Tensor)]
        except (RuntimeError, LookupError):  # it has a shape for these, but is not made for such numbers
            return []
        few = [None if x.is_meta or x.numel() > MANY else x for x in outs]
        return [x if x is not None and (not unknown or _hides(x)) else None for x in few]


def _hides(mask: Tensor) -> bool:
    return mask.is_floating_point() and bool(hidden(mask).any())


def own(tensor: Tensor) -> Tensor | None:
    """A copy of a tensor's own numbers; None: it has none, or too many."""
    if isinstance(tensor, FakeTensor) or tensor.is_meta or tensor.is_sparse or tensor.numel() > MANY:
        return None
    with unset_fake_temporarily(), torch.no_grad():
        return tensor.detach().cpu().clone()


def hidden(mask: Tensor) -> Tensor:
    """The pairs that a mask hides: False of booleans, a large negative number of those that are added to scores."""
    return mask.logical_not() if mask.dtype == torch.bool else mask <= HIDES


def is_causal(masks: Iterable[Tensor | None], queries: int, keys: int) -> bool | None:
    """Whether one of these, True where a pair is hidden, hides all keys that come after a query; None: not known."""
    is_known = True
    for mask in masks:
        if mask is None or any(n not in (1, size) for n, size in zip(mask.shape[-2:], (queries, keys), strict=False)):
            is_known = False
        elif not mask.logical_not().expand(*mask.shape[:-2], queries, keys).triu(1).any():
            return True
    return False if is_known else None
