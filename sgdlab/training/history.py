"""What a replay brings back: arrays per update, a table of evaluations, the final parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pandas as pd

from sgdlab.statistics import Direction, direction_of, headline, time_to, with_worst

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class NumericalError(ArithmeticError):
    """A run met a loss or a parameter that is not finite.

    Attributes:
      history: what was computed until then.
    """

    def __init__(self, message: str, history: History | None = None) -> None:
        super().__init__(message)
        self.history = history


@dataclass(frozen=True, eq=False)
class History:
    """One run. T updates were made.

    Attributes:
      loss: `[T]` float32, mean training loss of the messages in each update, without those that
        were left out, unless all were.
      staleness: `[T]` float32, mean staleness in each update.
      time: `[T]` float64, simulated seconds at each update.
      evaluations: a row for version 0 and for the end of each chunk: `update` (how many had been
        made), `time`, `loss` and the task's metrics, all on held-out data. The last row of a run
        that was stopped by a value that is not finite is NaN: nothing is known of it.
      params: the final parameters.
      skipped: `[T]` int32, non-finite messages that each update left out.
      measures: name to `[T]` float32, the mean over each update's messages of what was asked for:
        "distance", ‖w − w_read‖; "cosine", between the message and a fresh one; and "loss_scale",
        the workers' mean after each update, under a dynamic one.
      records: `record(params)` of every version that an update made, leaves `[T, …]`.
      error: `None`, or in one line what stopped the run: where a value was not finite.
      loss_scale: the final loss scale, its leaves `[N]`: every worker has its own.
      member: seed, index of the timeline, and hyperparameters of this run.
      directions: whether each metric improves "up" or "down", as the task declares; the loss goes
        down.
    """

    loss: np.ndarray
    staleness: np.ndarray
    time: np.ndarray
    evaluations: pd.DataFrame
    params: Any
    skipped: np.ndarray
    measures: dict[str, np.ndarray] = field(default_factory=dict)
    records: Any = None
    error: str | None = None
    loss_scale: Any = None
    member: dict[str, Any] = field(default_factory=dict)
    directions: Mapping[str, Direction] = field(default_factory=dict)

    def to_dataframe(self) -> pd.DataFrame:
        """A row per update: update, time, loss, staleness, skipped, and the measures."""
        return pd.DataFrame(
            {
                "update": np.arange(len(self.loss)),
                "time": self.time,
                "loss": self.loss,
                "staleness": self.staleness,
                "skipped": self.skipped,
                **self.measures,
            }
        )

    def time_to(self, metric: str, target: float) -> float:
        """Simulated seconds until an evaluation first reaches the target.

        Args:
          metric: a column of `evaluations`, of which the task says whether it goes up or down.
          target: the value to reach: from below where the metric goes up, else from above.

        Returns:
          Seconds; `inf` if it was never reached.

        Raises:
          ValueError: no such metric, or the task declares no direction for it.
        """
        if metric not in self.evaluations:
            raise ValueError(f"metric {metric!r} is unknown; this run has {_listed(self)}")
        up = direction_of(metric, self.directions) == "up"
        times, values = self.evaluations["time"], self.evaluations[metric]
        bound = {"at_least" if up else "at_most": target}
        return time_to(times, values, metric, self.directions, **bound)

    def plot(self, metric: str | None = None) -> Figure:
        """A metric (the first that goes up, else the loss) against simulated time."""
        return Histories([self]).plot(metric)

    def _repr_html_(self) -> str:
        last = self.evaluations.tail(1).to_html(index=False)
        return f"<p>{len(self.loss)} updates in {_last(self.time):.4g} simulated seconds</p>{last}"


class Histories(Sequence[History]):
    """The runs of one sweep, in the order product(timelines, hyperparameters, seeds)."""

    def __init__(self, histories: Sequence[History]) -> None:
        self._histories = tuple(histories)

    @overload
    def __getitem__(self, index: int) -> History: ...
    @overload
    def __getitem__(self, index: slice) -> Histories: ...
    def __getitem__(self, index):
        chosen = self._histories[index]
        return Histories(chosen) if isinstance(index, slice) else chosen

    def __len__(self) -> int:
        return len(self._histories)

    def __iter__(self) -> Iterator[History]:
        return iter(self._histories)

    @property
    def members(self) -> list[dict[str, Any]]:
        """Seed, timeline and hyperparameters of each run."""
        return [history.member for history in self]

    def to_dataframe(self) -> pd.DataFrame:
        """The evaluations of all runs below one another, with their members' columns."""
        return pd.concat(
            [history.evaluations.assign(**history.member) for history in self], ignore_index=True
        )

    def plot(self, metric: str | None = None) -> Figure:
        """A metric against simulated time, seeds and timelines as a band; as `History.plot`."""
        from sgdlab import plots

        metric = metric or headline(_metrics(self[0]), self[0].directions)
        worst = float(with_worst(np.nan, metric, self[0].directions))
        groups: dict[str, list[History]] = {}
        for history in self:
            groups.setdefault(_label(history.member), []).append(history)
        series = [
            plots.Series(
                label,
                *plots.resample(
                    [h.evaluations["time"].to_numpy() for h in runs],
                    [h.evaluations[metric].to_numpy() for h in runs],
                    lost=worst,
                ),
            )
            for label, runs in groups.items()
        ]
        return plots.curves(series, x_label="simulated seconds", y_label=metric)

    def _repr_html_(self) -> str:
        rows = [h.evaluations.tail(1).assign(**h.member) for h in self]
        return pd.concat(rows).to_html(index=False)


def _metrics(history: History) -> list[str]:
    return [str(name) for name in history.evaluations if name not in ("update", "time")]


def _listed(history: History) -> str:
    return ", ".join(_metrics(history))


def _label(member: dict[str, Any]) -> str:
    return ", ".join(f"{k}={v:g}" for k, v in member.items() if k not in ("seed", "timeline"))


def _last(column: np.ndarray) -> float:
    return float(column[-1]) if len(column) else 0.0
