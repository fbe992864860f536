"""What the members of a sweep bring: fetched chunk by chunk, told to the caller, ended early.

A member ends before its last update where it met a value that is not finite, or where a metric has
reached what was asked for.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pandas as pd

from sgdlab.arguments import show, unwrap
from sgdlab.statistics import Direction, first_reaching
from sgdlab.training.history import History
from sgdlab.training.program import Outputs

if TYPE_CHECKING:
    from sgdlab.training.members import Run


@dataclass(frozen=True)
class ChunkReport:
    """What one chunk of some members brought.

    Attributes:
      members: indices of the members in the sweep.
      update: updates made so far by each of them.
      num_updates: updates they make in all.
      time: simulated seconds so far.
      loss: `[members]` mean training loss over the chunk.
      evaluations: a dict for each evaluation: member, update, time, loss and the metrics.
    """

    members: list[int]
    update: int
    num_updates: int
    time: float
    loss: np.ndarray
    evaluations: list[dict[str, Any]]


@dataclass(frozen=True)
class Watch:
    """What ends a member early, and who hears of its chunks; all members of a program share it.

    Attributes:
      guard: whether the program leaves out what is not finite, so that it ends no member.
      paths: the name of each parameter, as in `dense/kernel`.
      advice: what may help where a value is not finite after some updates.
      directions: which way each metric improves, as the task declares.
      stop: the metric that ends a member, and at which value; None: none does.
      callback: told of each chunk.
      reporting: held meanwhile, since members come from several threads.
    """

    guard: bool
    paths: tuple[str, ...]
    advice: str
    directions: Mapping[str, Direction]
    stop: Mapping[str, Any] | None
    callback: Callable[[ChunkReport], None] | None
    reporting: threading.Lock = field(default_factory=threading.Lock)


class Record:
    """What one member has brought so far."""

    def __init__(self, run: Run, directions: Mapping[str, Direction]) -> None:
        self.run, self._directions = run, directions
        self.updates: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []
        self.error: str | None = None
        self.done = False
        self.params: Any = None
        self.loss_scale: Any = None

    @property
    def update(self) -> int:
        """Updates made and recorded."""
        return sum(len(each["loss"]) for each in self.updates)

    def to_history(self) -> History:
        """All of it, as a replay gives it back."""
        timeline, plan = self.run.timeline, self.run.plan
        made = self.update
        updates: dict[str, Any] = {"loss": np.zeros(0, np.float32)}  # at its goal from the start
        if self.updates:
            updates = jax.tree.map(lambda *parts: np.concatenate(parts), *self.updates)
        return History(
            loss=updates.pop("loss"),
            staleness=plan.staleness[:made],
            time=timeline.apply_time[:made],
            evaluations=pd.DataFrame(self.rows),
            params=self.params,
            loss_scale=self.loss_scale,
            skipped=updates.pop("skipped", np.zeros(made, np.int32)),
            records=updates.pop("record", None),
            measures=updates,
            error=self.error,
            member=self.run.point,
            directions=dict(self._directions),
        )


class Records:
    """What members that advance together have brought.

    Attributes:
      each: a record for each member, in order.
    """

    def __init__(self, runs: Sequence[Run], watch: Watch) -> None:
        self.each = [Record(run, watch.directions) for run in runs]
        self._watch = watch

    @property
    def done(self) -> bool:
        """Whether every member has ended."""
        return all(record.done for record in self.each)

    def collect(self, last: int, chunk: Any, outputs: Outputs, *, error: str | None = None) -> None:
        """Fetch a chunk's outputs and give each member its own; `error` is what ended the first."""
        count, evaluated = int(chunk.num_updates), bool(chunk.evaluate)
        fetched = unstack(jax.device_get(outputs), len(self.each))
        for record, output in zip(self.each, fetched, strict=True):
            if record.done:
                continue
            record.updates.append(jax.tree.map(lambda leaf: leaf[:count], output.updates))
            if not self._watch.guard:
                record.error = _find_nonfinite(self._watch, output, last - count, count)
                record.done = record.error is not None
        if error is not None:
            self.each[0].error, self.each[0].done = error, True
        metrics = [
            _held_out(record, output, evaluated)
            for record, output in zip(self.each, fetched, strict=True)
        ]
        with np.errstate(all="ignore"):
            losses = [_mean(output.updates["loss"][:count]) for output in fetched]
        self.report(last, losses, metrics)

    def report(self, last: int, losses, metrics: Sequence[dict | None]) -> None:
        """Add a row of held-out metrics to each member that is still on, and tell the caller."""
        timeline = self.each[0].run.timeline
        time = float(timeline.apply_time[last - 1]) if last else 0.0
        fresh = []
        for record, values in zip(self.each, metrics, strict=True):
            if values is None or record.update != last:
                continue
            row = {"update": last, "time": time, **{k: float(v) for k, v in values.items()}}
            record.rows.append(row)
            fresh.append({"member": record.run.index, **row})
            record.done = record.done or _has_reached(self._watch, row)
        if self._watch.callback is None:
            return
        losses = np.full(len(self.each), np.nan) if losses is None else np.asarray(losses)
        members = [record.run.index for record in self.each]
        told = ChunkReport(members, last, timeline.num_updates, time, losses, fresh)
        with self._watch.reporting:
            self._watch.callback(told)

    def keep_ends(self, state: Any, *, final: bool = False) -> None:
        """Let each member that has just ended have its last parameters and loss scale."""
        for index, record in enumerate(self.each):
            if record.params is None and (record.done or final):
                ends = state.params, state.loss_scale
                if len(self.each) > 1:
                    ends = jax.tree.map(lambda leaf, i=index: leaf[i], ends)
                record.params, record.loss_scale = ends


def check_stop(stop: Mapping[str, Any] | None) -> None:
    """A stop names a metric and one of `at_least` and `at_most`."""
    if stop is None:
        return
    if not isinstance(stop, Mapping):
        raise ValueError(f'stop: {stop!r} given; allowed: {{"metric": name, "at_least": value}}')
    if set(stop) not in ({"metric", "at_least"}, {"metric", "at_most"}):
        raise ValueError(
            f"stop: {dict(stop)} is not understood; "
            'allowed: {"metric": name, "at_least": value} or {"metric": name, "at_most": value}'
        )
    name = "at_least" if "at_least" in stop else "at_most"
    value = unwrap(stop[name])
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise ValueError(f"stop: {name} is {show(value)}; allowed: a number")


def _mean(losses: np.ndarray) -> float:
    return float(np.mean(losses)) if len(losses) else np.nan


def _held_out(record: Record, output: Outputs, evaluated: bool) -> dict[str, Any] | None:
    """What a chunk's end gives on held-out data; of a member that failed, nothing is a number.

    Parameters that are not finite still have an accuracy: that of the class which a comparison
    with NaN happens to name.
    """
    if record.error is not None:
        return dict.fromkeys(output.metrics, np.nan)
    return output.metrics if evaluated else None


def _has_reached(watch: Watch, row: dict[str, Any]) -> bool:
    stop = watch.stop
    if stop is None:
        return False
    if stop["metric"] not in row:
        known = ", ".join(name for name in row if name not in ("update", "time"))
        raise ValueError(f"stop: metric {stop['metric']!r} is unknown; this task has {known}")
    metric, bound = stop["metric"], {key: stop[key] for key in stop if key != "metric"}
    return first_reaching([row[metric]], metric, watch.directions, **bound) is not None


def _find_nonfinite(watch: Watch, output: Outputs, first: int, count: int) -> str | None:
    """Where a chunk met a value that is not finite, in one line, or `None`."""
    losses = output.updates["loss"][:count]
    where = np.flatnonzero(~np.isfinite(losses))
    bad = [path for path, fine in zip(watch.paths, output.finite, strict=True) if not fine]
    if not len(where) and not bad:
        return None
    update = first + int(where[0]) if len(where) else first + count - 1
    if (
        len(where) and update == 0
    ):  # its messages were computed at the initial parameters: no rate is to blame
        return (
            f"update 0: the loss is {losses[0]} before any update; look at the data, the labels, "
            "the initial parameters and the loss"
        )
    return (
        f"update {update}: the loss is {losses[update - first]}; parameters not finite at the "
        f"chunk's end: {', '.join(bad) or 'none'}; {watch.advice}"
    )


def unstack(tree: Any, size: int) -> list[Any]:
    """The members' own trees, fetched to the host."""
    tree = jax.device_get(tree)
    if size == 1:
        return [tree]
    return [jax.tree.map(lambda leaf, i=index: leaf[i], tree) for index in range(size)]
