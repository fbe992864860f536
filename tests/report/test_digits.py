"""Numbers of a column: to the same place, and none of them lost."""

import math

import pytest
from hypothesis import given, settings, strategies as st

from sgdlab.report.digits import as_written, column_format, deviation, figure


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.9533, 0.97842], ["0.9533", "0.9784"]),
        ([232.48, 40.28, math.inf], ["232.5", "40.3"]),
        ([0, 1.455, 14.95], ["0.00", "1.46", "14.95"]),
        ([0, 1, 16], ["0", "1", "16"]),
        ([0.5], ["0.5"]),
        ([4.328e-10, 1.0802, 0], ["4.328e-10", "1.080e+00", "0"]),
        ([1.167e33, 0.5], ["1.167e+33", "5.000e-01"]),
        ([12345.6, 3], ["12,345.6", "3.0"]),
        ([0.30000000000000004], ["0.3"]),
        ([], []),
    ],
)
def test_a_column_is_written_to_one_place(values, texts):
    form = column_format(values)
    assert [figure(v, form) for v in values if math.isfinite(v)] == texts


@settings(deadline=None, max_examples=200)
@given(st.lists(st.floats(1e-30, 1e30), min_size=1, max_size=20))
def test_every_number_keeps_three_digits(values):
    form = column_format(values)
    for value in values:
        assert float(figure(value, form).replace(",", "")) == pytest.approx(value, rel=5.01e-3)


def test_a_deviation_is_zero_only_where_it_is_none():
    assert deviation(0.0, ",.4f") == "0"
    assert deviation(0.01234, ",.4f") == "0.0123"
    assert deviation(2.7e-8, ",.6f") == "2.7e-08"
    assert deviation(2.34e-12, ".3e") == "2.3e-12"


def test_settings_keep_every_digit():
    assert as_written(["0.0923", "2.06", "1"]) == ["0.0923", "2.0600", "1.0000"]
    assert as_written(["1", "16"]) == ["1", "16"]
    assert as_written(["1e-05", "0.1"]) == ["1e-05", "0.1"]


def test_fewer_digits_are_enough_for_times():
    assert column_format([26.87, 12.9, 75.0], digits=3) == ",.1f"
    assert column_format([232.48, 205.1], digits=3) == ",.0f"
    assert column_format([232.48, 40.28], digits=3) == ",.1f"
