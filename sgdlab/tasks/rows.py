"""Rows of data: arrays with a row on their first axis, or sparse rows in their entries' memory."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("index", "value", "start"),
    meta_fields=("features", "widest"),
)
@dataclasses.dataclass(frozen=True, eq=False)
class SparseRows:
    """A table `[n, d]` of mostly zeros: compressed sparse rows, two numbers an entry.

    Attributes:
      index: `[E]` int32, the column of each entry, row after row.
      value: `[E]` float32.
      start: `[n + 1]` int32, row i has the entries `start[i]:start[i + 1]`.
      features: d.
      widest: W, the entries of the row that has most.
    """

    index: Any
    value: Any
    start: Any
    features: int
    widest: int

    @classmethod
    def from_scipy(cls, table: Any) -> SparseRows:
        """The rows of a `scipy.sparse.csr_array`, whose memory is shared where it can be."""
        start = table.indptr.astype(np.int32, copy=False)
        return cls(
            table.indices.astype(np.int32, copy=False),
            table.data.astype(np.float32, copy=False),
            start,
            table.shape[1],
            max(1, int(np.diff(start).max())),
        )

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """`(n, d)`."""
        return len(self), self.features

    @property
    def nbytes(self) -> int:
        """Of its three arrays."""
        return self.index.nbytes + self.value.nbytes + self.start.nbytes

    def __getitem__(self, rows: Any) -> dict[str, jax.Array]:
        """Some rows, each padded to the widest with entries of value 0 in column 0.

        Args:
          rows: a slice, or row numbers `[…]`.

        Returns:
          {"index": `[…, W]` int32, "value": `[…, W]`}.
        """
        if isinstance(rows, slice):
            rows = np.arange(len(self), dtype=np.int32)[rows]
        first, end = (jnp.asarray(self.start)[jnp.asarray(rows) + more] for more in (0, 1))
        places = jax.lax.broadcasted_iota(first.dtype, (*first.shape, self.widest), first.ndim)
        place = first[..., None] + places
        inside = place < end[..., None]
        place = jnp.where(inside, place, 0)
        index, value = jnp.asarray(self.index)[place], jnp.asarray(self.value)[place]
        return {
            "index": jnp.where(inside, index, 0),
            "value": jnp.where(inside, value, jnp.zeros((), value.dtype)),
        }


def is_sparse(column: Any) -> bool:
    """Whether a column of some data is one of sparse rows."""
    return isinstance(column, SparseRows)


def take_rows(data: Any, rows: Any) -> Any:
    """A batch of some data: of each column these rows.

    Args:
      data: a tree of arrays `[n, …]` and of `SparseRows`.
      rows: row numbers, `[…]`.

    Returns:
      A tree of arrays `[…, …]`; sparse rows are padded to their widest.
    """
    return jax.tree.map(lambda column: column[rows], data, is_leaf=is_sparse)


def count_rows(data: Any) -> int:
    """How many rows some data has."""
    return len(jax.tree.leaves(data, is_leaf=is_sparse)[0])


def has_sparse(data: Any) -> bool:
    """Whether any column of some data is one of sparse rows."""
    return any(map(is_sparse, jax.tree.leaves(data, is_leaf=is_sparse)))


def row_bytes(data: Any) -> int:
    """Bytes of one row of a batch."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(take_rows(data, np.zeros(1, np.int32))))
