"""Counts, compute and memory, each one walk over a network's tree of shapes; none of it imports torch.

The room has the name of its verb: `pellucid.anatomy("gpt3")` calls `reading.anatomy`.
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
