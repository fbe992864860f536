"""Best rates at the edge of their grid: a better one may lie beyond."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sgdlab.experiment.claims.measuring import directions_of
from sgdlab.experiment.claims.selecting import leaves
from sgdlab.experiment.folders.run import Member
from sgdlab.statistics import headline, read_times, standing

_RATE = "learning_rate"
_SHOWN = 3  # labels that a line names


@dataclass(frozen=True)
class Edge:
    """A best rate that is the smallest or the largest tried.

    Attributes:
      path: of the rate in the config.
      value: the best one.
      side: "smallest" or "largest".
      label: of the point that has it.
    """

    path: str
    value: float
    side: str
    label: str


def find_edges(members: Sequence[Member]) -> list[Edge]:
    """The best rates of a sweep that have no worse one on both sides.

    Points that differ in their learning rates alone are a grid; its best point has the least median
    time to the target, or else ends with the best metric. A grid in which none of them brought
    anything has no best one, and one where a rate within is as good has it within.

    Args:
      members: the points of a sweep, run.

    Returns:
      An `Edge` for each grid and each learning rate of it.
    """
    grids: dict[str, list[tuple[Member, dict[str, float]]]] = {}
    for member in members:
        every = dict(leaves("", member.config))
        rates = {path: value for path, value in every.items() if _is_rate(path, value)}
        rest = json.dumps({p: v for p, v in every.items() if p not in rates}, default=str)
        grids.setdefault(rest, []).append((member, rates))
    return [edge for grid in grids.values() for edge in _edges(grid)]


def describe_edges(members: Sequence[Member]) -> list[str]:
    """The edges of a sweep in words, one line for each rate and side."""
    found: dict[tuple[str, str], list[Edge]] = {}
    for edge in find_edges(members):
        found.setdefault((edge.path, edge.side), []).append(edge)
    return [_describe(path, side, edges) for (path, side), edges in found.items()]


def _describe(path: str, side: str, edges: Sequence[Edge]) -> str:
    values = ", ".join(f"{value:g}" for value in dict.fromkeys(edge.value for edge in edges))
    labels = ", ".join(edge.label for edge in edges[:_SHOWN])
    more = f" and {len(edges) - _SHOWN} more" if len(edges) > _SHOWN else ""
    return (
        f"{path}: the best rate is the {side} of its grid, {values}, at {labels}{more}; "
        "a better one may lie beyond"
    )


def _edges(grid: Sequence[tuple[Member, Mapping[str, float]]]) -> list[Edge]:
    ranks = [_rank(member) for member, _ in grid]
    best = min(ranks)
    if best == (float("inf"), float("inf")):
        return []
    member, at = grid[ranks.index(best)]
    edges = []
    for path, value in at.items():
        values = sorted({rates[path] for _, rates in grid})
        level = [rates[path] for (_, rates), rank in zip(grid, ranks, strict=True) if rank == best]
        if len(values) > 1 and all(each in (values[0], values[-1]) for each in level):
            side = "smallest" if value == values[0] else "largest"
            edges.append(Edge(path, value, side, member.label))
    return edges


def _rank(member: Member) -> tuple[float, float]:
    """Less is better: the median time to the target, then the metric in the end."""
    directions, final = directions_of(member), member.summary.get("final") or {}
    goal = member.config.get("target") or member.config.get("stop")
    metric = goal["metric"] if isinstance(goal, Mapping) else headline(list(final), directions)
    times = read_times(member.summary.get("time_to_target") or ())
    values = [float("nan") if value is None else value for value in final.get(metric) or ()]
    return standing(times, values, metric, directions)


def _is_rate(path: str, value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return path.rpartition(".")[2] == _RATE and number
