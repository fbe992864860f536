"""A large held-out set is measured block by block: its activations need not fit all at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.sharding import Mesh

from sgdlab.training.devices.mesh import batch_parts, batch_sharding

BLOCK_BYTES = 2**28  # of all that a block computes; XLA holds a part of it at a time


def measure_in_blocks(
    measure: Callable[[Any], Any],
    rows: Any,
    *,
    block_bytes: int = BLOCK_BYTES,
    mesh: Mesh | None = None,
) -> Any:
    """`measure(rows)`, as many rows at a time as compute `block_bytes` on each device.

    Where all rows do on one, it is the plain call, bit for bit. Else the blocks are of one size, so
    that there is one program for all; the last begins early enough to be full.

    Args:
      measure: from a tree of arrays `[n, …]` to another; row i depends on row i alone.
      rows: the tree.
      block_bytes: how much a block's rows may compute on a device; one row may always.
      mesh: whose devices share the rows of each block; by default each measures all of them.

    Returns:
      What `measure` returns, all n rows in order.
    """
    count = len(jax.tree.leaves(rows)[0])
    limit = max(1, block_bytes // max(1, row_bytes(measure, rows)))
    parts = 1 if mesh is None else batch_parts(mesh)
    if count <= max(limit, 2 * parts):
        return measure(rows)
    blocks = math.ceil(count / (min(limit, count // parts) * parts))
    size = math.ceil(count / (blocks * parts)) * parts
    starts = jnp.minimum(jnp.arange(blocks, dtype=jnp.int32) * size, count - size)

    def one(start: jax.Array) -> Any:
        block = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size), rows)
        if mesh is not None:
            block = jax.lax.with_sharding_constraint(block, batch_sharding(mesh))
        return measure(block)

    def join(found: jax.Array) -> jax.Array:
        last = found[-1, blocks * size - count :]
        return jnp.concatenate([found[:-1].reshape(-1, *found.shape[2:]), last])

    return jax.tree.map(join, jax.lax.map(one, starts))


def row_bytes(measure: Callable[[Any], Any], rows: Any) -> int:
    """Bytes of every intermediate result that one more row adds, each loop's body once."""

    def computed(count: int) -> int:
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype), rows
        )
        return sum(_result_bytes(jax.make_jaxpr(measure)(shapes).jaxpr))

    return computed(2) - computed(1)


def _result_bytes(jaxpr: Jaxpr) -> Iterator[int]:
    """Of each operation, those within others in place of their own."""
    for equation in jaxpr.eqns:
        inner = list(_find_inner(list(equation.params.values())))
        for each in inner:
            yield from _result_bytes(each)
        if not inner:
            for result in equation.outvars:
                yield math.prod(result.aval.shape) * result.aval.dtype.itemsize  # pyright: ignore


def _find_inner(params: list[Any]) -> Iterator[Jaxpr]:
    for value in params:
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value
        elif isinstance(value, tuple | list):
            yield from _find_inner(list(value))
