"""Constants that the memory forecast repeats, because it may not import what they belong to."""

from pellucid.anatomy.memory import kept, peak
from pellucid.networks import attention
from pellucid.training import optimisers


def test_the_forecast_knows_the_sizes_of_blocks():
    assert kept.QUERIES == attention.QUERIES
    assert peak.TOGETHER == optimisers.TOGETHER
