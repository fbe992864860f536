"""What replicates say about a quantity: its value, and its value in every resample.

Replicates are a table of draws of the clocks by seeds. A resample takes draws with replacement and
seeds with replacement, and both sides of a claim, and all points of a side, take the same ones: the
comparison is paired. Whatever chooses among points (the best rate, a limit) is done anew in each
resample, so that its luck is in the interval too.

Reference:
  Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile interval).
  Owen, "The pigeonhole bootstrap", 2007 (rows and columns resampled independently).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sgdlab.experiment.claims import theories
from sgdlab.experiment.claims.measuring import UnmeasuredError, counts_upward, measure
from sgdlab.experiment.claims.selecting import look_up, select
from sgdlab.experiment.claims.vocabulary import GOALS, Quantity

if TYPE_CHECKING:
    from sgdlab.experiment.config.experiment import Point
    from sgdlab.experiment.folders.run import Member

RESAMPLES = 2000
_SEED = 20160105  # of the resamples: a verdict is the same each time


class Sample(NamedTuple):
    """The replicates of one side of a claim.

    Attributes:
      quantity: what was measured; a number measures itself.
      values: `[P, D, S]` float64 of P points; none of a number or a closed form.
      axis: `[P]` float64, the points' values on the axis, where there is one.
    """

    quantity: float | Quantity
    values: tuple[np.ndarray, ...] = ()
    axis: tuple[float, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """(D, S): how many draws and seeds the side depends on."""
        shapes = [table.shape for table in self.values] or [(1, 1)]
        return max(d for d, _ in shapes), max(s for _, s in shapes)


class Resamples:
    """Draws and seeds, taken with replacement; the first resample is what was measured itself.

    Args:
      draws: D of them.
      seeds: S of them.
    """

    def __init__(self, draws: int, seeds: int) -> None:
        random = np.random.default_rng(_SEED)
        self._draws = _with_all(random.integers(draws, size=(RESAMPLES, draws)))
        self._seeds = _with_all(random.integers(seeds, size=(RESAMPLES, seeds)))

    def combine(self, values: np.ndarray, how: str) -> np.ndarray:
        """The replicates of one point, combined.

        Args:
          values: `[D, S]`; a length of 1 stands for all.
          how: "mean", "median" or "max".

        Returns:
          `[1 + RESAMPLES]` float64.
        """
        draws = self._draws if values.shape[0] > 1 else self._draws[:, :1] * 0
        seeds = self._seeds if values.shape[1] > 1 else self._seeds[:, :1] * 0
        taken = values[draws[:, :, None], seeds[:, None, :]].reshape(len(draws), -1)
        return {"mean": np.mean, "median": np.median, "max": np.max}[how](taken, axis=1)


def gather(side: float | Quantity, points: Sequence[Point], members: Sequence[Member]) -> Sample:
    """Measure one side of a claim.

    Raises:
      UnmeasuredError: a point that it needs has not been run to its end, or has no such metric.
    """
    if not isinstance(side, Quantity) or side.name == "theory":
        return Sample(side)
    given = side.given()
    chosen = select(given["of"], points)
    name, inner = _measured(side.name, given)
    values = tuple(measure(name, inner, members[index]) for index in chosen)
    axis = given.get("axis")
    places = [float(look_up(points[index], axis)) for index in chosen] if axis else []
    return Sample(side, values, tuple(places))


def estimate(sample: Sample, resamples: Resamples) -> np.ndarray:
    """One side's value, as it was measured and in each resample.

    Returns:
      `[1 + RESAMPLES]` float64; NaN where there is none.
    """
    quantity = sample.quantity
    if not isinstance(quantity, Quantity):
        return np.full(1 + RESAMPLES, float(quantity))
    given = quantity.given()
    if quantity.name == "theory":
        value = theories.evaluate(given["function"], given["arguments"])
        return np.full(1 + RESAMPLES, value)
    name, inner = _measured(quantity.name, given)
    how = "median" if name in GOALS else "max" if quantity.name == "limit" else "mean"
    combined = np.stack([resamples.combine(table, how) for table in sample.values])
    if quantity.name == "limit":
        return _limit(combined, np.array(sample.axis))
    if quantity.name == "tuned":
        upward = counts_upward(inner.get("metric") or "") and name not in GOALS
        return _tune(combined, np.array(sample.axis), given["over"], upward)
    return _over(combined, given["over"])


def _measured(name: str, given: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """What is measured of each replicate, with its arguments."""
    if name == "limit":
        return "diverges", given
    return (given["by"]["name"], given["by"]) if name == "tuned" else (name, given)


def _over(values: np.ndarray, over: str | None) -> np.ndarray:
    """`[P, B]` to `[B]`: the lowest, the highest, or the mean of the points."""
    if over is None and len(values) > 1:
        raise UnmeasuredError(f"{len(values)} points match, and nothing says how they combine")
    functions = {"lowest": np.min, "highest": np.max, "mean": np.mean, None: np.mean}
    return functions[over](values, axis=0)


def _tune(values: np.ndarray, axis: np.ndarray, over: str | None, upward: bool) -> np.ndarray:
    """The axis's value at which the points are best, the smallest of equals; NaN if none is."""
    places = np.unique(axis)
    table = np.stack([_over(values[axis == place], over) for place in places])
    table = -table if upward else table
    best = table.argmin(axis=0)
    none = np.isinf(np.take_along_axis(table, best[None], axis=0)[0])
    return np.where(none, math.nan, places[best])


def _limit(diverged: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """The largest value on the axis up to which nothing diverges; −inf if the smallest does."""
    order = np.argsort(axis)
    stable = np.logical_and.accumulate(diverged[order] == 0, axis=0)
    places = np.concatenate([[-math.inf], axis[order]])
    return places[stable.sum(axis=0)]


def _with_all(drawn: np.ndarray) -> np.ndarray:
    return np.concatenate([np.arange(drawn.shape[1])[None], drawn])
