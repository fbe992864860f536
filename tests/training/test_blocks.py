"""A large held-out set is measured in blocks: the same numbers, in the memory of a block."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgdlab import precision, tasks
from sgdlab.training.blocks import BLOCK_BYTES, measure_in_blocks, row_bytes
from sgdlab.training.gradients import make_evaluate

FLOAT32 = precision.parse_policy("float32")


def double(rows):
    return {"twice": rows["x"] * 2, "label": rows["y"]}


@pytest.mark.parametrize("count", [1, 2, 6, 7, 8, 23])
@pytest.mark.parametrize("rows_each", [1, 3, 7, 100])
def test_blocks_of_any_size_give_each_row_once_and_in_order(count, rows_each):
    rows = {
        "x": np.arange(count * 2, dtype=np.float32).reshape(count, 2),
        "y": np.arange(count, dtype=np.int32),
    }
    each = row_bytes(double, rows)
    assert each == 8  # two products of four bytes; the label is handed through
    found = measure_in_blocks(double, rows, block_bytes=rows_each * each)
    np.testing.assert_array_equal(found["twice"], rows["x"] * 2)
    np.testing.assert_array_equal(found["label"], rows["y"])


def test_what_fits_one_block_is_the_plain_call():
    rows = {"x": np.ones((5, 2), np.float32), "y": np.arange(5, dtype=np.int32)}
    plain = str(jax.make_jaxpr(double)(rows))
    assert str(jax.make_jaxpr(lambda rows: measure_in_blocks(double, rows))(rows)) == plain
    cut = jax.make_jaxpr(lambda rows: measure_in_blocks(double, rows, block_bytes=16))(rows)
    assert "scan" in str(cut)


def test_a_loop_and_a_call_within_count_by_what_they_compute():
    def loops(x):
        return jax.lax.fori_loop(0, 5, lambda _, x: jax.jit(jnp.sin)(x), x)

    assert row_bytes(loops, np.ones((3, 4), np.float32)) in range(16, 64)


@pytest.mark.parametrize(
    "task",
    [
        tasks.digits(hidden=[16]),
        tasks.digits(model="cnn", channels=[4], hidden=[8]),
        tasks.logistic(l2=0.1),
        tasks.logistic("wine"),
        tasks.text(width=16, layers=1, heads=1, length=32),
    ],
    ids=lambda task: task.name,
)
def test_every_metric_of_a_task_is_that_of_the_whole_set(task):
    test = {name: rows[:50] for name, rows in task.test.items()}
    params = task.init(jax.random.key(1))
    params = jax.tree.map(lambda leaf: leaf + 0.01, params)

    def measure(rows):
        return task.loss.measure(params, rows, None)

    found = measure_in_blocks(measure, test, block_bytes=7 * row_bytes(measure, test))
    loss, metrics = task.loss.summarise(params, found)
    expected, wanted = task.loss(params, test, None)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert metrics.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_allclose(metrics[name], wanted[name], rtol=1e-6, err_msg=name)


def test_a_convolutional_network_is_evaluated_on_10_000_images_in_the_memory_of_a_block():
    data = {
        "input": np.zeros((10_000, 28, 28, 1), np.uint8),
        "label": np.zeros(10_000, np.int32),
    }
    network = tasks.CNN((32, 64), (128,), 10)
    task = tasks.classifier(network, data, data, prepare=lambda x: x.astype(jnp.float32))
    whole = dataclasses.replace(task, loss=lambda *arguments: task.loss(*arguments))
    params = jax.eval_shape(task.init, jax.random.key(0))

    def temporary(task):
        evaluate = jax.jit(make_evaluate(task, FLOAT32))
        return evaluate.lower(params, data).compile().memory_analysis().temp_size_in_bytes

    assert temporary(task) < BLOCK_BYTES
    assert temporary(whole) > 8 * BLOCK_BYTES
