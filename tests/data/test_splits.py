import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.data.splits import SMALL, groups_of, split
from pellucid.errors import PellucidError


@st.composite
def examples(draw):
    n = draw(st.integers(1, 300))
    classes = draw(st.none() | st.lists(st.integers(0, 4), min_size=n, max_size=n))
    # a group is of one class, as equal examples usually are
    groups = draw(st.none() | st.lists(st.integers(0, max(1, n // 2)), min_size=n, max_size=n))
    if classes is not None and groups is not None:
        groups = [group * 5 + label for group, label in zip(groups, classes, strict=True)]
    return n, classes, groups, draw(st.integers(0, 3))


@given(examples())
def test_every_example_is_in_one_part_and_equal_ones_together(case):
    n, classes, groups, seed = case
    found = split(n, classes, groups, seed=seed)
    parts = [found.train, found.validation, found.test]
    assert sorted(np.concatenate(parts).tolist()) == list(range(n))
    assert len(found.train)
    if groups is not None:
        of = [{groups[i] for i in part} for part in parts]
        assert sum(map(len, of)) == len(set.union(*of))
    again = split(n, classes, groups, seed=seed)
    assert all((a == b).all() for a, b in zip(parts, [again.train, again.validation, again.test], strict=True))


@given(examples())
def test_every_class_is_in_every_part_if_it_has_three_different_examples(case):
    n, classes, groups, seed = case
    groups = list(range(n)) if groups is None else groups
    if classes is None or len(set(groups)) < SMALL:
        return
    found = split(n, classes, groups, seed=seed)
    for label in set(classes):
        different = len({group for group, of in zip(groups, classes, strict=True) if of == label})
        held = sum(any(classes[i] == label for i in part) for part in (found.train, found.validation, found.test))
        assert held == min(different, 3)
        assert any(classes[i] == label for i in found.train)
        assert different >= 3 or any("Too few" in note for note in found.notes)


@given(st.integers(100, 2000), st.integers(0, 5))
def test_the_shares_hold_for_each_class(n, seed):
    classes = np.arange(n) % 4
    found = split(n, classes, seed=seed)
    for label in range(4):
        counts = [np.sum(classes[part] == label) for part in (found.train, found.validation, found.test)]
        assert np.allclose(counts, np.array([0.7, 0.15, 0.15]) * np.sum(classes == label), atol=1)


def test_another_seed_holds_out_others():
    assert (split(1000, seed=0).test != split(1000, seed=1).test).any()


def test_two_points_are_both_trained_on():
    found = split(2)
    assert found.train.tolist() == [0, 1]
    assert not len(found.validation)
    assert not len(found.test)
    assert found.how == "Nothing is held out: with fewer than 30 examples all 2 are trained on."


def test_a_truth_table_repeated_is_not_held_out():
    found = split(400, groups=np.arange(400) % 4)
    assert len(found.train) == 400
    assert "only 4 differ" in found.how


def test_repeats_are_counted():
    found = split(100, groups=np.arange(100) // 2)
    assert found.notes == ["50 of 100 examples repeat another one; equal ones stay in one part."]


def test_a_part_may_be_left_out():
    found = split(100, shares=(0.8, 0.2, 0))
    assert (len(found.train), len(found.validation), len(found.test)) == (80, 20, 0)


def test_names_of_classes_that_are_too_few():
    found = split(100, np.array([0] * 98 + [1] * 2), name_of=["cat", "dog"].__getitem__)
    assert found.notes == ["Too few different examples to be in every part: dog."]


@pytest.mark.parametrize("shares", [(0.5, 0.2, 0.2), (0, 0.5, 0.5), (1.2, -0.1, -0.1)])
def test_shares_that_are_none(shares):
    with pytest.raises(PellucidError, match="cannot be shared out"):
        split(100, shares=shares)


def test_nothing_to_split():
    with pytest.raises(PellucidError, match="no example"):
        split(0)


def test_groups_of_rows():
    matrix = np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 3.0]])
    assert groups_of(matrix).tolist() == [0, 0, 1]
    assert groups_of(matrix, ["a", "b", "a"]).tolist() == [0, 1, 2]
    assert groups_of(np.array([np.nan, np.nan, 1.0])).tolist() == [0, 0, 1]


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["a", "b", None])), min_size=1))
def test_groups_are_those_of_equal_rows(rows):
    groups = groups_of(np.array([row[0] for row in rows]), [row[1] for row in rows])
    for i, one in enumerate(rows):
        for j, other in enumerate(rows):
            assert (groups[i] == groups[j]) == (one == other)
