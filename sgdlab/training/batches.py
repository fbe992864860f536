"""Which rows worker i's k-th minibatch holds: a function of (seed, i, k) and nothing else.

Because no generator is carried from one step to the next, a result never depends on how a run was
cut into chunks, on a resume, or on who else runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

INIT, BATCH, MESSAGE = 0, 1, 2  # what a run's key is folded with for each use of randomness


class Shards(NamedTuple):
    """The rows each worker samples, concatenated.

    Attributes:
      rows: `[R]` int32 row numbers of the training data, worker after worker.
      offset: `[N]` int32, where worker i's rows begin.
      size: `[N]` int32, how many there are.
    """

    rows: jax.Array
    offset: jax.Array
    size: jax.Array


def make_shards(
    partition: Sequence[Any] | np.ndarray | None, num_rows: int, num_workers: int
) -> Shards:
    """Check a partition and lay it out for the device.

    Args:
      partition: for each worker an array of row numbers, or a mask over all rows; or `None`: every
        worker samples all rows.
      num_rows: rows of the training data.
      num_workers: N.

    Returns:
      The `Shards`.

    Raises:
      ValueError: the number of shards is not N, a shard is empty or holds no row numbers, or a row
        is out of range.
    """
    if partition is None:
        rows = np.arange(num_rows, dtype=np.int32)
        full = np.full(num_workers, num_rows, np.int32)
        return Shards(jnp.asarray(rows), jnp.zeros(num_workers, jnp.int32), jnp.asarray(full))
    if isinstance(partition, str | Mapping) or not hasattr(partition, "__len__"):
        raise ValueError(
            f"partition: {type(partition).__name__} given; allowed: one array of row numbers for "
            "each worker"
        )
    if len(partition) != num_workers:
        raise ValueError(
            f"partition: {len(partition)} shards for {num_workers} workers; one for each is needed"
        )
    shards = [_read_shard(worker, rows, num_rows) for worker, rows in enumerate(partition)]
    size = np.array([len(shard) for shard in shards], np.int32)
    rows = np.concatenate(shards)
    offset = np.concatenate([[0], np.cumsum(size)[:-1]]).astype(np.int32)
    return Shards(jnp.asarray(rows), jnp.asarray(offset), jnp.asarray(size))


def _read_shard(worker: int, given: Any, num_rows: int) -> np.ndarray:
    """Worker's row numbers, `[n]` int32; a mask over all rows selects those where it is true."""
    rows = np.asarray(given)
    if rows.dtype == bool and rows.shape == (num_rows,):
        rows = np.flatnonzero(rows)
    allowed = f"row numbers [n] from 0 to {num_rows - 1}, or a mask [{num_rows}]"
    if rows.ndim != 1 or (len(rows) and rows.dtype.kind not in "iu"):
        raise ValueError(
            f"partition: worker {worker} has {rows.dtype}{list(rows.shape)}; allowed: {allowed}"
        )
    if not len(rows):
        raise ValueError(f"partition: worker {worker} has no row; each needs one")
    outside = (rows < 0) | (rows >= num_rows)
    if outside.any():
        bad = int(rows[outside][0])
        raise ValueError(f"partition: row {bad} does not exist; rows go from 0 to {num_rows - 1}")
    return rows.astype(np.int32)


def message_key(key: jax.Array, purpose: int, worker: jax.Array, local_index: jax.Array):
    """The key of worker i's k-th message for one purpose: fold_in(i), (k), then (purpose)."""
    key = jax.random.fold_in(jax.random.fold_in(key, worker), local_index)
    return jax.random.fold_in(key, purpose)


def draw_rows(
    key: jax.Array, shards: Shards, worker: jax.Array, local_index: jax.Array, shape: tuple
) -> jax.Array:
    """Rows of worker i's k-th message, drawn with replacement from its shard.

    A row's probability differs from uniform by less than a share size/2³²: 32 random bits are
    reduced modulo the size of the shard.

    Args:
      key: the run's key, `jax.random.key(seed)`.
      shards: the workers' rows.
      worker: int32 scalar, i.
      local_index: int32 scalar, k: how many messages the worker began before this one.
      shape: `(H, B)`: gradients in the message, rows in a minibatch.

    Returns:
      `shape` int32 row numbers.
    """
    bits = jax.random.bits(message_key(key, BATCH, worker, local_index), (math.prod(shape),))
    drawn = (bits % shards.size[worker].astype(jnp.uint32)).astype(jnp.int32)
    return shards.rows[shards.offset[worker] + drawn].reshape(shape)


class Draws(NamedTuple):
    """All the randomness of a chunk's M messages, drawn before its loop.

    Attributes:
      rows: `[M, H, B]` int32 row numbers.
      keys: `[M, …]` uint32, the data of keys for noise, dropout or rounding; `None` where nothing
        draws. A message's key is made of its row (`jax.random.wrap_key_data`), for JAX's check
        against reuse takes an array of typed keys that a loop reads to be used up at once.
    """

    rows: jax.Array
    keys: jax.Array | None


@partial(jax.jit, static_argnames=("shape", "with_keys"))
def draw(
    key: jax.Array,
    shards: Shards,
    worker: jax.Array,
    local_index: jax.Array,
    *,
    shape: tuple[int, int],
    with_keys: bool,
) -> Draws:
    """The draws of M messages at once, a program of its own that all replays share.

    Inside the loop they would cost a third of it, and inside the replay's program every replay
    would compile them again.

    Args:
      key: the run's key.
      shards: the workers' rows.
      worker: `[M]` int32.
      local_index: `[M]` int32.
      shape: `(H, B)`.
      with_keys: whether anything but the choice of rows is random.

    Returns:
      The `Draws`.
    """
    rows = jax.vmap(lambda i, k: draw_rows(key, shards, i, k, shape))(worker, local_index)
    if not with_keys:
        return Draws(rows, None)
    keys = jax.vmap(partial(message_key, key, MESSAGE))(worker, local_index)
    return Draws(rows, jax.random.key_data(keys))
