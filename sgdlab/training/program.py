"""What one compiled program is: its static parts, its state and its inputs.

Everything that changes the traced computation stands in `Program` and is hashed; everything that is
only data (timeline, seed, hyperparameters, partition, length of a chunk) is an array, so chunks,
seeds, rates and timelines of equal shape share one compile.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jax
import optax

from sgdlab.precision import Policy
from sgdlab.tasks import Task
from sgdlab.training.batches import Shards
from sgdlab.training.devices.collectives import Average
from sgdlab.training.devices.mesh import replicated
from sgdlab.training.devices.sharding import lay_out
from sgdlab.training.receiving import as_function
from sgdlab.workers import WorkerProgram

Form = Literal["fused", "mapped", "single", "waves", "early", "walk"]


@dataclass(frozen=True)
class Program:
    """The static description of a replay; equal programs share a compile.

    Attributes:
      task: what is learned.
      make_rule: `make_rule(**hyperparameters)`, called inside the trace.
      worker: what a worker sends.
      receive: what is done with each message before messages are averaged: a transform, or
        `receive(**hyperparameters)`, called inside the trace.
      policy: dtypes.
      guard: leave non-finite messages out (`on_nonfinite="skip"`).
      form: "fused" (equal fresh messages are one gradient over the global batch), "mapped" (they
        are computed side by side), "single" (every update has one message), "waves" (the same, the
        messages of a wave computed side by side), "early" (the same, each computed when its worker
        has read, and kept until its turn) or "walk" (messages are computed one after another and
        added up).
      num_workers: N.
      num_slots: stale versions kept, or messages where they are computed early.
      compact_slots: keep them in the compute dtype, because nothing else reads them.
      has_table: whether a row per worker is kept from update to update.
      has_refused: whether messages are walked that the server refused.
      messages_per_update: the same for every update, or 0 where it varies.
      batch_size: rows in a minibatch, B.
      width: messages of the widest wave.
      measures: what is measured of each message besides its loss: "distance", "cosine".
      record: `record(params)`, kept for every version that an update makes.
      average: how each gradient is averaged over a mesh; `None` on one device.
      microbatches: in how many parts a device computes its gradient, one after another.
    """

    task: Task
    make_rule: Callable[..., optax.GradientTransformation]
    worker: WorkerProgram
    receive: Any
    policy: Policy
    guard: bool
    form: Form
    num_workers: int
    num_slots: int
    compact_slots: bool
    has_table: bool
    has_refused: bool
    messages_per_update: int
    batch_size: int
    measures: frozenset[str]
    record: Callable[[Any], dict[str, jax.Array]] | None
    average: Average | None = None
    width: int = 1
    microbatches: int = 1

    def of(self, member: Member) -> Program:
        """The program of one run, inside its trace: with its own `receive`."""
        return replace(self, receive=as_function(self.receive)(**member.hyperparameters))

    def as_stored(self, params: Any) -> Any:
        """A version as a slot keeps it, before it is laid out."""
        return self.policy.cast_to_compute(params) if self.compact_slots else params

    @property
    def spreads_params(self) -> bool:
        """Whether no device holds all parameters."""
        return self.average is not None and self.average.spreads_params

    def lay_out(self, state: State) -> State:
        """The state, its parts on the devices that hold the parameters' parts."""
        if self.average is None:
            return state
        return lay_out(state, state.params, self.average.mesh, self.task.logical_axes)

    def share(self, outputs: Any) -> Any:
        """What is fetched to the host, whole on every device: a process sees no other's parts."""
        if self.average is None:
            return outputs
        return jax.lax.with_sharding_constraint(outputs, replicated(self.average.mesh))

    def spread(self, rows: int) -> tuple[Average | None, int]:
        """Over which devices and in how many parts a gradient over so many rows is computed.

        A message alone may have too few rows where many at once have enough: then it is cut into
        fewer parts, or every device computes all of it.
        """
        if self.average is None:
            return None, math.gcd(rows, self.microbatches)
        parts = self.average.parts
        if rows % parts:
            return None, 1
        return self.average, math.gcd(rows // parts, self.microbatches)

    @property
    def needs_key(self) -> bool:
        """Whether anything but the choice of rows is random."""
        return self.task.needs_key or self.worker.needs_key


@dataclass(frozen=True)
class FixedRule:
    """A `make_rule` that always gives the same rule; two of the same rule are equal."""

    rule: optax.GradientTransformation

    def __call__(self) -> optax.GradientTransformation:
        """The rule."""
        return self.rule


class Member(NamedTuple):
    """The data of one run among those that share a program.

    Attributes:
      key: typed key, `jax.random.key(seed)`.
      hyperparameters: name to float32 scalar.
    """

    key: jax.Array
    hyperparameters: dict[str, jax.Array]


class Data(NamedTuple):
    """What all members share: training and test rows, and each worker's shard."""

    train: Any
    test: Any
    shards: Shards


class State(NamedTuple):
    """What a replay carries from update to update.

    Attributes:
      params: the current parameters.
      rule: the rule's state.
      receive: the state of the transform that messages pass.
      worker: the workers' states, each leaf `[N, …]`.
      loss_scale: each worker's own, `[N]`.
      slots: the stale versions or the messages under way, each leaf `[S, n]` of flattened rows, or
        `()`.
      table: a `Table` with a row per worker, or `()`.
    """

    params: Any
    rule: Any
    receive: Any
    worker: Any
    loss_scale: Any
    slots: Any
    table: Any


class EarlySteps(NamedTuple):
    """The steps of a chunk whose messages are computed early.

    Attributes:
      num_steps: uint32 scalar ≤ C, how many there are.
      due: bool scalar, whether each makes an update; none does before update 0.
      worker: `[C]` int32, who sends the message that each step computes.
      local_index: `[C]` int32.
      write_slot: `[C]` uint32, where it waits.
    """

    num_steps: Any
    due: Any
    worker: Any
    local_index: Any
    write_slot: Any


class Chunk(NamedTuple):
    """A stretch of a planned timeline, in arrays of a fixed capacity: C updates, M messages.

    Attributes:
      num_updates: uint32 scalar ≤ C, how many updates are made.
      evaluate: bool scalar, whether the held-out metrics are computed after them.
      start: `[C + 1]` uint32, update u walks the messages `start[u]:start[u + 1]`.
      write_slot: `[C]` uint32, where each update stores its version.
      staleness: `[C]` float32, the updates' mean staleness.
      seconds: `[C]` float32, when the updates happen.
      gradients: `[C]` int32, how many gradients entered the updates before each.
      row_weight: `[C, N]` float32, and
      rows_are_means: bool scalar, whether each row of the table has one say, however many messages
        it holds; both `None` without a table.
      worker: `[M]` int32.
      local_index: `[M]` int32.
      message_staleness: `[M]` int32.
      read_slot: `[M]` uint32.
      weight: `[M]` float32.
      keep: `[M]` float32.
      share: `[M]` float32, the message's share of its update's mean loss.
      early: where messages are computed early; their steps.
      num_waves: uint32 scalar, and
      wave: `[C + 1]` uint32, wave v holds the updates `wave[v]:wave[v + 1]`; both `None` where each
        update is one.
    """

    num_updates: Any
    evaluate: Any
    start: Any
    write_slot: Any
    staleness: Any
    seconds: Any
    gradients: Any
    row_weight: Any
    rows_are_means: Any
    worker: Any
    local_index: Any
    message_staleness: Any
    read_slot: Any
    weight: Any
    keep: Any
    share: Any
    early: Any = None
    num_waves: Any = None
    wave: Any = None

    @property
    def computed(self) -> tuple[Any, Any]:
        """`(worker, local_index)` of the messages, in the order in which they are computed."""
        source = self if self.early is None else self.early
        return source.worker, source.local_index

    @property
    def num_steps(self) -> Any:
        """Steps of the loop over the chunk: its updates, but before update 0."""
        return self.num_updates if self.early is None else self.early.num_steps


class Outputs(NamedTuple):
    """What a chunk reports.

    Attributes:
      updates: name to `[C]`: "loss", the mean training loss of the messages in each update;
        "skipped", how many messages it left out, under the guard; each measure; "loss_scale"
        where it is dynamic; and "record", a tree of `[C, …]`.
      finite: `[P]` bool, whether each leaf of the parameters is finite after the chunk.
      metrics: name to scalar, held-out loss and metrics after the chunk, if it evaluates.
    """

    updates: dict[str, Any]
    finite: Any
    metrics: Any
