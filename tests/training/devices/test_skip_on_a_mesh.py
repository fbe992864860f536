"""A message that is not finite is left out of its mean on four devices as on one."""

import jax
import numpy as np
import pytest

from sgdlab import training
from sgdlab.training.devices.mesh import make_mesh
from tests.training.leaving_out import CASES, check, options_of

pytestmark = pytest.mark.slow

# A mesh's devices share each gradient, so there are no waves, and members run one by one.
ON_A_MESH = [name for name in CASES if name not in ("waves", "mapped members")]


def mesh_of(devices=4):
    return make_mesh(devices, devices=jax.devices()[:devices])


@pytest.mark.parametrize("name", ON_A_MESH)
@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_a_bad_worker_is_left_out_and_the_others_are_not(name, precision):
    check(name, precision, mesh=mesh_of())


@pytest.mark.parametrize("collective", ["shard_map", "pmap"])
@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_all_collectives_agree_on_what_is_left_out(collective, precision):
    check("fused", precision, mesh=mesh_of(), collective=collective)


@pytest.mark.parametrize("collective", ["jit", "shard_map", "pmap"])
def test_a_message_of_fewer_rows_than_devices_is_left_out_too(collective):
    """Four messages of two rows are eight for four devices; one alone can't be spread."""
    arguments, options = options_of("fused", "float32")
    options |= {"batch_size": 2, "mesh": mesh_of(), "collective": collective}
    for history in training.replay_many(*arguments, **options):
        np.testing.assert_array_equal(history.skipped, 1)
        # 60 steps from 1 leave (1 − η)⁶⁰ of the way to the mean of the good targets, 4/3.
        expected = 4 / 3 - (1 - 0.125) ** 60 / 3
        np.testing.assert_allclose(history.params["w"], expected, atol=60 * 10 * 2.0**-24 * 2)


def test_canonical_sums_have_the_same_bits_where_messages_are_left_out():
    arguments, options = options_of("fused", "float32")
    one, four = (
        training.replay_many(*arguments, **options, mesh=mesh_of(n), reduction="canonical")[0]
        for n in (1, 4)
    )
    assert one.params["w"].tobytes() == four.params["w"].tobytes()
    assert one.loss.tobytes() == four.loss.tobytes()
    np.testing.assert_array_equal(four.skipped, 1)
