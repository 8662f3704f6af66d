"""What is asked beside the counts: what running and training a network takes, what a budget buys, what there is.

Each answer is plain data, and opens: `explain` gives the formulas of its numbers, filled in.
"""

from pellucid.anatomy.questions.common import asked, find_device
from pellucid.anatomy.questions.listing import Bought, Hardware, Model, Models, budget, hardware, models
from pellucid.anatomy.questions.running import Serving, read_share, serve
from pellucid.anatomy.questions.training import Training, train

__all__ = [
    "Bought",
    "Hardware",
    "Model",
    "Models",
    "Serving",
    "Training",
    "asked",
    "budget",
    "find_device",
    "hardware",
    "models",
    "read_share",
    "serve",
    "train",
]
