"""The members of one or more runs as one list, with short names and a place in the comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sgdlab.experiment.claims.measuring import directions_of
from sgdlab.statistics import Direction, headline, read_times, standing, with_worst

if TYPE_CHECKING:
    import pandas as pd

    from sgdlab.experiment import Member, Run

MANY = 8
"""More members than this are grouped."""


@dataclass(frozen=True)
class Goal:
    """A metric and the value to reach, from below or from above."""

    metric: str
    value: float
    upward: bool

    def __str__(self) -> str:
        return f"{self.metric} {'≥' if self.upward else '≤'} {self.value:g}"


@dataclass(frozen=True, eq=False)
class Entry:
    """One member in the comparison.

    Attributes:
      run, member: where it comes from.
      label: its name, as short as tells it from the others.
      group: its name without the numeric axis; its own label where members are few.
      colour: index of its colour.
      axes: what the sweep sets, as it is shown, by axis.
      position: its value on the numeric axis, if there is one.
    """

    run: Run
    member: Member
    label: str
    group: str
    colour: int
    axes: Mapping[str, str]
    position: float | None

    @property
    def goal(self) -> Goal | None:
        """What its time is measured to."""
        given = self.member.config.get("target") or self.member.config.get("stop")
        if not isinstance(given, Mapping) or "metric" not in given:
            return None
        upward = given.get("at_least") is not None
        value = given.get("at_least") if upward else given.get("at_most")
        return None if value is None else Goal(str(given["metric"]), float(value), upward)

    @cached_property
    def times(self) -> np.ndarray:
        """`[R]` float64, seconds to the goal per replicate; inf where it was never reached."""
        return read_times(_numbers(self.member.summary.get("time_to_target")))

    @cached_property
    def replicates(self) -> dict[tuple[int, int], pd.DataFrame]:
        """The evaluations by (draw of the clocks, seed), seeds fastest, as the summary counts."""
        table = self.member.evaluations
        if table.empty:
            return {}
        table = table.sort_values("timeline", kind="stable")
        pairs = dict.fromkeys(zip(table["timeline"].tolist(), table["seed"].tolist(), strict=True))
        table = table.sort_values(by=["update"], kind="stable")
        return {
            (draw, seed): table.loc[(table["timeline"] == draw) & (table["seed"] == seed)]
            for draw, seed in pairs
        }

    @property
    def directions(self) -> Mapping[str, Direction]:
        """Which way each metric improves."""
        return directions_of(self.member)

    def final(self, metric: str) -> np.ndarray:
        """`[R]` float64, the last value of a metric per replicate; the worst where it diverged."""
        given = (self.member.summary.get("final") or {}).get(metric)
        return with_worst(_numbers(given), metric, self.directions)


@dataclass(frozen=True, eq=False)
class Comparison:
    """All members side by side.

    Attributes:
      entries: the members, in the order of their runs.
      axes: paths that tell members apart, those of the sweep and "run".
      numeric: the path of the axis that figures are drawn against, where members are many.
      metric: what is compared first: one that goes up if there is one, the goal's, else the loss.
      goal: what time is measured to, where all members share it.
    """

    entries: tuple[Entry, ...]
    axes: tuple[str, ...]
    numeric: str | None
    metric: str
    goal: Goal | None

    @property
    def groups(self) -> list[str]:
        """Names of the groups, in order."""
        return list(dict.fromkeys(entry.group for entry in self.entries))

    @property
    def grouped(self) -> bool:
        """Whether groups hold several members."""
        return len(self.groups) < len(self.entries)

    def best(self, group: str) -> Entry:
        """The member of a group that reaches the goal first, or else ends best."""
        entries = [entry for entry in self.entries if entry.group == group]
        return min(entries, key=self.rank)

    def rank(self, entry: Entry) -> tuple[float, float]:
        """Smaller is better: the time to the goal, then how near to it, or how good, it ended."""
        metric = self.goal.metric if self.goal else self.metric
        return standing(entry.times, entry.final(metric), metric, entry.directions)


def _numbers(values: object) -> np.ndarray:
    """`[R]` float64 of a list read from a file; NaN stands for what is no number."""
    given = values if isinstance(values, list | tuple) else []
    known = [v if isinstance(v, int | float) else np.nan for v in given]
    return np.asarray(known, float)


def compare(runs: Sequence[Run]) -> Comparison:
    """Members of all runs as one comparison.

    Raises:
      ValueError: no run was given, or none has a member.
    """
    members = [(run, member) for run in runs for member in run.members]
    if not members:
        raise ValueError("report: no runs given; allowed: one run or more, with members")
    points = [dict(member.point) for _, member in members]
    if len(runs) > 1:
        names = _run_names(runs)
        points = [
            {"run": names[id(run)], **point}
            for (run, _), point in zip(members, points, strict=True)
        ]
    axes = _axes(points)
    numeric = _numeric_axis(points, axes) if len(members) > MANY else None
    entries = _entries(members, points, axes, numeric)
    goals = {entry.goal for entry in entries}
    goal = goals.pop() if len(goals) == 1 else None
    return Comparison(entries, axes, numeric, _metric(entries, goal), goal)


def _entries(
    members: list[tuple[Run, Member]],
    points: list[dict[str, Any]],
    axes: tuple[str, ...],
    numeric: str | None,
) -> tuple[Entry, ...]:
    labels = [_label(point, axes) for point in points]
    for index, (_, member) in enumerate(members):
        # a label that does not merely spell out the point was written by a person
        if member.label and not any(member.label.startswith(f"{path}=") for path in points[index]):
            run = points[index].get("run") if "run" in axes else None
            labels[index] = f"{run}: {member.label}" if run else member.label
    others = tuple(axis for axis in axes if axis != numeric)
    groups = [_label(p, others) or "all" for p in points] if numeric else labels
    order = list(dict.fromkeys(groups))
    return tuple(
        Entry(
            run=run,
            member=member,
            label=label or run.name,
            group=group or run.name,
            colour=order.index(group),
            axes={axis: show(point[axis]) if axis in point else "" for axis in axes},
            position=float(point[numeric]) if numeric else None,
        )
        for (run, member), point, label, group in zip(members, points, labels, groups, strict=True)
    )


def _run_names(runs: Sequence[Run]) -> dict[int, str]:
    """The names of the runs, with their ids where names repeat."""
    names = [run.name for run in runs]
    return {
        id(run): run.name if names.count(run.name) == 1 else f"{run.name}/{run.id}" for run in runs
    }


def _axes(points: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Paths on which points differ, in the order in which they appear."""
    paths = dict.fromkeys(path for point in points for path in point)
    return tuple(
        p for p in paths if len({show(point[p]) if p in point else "" for point in points}) > 1
    )


def _numeric_axis(points: Sequence[Mapping[str, Any]], axes: Sequence[str]) -> str | None:
    """The axis of most distinct numbers."""
    distinct = {}
    for axis in axes:
        values = [point.get(axis) for point in points]
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            distinct[axis] = len(set(values))
    axis = max(distinct, key=lambda name: distinct[name], default=None)
    return axis if axis and distinct[axis] > 2 else None


def short_names(axes: Sequence[str]) -> dict[str, str]:
    """Paths without what goes without saying: `protocol.name` is protocol."""
    short = {axis: _short(axis) for axis in axes}
    taken = list(short.values())
    return {axis: name if taken.count(name) == 1 else axis for axis, name in short.items()}


def _short(axis: str) -> str:
    parts = axis.split(".")
    return parts[-2] if len(parts) > 1 and parts[-1] == "name" else parts[-1]


def _label(point: Mapping[str, Any], axes: Sequence[str]) -> str:
    """Values of names speak for themselves; others say what they are values of."""
    names = short_names(axes)
    return ", ".join(
        show(point[axis])
        if axis == "run" or _named(point[axis])
        else _told(names[axis], point[axis])
        for axis in axes
        if axis in point
    )


def _named(value: Any) -> bool:
    """Whether a value tells what it is: a name, a mapping with one, or some of them in a row."""
    if isinstance(value, list | tuple):
        return bool(value) and all(map(_named, value))
    return isinstance(value, str | Mapping) and bool(value)


def _told(name: str, value: Any) -> str:
    text = show(value)
    return f"{name}: {text}" if text == "none" else f"{name} {text}"


def show(value: Any) -> str:
    """A value of a config in few characters: a mapping by its name, what is empty as none."""
    if isinstance(value, str | Mapping | list | tuple) and not value:
        return "none"
    if isinstance(value, Mapping):
        rest = ", ".join(f"{key} {show(each)}" for key, each in value.items() if key != "name")
        name = str(value.get("name", ""))
        return f"{name} ({rest})" if rest and name else rest or name
    if isinstance(value, list | tuple):
        items = ", ".join(map(show, value))
        return items if _named(value) else f"[{items}]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _metric(entries: Sequence[Entry], goal: Goal | None) -> str:
    known = [set(e.member.evaluations.columns) for e in entries if not e.member.evaluations.empty]
    common = set.intersection(*known) if known else set()
    first = [str(name) for name in entries[0].member.evaluations if name in common]
    shown = headline(first, entries[0].directions)
    return goal.metric if shown == "loss" and goal and goal.metric in common else shown
