"""Figures of classes and numbers equal scikit-learn's."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from pellucid.tasks.scores import ClassReport, NumberReport, show

NAMES = ("a", "b", "c", "d")
pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)


@given(pairs)
def test_classes(found):
    true, said = np.array(found).T
    report = ClassReport.of(NAMES, true, said)
    np.testing.assert_array_equal(report.confusion, metrics.confusion_matrix(true, said, labels=range(4)))
    assert report.accuracy == pytest.approx(metrics.accuracy_score(true, said))
    expected = metrics.precision_recall_fscore_support(true, said, labels=range(4), zero_division=np.nan)
    for score, precision, recall, f1, examples in zip(report.by_class, *expected, strict=True):
        assert score.precision == pytest.approx(precision, nan_ok=True)
        assert score.recall == pytest.approx(recall, nan_ok=True)
        assert score.f1 == pytest.approx(f1, nan_ok=True)
        assert score.examples == examples
    json.dumps(report.json(), allow_nan=False)


numbers = st.floats(-1e3, 1e3)


@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=40))
def test_numbers(found):
    true, said = np.array(found).T
    report = NumberReport.of("weight", true, said)
    assert report.rmse == pytest.approx(metrics.root_mean_squared_error(true, said))
    assert report.mae == pytest.approx(metrics.mean_absolute_error(true, said))
    if np.ptp(true) > 1e-6:
        assert report.r2 == pytest.approx(metrics.r2_score(true, said), rel=1e-6, abs=1e-9)
    json.dumps(report.json(), allow_nan=False)


def test_many_classes_show_who_is_taken_for_whom_most(capsys):
    names = tuple(f"class {n}" for n in range(30))
    true, said = np.arange(90) % 30, np.arange(90) % 30
    said[:30:2] = 7
    show(ClassReport.of(names, true, said))
    out = capsys.readouterr().out
    assert "taken for class 7" in out
    assert f"{(true == said).mean():.2%} right" in out
