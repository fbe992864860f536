"""A gradient with the same bits on any number of devices.

Floating-point addition is not associative, so a mean depends on how it was cut: over how many
devices, by which collective, in which order messages came. Here all of that is fixed. The global
batch is K equal microbatches, K a power of two; each one's gradient is computed behind an
optimisation barrier, so that it is the same program wherever it runs; and the K gradients are added
in the one balanced tree

    ((g₀ + g₁) + (g₂ + g₃)) + ((g₄ + g₅) + (g₆ + g₇)).

A device that holds K/n neighbours adds a subtree by itself. Across devices the tree is climbed by
exchanging partial sums with the neighbour at distance 1, 2, 4, …: a + b and b + a have the same
bits, so both neighbours then hold the same sum. That is log₂ n exchanges of P bytes, where an
all-reduce moves 2P(n − 1)/n and a gather of all partial sums P(n − 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec


def canonical_average(local: Callable, mesh: Mesh, microbatches: int) -> Callable:
    """Average a gradient over K microbatches in one order, however many devices share them.

    Args:
      local: `local(params, batch, key) -> ((loss, metrics), gradient)`.
      mesh: with the axis `data` alone, n devices.
      microbatches: K, a power of two that n divides.

    Returns:
      The same function on a global batch with leaves `[B, …]`, K dividing B. Microbatch i draws
      from `fold_in(key, i)`.

    Raises:
      ValueError: when traced, if K does not divide B.
    """
    parts = mesh.shape["data"]
    here = microbatches // parts
    whole, rows = PartitionSpec(), PartitionSpec("data")

    def on_device(params, batch, key):
        first = jax.lax.axis_index("data") * here

        def one(index, micro):
            micro_key = None if key is None else jax.random.fold_in(key, index)
            shut = jax.lax.optimization_barrier((params, micro, micro_key))
            return jax.lax.optimization_barrier(local(*shut))

        index = first + jnp.arange(here, dtype=jnp.int32)
        total = _climb_devices(_climb(one, index, batch), parts)
        mean = jax.tree.map(lambda leaf: leaf / jnp.asarray(microbatches, leaf.dtype), total)
        return jax.lax.optimization_barrier(mean)  # or the rule's arithmetic fuses with the tree's

    spread = jax.shard_map(
        on_device, mesh=mesh, in_specs=(whole, rows, whole), out_specs=whole, check_vma=False
    )

    def value_and_grad(params, batch, key):
        return spread(params, _cut(batch, microbatches), key)

    return value_and_grad


def check_microbatches(microbatches: int, mesh: Mesh) -> None:
    """K is a power of two, and so is the number of devices, which divides it.

    Raises:
      ValueError: it is not, or it does not.
    """
    parts = mesh.shape["data"]
    if microbatches < 1 or microbatches & (microbatches - 1):
        near = 2 ** max(round(math.log2(max(microbatches, 1))), 0)
        raise ValueError(
            f"microbatches: {microbatches} is not a power of two, which a pairwise tree needs; "
            f"{near} is"
        )
    if microbatches % parts:
        power = not parts & (parts - 1)
        hint = f"set microbatches={parts} everywhere" if power else "use 1, 2, 4, 8, … devices"
        raise ValueError(
            f"microbatches: {microbatches} can't be spread over {parts} devices; {hint}"
        )


def _cut(batch: Any, microbatches: int) -> Any:
    """`[B, …]` to `[K, B/K, …]`."""
    for leaf in jax.tree.leaves(batch):
        if leaf.shape[0] % microbatches:
            low = leaf.shape[0] // microbatches * microbatches
            raise ValueError(
                f"batch: {leaf.shape[0]} rows can't be cut into {microbatches} microbatches; "
                f"rows that can: {f'{low} or ' if low else ''}{low + microbatches}"
            )
    return jax.tree.map(
        lambda leaf: leaf.reshape(microbatches, len(leaf) // microbatches, *leaf.shape[1:]), batch
    )


def _climb(one: Callable, index: jax.Array, batch: Any) -> Any:
    """Add `one(index[i], batch[i])` in a balanced tree: loops of two, nested log₂ deep.

    The gradient is compiled once, and at most two partial sums a level are alive.
    """
    size = index.shape[0]
    if size == 1:
        return one(index[0], jax.tree.map(lambda leaf: leaf[0], batch))
    halves = jax.tree.map(lambda leaf: leaf.reshape(2, size // 2, *leaf.shape[1:]), (index, batch))
    both = jax.lax.map(lambda half: _climb(one, *half), halves)
    return jax.tree.map(lambda leaf: leaf[0] + leaf[1], both)


def _climb_devices(total: Any, parts: int) -> Any:
    """Add the devices' partial sums in the same tree, each level one exchange of neighbours."""
    distance = 1
    while distance < parts:
        pairs = [(device, device ^ distance) for device in range(parts)]
        other = jax.lax.ppermute(total, "data", pairs)
        total = jax.tree.map(jnp.add, total, other)
        distance *= 2
    return total
