"""Each quantity of a replicate, on runs whose answers are known by arithmetic."""

import math

import pytest

from sgdlab.experiment.claims.measuring import UnmeasuredError, measure
from tests.experiment.claims import made

NAN, INF = math.nan, math.inf
LOSSES = [[1.0, 0.5, 0.25, 0.5], [1.0, 0.75, 0.5, 2.0]]  # of seeds 0 and 1 at versions 0 to 3
TARGET = {"target": {"metric": "loss", "at_most": 0.5}}

# name, arguments -> what seeds 0 and 1 bring.
FACTS = {
    "final loss": ("final", {"metric": "loss"}, [0.5, 2.0]),
    "final accuracy": ("final", {"metric": "accuracy"}, [0.5, -1.0]),
    "lowest loss": ("best", {"metric": "loss"}, [0.25, 0.5]),
    "highest accuracy": ("best", {"metric": "accuracy"}, [0.75, 0.5]),
    "mean of all but version 0": ("mean", {"metric": "loss", "after": 0.0}, [1.25 / 3, 3.25 / 3]),
    "mean behind a third": ("mean", {"metric": "loss", "after": 1 / 3}, [0.375, 1.25]),
    "time to the target": ("time_to", {"metric": None}, [2.0, 4.0]),
    "time to another": ("time_to", {"metric": "accuracy", "at_least": 0.6}, [4.0, INF]),
    "updates": ("updates_to", {"metric": "loss", "at_most": 0.5}, [1, 2]),
    "updates never": ("updates_to", {"metric": "loss", "at_most": 0.1}, [INF, INF]),
    "messages, two an update": ("messages_to", {"metric": "loss", "at_most": 0.5}, [2, 4]),
    "messages never": ("messages_to", {"metric": "loss", "at_most": 0.1}, [INF, INF]),
    "divergence": ("diverges", {}, [0, 1]),
    "an end that misses a goal": ("diverges", {"metric": "loss", "at_most": 0.4}, [1, 1]),
    "an end that meets it": ("diverges", {"metric": "loss", "at_most": 0.5}, [0, 1]),
}


@pytest.mark.parametrize("fact", FACTS)
def test_a_quantity_of_evaluations(fact):
    name, given, expected = FACTS[fact]
    found = measure(name, given, made.member(LOSSES, config=TARGET))
    assert found.shape == (1, 2)
    assert found[0].tolist() == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    ("name", "given", "timeline", "expected"),
    [
        ("staleness", {"statistic": "mean"}, made.DELAYED, 0.75),  # 0, 1, 1, 1
        ("staleness", {"statistic": "max"}, made.DELAYED, 1.0),
        ("staleness", {"statistic": "mean"}, made.ROUNDS, 0.0),
        ("throughput", {}, made.ROUNDS, 0.5),  # an update every two seconds
        ("seconds_per_update", {}, made.ROUNDS, 2.0),
        ("utilisation", {}, made.ROUNDS, 0.75),  # one of two waits half of the time
    ],
)
def test_a_quantity_of_timelines_has_no_seeds(name, given, timeline, expected):
    member = made.member([[1.0, 0.5]] * 6, draws=2, timeline=timeline)
    assert measure(name, given, member).tolist() == [[expected], [expected]]


def test_draws_and_seeds_keep_their_places():
    losses = [[1.0, 0.1], [1.0, 0.2], [1.0, 0.3], [1.0, 0.4], [1.0, 0.5], [1.0, 0.6]]
    found = measure("final", {"metric": "loss"}, made.member(losses, draws=2))
    assert found.tolist() == [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]


def test_what_is_not_finite_is_the_worst_there_is():
    member = made.member([[1.0, 0.5, NAN]], accuracies=[[0.1, 0.5, NAN]])
    assert measure("final", {"metric": "loss"}, member).tolist() == [[INF]]
    assert measure("final", {"metric": "accuracy"}, member).tolist() == [[-INF]]
    assert measure("best", {"metric": "loss"}, member).tolist() == [[0.5]]
    assert measure("diverges", {}, member).tolist() == [[1.0]]
    assert measure("diverges", {}, made.member([[INF, INF]])).tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("member", "given", "line"),
    [
        (made.member([[1.0, 0.5]], label="b"), {"metric": "perplexity"}, "b has no metric 'perple"),
        (made.member([], label="c", status="failed"), {"metric": "loss"}, "c is failed, not run"),
    ],
)
def test_what_was_not_measured_is_said(member, given, line):
    with pytest.raises(UnmeasuredError, match=line):
        measure("final", given, member)


def test_the_direction_is_what_the_task_declared():
    values = [[0.2, 0.9, 0.4]]
    up = made.member(values, accuracies=values, summary={"directions": {"accuracy": "up"}})
    down = made.member(values, accuracies=values, summary={"directions": {"accuracy": "down"}})
    assert measure("best", {"metric": "accuracy"}, up).tolist() == [[0.9]]
    assert measure("best", {"metric": "accuracy"}, down).tolist() == [[0.2]]


def test_a_folder_that_does_not_say_is_of_a_task_of_ours():
    values = [[1.0, NAN]]
    config = {"task": {"name": "digits"}}
    member = made.member(values, accuracies=values, summary={}, config=config)
    assert measure("final", {"metric": "accuracy"}, member).tolist() == [[-INF]]
