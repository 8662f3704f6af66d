"""Examples in three parts: to learn from, to decide by, and to judge with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pellucid.errors import PellucidError
from pellucid.language import _

SMALL = 30  # fewer different examples than this are all needed to learn from


@dataclass(frozen=True, eq=False)
class Split:
    """Which examples are in which part; no example is in two of them.

    Attributes:
        train, validation, test: Indices in rising order, int64. The last two may be empty.
        how: A sentence that says what was held out, and how it was chosen.
        notes: What else the user should know.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    how: str
    notes: list[str] = field(default_factory=list)


def split(
    n: int,
    classes: Sequence[Any] | np.ndarray | None = None,
    groups: Sequence[Any] | np.ndarray | None = None,
    shares: tuple[float, float, float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    name_of: Callable[[Any], str] = str,
) -> Split:
    """Share n examples out at random: each class in the same proportion everywhere, equal examples on one side.

    Each class with three different examples or more is in every part. With fewer than `SMALL` different examples
    all are trained on and nothing is held out.

    Args:
        n: How many examples.
        classes: The class of each (what a group mixes counts as its first one); None for numbers and texts.
        groups: Examples with an equal entry stay together; see `groups_of`. None when all differ.
        shares: Of training, validation and test, adding up to 1; the last two may be 0.
        seed: Decides which examples are held out.
        name_of: How a class is called in the notes.

    Raises:
        PellucidError: when there is nothing to split, or the shares are not shares.
    """
    if n < 1:
        raise PellucidError(_("There is no example to learn from."))
    if min(shares) < 0 or shares[0] <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise PellucidError(
            _("The examples cannot be shared out as {shares}.").format(shares=", ".join(map(str, shares))),
            "",
            _("Use three shares that add up to 1, such as 0.7, 0.15, 0.15."),
        )
    group_N = np.arange(n) if groups is None else _numbered(groups)
    class_N = np.zeros(n, np.int64) if classes is None else _numbered(classes)
    n_groups = int(group_N.max()) + 1
    everything = np.arange(n)
    nothing = everything[:0]
    if n_groups < SMALL and max(shares[1:]) > 0:
        if n_groups == n:
            how = _("Nothing is held out: with fewer than {small} examples all {n} are trained on.")
        else:
            how = _("Nothing is held out: of {n} examples only {different} differ, and all are trained on.")
        return Split(everything, nothing, nothing, how.format(small=SMALL, n=n, different=n_groups))

    first, size = _firsts(group_N, n_groups)
    part_G = np.zeros(n_groups, np.int64)
    random = np.random.default_rng(seed)
    few = []
    for label in range(int(class_N.max()) + 1):
        members = np.flatnonzero(class_N[first] == label)
        if not len(members):
            continue  # its examples all stand in groups that count as another class
        members = random.permutation(members)
        part_G[members] = _shared_out(size[members], shares)
        if len(members) < sum(share > 0 for share in shares):
            few.append(label)
    part_N = part_G[group_N]
    train, validation, test = (np.flatnonzero(part_N == part) for part in range(3))
    notes = []
    if few and classes is not None:
        class_of = {int(number): example for example, number in enumerate(class_N)}
        named = [name_of(classes[class_of[label]]) for label in few]
        some = ", ".join(named[:5]) + (", …" if len(named) > 5 else "")
        notes.append(_("Too few different examples to be in every part: {classes}.").format(classes=some))
    if n_groups < n:
        notes.append(
            _("{repeated} of {n} examples repeat another one; equal ones stay in one part.").format(
                repeated=n - n_groups, n=n
            )
        )
    how = _("Shared out by seed {seed}: {train} to train on, {validation} for validation, {test} for the test.")
    how = how.format(seed=seed, train=len(train), validation=len(validation), test=len(test))
    return Split(train, validation, test, how, notes)


def groups_of(*columns: Sequence[Any] | np.ndarray) -> np.ndarray:
    """A number for each row, the same for rows that are equal in every column: (n,) int64.

    Columns are arrays of numbers (two NaN are equal), texts, or matrices with one line a row.
    """
    numbers = []
    for column in columns:
        array = np.asarray(column) if not isinstance(column, list) else _object(column)
        if array.ndim == 1:
            numbers.append(_numbered(array))
        else:
            lines = np.ascontiguousarray(array).reshape(len(array), -1)
            numbers.append(_numbered([line.tobytes() for line in lines]))
    group_N = numbers[0]
    for other in numbers[1:]:
        group_N = _numbered(group_N * (int(other.max(initial=0)) + 1) + other)
    return group_N


def _shared_out(size_G: np.ndarray, shares: tuple[float, float, float]) -> np.ndarray:
    """The part (0, 1, 2) of each group of one class, in the order given: the held-out ones are filled first."""
    total = int(size_G.sum())
    part_G = np.zeros(len(size_G), np.int64)
    taken = [0, 0, 0]
    for index, size in enumerate(size_G.tolist()):
        for part in (1, 2):
            wanted = shares[part] * total
            if abs(taken[part] + size - wanted) < abs(taken[part] - wanted):  # it brings the part nearer to its share
                part_G[index] = part
                break
        taken[part_G[index]] += size
    used = [
        part for part in (0, 1, 2) if shares[part] > 0
    ]  # a part that is left empty takes the smallest group there is
    for part in used[: len(size_G)]:
        if not (part_G == part).any():
            spare = [index for index in np.argsort(size_G, kind="stable") if (part_G == part_G[index]).sum() > 1]
            part_G[spare[0]] = part
    return part_G


def _firsts(group_N: np.ndarray, n_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """The first example of each group, and how many it has."""
    first = np.full(n_groups, len(group_N))
    np.minimum.at(first, group_N, np.arange(len(group_N)))
    return first, np.bincount(group_N, minlength=n_groups)


def _numbered(values: Sequence[Any] | np.ndarray) -> np.ndarray:
    """0, 1, 2 ... in the order in which different values appear first, whatever they can be compared with."""
    array = values if isinstance(values, np.ndarray) else _object(values)
    if array.dtype != object:
        _values, first, inverse = np.unique(array, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        return rank[inverse]
    seen: dict[Any, int] = {}
    return np.fromiter((seen.setdefault(value, len(seen)) for value in array), np.int64, len(array))


def _object(values: Sequence[Any]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = list(values)
    return array
