"""A replay on a mesh of eight devices is the replay on one, whatever its timeline."""

import jax
import numpy as np
import optax
import pytest

from sgdlab import rules, tasks, timelines, training
from sgdlab.training.devices.mesh import make_mesh
from sgdlab.training.devices.sharding import device_bytes, total_bytes

pytestmark = pytest.mark.slow

CLUSTER = timelines.Cluster(workers=4, compute=timelines.gamma(mean=1.0, shape=2.0))
TIMELINES = {
    "asynchronous": timelines.asynchronous(CLUSTER, updates=12, seed=1),
    "synchronous": timelines.synchronous(CLUSTER, updates=6, seed=1),
}


@pytest.fixture(scope="module")
def task():
    return tasks.digits(hidden=[64])


def replay(task, name, **options):
    rule = rules.momentum(0.2, decay=0.5)
    return training.replay(task, rule, TIMELINES[name], batch_size=16, seed=3, **options)


@pytest.mark.parametrize(
    ("name", "sizes", "collective"),
    [
        ("asynchronous", {"data": 4, "fsdp": 2}, "jit"),
        ("synchronous", {"data": 2, "fsdp": 4}, "shard_map"),
        ("synchronous", {"data": 8}, "pmap"),
    ],
)
def test_a_replay_on_a_mesh_equals_the_replay_on_one_device(
    task, relative_error, name, sizes, collective
):
    one = replay(task, name)
    many = replay(task, name, mesh=make_mesh(**sizes), collective=collective)
    # each of at most 12 updates sums its rows in another order: rounding of 2⁻²⁴ a sum
    assert relative_error(many.params, one.params) < 12 * 2.0**-20
    np.testing.assert_allclose(many.loss, one.loss, rtol=1e-5)


def test_a_canonical_replay_has_the_same_bits_on_any_number_of_devices(task):
    runs = [
        replay(task, "asynchronous", mesh=make_mesh(data=devices), reduction="canonical")
        for devices in (1, 8)
    ]
    leaves = zip(*(jax.tree.leaves(run.params) for run in runs), strict=True)
    assert all(np.array_equal(np.asarray(one), np.asarray(other)) for one, other in leaves)
    np.testing.assert_array_equal(runs[0].loss, runs[1].loss)


def test_canonical_dropout_has_the_same_bits_on_1_2_and_4_devices(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("whoever computes a microbatch drops the same entries of it " * 40)
    small = {"length": 8, "width": 16, "layers": 1, "heads": 2}
    dropped = tasks.text(path, dropout=0.5, **small)
    runs = [
        replay(dropped, "asynchronous", mesh=make_mesh(data=devices), reduction="canonical")
        for devices in (1, 2, 4)
    ]
    for run in runs[1:]:
        leaves = zip(jax.tree.leaves(run.params), jax.tree.leaves(runs[0].params), strict=True)
        assert all(np.array_equal(np.asarray(one), np.asarray(other)) for one, other in leaves)
        np.testing.assert_array_equal(run.loss, runs[0].loss)
    whole = replay(tasks.text(path, **small), "asynchronous", reduction="canonical")
    assert not np.array_equal(whole.loss, runs[0].loss)  # so something was dropped


def test_parameters_end_where_the_mesh_puts_them(task):
    history = replay(task, "asynchronous", mesh=make_mesh(data=2, fsdp=4))
    # the hidden kernel, 64 × 64, is spread over fsdp; the smaller leaves are whole everywhere
    small = total_bytes(history.params) - 64 * 64 * 4
    assert device_bytes(history.params) == small + 64 * 64 * 4 // 4


def test_a_batch_that_does_not_divide_is_refused_before_anything_is_compiled(task):
    with pytest.raises(ValueError, match="batch: 12 rows"):
        training.replay(
            task,
            optax.sgd(0.1),
            TIMELINES["asynchronous"],
            batch_size=12,
            mesh=make_mesh(data=8),
        )
