"""Toy data: where the points lie, what they are called, and that a seed gives the same ones."""

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.data import toys
from pellucid.errors import PellucidError


@given(name=st.sampled_from(list(toys.TOYS)), noise=st.sampled_from([0, 25, 50]), seed=st.integers(0, 99))
def test_one_seed_gives_the_same_points(name, noise, seed):
    once, again = (toys.make(name, noise, seed) for _ in range(2))
    assert len(once.x) == len(once.y) == (500 if once.classes else 1200)
    np.testing.assert_array_equal(once.x, again.x)
    np.testing.assert_array_equal(once.y, again.y)
    assert not np.array_equal(once.x, toys.make(name, noise, seed + 1).x) or (name == "spiral" and not noise)
    assert np.isfinite(once.x).all()
    assert (once.problem == "classification") == bool(once.classes)


@given(name=st.sampled_from(list(toys.TOYS)), percent=st.integers(1, 99), samples=st.integers(2, 300))
def test_split_leaves_nothing_out(name, percent, samples):
    points = toys.make(name, samples=samples)
    training, testing = points.split(percent)
    assert len(training.x) == samples * percent // 100
    np.testing.assert_array_equal(np.concatenate([training.x, testing.x]), points.x)
    np.testing.assert_array_equal(np.concatenate([training.y, testing.y]), points.y)


def test_circle():
    points = toys.make("circle", samples=20_000)
    radius = np.linalg.norm(points.x, axis=1)
    inside = points.y > 0
    assert inside.mean() == 0.5
    assert radius[inside].max() < 2.5
    assert radius[~inside].min() >= 3.5
    assert radius[~inside].max() < 5
    assert radius[inside].mean() == pytest.approx(1.25, abs=0.02)  # uniform along the radius, not over the disc
    assert radius[~inside].mean() == pytest.approx(4.25, abs=0.02)


def test_xor():
    points = toys.make("xor", samples=20_000)
    np.testing.assert_array_equal(points.y, np.sign(points.x.prod(axis=1)))
    assert np.abs(points.x).min() >= 0.3
    assert np.abs(points.x).max() < 5.3


@pytest.mark.parametrize(("noise", "variance"), [(0, 0.5), (25, 2.25), (50, 4)])
def test_gauss(noise, variance):
    points = toys.make("gauss", noise, samples=40_000)
    for sign in (1, -1):
        x = points.x[points.y == sign]
        assert len(x) == 20_000
        np.testing.assert_allclose(x.mean(axis=0), 2 * sign, atol=0.05)
        np.testing.assert_allclose(x.var(axis=0), variance, rtol=0.05)


def test_spiral():
    points = toys.make("spiral")
    np.testing.assert_allclose(points.x[points.y > 0].sum(axis=0), -points.x[points.y < 0].sum(axis=0))
    radius = np.linalg.norm(points.x, axis=1)
    np.testing.assert_allclose(np.sort(radius[points.y > 0]), np.arange(250) / 50, atol=1e-12)
    turned = np.arctan2(points.x[:, 0], points.x[:, 1])  # 1.75 turns to radius 5, the other arm half a turn on
    away = turned - 2 * np.pi * 1.75 * radius / 5 - np.where(points.y > 0, 0, np.pi)
    np.testing.assert_allclose(np.cos(away[radius > 0]), 1)
    noisy = toys.make("spiral", 50)
    assert 0.4 < np.abs(noisy.x - points.x).max() <= 0.5  # uniform within the noise, and the same order


def test_plane():
    points = toys.make("plane")
    np.testing.assert_allclose(points.y, points.x.sum(axis=1) / 10)
    assert np.abs(points.x).max() < 6


def test_multi_gauss():
    points = toys.make("multi-gauss", samples=20_000)
    for x1, x2, sign in ((-4, 2.5, 1), (0, 2.5, -1), (4, 2.5, 1), (-4, -2.5, -1), (0, -2.5, 1), (4, -2.5, -1)):
        distance = np.hypot(points.x[:, 0] - x1, points.x[:, 1] - x2)
        here = distance < 1.9
        np.testing.assert_allclose(points.y[here], sign * (1 - distance[here] / 2), atol=1e-12)
    assert (points.y == 0).mean() == pytest.approx(1 - 6 * 4 * np.pi / 144, abs=0.02)


def test_noise_moves_the_place_that_is_labelled_not_the_point():
    for name in ("circle", "xor", "nearest", "plane"):
        clean, noisy = toys.make(name, seed=3), toys.make(name, 30, seed=3)
        assert np.abs(noisy.x).max() < 6
        assert (clean.y != noisy.y).any()


def test_nearest():
    points = toys.make("nearest")
    distances = [np.hypot(*(points.x - corner).T) for corner in toys.CORNERS]
    np.testing.assert_array_equal(points.y, np.argmin(distances, axis=0))
    assert set(points.labels()) == {"A", "B", "C"}
    x, y = toys.nearest(100, 0.0, np.random.default_rng(0), [(-1, 0), (1, 0), (9, 9)])
    np.testing.assert_array_equal(y[np.hypot(*(x - 9).T) > 9], (x[np.hypot(*(x - 9).T) > 9, 0] > 0).astype(float))


def test_seven_features():
    x = np.array([[2.0, -3.0]])
    found = toys.features(x, list(toys.FEATURES))
    np.testing.assert_allclose(found, [[2, -3, 4, 9, -6, np.sin(2), np.sin(-3)]])


@pytest.mark.parametrize("name", list(toys.TOYS))
def test_saved_as_a_table(name, tmp_path):
    points = toys.make(name, 10)
    points.save(tmp_path / "toy.csv")
    with (tmp_path / "toy.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["x1", "x2", "label" if points.classes else "value"]
    np.testing.assert_array_equal(np.array([row[:2] for row in rows], float), points.x)
    assert [row[2] for row in rows] == points.labels()
    if not points.classes:
        np.testing.assert_array_equal(np.array([row[2] for row in rows], float), points.y)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("moons",), "There is no toy data 'moons'."),
        (("circle", 81), "from 0 to 80, not 81"),
        (("circle", -1), "from 0 to 80, not -1"),
        (("circle", 0, 0, 1), "two points"),
    ],
)
def test_refused(arguments, says):
    with pytest.raises(PellucidError, match=says):
        toys.make(*arguments)
