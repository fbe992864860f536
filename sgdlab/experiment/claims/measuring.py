"""What one replicate brings: a number for each draw of the clocks and each seed of a point.

What is not finite is the worst there is: infinity, or minus infinity where the metric goes up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sgdlab.statistics import Direction, direction_of, first_reaching, with_worst
from sgdlab.tasks.table import METRICS
from sgdlab.timelines import Timeline

if TYPE_CHECKING:
    from sgdlab.experiment.folders.run import Member

Table = Mapping[str, np.ndarray]
"""The evaluations of one replicate: a column for each name."""


class UnmeasuredError(Exception):
    """A point has not brought what a claim asks of it; says which and what."""


def directions_of(member: Member) -> Mapping[str, Direction]:
    """Which way each metric of a point improves: as its task declared when it ran.

    A folder that does not say is of a task of ours.
    """
    declared = member.summary.get("directions")
    if isinstance(declared, Mapping):
        return declared
    task = member.config.get("task")
    return METRICS.get(task["name"], {}) if isinstance(task, Mapping) and "name" in task else {}


def goes_up(metric: str, member: Member) -> bool:
    """Whether more of a metric is better.

    Raises:
      UnmeasuredError: its task does not say.
    """
    try:
        return direction_of(metric, directions_of(member)) == "up"
    except ValueError as error:
        raise UnmeasuredError(f"{member.label or 'the run'}: {error}") from error


def measure(name: str, given: Mapping[str, Any], member: Member) -> np.ndarray:
    """A quantity of one point.

    Args:
      name: of the quantity.
      given: its arguments.
      member: the point, run.

    Returns:
      `[D, S]` float64 for D draws of the clocks and S seeds; an axis on which the quantity does not
      depend has length 1.

    Raises:
      UnmeasuredError: the point was not run to its end, or has no such metric.
    """
    if name in _OF_TIMELINES:
        values = [_OF_TIMELINES[name](timeline, given) for timeline in member.timelines]
        if not values:
            raise UnmeasuredError(f"{member.label or 'the run'} has no timeline")
        return np.array(values, np.float64)[:, None]
    quantity = _OF_EVALUATIONS[name]
    rows = zip(replicates(member), member.timelines, strict=True)
    values = [[quantity(table, given, member, line) for table in tables] for tables, line in rows]
    return np.array(values, np.float64)


def replicates(member: Member) -> list[list[Table]]:
    """The evaluations of each draw and seed, in the order in which they were made."""
    columns = {str(name): member.evaluations[name].to_numpy() for name in member.evaluations}
    places: Any = member.evaluations.groupby(["timeline", "seed"], sort=False).indices
    found = {
        (int(draw), int(seed)): {name: column[rows] for name, column in columns.items()}
        for (draw, seed), rows in places.items()
    }
    seeds = list(dict.fromkeys(seed for _, seed in found))
    draws = len(member.timelines)
    if not found or set(found) != {(draw, seed) for draw in range(draws) for seed in seeds}:
        raise UnmeasuredError(f"{member.label or 'the run'} is {member.status}, not run to its end")
    return [[found[draw, seed] for seed in sorted(seeds)] for draw in range(draws)]


def _column(table: Table, metric: str, member: Member) -> np.ndarray:
    """A metric's values, in the order of the updates; the worst where they are not finite."""
    if metric not in table:
        raise UnmeasuredError(f"{member.label or 'the run'} has no metric {metric!r}")
    return with_worst(table[metric], metric, directions_of(member))


def _final(table: Table, given: Mapping[str, Any], member: Member, _: Timeline) -> float:
    return _column(table, given["metric"], member)[-1]


def _best(table: Table, given: Mapping[str, Any], member: Member, _: Timeline) -> float:
    values = _column(table, given["metric"], member)
    return values.max() if goes_up(given["metric"], member) else values.min()


def _mean(table: Table, given: Mapping[str, Any], member: Member, _: Timeline) -> float:
    updates = table["update"]
    late = updates > given["after"] * updates[-1]
    values = _column(table, given["metric"], member)
    return values[late].mean() if late.any() else values[-1]


def _reach(table: Table, given: Mapping[str, Any], member: Member) -> int | None:
    """The row of the first evaluation that meets the goal: the quantity's, or the target."""
    goal = given if given.get("metric") else _target(member)
    metric, bound = goal["metric"], {key: goal.get(key) for key in ("at_least", "at_most")}
    values = _column(table, metric, member)
    return first_reaching(values, metric, directions_of(member), **bound)


def _target(member: Member) -> Mapping[str, Any]:
    goal = member.config.get("target") or member.config.get("stop")
    if not isinstance(goal, Mapping):
        raise UnmeasuredError(f"{member.label or 'the run'} has no target")
    return goal


def _time_to(table: Table, given: Mapping[str, Any], member: Member, _: Timeline) -> float:
    row = _reach(table, given, member)
    return math.inf if row is None else table["time"][row]


def _updates_to(table: Table, given: Mapping[str, Any], member: Member, _: Timeline) -> float:
    row = _reach(table, given, member)
    return math.inf if row is None else table["update"][row]


def _messages_to(table: Table, given: Mapping[str, Any], member: Member, line: Timeline) -> float:
    """Messages that the updates made by then have used, each counted once."""
    row = _reach(table, given, member)
    if row is None:
        return math.inf
    return float(np.count_nonzero((line.update >= 0) & (line.update < table["update"][row])))


def _diverges(table: Table, given: Mapping[str, Any], member: Member, _: Timeline) -> float:
    """1 where the end misses the goal, if there is one, or the last held-out loss is above the
    first or not finite."""
    if given.get("metric"):
        last = {name: values[-1:] for name, values in table.items()}
        return float(_reach(last, given, member) is None)
    losses = _column(table, "loss", member)
    return float(losses[-1] > losses[0] or math.isinf(losses[-1]))


def _staleness(timeline: Timeline, given: Mapping[str, Any]) -> float:
    used = timeline.staleness[timeline.update >= 0]
    if not len(used):
        return 0.0
    return used.max() if given["statistic"] == "max" else used.mean()


def _seconds_per_update(timeline: Timeline, given: Mapping[str, Any]) -> float:
    del given
    return 1.0 / timeline.throughput() if timeline.num_updates else math.inf


_OF_EVALUATIONS: dict[str, Callable[[Table, Mapping[str, Any], Any, Timeline], Any]] = {
    "final": _final,
    "best": _best,
    "mean": _mean,
    "time_to": _time_to,
    "updates_to": _updates_to,
    "messages_to": _messages_to,
    "diverges": _diverges,
}
_OF_TIMELINES: dict[str, Callable[[Timeline, Mapping[str, Any]], Any]] = {
    "staleness": _staleness,
    "throughput": lambda timeline, given: timeline.throughput(),
    "seconds_per_update": _seconds_per_update,
    "utilisation": lambda timeline, given: timeline.utilisation().mean(),
}
