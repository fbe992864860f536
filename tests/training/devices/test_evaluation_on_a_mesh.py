"""A large held-out set is shared by the devices of a mesh, block by block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgdlab import precision, tasks
from sgdlab.training.blocks import measure_in_blocks, row_bytes
from sgdlab.training.devices.collectives import Average
from sgdlab.training.devices.mesh import make_mesh, replicated
from sgdlab.training.devices.sharding import shard_params
from sgdlab.training.gradients import make_evaluate

pytestmark = pytest.mark.slow

FLOAT32 = precision.parse_policy("float32")
ROWS = 2001


@pytest.fixture(scope="module")
def task():
    draw = np.random.default_rng(0)
    data = {
        "input": draw.integers(0, 255, (ROWS, 28, 28, 1), np.uint8),
        "label": draw.integers(0, 10, ROWS).astype(np.int32),
    }
    network = tasks.CNN((32, 64), (128,), 10)
    return tasks.classifier(network, data, data, prepare=lambda x: x.astype(jnp.float32) / 255)


@pytest.fixture(scope="module")
def expected(task):
    params = task.init(jax.random.key(0))
    return params, jax.jit(make_evaluate(task, FLOAT32))(params, task.test)


@pytest.mark.parametrize("sizes", [(8, 1), (2, 4)])
def test_devices_that_share_the_rows_find_what_one_finds(task, expected, sizes):
    mesh = make_mesh(*sizes)
    params, wanted = expected
    params = jax.device_put(params, shard_params(params, mesh))
    test = jax.device_put(task.test, replicated(mesh))
    found = jax.jit(make_evaluate(task, FLOAT32, Average(mesh)))(params, test)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


def test_a_device_measures_its_share_alone_but_for_bits_that_any_number_finds(task, expected):
    mesh = make_mesh(data=8)
    params, wanted = expected
    params, test = jax.device_put((params, task.test), replicated(mesh))

    def evaluate(**options):
        average = Average(mesh, **options)
        return jax.jit(make_evaluate(task, FLOAT32, average)).lower(params, test).compile()

    shared, canonical = evaluate(), evaluate(reduction="canonical")
    # XLA counts a loop's body once: 2 blocks of 126 rows a device, and 10 of 201.
    flops = [each.cost_analysis()["flops"] for each in (shared, canonical)]
    np.testing.assert_allclose(flops[0] / flops[1], 126 / 201, rtol=0.02)
    found = canonical(params, test)
    assert all(np.asarray(found[name]) == np.asarray(wanted[name]) for name in wanted)


@pytest.mark.parametrize("count", [15, 17, 20, 25, 33, 100])
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_each_row_is_measured_once_and_in_order(count, limit):
    mesh = make_mesh(data=8)
    rows = jax.device_put(np.arange(count, dtype=np.float32)[:, None], replicated(mesh))

    def double(rows):
        return rows * 2

    each = row_bytes(double, rows)
    found = measure_in_blocks(double, rows, block_bytes=limit * each, mesh=mesh)
    np.testing.assert_array_equal(found, np.asarray(rows) * 2)
