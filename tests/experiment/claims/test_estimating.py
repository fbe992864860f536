"""The paired bootstrap, against enumerations, and what is chosen anew in every resample."""

import itertools
import math

import numpy as np
import pytest

from sgdlab.experiment.claims.estimating import RESAMPLES, Resamples, estimate, gather
from tests.experiment.claims import made

RATES = [0.1, 0.2, 0.4]


def side(quantity, members, **config):
    """A quantity over points that differ in the learning rate: its value, and in resamples."""
    sweep = [{"rule.learning_rate": rate, "label": str(rate)} for rate in RATES[: len(members)]]
    config = {"seeds": 2, "sweep": sweep, **config}
    made_points = made.points([{"claim": "c", "left": quantity, "is": "<", "right": 1}], **config)
    sample = gather(made_points.claims[0].left, made_points.points, members)
    return estimate(sample, Resamples(*sample.shape))


def test_equal_replicates_are_a_point():
    final = {"name": "final", "metric": "loss"}
    values = side(final, [made.member([[1.0, 0.3]] * 4)], sweep=None)
    assert values.shape == (1 + RESAMPLES,)
    assert set(values.tolist()) == {0.3}


def test_two_seeds_are_their_four_resamples():
    values = side({"name": "final", "metric": "loss"}, [made.member([[1, 1], [1, 3]])], sweep=None)
    assert values[0] == 2.0
    found = {mean: np.mean(values[1:] == mean) for mean in (1.0, 2.0, 3.0)}
    # 00, 01, 10, 11: five standard deviations of a share at 2,000 draws
    for mean, share in {1.0: 0.25, 2.0: 0.5, 3.0: 0.25}.items():
        assert abs(found[mean] - share) < 5 * math.sqrt(share * (1 - share) / RESAMPLES)
    assert sum(found.values()) == 1.0


def test_draws_and_seeds_are_resampled_both_ways():
    losses = [[1, 0], [1, 1], [1, 10], [1, 11]]  # draws add 0 or 10, seeds 0 or 1
    member = made.member(losses, draws=2)
    values = side({"name": "final", "metric": "loss"}, [member], sweep=None, timelines=2)
    pairs = list(itertools.product([0, 0.5, 1], [0, 5, 10]))
    assert set(np.unique(values)) == {seed + draw for seed, draw in pairs}


def test_times_combine_by_the_median_though_some_never_come():
    quantity = {"name": "time_to", "metric": "loss", "at_most": 0.5}
    member = made.member([[1.0, 0.5], [0.5, 0.5], [1.0, 1.0]])  # after 2 s, 0 s, never
    values = side(quantity, [member], sweep=None, seeds=3)
    assert values[0] == 2.0
    assert set(np.unique(values)) == {0.0, 2.0, math.inf}


def test_the_lowest_is_chosen_in_every_resample():
    low = made.member([[1, 1], [1, 5]])
    other = made.member([[1, 5], [1, 2]])
    values = side({"name": "final", "metric": "loss", "over": "lowest"}, [low, other])
    # seeds 00 choose the first (1), 11 the second (2), 01 the first (3)... the means are 3, 3.5
    assert set(np.unique(values)) == {1.0, 2.0, 3.0}


@pytest.mark.parametrize(("over", "expected"), [("lowest", 1.0), ("highest", 3.0), ("mean", 2.0)])
def test_points_combine_as_they_are_told(over, expected):
    members = [made.member([[9, value]]) for value in (1.0, 2.0, 3.0)]
    assert side({"name": "final", "metric": "loss", "over": over}, members, seeds=1)[0] == expected


def test_tuned_is_the_place_where_the_points_are_best():
    members = [
        made.member([[9, 2], [9, 3]]),
        made.member([[9, 1], [9, 5]]),
        made.member([[9, 4]] * 2),
    ]
    by = {"name": "final", "metric": "loss"}
    values = side({"name": "tuned", "axis": "rule.learning_rate", "by": by}, members)
    assert values[0] == 0.1  # 2.5, 3, 4
    assert set(np.unique(values)) == {0.1, 0.2}  # seeds 00: 2, 1, 4
    by["metric"] = "accuracy"
    assert side({"name": "tuned", "axis": "rule.learning_rate", "by": by}, members)[0] == 0.1


def test_tuned_is_nowhere_where_no_point_gets_there():
    by = {"name": "time_to", "metric": "loss", "at_most": 0.1}
    members = [made.member([[1, 1]])] * 3
    values = side({"name": "tuned", "axis": "rule.learning_rate", "by": by}, members, seeds=1)
    assert np.isnan(values).all()


def test_tuned_may_choose_the_best_of_other_axes_first():
    sweep = {"rule.learning_rate": RATES[:2], "worker.batch_size": [1, 2]}
    members = [made.member([[9, value]]) for value in (5, 2, 3, 4)]
    tuned = {
        "name": "tuned",
        "axis": "rule.learning_rate",
        "by": {"name": "final", "metric": "loss"},
    }
    assert side({**tuned, "over": "lowest"}, members, sweep=sweep, seeds=1)[0] == 0.1  # 2 < 3
    assert side({**tuned, "over": "mean"}, members, sweep=sweep, seeds=1)[0] == 0.1  # 3.5, 3.5
    assert side({**tuned, "over": "highest"}, members, sweep=sweep, seeds=1)[0] == 0.2  # 5 > 4


STABLE, BAD, EITHER = [[1, 0.5]] * 2, [[1, 2]] * 2, [[1, 0.5], [1, 2]]


@pytest.mark.parametrize(
    ("losses", "expected", "all_values"),
    [
        ([STABLE, STABLE, BAD], 0.2, {0.2}),
        ([STABLE, BAD, STABLE], 0.1, {0.1}),  # what lies behind the first divergence counts not
        ([STABLE, STABLE, STABLE], 0.4, {0.4}),
        ([BAD, STABLE, STABLE], -math.inf, {-math.inf}),
        ([STABLE, EITHER, BAD], 0.1, {0.1, 0.2}),  # stable where seed 0 alone is drawn
    ],
)
def test_the_limit_is_the_last_place_before_anything_diverges(losses, expected, all_values):
    quantity = {"name": "limit", "axis": "rule.learning_rate"}
    values = side(quantity, [made.member(rows) for rows in losses])
    assert values[0] == expected
    assert set(np.unique(values)) == all_values


def test_a_limit_may_ask_for_a_goal_at_the_end():
    quantity = {"name": "limit", "axis": "rule.learning_rate", "metric": "loss", "at_most": 0.5}
    members = [made.member(rows) for rows in ([[1, 0.4]] * 2, [[1, 0.5]] * 2, [[1, 0.6]] * 2)]
    assert side(quantity, members)[0] == 0.2
    assert side({**quantity, "at_most": 0.6}, members)[0] == 0.4


def test_a_closed_form_has_no_spread():
    quantity = {"name": "theory", "function": "stability_limit", "arguments": {"delay": 1}}
    values = side(quantity, [made.member([[1, 1]])] * 2)
    np.testing.assert_allclose(values, 1.0, rtol=1e-12)  # 2 sin(π/6)
