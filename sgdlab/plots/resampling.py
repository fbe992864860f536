"""Replicates that were evaluated at different times, on one grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MAX_POINTS = 240


def resample(
    places: Sequence[np.ndarray],
    values: Sequence[np.ndarray],
    *,
    max_points: int = MAX_POINTS,
    log: bool = False,
    lost: float = np.nan,
    ended: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """What every replicate had at common places.

    The grid is the union of the replicates' own places, thinned evenly to `max_points`. Between two
    evaluations a replicate is a straight line. After its last it keeps its last value: it has ended
    (at the horizon, or at the goal) and changes no more. Before its first it has none. What is not
    finite is lost, and so is the way there.

    Args:
      places: per replicate `[E]` float, increasing: seconds or updates.
      values: per replicate `[E]` float, what was evaluated there.
      max_points: the most places of the grid.
      log: straight on a logarithmic axis of values; they are above zero.
      lost: what stands for a value that is lost: inf or −inf, whichever is the worst there is.
      ended: whether replicates have ended; one that has not has no value after its last.

    Returns:
      The grid `[K]` float64 and the values `[S, K]` float64, NaN where not known.
    """
    places = [np.asarray(place, float) for place in places]
    grid = np.unique(np.concatenate([*places, np.empty(0)]))
    if len(grid) > max_points:
        grid = grid[np.unique(np.linspace(0, len(grid) - 1, max_points).round().astype(int))]
    rows = [
        _on_grid(grid, place, np.asarray(value, float), log, lost, ended)
        for place, value in zip(places, values, strict=True)
    ]
    return grid, np.stack(rows) if rows else np.empty((0, 0))


def _on_grid(
    grid: np.ndarray, place: np.ndarray, value: np.ndarray, log: bool, lost: float, ended: bool
) -> np.ndarray:
    finite = np.where(np.isfinite(value), value, np.nan)
    if not len(place):
        return np.full(len(grid), np.nan)
    line = np.interp(grid, place, np.log(finite) if log else finite)
    line = np.where(np.isnan(line), lost, np.exp(line) if log else line)
    unknown = (grid < place[0]) | ((grid > place[-1]) & np.isfinite(finite[-1]) & (not ended))
    return np.where(unknown, np.nan, line)
