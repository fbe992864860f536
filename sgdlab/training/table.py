"""The server's table under protocols that use a message more than once: a row for each worker."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sgdlab.training.trees import get_row, scaled_sum, set_row, zeros


class Table(NamedTuple):
    """What every worker has in use.

    Attributes:
      rows: each leaf `[N, …]`: the mean, or the sum, of the worker's messages in use.
      counted: `[N]` float32, by the rows' own recurrence the part of it that was finite: of a
        mean's messages the share, of a sum's their number.
    """

    rows: Any
    counted: jax.Array


def make_table(params: Any, num_workers: int) -> Table:
    """A table of nothing."""
    return Table(zeros(params, num_workers), jnp.zeros(num_workers, jnp.float32))


def add_to_row(table: Table, worker: jax.Array, keep, weight, message: Any) -> Table:
    """Row ← keep·row + weight·message; a message that doesn't count comes with weight 0."""
    row = scaled_sum(keep, get_row(table.rows, worker), weight, message)
    counted = table.counted.at[worker].set(keep * table.counted[worker] + weight)
    return Table(set_row(table.rows, worker, row), counted)


def mix_rows(table: Table, row_weight: jax.Array, rows_are_means) -> tuple[Any, jax.Array]:
    """The weighted mean of the rows in use, over what counted in them.

    Args:
      table: the workers' rows.
      row_weight: `[N]` float32, 0 for a row that is not in use.
      rows_are_means: bool scalar, whether each row has one say, however much of it counted; else
        each message has.

    Returns:
      `(mean, valid)`: a tree like a message, and whether anything counted.
    """
    some = table.counted > 0
    each = 1.0 / jnp.where(some & rows_are_means, table.counted, 1.0)
    share = jnp.where(some, row_weight * each, 0.0)
    total = jnp.sum(share * table.counted)
    share = share / jnp.where(total > 0, total, 1.0)
    mean = jax.tree.map(lambda leaf: jnp.tensordot(share.astype(leaf.dtype), leaf, 1), table.rows)
    return mean, total > 0
