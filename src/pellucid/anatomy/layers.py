"""Which layers a leaf of a tree belongs to: its path says so."""

from collections.abc import Iterable

from pellucid.anatomy.tree import Visit


def stack(visit: Visit) -> str:
    """The equal layers that a leaf is one of: "blocks", "encoder.blocks", "blocks[0:3]"; "" outside of layers."""
    return visit.path.partition(".*")[0] if ".*" in visit.path else ""


def indices(visits: Iterable[Visit]) -> dict[str, list[int]]:
    """The indices of the layers of each stack; what stands outside counts as one layer."""
    copies: dict[str, int] = {}
    for visit in visits:
        copies[stack(visit)] = min(visit.copies, copies.get(stack(visit), visit.copies))
    return {name: _sliced(name) or list(range(n)) for name, n in copies.items()}


def _sliced(name: str) -> list[int]:
    """[0, 1, 2, 6] of "blocks[0:3,6:7]"; [] where the name has no slices."""
    slices = name.partition("[")[2].rstrip("]")
    return [n for run in slices.split(",") if run for n in range(*map(int, run.split(":")))]
