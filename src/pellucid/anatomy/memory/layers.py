"""Which layers a leaf of a tree belongs to: its path says so."""

from collections.abc import Iterable

from pellucid.anatomy.tree import Visit


def stack(visit: Visit) -> str:
    """The equal layers that a leaf is one of: "blocks", "encoder.blocks", "blocks[0:3]"; "" outside of layers."""
    return visit.path.partition(".*")[0] if ".*" in visit.path else ""


def indices(visits: Iterable[Visit]) -> dict[str, list[int]]:
    """The indices of the layers of each stack that have parameters of their own; what stands outside is one layer."""
    copies = _least((stack(visit), visit.copies) for visit in visits)
    return {name: _sliced(name) or list(range(n)) for name, n in copies.items()}


def runs(visits: Iterable[Visit]) -> dict[str, int]:
    """How many layers of each stack run one after another: more than have parameters, where those are shared."""
    return _least((stack(visit), visit.times) for visit in visits if visit.times)


def _least(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    """The least number that stands beside each name: a mixture's experts are several in a layer."""
    found: dict[str, int] = {}
    for name, n in pairs:
        found[name] = min(n, found.get(name, n))
    return found


def _sliced(name: str) -> list[int]:
    """[0, 1, 2, 6] of "blocks[0:3,6:7]"; [] where the name has no slices."""
    slices = name.partition("[")[2].rstrip("]")
    return [n for run in slices.split(",") if run for n in range(*map(int, run.split(":")))]
