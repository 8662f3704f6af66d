"""Dense networks typed by hand: 784-128-10 is inputs, hidden widths and outputs."""

import re
from itertools import pairwise

from pellucid.anatomy.families.fields import Fields
from pellucid.anatomy.tree import Activation, Input, Linear, Part, Sequence
from pellucid.errors import PellucidError
from pellucid.language import _

SHAPE = re.compile(r"(0|[1-9]\d*)(-(0|[1-9]\d*))+", re.ASCII)


def dense(fields: Fields) -> Sequence:
    """The tree of a dense network; part names are those of `networks.dense.Dense`.

    `layers` is its shape, such as "784-128-10"; each neuron has a bias unless `bias` is false. Hidden layers end in
    `activation`, ReLU unless it is named, the last one in `output_activation` where there is one.
    """
    shape = fields.name("layers")
    if not SHAPE.fullmatch(shape):
        fields.refuse("layers", _("Give widths with hyphens between them, such as 784-128-10."))
    widths = [int(width) for width in shape.split("-")]
    if 0 in widths:
        raise PellucidError(
            _("Width {n} of {shape} is 0.").format(n=widths.index(0) + 1, shape=shape),
            fields.where,
            _("Give each layer 1 or more, such as 784-128-10."),
        )
    has_bias = fields.flag("bias")
    hidden = fields.name("activation")
    layers = []
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        is_hidden = i < len(widths) - 2
        parts = [Part("linear", Linear(inputs, outputs, has_bias))]
        function = hidden if is_hidden else fields.name("output_activation")
        if function != "linear":
            parts.append(Part("activation", Activation(function, outputs)))
        layers.append(Part(str(i), Sequence(tuple(parts)), "dense" if is_hidden else "head"))
    return Sequence((Part("input", Input((widths[0],))), Part("layers", Sequence(tuple(layers)))))
