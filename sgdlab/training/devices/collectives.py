"""The synchronous data-parallel gradient: the mean over devices of each one's own gradient.

For a loss that is a mean over rows and n devices with B/n rows each,

    ∇ mean_{B rows} ℓ(w) = (1/n) Σ_device ∇ mean_{its B/n rows} ℓ(w),

so one all-reduce of the gradient makes a step on n devices the step on one. Here it is taken in
three ways that agree to rounding: by the partitioner (`jit`), by hand (`shard_map`), and by the
older `pmap`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
from jax.sharding import Mesh, PartitionSpec

from sgdlab.training.devices.canonical import canonical_average, check_microbatches
from sgdlab.training.devices.mesh import (
    AXES,
    BATCH_AXES,
    batch_parts,
    batch_sharding,
    check_batch,
)
from sgdlab.training.devices.sharding import LOGICAL_AXES

Collective = Literal["jit", "shard_map", "pmap"]
Reduction = Literal["fast", "canonical"]
COLLECTIVES = ("jit", "shard_map", "pmap")
REDUCTIONS = ("fast", "canonical")


# (params, batch, key or None) -> ((loss, metrics), gradient); batch leaves [B, …].
ValueAndGrad = Callable[[Any, Any, Any], tuple[Any, Any]]


@dataclass(frozen=True)
class Average:
    """How a gradient is averaged over a mesh; hashable, so a program can hold it.

    Attributes:
      mesh: from `make_mesh`.
      collective: "jit" leaves the reduction to the partitioner, which also knows `fsdp` and
        `tensor`; "shard_map" writes it out over `data`, and the partitioner has the other axes;
        "pmap" does the same on a mesh that has `data` alone.
      reduction: "fast" adds in the order that the collective likes; "canonical" in one order for
        every number of devices (`sgdlab.training.devices.canonical`).
      microbatches: K, in how many parts a canonical gradient is computed.
    """

    mesh: Mesh
    collective: Collective = "jit"
    reduction: Reduction = "fast"
    microbatches: int = 8

    def __post_init__(self):
        _check_choice("collective", self.collective, COLLECTIVES)
        _check_choice("reduction", self.reduction, REDUCTIONS)
        if self.collective == "pmap":
            _check_data_only(self.mesh, "collective: pmap")
        if self.reduction == "canonical":
            _check_data_only(self.mesh, "reduction: canonical")
            check_microbatches(self.microbatches, self.mesh)

    @property
    def spreads_params(self) -> bool:
        """Whether parameters are spread over devices, by `fsdp` or `tensor`."""
        return self.mesh.size > self.mesh.shape["data"]

    @property
    def parts(self) -> int:
        """Into how many equal parts the rows of a batch are cut, at the least."""
        return self.microbatches if self.reduction == "canonical" else batch_parts(self.mesh)

    def check_rows(self, rows: int, microbatches: int = 1) -> None:
        """Refuse a batch that does not divide, before anything is compiled.

        Args:
          rows: of the batch.
          microbatches: in how many parts each device computes its gradient.

        Raises:
          ValueError: the rows can't be spread evenly, or not be cut into the microbatches.
        """
        check_batch(rows, self.mesh)
        if self.reduction == "canonical":
            microbatches = self.microbatches // batch_parts(self.mesh)
        check_microbatch_rows(rows, microbatches, batch_parts(self.mesh))

    def __call__(self, local: ValueAndGrad) -> ValueAndGrad:
        """The gradient over the whole batch, from one over a part.

        Args:
          local: the gradient as one device computes it. What it returns travels in the dtype that
            it returns: cast to the policy's reduce dtype inside, and back outside. Under `jit`
            the partitioner reduces where the partial sum arises, in the dtype of that operation.

        Returns:
          The same function on a global batch, traceable inside `jit` and loops. Loss and metrics
          are means over the devices'. With a key, `jit` draws as one device would; under the
          others part i draws from `fold_in(key, i)`.

        Raises:
          ValueError: when traced, if the batch does not divide.
        """
        if self.reduction == "canonical":
            return canonical_average(local, self.mesh, self.microbatches)
        return _BUILDERS[self.collective](local, self.mesh)


def check_microbatch_rows(rows: int, microbatches: int, parts: int = 1) -> None:
    """Refuse rows that microbatches do not divide.

    Args:
      rows: of the batch.
      microbatches: how many each of the `parts` computes.
      parts: into which the rows are spread.

    Raises:
      ValueError: they don't; names numbers of rows that work.
    """
    count = microbatches * parts
    if rows % count:
        below, above = rows // count * count, (rows // count + 1) * count
        over = f" on {parts} devices" if parts > 1 else ""
        raise ValueError(
            f"microbatches: {rows} rows can't be cut into {microbatches} each{over}; rows that "
            f"can: {f'{below} or {above}' if below else above}"
        )


def _by_jit(local: ValueAndGrad, mesh: Mesh) -> ValueAndGrad:
    def value_and_grad(params, batch, key):
        check_batch(batch, mesh)
        rows = jax.lax.with_sharding_constraint(batch, batch_sharding(mesh))
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), _named_axes(mesh, BATCH_AXES):
            return local(params, rows, key)

    return value_and_grad


def _by_shard_map(local: ValueAndGrad, mesh: Mesh) -> ValueAndGrad:
    """`check_vma=False`: a loss may then carry constants through its loops, and autodiff adds no
    sum over replicated parameters of its own, which with the mean here would give n times too much.
    """
    if mesh.shape["data"] == 1 and mesh.size > 1:
        return _by_jit(local, mesh)  # nothing is averaged by hand; the partitioner has the rest
    alone = mesh.size == mesh.shape["data"]
    whole, rows = PartitionSpec(), PartitionSpec("data")
    spread = jax.shard_map(
        _averaged(local if alone else _partitioned(local, mesh)),
        mesh=mesh,
        in_specs=(whole, rows, whole),
        out_specs=whole,
        axis_names=set(AXES) if alone else {"data"},
        check_vma=False,
    )

    def value_and_grad(params, batch, key):
        check_batch(batch, mesh)
        return spread(params, batch, key)

    return value_and_grad


def _by_pmap(local: ValueAndGrad, mesh: Mesh) -> ValueAndGrad:
    parts = mesh.shape["data"]
    averaged = _averaged(local)
    # One nested argument: of three, pmap takes the axes to be those of three arrays where, by
    # chance, params, batch and key have three leaves together.
    spread: Callable[..., Any] = jax.pmap(
        lambda arguments: averaged(*arguments),
        axis_name="data",
        in_axes=((None, 0, None),),
        out_axes=None,
        devices=list(mesh.devices.flat),
    )

    def value_and_grad(params, batch, key):
        check_batch(batch, mesh)
        rows = jax.tree.map(
            lambda leaf: leaf.reshape(parts, len(leaf) // parts, *leaf.shape[1:]), batch
        )
        return spread((params, rows, key))

    return value_and_grad


def _averaged(local: ValueAndGrad) -> ValueAndGrad:
    """What each device does: its own gradient, then the mean over `data`."""

    def value_and_grad(params, batch, key):
        if key is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index("data"))
        return jax.lax.pmean(local(params, batch, key), "data")

    return value_and_grad


def _partitioned(local: ValueAndGrad, mesh: Mesh) -> ValueAndGrad:
    """Inside the part of one `data` index, the partitioner spreads the rows over `fsdp`."""

    def value_and_grad(params, batch, key):
        rows = jax.lax.with_sharding_constraint(batch, PartitionSpec("fsdp"))
        with _named_axes(mesh, ("fsdp",)):
            return local(params, rows, key)

    return value_and_grad


def _named_axes(mesh: Mesh, rows: tuple[str, ...]):
    """Give the names in a model's `flax.linen.with_logical_constraint` their mesh axes.

    Without such a constraint on a layer's output the partitioner may gather the rows of all
    devices in place of the layer's parameters, which is not what `fsdp` means.
    """
    if mesh.size == mesh.shape["data"]:
        return contextlib.nullcontext()
    from flax import linen

    return linen.logical_axis_rules([("batch", rows), *LOGICAL_AXES.items()])


_BUILDERS = {"jit": _by_jit, "shard_map": _by_shard_map, "pmap": _by_pmap}


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: {value!r} is unknown; allowed: {', '.join(allowed)}")


def _check_data_only(mesh: Mesh, what: str) -> None:
    others = {axis: mesh.shape[axis] for axis in AXES if axis != "data" and mesh.shape[axis] > 1}
    if others:
        sizes = ", ".join(f"{axis}={size}" for axis, size in others.items())
        raise ValueError(f"{what} needs whole parameters on every device, and the mesh has {sizes}")
