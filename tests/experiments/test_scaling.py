"""The scaling curve against curves that are known: found again, and its intervals as sure as they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.experiments.scaling import fit

SIZES = 30e3 * 2.8 ** np.arange(8)
NEXT = 5  # of the sizes: the one after five that were fitted


def losses(E, A, alpha, noise=0.0, sizes=5, seeds=1, rng=None):
    exact = (E + A * SIZES[: sizes + 1] ** -alpha)[:, None].repeat(seeds, 1)
    return exact * (1 + noise * rng.standard_normal(exact.shape)) if rng else exact


@given(st.floats(0.0, 3.0), st.floats(5.0, 200.0), st.floats(0.08, 0.8))
def test_a_curve_without_noise_is_found_again(E, A, alpha):
    exact = losses(E, A, alpha)
    if exact[0] - exact[4] < 0.02 * exact[0]:
        return  # level within rounding
    found = fit(SIZES[:5], exact[:5])
    assert found(SIZES[NEXT]) == pytest.approx(exact[NEXT, 0], rel=1e-5)
    assert found.alpha == pytest.approx(alpha, rel=0.02)
    assert pytest.approx(E, abs=0.03) == found.E


@given(st.floats(5.0, 200.0), st.floats(0.03, 0.5))
def test_a_power_law_without_noise_is_found_again(A, alpha):
    found = fit(SIZES[:4], losses(0.0, A, alpha)[:4], pure=True)
    assert (found.E, found.A, found.alpha) == pytest.approx((0.0, A, alpha), rel=1e-3)


@pytest.mark.parametrize(
    ("E", "A", "alpha", "sizes", "seeds", "pure"),
    [
        (1.7, 60.0, 0.3, 4, 1, False),
        (1.7, 60.0, 0.3, 5, 1, False),
        (1.7, 60.0, 0.3, 7, 1, False),
        (1.7, 60.0, 0.3, 4, 3, False),
        (0.0, 20.0, 0.12, 5, 1, False),  # on the bound of E
        (0.0, 20.0, 0.12, 5, 1, True),
        (0.0, 20.0, 0.12, 3, 2, True),
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(E, A, alpha, sizes, seeds, pure):
    rng = np.random.default_rng(0)
    held = {"forecast": 0, "E": 0, "A": 0, "alpha": 0}
    for _trial in range(200):
        seen = losses(E, A, alpha, 0.003, sizes, seeds, rng)
        found = fit(SIZES[:sizes], seen[:sizes], pure=pure)
        low, high = found.interval(SIZES[sizes])
        held["forecast"] += low <= seen[sizes].mean() <= high
        for name, true in (("E", E), ("A", A), ("alpha", alpha)):
            low, high = found.intervals[name]
            held[name] += low <= true <= high
    assert all(n / 200 >= 0.91 for n in held.values()), held
    assert held["forecast"] < 200, held


def test_the_best_curve_lies_inside_its_own_intervals():
    found = fit(SIZES[:5], losses(1.7, 60.0, 0.3, 0.003, rng=np.random.default_rng(1))[:5])
    for name in ("E", "A", "alpha"):
        low, high = found.intervals[name]
        assert low <= getattr(found, name) <= high
    low, high = found.interval(SIZES[NEXT])
    assert low < found(SIZES[NEXT]) < high
    near, far = found.interval(SIZES[NEXT]), found.interval(100 * SIZES[NEXT])
    assert near[1] - near[0] < far[1] - far[0]


def test_noise_is_what_sizes_miss_the_curve_by_and_what_seeds_differ_by():
    rng = np.random.default_rng(0)
    one = [fit(SIZES[:6], losses(1.7, 60.0, 0.3, 0.004, 6, 1, rng)[:6]).noise for _trial in range(100)]
    assert np.sqrt(np.mean(np.square(one))) == pytest.approx(0.004, rel=0.15)
    many = [fit(SIZES[:6], losses(1.7, 60.0, 0.3, 0.004, 6, 4, rng)[:6]).noise for _trial in range(100)]
    assert np.median(many) == pytest.approx(0.002, rel=0.15)  # of a mean of four


def test_sizes_that_miss_the_curve_by_more_than_seeds_differ_are_believed():
    bent = losses(1.7, 60.0, 0.3, sizes=5, seeds=2)[:5] * np.array([1, 1.02, 0.98, 1.02, 1])[:, None]
    found = fit(SIZES[:5], bent * np.array([0.9999, 1.0001]))
    assert found.freedom == 2
    assert found.noise > 0.01


def test_three_sizes_of_one_seed_say_nothing_of_their_noise():
    found = fit(SIZES[:3], losses(1.7, 60.0, 0.3)[:3])
    assert (found.noise, found.freedom, found.intervals, found.interval(1e7)) == (None, 0, None, None)
    assert fit(SIZES[:3], losses(1.7, 60.0, 0.3, 0.003, 3, 2, np.random.default_rng(0))[:3]).freedom == 3


def test_losses_that_do_not_fall_give_a_level_curve():
    found = fit(SIZES[:5], np.array([[3.0], [3.01], [3.02], [3.01], [3.03]]))
    assert found(1e4) == pytest.approx(found(1e9), rel=0.01)
