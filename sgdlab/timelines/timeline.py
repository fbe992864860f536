"""The timeline: who read which version when, and which update used what came of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sgdlab.timelines import storage, validation
from sgdlab.timelines.arguments import TimelineError as TimelineError

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

DROPPED = -1
"""`update` of a message that arrived and was refused."""
IN_FLIGHT = -2
"""`update` of a message that was unfinished, or still held by the server, at the end."""
CANCELLED = -3
"""`update` of work that the protocol stopped or a failure lost."""

_ARRAYS = {
    "worker": np.int32,
    "read_version": np.int32,
    "start_time": np.float64,
    "compute_end": np.float64,
    "arrival_time": np.float64,
    "update": np.int32,
    "last_update": np.int32,
    "apply_time": np.float64,
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Timeline:
    """When everything happened, as read-only arrays of M messages and T updates.

    Update u uses the messages with `update` ≤ u ≤ `last_update`. Messages stand in the order in
    which they ended, those that never did last; a worker's own are always in the order it began
    them. Nothing here depends on a parameter or a gradient.

    Attributes:
      num_workers: N.
      gradients_per_message: H.
      worker: `[M]` int32, who computed it.
      read_version: `[M]` int32, the version it was computed at.
      start_time: `[M]` float64, seconds, when the worker read.
      compute_end: `[M]` float64, seconds, when it had computed; inf if never.
      arrival_time: `[M]` float64, seconds, when the server had it; inf if never; for stopped or
        lost work when that happened.
      update: `[M]` int32, the first update that uses it, or `DROPPED`, `IN_FLIGHT`, `CANCELLED`.
      last_update: `[M]` int32, the last update that uses it; left out, it equals `update`.
      apply_time: `[T]` float64, seconds, when each update happened.
      average: "messages", the mean over an update's messages, or "workers", the mean per worker
        and then over the workers present.
      metadata: protocol, its parameters, cluster, seed and seconds; JSON-serialisable.

    Raises:
      TimelineError: an array has the wrong length, shape or kind of numbers.
    """

    num_workers: int
    gradients_per_message: int = 1
    worker: np.ndarray
    read_version: np.ndarray
    start_time: np.ndarray
    compute_end: np.ndarray
    arrival_time: np.ndarray
    update: np.ndarray
    last_update: np.ndarray = None  # pyright: ignore[reportAssignmentType]
    apply_time: np.ndarray
    average: str = "messages"
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.last_update is None:
            object.__setattr__(self, "last_update", self.update)
        for name, dtype in _ARRAYS.items():
            object.__setattr__(self, name, _frozen(name, getattr(self, name), dtype))
        for name in _ARRAYS:
            length = len(getattr(self, name))
            if name != "apply_time" and length != self.num_messages:
                raise TimelineError(
                    f"{name}: {length} long; allowed: {self.num_messages}, as worker"
                )

    @property
    def num_messages(self) -> int:
        """M."""
        return len(self.worker)

    @property
    def num_updates(self) -> int:
        """T."""
        return len(self.apply_time)

    @property
    def seconds(self) -> float:
        """When the timeline ends, seconds: as its metadata say, or its last finite time."""
        if "seconds" in self.metadata:
            return float(self.metadata["seconds"])
        times = [self.start_time, self.compute_end, self.arrival_time, self.apply_time]
        return max((float(t[np.isfinite(t)].max(initial=0.0)) for t in times), default=0.0)

    @cached_property
    def staleness(self) -> np.ndarray:
        """`[M]` int32, updates applied between read and first use; −1 where it was never used."""
        return _read_only(np.where(self.update >= 0, self.update - self.read_version, -1))

    @cached_property
    def local_index(self) -> np.ndarray:
        """`[M]` int32, how many messages that worker began before this one."""
        order = np.argsort(self.worker, kind="stable")
        counts = np.bincount(self.worker, minlength=1)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        index = np.empty(self.num_messages, np.int32)
        index[order] = np.arange(self.num_messages) - first
        return _read_only(index)

    @cached_property
    def gradients_before(self) -> np.ndarray:
        """`[T]` int64, how many gradients entered the updates before each; each counts once."""
        messages = np.bincount(self.update[self.update >= 0], minlength=self.num_updates)
        return _read_only((np.cumsum(messages) - messages) * self.gradients_per_message)

    def utilisation(self) -> np.ndarray:
        """`[N]` float64, the share of [0, end] that each worker spent reading and computing."""
        end = self.seconds
        stop = np.minimum(np.minimum(self.compute_end, self.arrival_time), end)
        busy = np.bincount(self.worker, stop - self.start_time, minlength=self.num_workers)
        return busy / end if end > 0 else np.zeros(self.num_workers)

    def throughput(self) -> float:
        """Updates per simulated second."""
        return self.num_updates / self.seconds if self.seconds > 0 else 0.0

    def staleness_histogram(self) -> np.ndarray:
        """`[max + 1]` int64, how many used messages had staleness 0, 1, ..., max."""
        return np.bincount(self.staleness[self.update >= 0])

    def peak_live_versions(self) -> int:
        """The most versions stored at once for stale messages; 0 if every message is fresh.

        Version v is stored from update v, when it is current, to the last update that first uses a
        stale message computed at v, both included.
        """
        stale = self.staleness > 0
        end = np.full(self.num_updates, -1)
        np.maximum.at(end, self.read_version[stale], self.update[stale])
        stored = np.flatnonzero(end >= 0)
        change = np.zeros(self.num_updates + 1, np.int64)
        change[stored] += 1
        np.subtract.at(change, end[stored] + 1, 1)
        return int(np.cumsum(change).max(initial=0))

    def validate(self) -> None:
        """Check every invariant.

        Raises:
          TimelineError: names the first broken index, the value there and what is allowed.
        """
        validation.validate(self)

    def save(self, path: str | Path) -> None:
        """Write the timeline to an `.npz` file, atomically: the old file or the new, never half.

        Raises:
          TimelineError: the file cannot be written; names it.
        """
        storage.save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Timeline:
        """The timeline of a file that `save` wrote. The file is data and is trusted in nothing.

        Raises:
          TimelineError: the file cannot be read, is damaged, or breaks an invariant; names it.
        """
        try:
            timeline = cls(**storage.load(path))
            timeline.validate()
        except TimelineError as error:
            text = str(error)
            raise (
                error if text.startswith(f"{path}:") else TimelineError(f"{path}: {text}")
            ) from error
        return timeline

    def to_dataframe(self) -> pandas.DataFrame:
        """A table with a row per message; `apply_time` is that of its first update, else NaN."""
        import pandas

        columns = {name: getattr(self, name) for name in _ARRAYS if name != "apply_time"}
        columns["staleness"], columns["local_index"] = self.staleness, self.local_index
        columns["apply_time"] = np.full(self.num_messages, np.nan)
        used = self.update >= 0
        columns["apply_time"][used] = self.apply_time[self.update[used]]
        # Where it travels, a recording of `wait_for_all` isn't taken for another rule's.
        return pandas.DataFrame(columns).assign(average=self.average)

    def plot(self) -> Figure:
        """The workers' Gantt chart above the histogram of staleness."""
        from sgdlab import plots

        names = ("worker", "start_time", "compute_end", "arrival_time", "update", "staleness")
        return plots.timeline(
            **{name: getattr(self, name) for name in (*names, "apply_time", "num_workers")},
            seconds=self.seconds,
            counts=self.staleness_histogram(),
        )

    def _repr_html_(self) -> str:
        used = self.staleness[self.update >= 0]
        mean, largest = (float(used.mean()), int(used.max())) if len(used) else (math.nan, "none")
        rows = {
            "protocol": self.metadata.get("protocol", "by hand"),
            "workers": self.num_workers,
            "updates": self.num_updates,
            "messages": self.num_messages,
            "seconds": f"{self.seconds:.6g}",
            "mean staleness": f"{mean:.4g}",
            "max staleness": largest,
            "utilisation": f"{float(self.utilisation().mean()):.1%}",
        }
        cells = (
            f"<tr><th>{name}</th><td>{_escape(value)}</td></tr>" for name, value in rows.items()
        )
        return f"<table>{''.join(cells)}</table>"


def _frozen(name: str, values: Any, dtype: type) -> np.ndarray:
    """A read-only copy of the given dtype, with the same values."""
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iuf"):
        raise TimelineError(
            f"{name}: {array.ndim}-dimensional {array.dtype}; allowed: one dimension of numbers"
        )
    if dtype is np.int32 and array.dtype != np.int32 and array.size:
        _check_int32(name, array)
    return _read_only(array.astype(dtype))


def _check_int32(name: str, array: np.ndarray) -> None:
    limits = np.iinfo(np.int32)
    fits = (array >= limits.min) & (array <= limits.max) & (array == np.floor(array))
    if not fits.all():
        index = int(np.argmin(fits))
        raise TimelineError(f"{name}[{index}] is {array[index]}; allowed: 32-bit integers")


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _escape(value: Any) -> str:
    return str(value).replace("&", "&amp;").replace("<", "&lt;")
