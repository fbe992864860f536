"""Best rates at the edge of their grid, on summaries whose best is plain."""

import pytest

from sgdlab.experiment.folders.edges import describe_edges, find_edges
from tests.experiment.claims import made

RATES = [0.1, 0.2, 0.4]


def member(rate, times, *, protocol="window", finals=(0.5,), **rule):
    config = {
        "protocol": {"name": protocol},
        "rule": {"name": "sgd", "learning_rate": rate, **rule},
        "target": {"metric": "accuracy", "at_least": 0.9},
    }
    final = {"accuracy": list(finals)}
    summary = {"time_to_target": times, "final": final, "directions": {"accuracy": "up"}}
    return made.member([[1.0]], label=f"{protocol} at {rate:g}", config=config, summary=summary)


def grid(*times, **more):
    return [member(rate, each, **more) for rate, each in zip(RATES, times, strict=True)]


@pytest.mark.parametrize(
    ("times", "side"),
    [
        (([3.0], [2.0], [1.0]), "largest"),
        (([1.0], [2.0], [3.0]), "smallest"),
        (([3.0], [1.0], [2.0]), None),
        (([3.0], [1.0], [1.0]), None),  # one within is as good
        (([1.0] * 3, [1.0, 2.0, 2.0], [0.5, None, None]), "smallest"),  # the last is never there
    ],
)
def test_the_best_rate_is_at_the_edge_where_no_worse_one_is_beyond(times, side):
    assert [edge.side for edge in find_edges(grid(*times))] == [side] * (side is not None)


def test_where_none_gets_there_the_metric_decides():
    members = [member(r, [None], finals=[f]) for r, f in zip(RATES, [0.1, 0.2, 0.3], strict=True)]
    assert [edge.value for edge in find_edges(members)] == [0.4]
    lost = [member(rate, [None], finals=[None]) for rate in RATES]
    assert find_edges(lost) == []


def test_each_protocol_has_a_grid_of_its_own():
    members = grid([3.0], [2.0], [1.0]) + grid([5.0], [4.0], [6.0], protocol="synchronous")
    (line,) = describe_edges(members)
    assert line == (
        "rule.learning_rate: the best rate is the largest of its grid, 0.4, at window at 0.4; "
        "a better one may lie beyond"
    )


def test_one_rate_is_no_grid():
    assert find_edges([member(0.1, [1.0]), member(0.2, [2.0], protocol="synchronous")]) == []
    assert find_edges([member(0.1, [1.0], momentum=0.5), member(0.2, [2.0], momentum=0.9)]) == []
