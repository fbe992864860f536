"""Replicates on a common grid."""

import numpy as np

from sgdlab.plots import resample


def test_replicates_at_the_same_times_stay_as_they_are():
    x, y = resample([[0, 1, 2], [0, 1, 2]], [[3, 2, 1], [6, 4, 2]])
    np.testing.assert_array_equal(x, [0, 1, 2])
    np.testing.assert_array_equal(y, [[3, 2, 1], [6, 4, 2]])


def test_between_evaluations_the_line_is_straight():
    x, y = resample([[0, 2], [0, 1, 2]], [[0, 4], [5, 5, 5]])
    np.testing.assert_array_equal(x, [0, 1, 2])
    np.testing.assert_array_equal(y[0], [0, 2, 4])


def test_a_replicate_that_ended_keeps_its_last_value():
    _, y = resample([[0, 1], [0, 4]], [[3, 2], [3, 1]])
    np.testing.assert_array_equal(y[0], [3, 2, 2])


def test_a_replicate_that_has_not_begun_has_no_value():
    _, y = resample([[1, 2], [0, 2]], [[3, 2], [3, 1]])
    np.testing.assert_array_equal(y[0], [np.nan, 3, 2])


def test_what_is_not_finite_is_unknown():
    _, y = resample([[0, 1, 2]], [[1, np.inf, np.nan]])
    np.testing.assert_array_equal(y[0], [1, np.nan, np.nan])


def test_what_is_lost_is_the_worst_from_the_first_place_that_is_not_finite():
    _, y = resample([[0, 1, 2], [1, 4]], [[1, np.nan, np.nan], [3, 3]], lost=-np.inf)
    np.testing.assert_array_equal(y, [[1, -np.inf, -np.inf, -np.inf], [np.nan, 3, 3, 3]])


def test_a_replicate_that_has_not_ended_has_no_value_after_its_last():
    places, values = [[0, 1], [0, 1], [0, 4]], [[3, 2], [3, np.nan], [3, 1]]
    _, y = resample(places, values, lost=np.inf, ended=False)
    np.testing.assert_array_equal(y[:, 1:], [[2, np.nan], [np.inf, np.inf], [2.5, 1]])


def test_a_long_grid_is_thinned_to_its_ends():
    x, y = resample([np.arange(1000)], [np.arange(1000)], max_points=50)
    assert (len(x), x[0], x[-1]) == (50, 0, 999)
    np.testing.assert_array_equal(y[0], x)


def test_the_line_is_straight_on_the_axis_that_it_is_drawn_on():
    _, y = resample([[0, 2], [0, 1, 2]], [[1, 1e-4], [1, 1, 1]], log=True)
    np.testing.assert_allclose(y[0], [1, 1e-2, 1e-4])
