"""Classes of staleness."""

import numpy as np
from hypothesis import given, settings, strategies as st

from sgdlab.plots import band, staleness_scale

COUNTS = st.lists(st.integers(0, 50), min_size=1, max_size=400)


@settings(deadline=None, max_examples=60)
@given(COUNTS)
def test_every_staleness_has_a_colour_and_a_label(counts):
    scale = staleness_scale(np.array(counts))
    classes = scale.classes(np.flatnonzero(counts))
    assert len(scale.labels) == len(scale.colours) <= 9
    assert len(set(scale.colours)) == len(scale.colours)
    assert np.all((classes >= 0) & (classes < len(scale.colours)))


@settings(deadline=None, max_examples=60)
@given(COUNTS)
def test_fresh_is_a_class_of_its_own_and_classes_increase(counts):
    scale = staleness_scale(np.array(counts))
    classes = scale.classes(np.arange(scale.upper + 1))
    assert classes[0] == 0
    assert np.all(classes[1:] >= 1)
    assert np.all(np.diff(classes) >= 0)


def test_few_values_have_a_class_each():
    assert staleness_scale(np.ones(5)).labels == ("fresh", "1", "2", "3", "4")


def test_only_fresh_messages_need_one_colour():
    assert staleness_scale(np.array([7])).labels == ("fresh",)


def test_a_few_very_stale_messages_do_not_take_the_colours():
    counts = np.zeros(401)
    counts[1:9] = 100
    counts[400] = 1
    # the 90th percentile is 8, so the eight classes hold one value each, the last one the rest
    assert staleness_scale(counts).labels == ("fresh", "1", "2", "3", "4", "5", "6", "7", "≥ 8")


def test_the_band_of_few_replicates_holds_all_of_them():
    low, middle, high = band(np.array([[1.0], [5.0], [2.0]]))
    assert (low[0], middle[0], high[0]) == (1, 2, 5)


def test_the_band_of_many_replicates_runs_from_the_10th_to_the_90th_percentile():
    low, middle, high = band(np.arange(11.0)[:, None])
    np.testing.assert_allclose((low[0], middle[0], high[0]), (1, 5, 9))


def test_the_median_needs_more_than_half_of_the_replicates():
    _, middle, _ = band(np.array([[1.0, 1.0], [np.inf, 2.0], [np.inf, 4.0]]))
    np.testing.assert_array_equal(middle, [np.nan, 2.0])


def test_the_median_of_the_band_counts_lost_replicates_as_the_worst():
    y = np.array([[1.0], [2.0], [4.0], [np.inf]])
    low, middle, high = band(y)
    assert (low[0], middle[0], high[0]) == (1, 3, 4)
    low, middle, high = band(-y)
    assert (low[0], middle[0], high[0]) == (-4, -3, -1)


def test_a_value_that_is_not_known_leaves_the_median_unknown():
    low, middle, high = band(np.array([[1.0], [2.0], [np.nan]]))
    assert (low[0], high[0]) == (1, 2)
    assert np.isnan(middle[0])


def test_the_edges_of_a_band_of_many_count_the_lost_ones_as_far_as_values_reach():
    y = np.append(np.arange(10.0), np.inf)[:, None]
    low, middle, high = band(y)
    np.testing.assert_allclose((low[0], middle[0], high[0]), (1, 5, 9))
