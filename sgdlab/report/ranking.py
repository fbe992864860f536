"""Who is told apart from whom: members that race to one goal, in tiers of what ties."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sgdlab.report.entries import Comparison, Entry
from sgdlab.statistics import Resamples, interval, median


class Racer(NamedTuple):
    """One group of members, which its best member stands for.

    Attributes:
      entry: the best one as it was measured.
      time: its median time to the goal, seconds.
      resampled: `[B]` the median time of the group's best member in every resample.
    """

    entry: Entry
    time: float
    resampled: np.ndarray


def race(comparison: Comparison) -> list[list[Racer]]:
    """The groups in tiers, the first ones first; within a tier nobody is told apart from its first.

    Two are told apart where the 95 % interval of the ratio of their times lies below 1: a bootstrap
    over seeds and draws of the clocks, in which all take the same ones, and in which each group's
    best member is chosen anew. One that never gets there takes forever.
    """
    entries = [entry for entry in comparison.entries if len(entry.times)]
    resampled = dict(zip(entries, _resample(entries), strict=True))
    racers = []
    for group in comparison.groups:
        members = [entry for entry in entries if entry.group == group]
        if members:
            best = min(members, key=comparison.rank)
            times = np.min([resampled[entry] for entry in members], axis=0)
            racers.append(Racer(best, median(best.times), times))
    rest = sorted(racers, key=lambda racer: comparison.rank(racer.entry))
    tiers = []
    while rest:
        first, *others = rest
        tiers.append([first, *(each for each in others if not _told_apart(first, each))])
        rest = [each for each in others if _told_apart(first, each)]
    return tiers


def _told_apart(first: Racer, other: Racer) -> bool:
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = first.resampled / other.resampled
    return interval(ratios, np.inf)[1] < 1.0


def _resample(entries: Sequence[Entry]) -> list[np.ndarray]:
    """The median time of each member in every resample; paired where they have equal replicates."""
    tables = [_table(entry) for entry in entries]
    shapes = dict.fromkeys(table.shape for table in tables)
    resamples = {shape: Resamples(*shape, stream=stream) for stream, shape in enumerate(shapes)}
    return [resamples[table.shape].combine(table, "median")[1:] for table in tables]


def _table(entry: Entry) -> np.ndarray:
    """`[D, S]` the times by draw of the clocks and seed."""
    draws = len({draw for draw, _ in entry.replicates}) or 1
    whole = len(entry.replicates) == len(entry.times) and len(entry.times) % draws == 0
    return entry.times.reshape(draws if whole else 1, -1)
