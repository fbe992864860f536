"""Verdicts on pairs of points whose answer is plain."""

import dataclasses
import math

import numpy as np
import pytest

from sgdlab.experiment.claims.judging import Judgement, interval, judge
from tests.experiment.claims import made

INF, NAN = math.inf, math.nan
LOW, HIGH = [0.2, 0.25, 0.3, 0.35], [0.5, 0.55, 0.6, 0.65]


def decide(left, right, /, **claim):
    """A claim on the final losses, one a seed, of the points `a` and `b`."""
    final = {"name": "final", "metric": "loss"}
    claim = {
        "claim": "c",
        "left": {**final, "of": "a"},
        "is": "<",
        "right": {**final, "of": "b"},
        **claim,
    }
    sweep = [{"label": "a", "rule.learning_rate": 0.1}, {"label": "b", "rule.learning_rate": 0.2}]
    seeds = max(len(left), len(right))
    experiment = made.points([claim], sweep=sweep, seeds=seeds)
    members = [made.member([[9.0, value] for value in values]) for values in (left, right)]
    (found,) = judge(experiment.claims, experiment.points, members)
    return found


def test_a_separated_pair_holds_and_swapped_fails():
    holds, fails = decide(LOW, HIGH), decide(HIGH, LOW)
    assert (holds.verdict, holds.expected) == ("HOLDS", True)
    assert (fails.verdict, fails.expected) == ("FAILS", False)
    assert holds.kind == "ratio"
    assert (holds.left, holds.right) == pytest.approx((0.275, 0.575))
    assert holds.measured == pytest.approx(0.275 / 0.575)
    assert holds.low <= holds.measured <= holds.high < 1 < fails.low
    assert holds.replicates == 4


def test_equal_noise_is_undecided():
    found = decide([0.2, 0.8, 0.3, 0.7], [0.8, 0.2, 0.7, 0.3])
    assert (found.verdict, found.expected) == ("UNDECIDED", False)
    assert found.low < 1 < found.high


def test_what_may_stay_open_says_so_and_may_hold_but_not_fail():
    open_ = {"undecided": "four seeds cannot tell"}
    undecided = decide([0.2, 0.8, 0.3, 0.7], [0.8, 0.2, 0.7, 0.3], **open_)
    assert (undecided.verdict, undecided.expected) == ("UNDECIDED", True)
    assert undecided.note == "four seeds cannot tell"
    assert decide(LOW, HIGH, **open_).expected
    assert not decide(HIGH, LOW, **open_).expected


def test_pairs_are_kept_together():
    # Between seeds the losses differ by more than the sides do, within each seed by just 1 %.
    left = np.array([1.0, 2.0, 4.0, 8.0])
    found = decide(0.99 * left, left)
    assert found.verdict == "HOLDS"
    assert (found.low, found.high) == pytest.approx((0.99, 0.99), rel=1e-12)


def test_a_single_replicate_has_a_point_for_an_interval():
    found = decide([0.2], [0.5])
    assert (found.low, found.high, found.replicates) == (0.4, 0.4, 1)
    assert found.verdict == "HOLDS"


def test_a_point_without_replicates_stands_beside_all():
    found = decide([0.2, 0.3], [0.5, 0.5])
    assert (found.low, found.high) == pytest.approx((0.4, 0.6))


@pytest.mark.parametrize(
    ("claim", "verdict"),
    [
        ({"is": "<", "factor": 0.5}, "HOLDS"),
        ({"is": "<", "factor": 0.4}, "FAILS"),  # equal is not less
        ({"is": "<=", "factor": 0.4}, "HOLDS"),
        ({"is": ">", "factor": 0.3}, "HOLDS"),
        ({"is": ">"}, "FAILS"),
        ({"is": ">="}, "FAILS"),
        ({"is": "within", "factor": 3}, "HOLDS"),
        ({"is": "within", "factor": 2}, "FAILS"),
        ({"is": "within", "tolerance": 0.31}, "HOLDS"),
        ({"is": "within", "tolerance": 0.29}, "FAILS"),
    ],
)
def test_every_comparison_of_a_fifth_with_a_half(claim, verdict):
    found = decide([0.2], [0.5], **claim)
    assert found.verdict == verdict
    assert found.expected == (verdict == "HOLDS")


@pytest.mark.parametrize("within", [{"factor": 2}, {"tolerance": 0.29}])
def test_a_half_is_as_far_from_a_fifth(within):
    assert decide([0.5], [0.2], **{"is": "within"}, **within).verdict == "FAILS"


def test_what_is_recorded_as_refuted_should_fail():
    fails = decide(HIGH, LOW, refuted="so it was")
    holds = decide(LOW, HIGH, refuted="so it was")
    assert (fails.verdict, fails.expected, fails.note) == ("REFUTED", True, "so it was")
    assert (holds.verdict, holds.expected) == ("HOLDS", False)
    undecided = decide([0.2, 0.8], [0.8, 0.2], refuted="so it was")
    assert (undecided.verdict, undecided.expected) == ("UNDECIDED", False)


@pytest.mark.parametrize(
    ("left", "is_", "right", "verdict"),
    [
        ([INF], "<", [0.5], "FAILS"),
        ([INF], ">", [0.5], "HOLDS"),
        ([0.5], "<", [INF], "HOLDS"),
        ([INF], "<", [INF], "FAILS"),  # two that diverge prove nothing, either way
        ([INF], ">", [INF], "FAILS"),
        ([NAN], "<", [0.5], "FAILS"),
        ([0.0], "<", [0.0], "FAILS"),
        ([0.0], "<=", [0.0], "HOLDS"),
        ([-1.0], "<", [-0.5], "HOLDS"),  # as a difference: a ratio would be above 1
        ([-1.0], ">", [-0.5], "FAILS"),
        ([0.5, INF, 0.5, INF], "<", [1.0, 1.0, 1.0, 1.0], "UNDECIDED"),
    ],
)
def test_what_is_not_finite_or_not_positive(left, is_, right, verdict):
    assert decide(left, right, **{"is": is_}).verdict == verdict


def test_a_difference_is_taken_where_it_is_asked_for_or_there_is_no_ratio():
    assert decide([0.2], [0.5], **{"is": "within", "tolerance": 1}).measured == pytest.approx(-0.3)
    found = decide([0.2], [0.5], right=0)
    assert (found.kind, found.measured) == ("difference", 0.2)


def test_the_interval_is_95_percent():
    values = np.arange(2000.0)
    low, high = interval(values, INF)
    assert (low, high) == (49.0, 1950.0)  # 2.5 % of the way from either end, rounded outwards
    values[:100] = NAN
    assert interval(values, INF)[1] == INF
    assert interval(values, -INF)[0] == -INF


def test_what_was_not_run_is_undecided_with_its_reason():
    claim = {"claim": "c", "left": {"name": "final", "metric": "loss"}, "is": "<", "right": 1}
    experiment = made.points([claim])
    (found,) = judge(experiment.claims, experiment.points, [made.member([], status="failed")])
    assert (found.verdict, found.expected) == ("UNDECIDED", False)
    assert found.note == "the run is failed, not run to its end"


def test_a_judgement_survives_json():
    found = dataclasses.replace(decide([INF], [0.5]), low=NAN)
    data = found.to_dict()
    assert (data["left"], data["low"]) == ("inf", "nan")
    again = Judgement.from_dict(data)
    assert again.left == INF
    assert math.isnan(again.low)
    assert dataclasses.replace(again, low=0.0) == dataclasses.replace(found, low=0.0)


@pytest.mark.parametrize("data", [{}, {"claim": 1}, {"claim": "c", "asked": "<", "what": 1}, []])
def test_damaged_judgements_are_refused(data):
    with pytest.raises(ValueError, match="no judgement"):
        Judgement.from_dict(data)


@pytest.mark.parametrize(
    ("claim", "kind", "measured"),
    [
        ({"is": "<", "factor": 0.5}, "ratio", 0.2 / 0.5),
        ({"is": ">=", "factor": 3}, "ratio", 0.2 / 0.5),
        ({"is": "within", "factor": 3}, "ratio", 0.2 / 0.5),
        ({"is": "<", "factor": 2, "right": 0}, "difference (2 × right)", 0.2),
        ({"is": "<", "factor": 2, "right": -0.5}, "difference (2 × right)", 0.2 + 1.0),
        ({"is": "<", "right": -0.5}, "difference", 0.2 + 0.5),
    ],
)
def test_the_measured_number_is_of_the_two_beside_it(claim, kind, measured):
    found = decide([0.2], [0.5], **claim)
    assert found.kind == kind
    assert found.measured == found.low == found.high == pytest.approx(measured)


def test_a_metric_without_a_direction_chooses_nothing():
    tuned = {"name": "tuned", "axis": "rule.learning_rate"}
    claim = {"claim": "c", "left": tuned, "is": "<", "right": 1.0}
    for by in ("final", "best"):
        tuned["by"] = {"name": by, "metric": "accuracy"}
        experiment = made.points([claim], sweep={"rule.learning_rate": [0.1, 0.2]})
        members = [made.member([[9.0, 1.0]], summary={"directions": {}}) for _ in range(2)]
        (found,) = judge(experiment.claims, experiment.points, members)
        assert found.verdict == "UNDECIDED"
        assert "metric 'accuracy' has no direction; allowed: loss" in found.note
