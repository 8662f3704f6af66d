"""The rules: how a recorded operation becomes a sum.

A rule replaces an operation, at the values that were recorded, by an affine map with the same value: y = Σ cᵢ xᵢ + k.
It is written once, as the map transposed: from weights w on the results to weights on the operands (so that
Σ w y = Σ w' x + Σ w k), with every constant k from its own definition, never as what is left over. The terms of one
number are the map of the weight 1 at that number, of an operation narrowed to what the number needs; the sweep is the
map of all weights at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pellucid.tracing.recorder import facts
from pellucid.tracing.roles import Roles
from pellucid.tracing.rules import attention, elementwise, linear, norms
from pellucid.tracing.rules.attention import ATTENTION
from pellucid.tracing.rules.backward import BACKWARD
from pellucid.tracing.rules.elementwise import DECISIONS
from pellucid.tracing.rules.general import fresh, general
from pellucid.tracing.rules.narrowing import narrowed
from pellucid.tracing.rules.operation import Operation, Parts, Unexplained
from pellucid.tracing.rules.steps import STEPS, of_list
from pellucid.tracing.tape import Call, Tape

CONVENTIONS = ("values", "gates", "half")


def operation(
    tape: Tape, roles: Roles, call: Call, result: int, dtype: torch.dtype, convention: str = "values"
) -> Operation:
    """The whole of a call, seen from one of its results."""
    out = call.outs[result]
    call, result = of_list(call, result)
    return Operation(tape, roles, call, result, call.name, call.args, call.kwargs, out.shape, dtype, out, convention)


def shares(op: Operation, weights: Tensor, index: tuple[int, ...] | None = None) -> Parts:
    """The parts of Σ weights · result; with an index, of that one number (then `weights` is one number too).

    Raises:
        Unexplained: when no rule makes a sum of this operation.
    """
    if op.call.time in op.roles.composed:
        yield from elementwise.composed(op, weights, index)
        return
    if index is not None:
        op, weights = narrowed(op, weights, index)
    rule = RULES.get(op.name) or STEPS.get(op.name)
    if rule is None and facts(op.call.op).random:
        raise Unexplained("random", op.call)
    if rule is None:
        rule = elementwise.pointwise if facts(op.call.op).pointwise else general
    yield from rule(op, weights)


RULES: dict[str, Callable[[Operation, Tensor], Parts]] = {
    "copy_of": linear.copy_of,
    "clone": linear.copied,
    "_to_copy": linear.copied,
    "copy": linear.copied,
    "triu": linear.triangle,
    "tril": linear.triangle,
    "mm": linear.mm,
    "bmm": linear.mm,
    "addmm": linear.addmm,
    "baddbmm": linear.addmm,
    "dot": linear.dot,
    "convolution": linear.convolution,
    "native_layer_norm": norms.layer_norm,
    "_fused_rms_norm": norms.rms_norm,
    "native_batch_norm": norms.batch_norm,
    "cudnn_batch_norm": norms.batch_norm,
    "_native_batch_norm_legit": norms.batch_norm,
    "_native_batch_norm_legit_no_training": norms.batch_norm,
    "native_group_norm": norms.group_norm,
    "_log_softmax": attention.log_softmax,
    "logsumexp": attention.logsumexp,
    "_softmax": attention.softmax,
    "_safe_softmax": attention.softmax,
    "attention_row": attention.attention_row,
    **dict.fromkeys(ATTENTION, attention.attention),
    "mul": elementwise.mul,
    "div": elementwise.div,
    **dict.fromkeys(("add", "sub", "rsub"), elementwise.add),
    "where": elementwise.where,
    "masked_fill": elementwise.masked_fill,
    "addcmul": elementwise.addcmul,
    "addcdiv": elementwise.addcdiv,
    "lerp": elementwise.lerp,
    "glu": elementwise.glu,
    "native_dropout": elementwise.dropout,
    **dict.fromkeys(DECISIONS, elementwise.decision),
    **dict.fromkeys(("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"), fresh),
    **BACKWARD,
}
