import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.data import tables
from pellucid.data.encoding import MISSING, Encoding, fit
from pellucid.errors import PellucidError

PEOPLE = [
    {"height": 170, "sex": "M", "age": 30, "weight": 60},
    {"height": 160, "sex": "F", "age": None, "weight": 50},
    {"height": 180, "sex": None, "age": 50, "weight": 80},
    {"height": 150, "sex": "F", "age": 20, "weight": 45},
    {"height": 175, "sex": "M", "age": 40, "weight": 70},
]


def encoded(rows, target="weight", scaling="standard", train=None):
    table = tables.from_rows(rows)
    found = tables.target(table, target)
    notes = []
    return table, fit(table, found, found.rows if train is None else np.array(train), scaling, notes), notes


def scaled(encoding, x_NF):
    return (x_NF - encoding.shifts) / encoding.scales


def test_min_max_of_the_five_scores():
    """S10: 90, 80, 70, 60, 50 become 1, .75, .5, .25, 0."""
    rows = [{"score": score, "y": i % 2} for i, score in enumerate([90, 80, 70, 60, 50])]
    table, encoding, _notes = encoded(rows, "y", "minmax")
    assert scaled(encoding, encoding.encode(table))[:, 0].tolist() == [1, 0.75, 0.5, 0.25, 0]
    table, encoding, _notes = encoded(
        [{"x": i, "score": row["score"]} for i, row in enumerate(rows)], "score", "minmax"
    )
    assert ((table.column("score").values - encoding.target_shift) / encoding.target_scale).tolist() == [
        *(1, 0.75, 0.5, 0.25, 0),
    ]


@given(st.lists(st.integers(-1000, 1000).map(lambda i: i / 7), min_size=3, max_size=50, unique=True), st.data())
def test_standard_scaling_is_numpys_on_training_rows_only(values, data):
    train = sorted(data.draw(st.sets(st.integers(0, len(values) - 1), min_size=2)))
    table, encoding, _notes = encoded(
        [{"x": value, "y": -2 * value + 1} for value in values], "y", train=train
    )  # fmt: skip
    x = np.array(values)
    assert np.isclose(encoding.shifts[0], np.mean(x[train]), rtol=1e-6, atol=1e-6)
    assert np.isclose(encoding.scales[0], np.std(x[train]), rtol=1e-6)
    assert np.isclose(encoding.target_shift, np.mean(1 - 2 * x[train]))
    assert np.isclose(encoding.target_scale, np.std(1 - 2 * x[train]))
    np.testing.assert_array_equal(encoding.encode(table)[:, 0], x.astype(np.float32))


def test_inputs_are_in_the_users_units_and_named():
    table, encoding, notes = encoded(PEOPLE)
    names = ["height", "sex = (missing)", "sex = F", "sex = M", "age", "age is missing"]
    assert encoding.input_names == names
    assert encoding.groups == {"height": [0], "sex": [1, 2, 3], "age": [4, 5]}
    assert encoding.encode(table).tolist() == [
        [170, 0, 0, 1, 30, 0],
        [160, 0, 1, 0, 35, 1],
        [180, 1, 0, 0, 50, 0],
        [150, 0, 1, 0, 20, 0],
        [175, 0, 0, 1, 40, 0],
    ]
    assert encoding.shifts[[1, 2, 3, 5]].tolist() == [0, 0, 0, 0]
    assert encoding.scales[[1, 2, 3, 5]].tolist() == [1, 1, 1, 1]
    assert notes == ["age is missing in 1 training rows: filled with the median, 35, and marked."]


def test_it_comes_back_from_json():
    for rows in (PEOPLE, [{**row, "weight": row["sex"] == "M"} for row in PEOPLE]):
        table, encoding, _notes = encoded(rows)
        again = Encoding.restore(json.loads(json.dumps(encoding.asdict())))
        assert again == encoding
        np.testing.assert_array_equal(again.encode(table), encoding.encode(table))


def test_one_row_to_predict_in_any_order_and_with_more_columns():
    _table, encoding, _notes = encoded(PEOPLE)
    row = tables.from_rows([{"age": 41, "note": "new", "sex": "F", "height": "171.5"}])
    assert encoding.encode(row).tolist() == [[171.5, 0, 1, 0, 41, 0]]


def test_what_training_never_saw_is_said():
    _table, encoding, _notes = encoded([{**row, "sex": row["sex"] or "M"} for row in PEOPLE])
    notes = []
    x_NF = encoding.encode(tables.from_rows([{"height": None, "sex": "X", "age": 1}, {"height": 1, "age": 2}]), notes)
    assert x_NF[:, :3].tolist() == [[170, 0, 0], [1, 0, 0]]
    assert notes == [
        "height is missing in 1 rows: 170 was put there, the median of training.",
        f"sex: categories without an input, in 2 rows: X, {MISSING}.",
    ]


def test_a_category_of_numbers_is_recognised_again():
    rows = [{"grade": grade, "y": i} for i, grade in enumerate(["1", "2", "A", "1", "2", "A"])]
    _table, encoding, _notes = encoded(rows, "y")
    assert encoding.encode(tables.from_rows([{"grade": "2"}, {"grade": 1}])).tolist() == [[0, 1, 0], [1, 0, 0]]


def test_rows_to_predict_that_are_refused():
    _table, encoding, _notes = encoded(PEOPLE)
    with pytest.raises(PellucidError, match="lacks columns that the network was trained on: height, age"):
        encoding.encode(tables.from_rows([{"sex": "F"}]))
    with pytest.raises(PellucidError, match='here is "tall"') as error:
        encoding.encode(tables.from_rows([{**PEOPLE[0]}, {**PEOPLE[0], "height": "tall"}]))
    assert error.value.where == "row 2"
    with pytest.raises(PellucidError, match="height holds inf"):
        encoding.encode(tables.from_rows([{**PEOPLE[0], "height": float("inf")}]))


def test_an_infinite_input_is_refused():
    with pytest.raises(PellucidError, match="height holds inf") as error:
        encoded([*PEOPLE, {**PEOPLE[0], "height": float("inf")}])
    assert error.value.where == "row 6"


def test_equal_values_in_the_training_rows_are_not_divided_by_zero():
    rows = [{"x": 0.1, "y": 1}, {"x": 0.1, "y": 2}, {"x": 0.1, "y": 3}, {"x": 5, "y": 4}]
    for scaling in ("standard", "minmax"):
        table, encoding, _notes = encoded(rows, "y", scaling, train=[0, 1, 2])
        assert encoding.scales.tolist() == [1]
        assert np.isfinite(scaled(encoding, encoding.encode(table))).all()


def test_no_scaling():
    _table, encoding, _notes = encoded(PEOPLE, scaling="none")
    assert (encoding.shifts == 0).all()
    assert (encoding.scales == 1).all()
    assert (encoding.target_shift, encoding.target_scale) == (0, 1)
    with pytest.raises(PellucidError, match="no scaling log"):
        encoded(PEOPLE, scaling="log")


def test_only_the_commonest_categories_get_inputs():
    rows = [{"city": f"c{min(i % 200, 110)}", "y": float(i)} for i in range(1000)]
    table, encoding, notes = encoded(rows, "y")
    assert len(encoding.input_names) == 100
    assert "city = c110" in encoding.input_names
    assert "city has 111 categories" in notes[0]
    assert set(encoding.encode(table).sum(1)) == {0, 1}


def test_numbers_that_single_precision_cannot_tell_apart_are_said():
    rows = [{"time": 1_700_000_000 + i, "y": float(i)} for i in range(50)]
    assert "single precision" in encoded(rows, "y")[2][0]


def test_a_table_without_inputs():
    with pytest.raises(PellucidError, match="No column can be an input"):
        encoded([{"x": 1, "y": 1}, {"x": 1, "y": 2}], "y")


def test_texts_are_no_inputs():
    rows = [{"x": i, "y": i, "review": f"a long review of many words, number {i}"} for i in range(5)]
    _table, encoding, notes = encoded(rows, "y")
    assert encoding.input_names == ["x"]
    assert notes == ["Not used as inputs of a table: review."]


def test_targets_of_another_table():
    rows = [{**row, "weight": "heavy" if row["weight"] > 55 else "light"} for row in PEOPLE]
    _table, encoding, _notes = encoded(rows)
    assert encoding.targets(tables.from_rows([{"weight": "light"}])).values.tolist() == [1]
    with pytest.raises(PellucidError, match="slim is none of the classes"):
        encoding.targets(tables.from_rows([{"weight": "slim"}]))
