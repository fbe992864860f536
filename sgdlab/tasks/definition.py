"""The one type of this room: data, initial parameters and a loss."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgdlab.statistics import Direction, check_directions
from sgdlab.tasks.rows import count_rows, take_rows
from sgdlab.tasks.tracing import draws

Params = Any
Batch = dict[str, Any]
Metrics = dict[str, jax.Array]
_TRACED_ROWS = 32


@dataclass(frozen=True, eq=False)
class RowLoss:
    """A loss whose rows are measured one by one and then summed up.

        loss(params, batch, key) = summarise(params, measure(params, batch, key))

    As the loss of a task it lets a large held-out set be measured in blocks of rows, whose
    activations are gone before the next block's are there, to the same loss and metrics.

    Attributes:
      measure: `measure(params, batch, key) -> rows`, a tree of arrays `[B, …]`; without a key, row
        i depends on row i of the batch and on no other.
      summarise: `summarise(params, rows) -> (loss, metrics)`, as `Task.loss` gives them.
    """

    measure: Callable[[Params, Batch, jax.Array | None], Any]
    summarise: Callable[[Params, Any], tuple[jax.Array, Metrics]]

    def __call__(
        self, params: Params, batch: Batch, key: jax.Array | None
    ) -> tuple[jax.Array, Metrics]:
        """`(loss, metrics)`."""
        return self.summarise(params, self.measure(params, batch, key))


@dataclass(frozen=True, eq=False)
class Task:
    """Something to learn: pure functions and two sets of rows.

    The training objective is the mean of the loss over the training rows. Tasks compare and hash by
    identity, so one may be a static argument of `jax.jit`.

    Attributes:
      name: what a report calls it.
      init: `init(key) -> params`: a tree of float32 arrays; the typed key is consumed.
      loss: `loss(params, batch, key) -> (loss, metrics)`. Leaves of `batch` have a leading axis
        `[B, …]`. The loss is a float32 scalar, a mean over the batch, whatever the dtype of
        `params` and `batch`; metrics are float32 scalars. `key` is a typed key that is consumed, or
        `None` for evaluation: no noise, no dropout. A `RowLoss` is evaluated in blocks of rows
        where the held-out set is large, any other function on all of them at once.
      train: training rows by name: arrays `[n, …]`, or `SparseRows`, of which a batch has dense
        parts (see `take_rows`).
      test: held-out rows, with the same names.
      labels: `[n]` int32 for the training rows, what partitions over workers go by; or `None`.
      logical_axes: a tree like the parameters, each leaf a tuple with a name (or `None`) for each
        of the parameter's axes, by which a mesh splits them; `None` where none has a name.
      metadata: JSON-serialisable facts, such as where the data came from and its SHA-256.
      directions: "up" or "down" by metric: whether more of it is better, or less. The loss goes
        down and need not be named. A metric without one is shown and never ranked.

    Raises:
      ValueError: a direction is neither, or the loss goes up.
    """

    name: str
    init: Callable[[jax.Array], Params]
    loss: Callable[[Params, Batch, jax.Array | None], tuple[jax.Array, Metrics]]
    train: dict[str, Any]
    test: dict[str, Any]
    labels: np.ndarray | None = None
    logical_axes: Any = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    directions: Mapping[str, Direction] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_directions(self.directions)

    @functools.cached_property
    def needs_key(self) -> bool:
        """Whether the loss or a metric depends on the key: read off a trace of the loss itself.

        So a task with another loss in place of its own (`dataclasses.replace`) gets keys where that
        one draws.
        """

        rows = np.arange(min(_TRACED_ROWS, count_rows(self.train)))
        params = jax.eval_shape(self.init, jax.random.key(0))
        batch = jax.tree.map(jnp.asarray, take_rows(self.train, rows))
        return draws(lambda key, params, batch: self.loss(params, batch, key), params, batch)
