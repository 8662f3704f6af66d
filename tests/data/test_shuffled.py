"""Shuffled batches: every example once a pass, in another order each time, and on from any position."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pellucid.data.shuffled import Shuffled


def identity(rows):
    return rows


@given(st.integers(1, 50), st.integers(1, 60), st.integers(0, 5), st.integers(1, 4))
def test_each_pass_has_every_example_once(n, size, seed, passes):
    batches = Shuffled(n, size, seed, identity)
    size = min(n, size)
    taken = np.concatenate([next(batches) for _ in range(-(-passes * n // size))])
    for epoch in range(passes):
        assert sorted(taken[epoch * n : (epoch + 1) * n]) == list(range(n))


@given(st.integers(1, 50), st.integers(1, 60), st.integers(0, 5), st.integers(0, 30))
def test_it_goes_on_from_any_position(n, size, seed, made):
    whole, part = Shuffled(n, size, seed, identity), Shuffled(n, size, seed, identity)
    for _ in range(made):
        next(whole)
    part.position = whole.position
    for _ in range(5):
        np.testing.assert_array_equal(next(whole), next(part))


def test_passes_and_seeds_differ():
    first, other = Shuffled(30, 30, 0, identity), Shuffled(30, 30, 1, identity)
    passes = [tuple(next(first)) for _ in range(3)] + [tuple(next(other))]
    assert len(set(passes)) == 4
