"""Which way a metric improves, when it has reached a value, and what counts where it failed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

Direction: TypeAlias = Literal["up", "down"]
"""Whether more of a metric is better, or less."""
Directions: TypeAlias = Mapping[str, Direction]

_WORST = {"up": -math.inf, "down": math.inf, None: math.nan}


def check_directions(directions: Directions) -> None:
    """Whether a task may declare these; the loss goes down without being declared.

    Raises:
      ValueError: a direction is neither "up" nor "down", or the loss goes up.
    """
    for metric, direction in directions.items():
        if direction not in ("up", "down"):
            raise ValueError(f'directions: {metric} is {direction!r}; allowed: "up" or "down"')
    if directions.get("loss", "down") != "down":
        raise ValueError('directions: loss is "up"; allowed: "down", since a loss is minimised')


def direction_of(metric: str, directions: Directions) -> Direction:
    """Which way a metric improves.

    Args:
      metric: its name; "loss" goes down.
      directions: what its task declares.

    Raises:
      ValueError: the task declares none for it.
    """
    direction = _find(metric, directions)
    if direction is None:
        known = ", ".join({"loss": "", **directions})
        raise ValueError(
            f"metric {metric!r} has no direction; allowed: {known}, or what the task declares, "
            f"as in Task(..., directions={{{metric!r}: 'up'}})"
        )
    return direction


def with_worst(values: Any, metric: str, directions: Directions) -> np.ndarray:
    """Values of a metric, the worst there is where one is not finite.

    Args:
      values: `[...]`, numbers; `None` counts as not finite.
      metric: its name.
      directions: what its task declares.

    Returns:
      `[...]` float64: −inf in place of what is not finite where the metric goes up, inf where it
      goes down, NaN where it has no direction.
    """
    values = np.asarray(values, np.float64)
    return np.where(np.isfinite(values), values, _WORST[_find(metric, directions)])


def first_reaching(
    values: Any,
    metric: str,
    directions: Directions,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> int | None:
    """The place of the first value that reaches a bound; exactly one bound is given.

    What is not finite counts as the worst value; where the metric has no direction it reaches
    nothing.

    Args:
      values: `[E]`, the metric's, in the order of the evaluations.
      metric: its name.
      directions: what its task declares.
      at_least: reached from below.
      at_most: reached from above.

    Returns:
      The index, or `None` if none does.
    """
    values = with_worst(values, metric, directions)
    met = values >= at_least if at_least is not None else values <= at_most
    return int(met.argmax()) if met.any() else None


def time_to(times: Any, values: Any, metric: str, directions: Directions, **bound: Any) -> float:
    """The time of the first value that reaches a bound.

    Args:
      times: `[E]`, when each value was measured.
      values, metric, directions, **bound: as `first_reaching` takes them.

    Returns:
      The time, in the unit of `times`; `inf` if the bound was never reached.
    """
    place = first_reaching(values, metric, directions, **bound)
    return math.inf if place is None else float(np.asarray(times)[place])


def read_times(values: Iterable[float | None]) -> np.ndarray:
    """`[R]` float64 of times as JSON holds them, where null stands for never: `inf`."""
    times = np.asarray(list(values), np.float64)
    return np.where(np.isnan(times), math.inf, times)


def median(values: Any) -> float:
    """The median of all replicates, those that failed among them: of {a, b, c, inf}, (b + c) / 2.

    NaN where there is no replicate.
    """
    return float(np.median(values)) if len(values) else math.nan


def standing(times: Any, finals: Any, metric: str, directions: Directions) -> tuple[float, float]:
    """What members are ranked by: the median time to the target, then the median of the metric.

    Args:
      times: `[R]`, seconds to the target; none where there is no target.
      finals: `[R]`, the metric's last values.
      metric: its name.
      directions: what its task declares.

    Returns:
      Two numbers, less is better; infinite where the replicates have none.
    """
    value = median(with_worst(finals, metric, directions))
    value = -value if _find(metric, directions) == "up" else value
    time = median(times)
    return math.inf if math.isnan(time) else time, math.inf if math.isnan(value) else value


def headline(metrics: Sequence[str], directions: Directions) -> str:
    """The metric that is shown first: the first that goes up, else the loss."""
    return next((name for name in metrics if _find(name, directions) == "up"), "loss")


def _find(metric: str, directions: Directions) -> Direction | None:
    return "down" if metric == "loss" else directions.get(metric)
