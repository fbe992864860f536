"""What a metric's direction decides, and what counts where a replicate failed."""

import numpy as np
import pytest

from sgdlab import statistics

NAN, INF = np.nan, np.inf
OF = {"accuracy": "up", "cross_entropy": "down"}


@pytest.mark.parametrize(
    ("times", "middle"),
    [
        ([3.0, None, 1.0, 2.0], 2.5),  # {1, 2, 3, inf}: (2 + 3) / 2
        ([1.0, None, None, None], INF),
        ([1.0, 2.0, None, None], INF),  # (2 + inf) / 2
        ([1.0, 2.0, None], 2.0),
        ([None, None], INF),
        ([5.0], 5.0),
    ],
)
def test_a_replicate_that_never_got_there_took_forever(times, middle):
    assert statistics.median(statistics.read_times(times)) == middle


def test_no_replicate_has_no_median():
    assert np.isnan(statistics.median([]))


@pytest.mark.parametrize(
    ("metric", "values", "bound", "time"),
    [
        ("accuracy", [0.1, 0.6, 0.9], {"at_least": 0.6}, 2.0),
        ("accuracy", [0.1, NAN, 0.5], {"at_least": 0.6}, INF),
        ("accuracy", [0.1, INF, 0.5], {"at_least": 0.6}, INF),  # no accuracy is infinite
        ("accuracy", [0.1, NAN, 0.7], {"at_least": 0.6}, 4.0),
        ("loss", [2.0, -INF, 0.5], {"at_most": 1.0}, 4.0),
        ("loss", [2.0, NAN, 1.0], {"at_most": 1.0}, 4.0),
        ("loss", [2.0, NAN, NAN], {"at_least": 3.0}, 2.0),  # when it had diverged
        ("norm", [1.0, 3.0, 5.0], {"at_least": 3.0}, 2.0),  # a bound says itself where it lies
        ("norm", [1.0, NAN, INF], {"at_least": 3.0}, INF),
    ],
)
def test_the_time_is_that_of_the_first_value_in_reach(metric, values, bound, time):
    assert statistics.time_to([0.0, 2.0, 4.0], values, metric, OF, **bound) == time


def test_what_is_not_finite_is_the_worst_there_is():
    given = [0.5, None, NAN, INF, -INF]
    assert statistics.with_worst(given, "accuracy", OF).tolist() == [0.5] + [-INF] * 4
    assert statistics.with_worst(given, "cross_entropy", OF).tolist() == [0.5] + [INF] * 4
    np.testing.assert_array_equal(statistics.with_worst(given, "norm", OF), [0.5] + [NAN] * 4)


def test_the_loss_goes_down_and_names_decide_nothing():
    assert statistics.direction_of("loss", {}) == "down"
    assert statistics.direction_of("error", {"error": "up"}) == "up"
    for name in ("accuracy", "error", "perplexity", "top5_accuracy"):
        with pytest.raises(ValueError, match=f"metric '{name}' has no direction; allowed: loss"):
            statistics.direction_of(name, {})


@pytest.mark.parametrize("wrong", [{"accuracy": "max"}, {"loss": "up"}, {"accuracy": None}])
def test_other_directions_are_refused(wrong):
    with pytest.raises(ValueError, match="directions: (accuracy|loss) is"):
        statistics.check_directions(wrong)


def test_members_stand_by_their_time_and_then_by_the_metric():
    def rank(times, finals, metric="accuracy"):
        return statistics.standing(times, finals, metric, OF)

    assert rank([1.0, INF, 3.0], [0.5] * 3) < rank([4.0] * 3, [0.9] * 3)
    assert rank([INF], [0.9]) < rank([INF], [0.5])
    assert rank([], [0.2, 0.4], "cross_entropy") < rank([], [0.5, 0.5], "cross_entropy")
    # {0.1, 0.1, 0.1, lost} against {0.2, …}: the median of the first is 0.1; of two lost, none
    assert rank([], [0.1, 0.1, 0.1, NAN], "loss") < rank([], [0.2] * 4, "loss")
    assert rank([], [0.1, 0.1, NAN, NAN], "loss") > rank([], [0.2] * 4, "loss")
    assert rank([], []) == (INF, INF)


def test_the_metric_that_is_shown_first_goes_up():
    assert statistics.headline(["loss", "accuracy"], OF) == "accuracy"
    assert statistics.headline(["loss", "accuracy"], {"accuracy": "down"}) == "loss"
    assert statistics.headline(["loss", "reward"], {"reward": "up"}) == "reward"
