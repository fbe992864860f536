"""Where parameters and everything shaped like them lie on a mesh.

ZeRO stage 3: along `fsdp` a device holds 1/n of the parameters, the gradient and the rule's state,
and gathers a layer's parameters while it computes with them. `tensor` splits a layer's own axes by
their logical names.

Reference: Samyam Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter
Models", 2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

LOGICAL_AXES = {"heads": "tensor", "kv_heads": "tensor", "mlp": "tensor", "vocabulary": "tensor"}
SCANNED = "layers"  # the axis that a scan walks: never split, or each step would gather all of it
SMALLEST = 4096  # elements; a smaller leaf is not worth a gather


def shard_params(
    shapes: Any,
    mesh: Mesh,
    logical_axes: Any = None,
    *,
    rules: Mapping[str, str] = LOGICAL_AXES,
    smallest: int = SMALLEST,
) -> Any:
    """Choose a sharding for each parameter from its shape.

    First an axis with a logical name that `rules` sends to the mesh axis `tensor` is split by it;
    then the largest axis left that `fsdp` divides is split by that, the last one among equals. A
    leaf below `smallest` elements, or without such an axis, is whole on every device of `fsdp`.

    Args:
      shapes: tree of arrays or `ShapeDtypeStruct`s, the parameters.
      mesh: from `make_mesh`.
      logical_axes: a tree like the parameters, at each leaf a tuple that names its axes (`None` for
        one without a name), such as `("layers", "embed", "mlp")`; `None`: no axis has a name.
      rules: logical name to mesh axis.
      smallest: elements of the smallest leaf that is split over `fsdp`.

    Returns:
      A tree of `NamedSharding`s like the parameters.

    Raises:
      ValueError: a leaf has not as many names as axes, or the size of a named axis is not a
        multiple of its mesh axis.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)
    names = [None] * len(leaves) if logical_axes is None else structure.flatten_up_to(logical_axes)

    def shard(path, leaf, names):
        names = (None,) * len(leaf.shape) if names is None else tuple(names)
        spec = _tensor_spec(_name(path), leaf.shape, names, mesh, rules)
        if math.prod(leaf.shape) >= smallest:
            spec = _add_fsdp(spec, leaf.shape, names, mesh)
        return NamedSharding(mesh, PartitionSpec(*spec))

    return structure.unflatten(
        [shard(path, leaf, each) for (path, leaf), each in zip(leaves, names, strict=True)]
    )


def shard_like(shapes: Any, params: Any, shardings: Any) -> Any:
    """Shard a state like the parameters that its leaves belong to.

    A leaf belongs to the parameter whose path its own path ends with (`…/mu/dense/kernel` to
    `dense/kernel`) and whose shape its own shape ends with; leading axes beyond that (a slot, a
    worker, a row of a table) stay whole. What belongs to no parameter is whole on every device.

    Args:
      shapes: the state, as arrays or `ShapeDtypeStruct`s: a rule's, or all that a replay carries.
      params: the parameters, likewise.
      shardings: the parameters' shardings, from `shard_params`.

    Returns:
      A tree of `NamedSharding`s like the state.
    """
    known = {
        path: (leaf.shape, sharding)
        for (path, leaf), sharding in zip(
            jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(shardings), strict=True
        )
    }
    mesh = jax.tree.leaves(shardings)[0].mesh

    def shard(path, leaf):
        for start in range(len(path) + 1):
            shape, sharding = known.get(path[start:], (None, None))
            if shape is not None and leaf.shape[len(leaf.shape) - len(shape) :] == shape:
                lead = (None,) * (len(leaf.shape) - len(shape))
                return NamedSharding(mesh, PartitionSpec(*lead, *sharding.spec))
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(shard, shapes)


def init_sharded(
    init: Callable, key: jax.Array, mesh: Mesh, logical_axes: Any = None, **options: Any
) -> Any:
    """Create parameters where they will lie, never whole on one device.

    Shapes come from `eval_shape`, shardings from the shapes, and the initialiser is compiled with
    those as its output: each device draws its own part.

    Args:
      init: `init(key) -> params`.
      key: typed key, the key is consumed.
      mesh: from `make_mesh`.
      logical_axes: as for `shard_params`.
      **options: `rules`, `smallest`, as for `shard_params`.

    Returns:
      The parameters, bit for bit those of `jit(init)(key)`.
    """
    shardings = shard_params(jax.eval_shape(init, key), mesh, logical_axes, **options)
    return jax.jit(init, out_shardings=shardings)(key)


def init_rule_sharded(rule: optax.GradientTransformation, params: Any) -> Any:
    """A rule's initial state for parameters that lie on a mesh, sharded like them."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, params)
    state = shard_like(jax.eval_shape(rule.init, params), params, shardings)
    return jax.jit(rule.init, out_shardings=state)(params)


def lay_out(state: Any, params: Any, mesh: Mesh, logical_axes: Any = None) -> Any:
    """Make what a traced program carries lie like the parameters, at this point of the program.

    Args:
      state: tree of arrays: the parameters themselves, a rule's state, slots, workers' states.
      params: the parameters, arrays or `ShapeDtypeStruct`s.
      mesh: from `make_mesh`.
      logical_axes: as for `shard_params`.

    Returns:
      The state, constrained.
    """
    shardings = shard_like(state, params, shard_params(params, mesh, logical_axes))
    return jax.lax.with_sharding_constraint(state, shardings)


def device_bytes(tree: Any) -> int:
    """The most bytes of a tree that any one device of this process holds.

    Args:
      tree: committed arrays, or `ShapeDtypeStruct`s with shardings.
    """
    held: dict[Any, int] = {}
    for leaf in jax.tree.leaves(tree):
        size = math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for device in leaf.sharding.device_set:
            held[device] = held.get(device, 0) + size
    return max(held.values(), default=0)


def total_bytes(tree: Any) -> int:
    """The bytes of a tree, each leaf counted once."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _tensor_spec(path: str, shape, names, mesh: Mesh, rules: Mapping[str, str]) -> list:
    if len(names) != len(shape):
        raise ValueError(
            f"sharding: {path} has {len(shape)} axes {list(shape)} and {len(names)} names {names}"
        )
    spec: list[str | None] = []
    for size, name in zip(shape, names, strict=True):
        axis = rules.get(name) if name is not None else None
        if axis is None or mesh.shape[axis] == 1 or axis in spec:
            spec.append(None)
        elif size % mesh.shape[axis]:
            raise ValueError(
                f"sharding: axis {name!r} of {path} has size {size}; {axis}={mesh.shape[axis]} "
                "does not divide it"
            )
        else:
            spec.append(axis)
    return spec


def _add_fsdp(spec: list, shape, names, mesh: Mesh) -> list:
    """Give the largest free axis that divides to `fsdp`."""
    size = mesh.shape["fsdp"]
    free = [
        axis
        for axis, taken in enumerate(spec)
        if taken is None and names[axis] != SCANNED and shape[axis] % size == 0
    ]
    if size == 1 or not free:
        return spec
    best = max(free, key=lambda axis: (shape[axis], axis))
    return [*spec[:best], "fsdp", *spec[best + 1 :]]


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/") or "parameters"
