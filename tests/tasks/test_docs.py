"""The code and the numbers on the page about tasks are true."""

import re
from pathlib import Path

import jax
import pytest

from sgdlab.tasks import digits, logistic

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"


def test_the_code_runs():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 7
    names = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    task = names["task"]
    loss, metrics = jax.jit(task.loss)(task.init(jax.random.key(0)), task.train, None)
    assert loss > 0
    assert metrics.keys() == {"largest"}


@pytest.mark.parametrize(
    ("build", "sizes"),
    [
        (logistic, ("456 / 113", "31")),
        (lambda: logistic("wine"), ("143 / 35", "42")),
        (lambda: logistic("iris"), ("120 / 30", "15")),
        (lambda: logistic("digits"), ("1,438 / 359", "650")),
        (digits, ("1,438 / 359", "9,610")),
        (lambda: digits("cnn"), ("1,438 / 359", "22,602")),
    ],
)
def test_the_sizes_are_those_of_the_table(build, sizes):
    task = build()
    rows = f"{len(task.train['label']):,} / {len(task.test['label'])}"
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    count = f"{sum(leaf.size for leaf in jax.tree.leaves(shapes)):,}"
    assert (rows, count) == sizes
    assert rows in PAGE.read_text()
    assert count in PAGE.read_text()
