"""What a timeline says about its workers: who takes part, how stale, and what was wasted."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from sgdlab.timelines.timeline import CANCELLED, DROPPED, IN_FLIGHT, Timeline


class Discarded(NamedTuple):
    """Work that no update used.

    Attributes:
      seconds: simulated seconds of computing on messages that were refused, stopped or lost.
      share: of all seconds spent computing, in [0, 1].
    """

    seconds: float
    share: float


def head(timeline: Timeline, updates: int) -> Timeline:
    """A timeline up to one of its updates: what had begun by then.

    Args:
      timeline: any timeline.
      updates: how many of them, from the first on; the timeline ends with the last of them.

    Returns:
      A `Timeline`, the whole one where it has no more. Messages that only later updates use are in
      flight.
    """
    if updates >= timeline.num_updates:
        return timeline
    end = float(timeline.apply_time[updates - 1]) if updates else 0.0
    begun = (timeline.start_time <= end) & (timeline.read_version <= updates)
    columns = {
        name: getattr(timeline, name)[begun]
        for name in ("worker", "read_version", "start_time", "compute_end", "arrival_time")
    }
    update, last = timeline.update[begun], timeline.last_update[begun]
    later = update >= updates
    return dataclasses.replace(
        timeline,
        **columns,
        update=np.where(later, IN_FLIGHT, update),
        last_update=np.where(later, IN_FLIGHT, np.minimum(last, updates - 1)),
        apply_time=timeline.apply_time[:updates],
        metadata={**timeline.metadata, "seconds": end},
    )


def participation(timeline: Timeline) -> np.ndarray:
    """Each worker's share of the messages that updates used.

    Args:
      timeline: any timeline.

    Returns:
      `[N]` float64, summing to 1; zeros where no message was used.
    """
    counts = np.bincount(timeline.worker[timeline.update >= 0], minlength=timeline.num_workers)
    return counts / max(1, counts.sum())


def staleness_by_worker(timeline: Timeline) -> np.ndarray:
    """Mean staleness of each worker's used messages; under a partition, of each shard's.

    Args:
      timeline: any timeline.

    Returns:
      `[N]` float64; NaN for a worker of whom no message was used.
    """
    used = timeline.update >= 0
    worker, size = timeline.worker[used], timeline.num_workers
    counts = np.bincount(worker, minlength=size)
    total = np.bincount(worker, timeline.staleness[used], minlength=size)
    return np.divide(total, counts, out=np.full(size, np.nan), where=counts > 0)


def discarded(timeline: Timeline) -> Discarded:
    """Seconds of computing that were thrown away, and their share of all computing.

    Args:
      timeline: any timeline; work still in flight at its end counts as computing so far.

    Returns:
      `Discarded`.
    """
    stop = np.minimum(timeline.compute_end, timeline.arrival_time)
    busy = np.minimum(stop, timeline.seconds) - timeline.start_time
    wasted = busy[np.isin(timeline.update, (DROPPED, CANCELLED))].sum()
    return Discarded(float(wasted), float(wasted / busy.sum()) if busy.sum() > 0 else 0.0)
