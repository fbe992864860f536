import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from sgdlab.training.devices.mesh import (
    batch_parts,
    batch_sharding,
    check_batch,
    make_mesh,
    must_wait,
)

pytestmark = pytest.mark.slow


def test_a_mesh_has_three_automatic_axes_of_the_sizes_asked_for():
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert mesh.axis_types == (AxisType.Auto,) * 3
    assert batch_parts(mesh) == 4


def test_data_takes_the_devices_that_are_left():
    assert make_mesh().shape["data"] == 8
    assert make_mesh(fsdp=4).shape["data"] == 2
    assert make_mesh(fsdp=4, devices=jax.devices()[:4]).shape["data"] == 1


def test_a_smaller_mesh_takes_the_first_devices():
    assert list(make_mesh(data=2).devices.flat) == jax.devices()[:2]


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ({"data": 16}, "needs 16 devices and there are 8; with these, data is at most 8"),
        ({"data": 4, "fsdp": 4}, "needs 16 devices and there are 8; with these, data is at most 2"),
        ({"data": 1, "fsdp": 16}, "fsdp × tensor alone is too much"),
        ({"fsdp": 3}, "does not divide the 8 devices; a product that does: 1, 2, 4, 8"),
        ({"data": 0}, "data is 0; it is a whole number of devices, at least 1"),
        ({"tensor": 2.0}, "tensor is 2.0"),
        ({"expert": 2}, "axis 'expert' is unknown; axes: data, fsdp, tensor"),
    ],
)
def test_an_impossible_mesh_is_refused_in_one_line_with_what_works(sizes, says):
    with pytest.raises(ValueError, match="^mesh: ") as caught:
        make_mesh(**sizes)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("batch", "says"),
    [(30, "rows that can: 24 or 32"), (3, "rows that can: 8"), (np.zeros((12, 2)), "8 or 16")],
)
def test_rows_that_do_not_divide_are_refused_with_those_that_do(batch, says):
    with pytest.raises(ValueError, match="can't be spread over 8 devices") as caught:
        check_batch(batch, make_mesh(data=4, fsdp=2))
    assert says in str(caught.value)


def test_leaves_of_a_batch_have_equally_many_rows():
    with pytest.raises(ValueError, match=r"\[8, 16\]"):
        check_batch({"x": np.zeros(8), "y": np.zeros(16)}, make_mesh())


def test_rows_are_split_over_data_and_fsdp_and_not_over_tensor():
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    check_batch(8, mesh)
    rows = jax.device_put(np.arange(8), batch_sharding(mesh))
    held = {int(device.id): list(map(int, s.data)) for s in rows.addressable_shards
            for device in [s.device]}  # fmt: skip
    assert held[0] == held[1] == [0, 1]
    assert sorted(set(map(tuple, held.values()))) == [(0, 1), (2, 3), (4, 5), (6, 7)]


def test_only_cpu_meshes_of_several_devices_are_waited_for():
    assert must_wait(make_mesh())
    assert not must_wait(make_mesh(data=1))
    assert not must_wait(None)
