"""What replicates say about a quantity: its value, and its value in every resample.

Both sides of a claim, and all points of a side, take the same resamples. Whatever chooses among
points (the best rate, a limit) is done anew in each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sgdlab.experiment.claims import theories
from sgdlab.experiment.claims.measuring import UnmeasuredError, goes_up, measure
from sgdlab.experiment.claims.selecting import look_up, select
from sgdlab.experiment.claims.vocabulary import GOALS, Quantity
from sgdlab.statistics import RESAMPLES, Resamples

if TYPE_CHECKING:
    from sgdlab.experiment.config.experiment import Point
    from sgdlab.experiment.folders.run import Member


class Sample(NamedTuple):
    """The replicates of one side of a claim.

    Attributes:
      quantity: what was measured; a number measures itself.
      values: `[P, D, S]` float64 of P points; none of a number or a closed form.
      axis: `[P]` float64, the points' values on the axis, where there is one.
      upward: whether more is better, where the best point is chosen.
    """

    quantity: float | Quantity
    values: tuple[np.ndarray, ...] = ()
    axis: tuple[float, ...] = ()
    upward: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """(D, S): how many draws and seeds the side depends on."""
        shapes = [table.shape for table in self.values] or [(1, 1)]
        return max(d for d, _ in shapes), max(s for _, s in shapes)


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
    chooses = side.name == "tuned" and name not in GOALS
    upward = chooses and {goes_up(inner["metric"], members[index]) for index in chosen} == {True}
    return Sample(side, values, tuple(places), upward)


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
    name, _ = _measured(quantity.name, given)
    how = "median" if name in GOALS else "max" if quantity.name == "limit" else "mean"
    combined = np.stack([resamples.combine(table, how) for table in sample.values])
    if quantity.name == "limit":
        return _limit(combined, np.array(sample.axis))
    if quantity.name == "tuned":
        return _tune(combined, np.array(sample.axis), given["over"], sample.upward)
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
