"""`pellucid.anatomy(what, *example_inputs)`: what a network is made of, and what it takes to train and to run.

    network = pellucid.anatomy("gpt3")  # a published model, a run, a file, "784-128-10"; or a torch.nn.Module
    network.parameters.total, network.neurons.total
    print(network)  # all of it, as `pellucid anatomy gpt3`
    network.explain("feed-forward"), network.training(300e9, "a100-80gb"), network.serving("int8")

The room has the name of its verb: the call is `reading.anatomy`, which says more. Counts, compute and memory are each
one walk over a network's tree of shapes; none of it imports torch.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pellucid.anatomy.report import Anatomy


class _Room(ModuleType):
    """A package is an attribute of the one above it as soon as it is imported, so it must itself answer the call."""

    def __call__(self, what: Any, *example_inputs: Any, **kwargs: Any) -> Anatomy:
        """See `pellucid.anatomy.reading.anatomy`."""
        from pellucid.anatomy.reading import anatomy

        return anatomy(what, *example_inputs, **kwargs)


sys.modules[__name__].__class__ = _Room
