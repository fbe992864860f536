"""The device mesh: three named axes, and what a batch must be to lie on it.

`data` and `fsdp` both split the batch; `fsdp` also splits parameters, gradients and the rule's
state (ZeRO-3); `tensor` splits the parameters of single layers by the names of their axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sgdlab.arguments import unwrap

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")


def make_mesh(
    data: int | None = None,
    fsdp: int = 1,
    tensor: int = 1,
    *,
    devices: Sequence[Any] | None = None,
    **unknown: int,
) -> Mesh:
    """Arrange devices in a mesh with the axes `data`, `fsdp` and `tensor`.

    All axes are of type Auto, so the partitioner completes what the shardings leave open.

    Args:
      data: how many parts the batch is split into beside `fsdp`; by default as many as there are
        devices left.
      fsdp: over how many devices parameters, gradients and the rule's state are spread.
      tensor: over how many devices a layer's heads and widths are spread.
      devices: which devices; by default all of them, on all hosts.
      **unknown: refused, so that a misspelt axis is named.

    Returns:
      The mesh, over the first `data·fsdp·tensor` devices.

    Raises:
      ValueError: an axis is unknown or its size is not a whole number ≥ 1; the sizes need more
        devices than there are, or leave some out of a mesh over several hosts.
    """
    if unknown:
        raise ValueError(f"mesh: axis {next(iter(unknown))!r} is unknown; axes: {', '.join(AXES)}")
    found = list(jax.devices() if devices is None else devices)
    fsdp, tensor = _check_size("fsdp", fsdp), _check_size("tensor", tensor)
    inner = fsdp * tensor
    if data is None:
        if len(found) % inner:
            raise ValueError(
                f"mesh: fsdp={fsdp} × tensor={tensor} = {inner} does not divide the {len(found)} "
                f"devices; a product that does: {_divisors(len(found))}"
            )
        data = len(found) // inner
    data = _check_size("data", data)
    size = data * inner
    if size > len(found):
        most = len(found) // inner
        hint = f"with these, data is at most {most}" if most else "fsdp × tensor alone is too much"
        raise ValueError(
            f"mesh: data={data} × fsdp={fsdp} × tensor={tensor} needs {size} devices and there are "
            f"{len(found)}; {hint}"
        )
    if jax.process_count() > 1 and size != len(found):
        raise ValueError(
            f"mesh: {size} of {len(found)} devices; over {jax.process_count()} processes a mesh "
            f"takes all of them: data={len(found) // inner}"
        )
    return jax.make_mesh(
        (data, fsdp, tensor), AXES, axis_types=(AxisType.Auto,) * 3, devices=found[:size]
    )


def batch_parts(mesh: Mesh) -> int:
    """Into how many parts a mesh splits the rows of a batch."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over `data` and `fsdp`, everything else whole."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def check_batch(batch: Any, mesh: Mesh) -> None:
    """Refuse a batch that does not divide, before anything is compiled.

    Args:
      batch: the number of rows, or a tree with leaves `[B, …]`.
      mesh: from `make_mesh`.

    Raises:
      ValueError: the rows can't be spread evenly, or the leaves differ in how many they have.
    """
    sizes = (
        {batch} if isinstance(batch, int) else {leaf.shape[0] for leaf in jax.tree.leaves(batch)}
    )
    if len(sizes) != 1:
        raise ValueError(f"batch: leaves have {sorted(sizes)} rows; all need the same number")
    (rows,), parts = sizes, batch_parts(mesh)
    if rows % parts or rows == 0:
        below, above = rows // parts * parts, (rows // parts + 1) * parts
        works = f"{below} or {above}" if below else str(above)
        raise ValueError(
            f"batch: {rows} rows can't be spread over {parts} devices "
            f"(data={mesh.shape['data']} × fsdp={mesh.shape['fsdp']}); rows that can: {works}"
        )


def must_wait(mesh: Mesh | None) -> bool:
    """Whether every step must be awaited: on CPU meshes collectives in flight deadlock."""
    return mesh is not None and mesh.size > 1 and mesh.devices.flat[0].platform == "cpu"


def _check_size(axis: str, size: Any) -> int:
    size = unwrap(size)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"mesh: {axis} is {size!r}; it is a whole number of devices, at least 1")
    return size


def _divisors(number: int) -> str:
    return ", ".join(str(d) for d in range(1, number + 1) if number % d == 0)
