"""How a run is cut into chunks: by the rows that they draw, and where an evaluation is due."""

import numpy as np
import pytest

from sgdlab import rules, tasks, timelines, training
from sgdlab.training.chunks import bounds, choose_length


@pytest.mark.parametrize("rows", [32, 1000, 2**19, 2**22])
@pytest.mark.parametrize("evaluate_every", [None, 1, 7, 1000, 10**6])
def test_a_chunk_draws_no_more_than_a_million_rows_unless_an_update_does(rows, evaluate_every):
    length = choose_length(100, rows, evaluate_every)
    assert 1 <= length <= (evaluate_every or 4096)
    assert length * rows <= max(2**20, rows)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((10, 4), [(0, 4), (4, 8), (8, 10)]),
        ((10, 3, 5), [(0, 3), (3, 5), (5, 8), (8, 10)]),
        ((10, 4, 20), [(0, 4), (4, 8), (8, 10)]),
        ((10, 3, 5, 4), [(4, 5), (5, 8), (8, 10)]),
        ((10, 5, 5), [(0, 5), (5, 10)]),
        ((10, 5, 5, 10), []),
    ],
)
def test_a_chunk_ends_where_it_is_full_and_where_an_evaluation_is_due(arguments, expected):
    assert bounds(*arguments) == expected


def test_evaluations_come_where_they_are_asked_for_however_large_the_minibatch():
    """2¹⁸ rows an update, so chunks of 3 updates, and evaluations 6 apart."""
    history = training.replay(
        tasks.quadratic(1.0, start=1.0),
        rules.sgd(0.5),
        timelines.fixed_delay(0, updates=14),
        batch_size=2**18,
        evaluate_every=6,
    )
    assert history.evaluations["update"].tolist() == [0, 6, 12, 14]
    np.testing.assert_array_equal(history.params, [0.5**14])
