"""Clocks of a recorded run that are apart: versions say what came first, times give way.

A worker that stamps its own clock before it asks for the parameters, and after the server has
answered its message, seems to read too early and to arrive too late.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgdlab.timelines.arguments import TimelineError


def settle_clocks(
    columns: dict[str, np.ndarray], path: str, lines: Sequence[str], tolerance: float
) -> np.ndarray:
    """Move starts, and what follows from them, to the earliest times at which all is in order.

    In the order of the updates: a message starts when its version is there and its worker's message
    before has ended, it ends no earlier than it starts, and an update comes when all its messages
    have, and no earlier than the update before it. So no time moves further than two clocks are
    apart, and one that is in order stays.

    Args:
      columns: of the messages, `[M]` each; `start_time`, `compute_end` and `arrival_time` are
        changed in place, and `apply_time`, where there is one, is taken out.
      path: named in an error.
      lines: where each message stands in it.
      tolerance: by how much a time may move, seconds.

    Returns:
      `[T]` float64, when each update happened.

    Raises:
      TimelineError: a time would have to move further; names the line.
    """
    update, read, worker = columns["update"], columns["read_version"], columns["worker"]
    start, arrival = columns["start_time"].copy(), columns["arrival_time"].copy()
    recorded = columns.pop("apply_time", None)
    times = np.zeros(int(update.max(initial=-1)) + 1)
    free: dict[int, float] = {}
    now = 0.0
    # Messages that no update used are taken where they ended, by their own clocks.
    place = np.where(update >= 0, update, np.searchsorted(_ends(columns, len(times)), arrival))
    for m in np.lexsort((arrival, update < 0, place)):
        born = times[read[m] - 1] if 0 < read[m] <= len(times) else 0.0
        moved = max(born, free.get(int(worker[m]), 0.0))
        if moved > start[m]:
            start[m] = moved
            arrival[m] = max(arrival[m], moved)
        free[int(worker[m])] = float(arrival[m] if np.isfinite(arrival[m]) else start[m])
        if update[m] >= 0:
            stamp = arrival[m] if recorded is None or np.isnan(recorded[m]) else recorded[m]
            now = float(max(now, times[update[m]], stamp))
            times[update[m]] = now
    _check_moves(columns, start, path, lines, tolerance)
    moved = start - columns["start_time"]
    columns["start_time"], columns["arrival_time"] = start, arrival
    late = np.maximum(columns["compute_end"], np.where(moved > 0, start, -np.inf))
    columns["compute_end"] = np.minimum(late, arrival)
    return np.maximum.accumulate(times)


def _ends(columns: dict[str, np.ndarray], count: int) -> np.ndarray:
    """`[T]` when each update was complete, by the clocks as they are."""
    ends = np.zeros(count)
    used = columns["update"] >= 0
    np.maximum.at(ends, columns["update"][used], columns["arrival_time"][used])
    return np.maximum.accumulate(ends)


def _check_moves(columns, start, path: str, lines: Sequence[str], tolerance: float) -> None:
    moved = start - columns["start_time"]
    wrong = moved > tolerance
    if wrong.any():
        first = int(np.argmax(wrong))
        raise TimelineError(
            f"{path}: {lines[first]}: start_time is {columns['start_time'][first]:.9g}, "
            f"{moved[first]:.3g} s before version {columns['read_version'][first]} or its worker "
            f"is there; allowed: tolerance {tolerance:g} s ({moved.max():.3g} s would do)"
        )
