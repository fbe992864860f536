"""Arguments of tasks and partitions as NumPy writes them: taken, or refused by their name."""

from typing import Any

import jax
import numpy as np
import pytest

from sgdlab import precision, tasks, training

made: Any = tasks  # what a type checker would tell, before the call is made
LABELS = np.arange(12) % 3


@pytest.mark.parametrize("number", [np.int64, np.uint8, np.array])
def test_numpys_whole_numbers_are_whole_numbers(number):
    given = made.partition(LABELS, number(2), made.by_label(number(2)), number(1))
    for one, other in zip(given, tasks.partition(LABELS, 2, tasks.by_label(2), 1), strict=True):
        np.testing.assert_array_equal(one, other)
    assert training.make_mesh(data=number(1)).shape["data"] == 1


def test_an_array_of_widths_is_a_list_of_them():
    params = made.digits(hidden=np.array([4, 3])).init(jax.random.key(0))
    assert {4, 3} <= {leaf.shape[-1] for leaf in jax.tree.leaves(params)}


REFUSED = {
    "half a worker": (lambda: made.partition(LABELS, 2.5, tasks.iid()), "workers is 2.5"),
    "a seed": (lambda: made.partition(LABELS, 2, tasks.iid(), -1), "seed is -1"),
    "a name": (lambda: made.partition(LABELS, 2, "iid"), "how is 'iid'"),
    "a factory": (lambda: made.partition(LABELS, 2, tasks.iid), "how is <function iid"),
    "alphas": (lambda: made.dirichlet(np.ones(2)), "alpha is array([1., 1.])"),
    "an alpha in words": (lambda: made.quantity("1"), "alpha is '1'"),
    "a flag": (lambda: made.by_label(True), "labels_per_worker is True"),
    "one width": (lambda: made.digits(hidden=4), "hidden is 4"),
    "half a width": (lambda: made.digits(hidden=[4.5]), "hidden is [4.5]"),
    "scales": (lambda: precision.StaticLossScale(np.ones(2, np.float32)), "loss_scale is array"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_means_something_else_is_refused_in_one_line(case):
    make, line = REFUSED[case]
    with pytest.raises(ValueError, match="; allowed: ") as error:
        make()
    assert line in str(error.value)
    assert "\n" not in str(error.value)
