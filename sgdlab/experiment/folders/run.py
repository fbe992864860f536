"""One run of an experiment and the points of its sweep, as arrays and tables."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sgdlab.experiment.claims.judging import Judgement
from sgdlab.experiment.config.notebook import show_claims
from sgdlab.statistics import median, read_times
from sgdlab.timelines import Timeline

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class Member:
    """One point of a run's sweep, or the whole of a run without one; S seeds, D draws, T updates.

    Attributes:
      label: what tells it from the others: `protocol.name=window`; "" without a sweep.
      point: path to value, what the sweep sets.
      config: the whole config at this point.
      status: "done", "aborted" (a value was not finite), "failed", "interrupted" or "running".
      timelines: D of them, one for each draw of the cluster's clocks.
      evaluations: a row for each evaluation: seed, timeline, update, time, loss and the metrics.
      histories: for each draw, `loss` `[S, T]` float32, NaN behind a run's end, `staleness` `[T]`
        float32, and `time` `[T]` float64 in simulated seconds; `distance` and `cosine` `[S, T]`
        float32 where the config asks for these measures.
      summary: `time_to_target` (for each replicate, by draw and then seed; null if never), `final`
        (metric to a value for each replicate; null if it is not finite), `mean_staleness`,
        `utilisation`, `updates` and `seconds` as far as replicates have come, `errors`, and
        `directions` (metric to "up" or "down", as the task declares).
    """

    label: str
    point: dict[str, Any]
    config: dict[str, Any]
    status: str
    timelines: tuple[Timeline, ...]
    evaluations: pandas.DataFrame
    histories: tuple[dict[str, np.ndarray], ...]
    summary: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Run:
    """One run of an experiment.

    Attributes:
      path: its folder.
      name: the experiment's.
      id: the folder's name.
      config: the resolved config, its sweep in it.
      environment: versions, machine, devices, data.
      summary: `status`, `started`, `wall_seconds`, `programs`, `runs`, `target`.
      members: the points of the sweep, in order.
      claims: what came of the experiment's claims; none where there are none, or no end yet.
    """

    path: Path
    name: str
    id: str
    config: dict[str, Any]
    environment: dict[str, Any]
    summary: dict[str, Any]
    members: tuple[Member, ...] = field(repr=False)
    claims: tuple[Judgement, ...] = field(repr=False, default=())

    def to_dataframe(self) -> pandas.DataFrame:
        """The evaluations of all members below one another, with their labels."""
        import pandas

        tables = [member.evaluations.assign(member=member.label) for member in self.members]
        return pandas.concat(tables, ignore_index=True)

    def table(self) -> pandas.DataFrame:
        """A row per member: time to the target, final metrics (mean ± deviation), staleness.

        The time is the median of all replicates, where one that never got there took forever: inf
        where half of them or more did not. A metric of which one replicate has none has no mean.
        """
        import pandas

        return pandas.DataFrame([summarise(member) for member in self.members])

    def _repr_html_(self) -> str:
        title = html.escape(f"{self.name} {self.id}: {self.summary.get('status', '')}")
        table = self.table().to_html(index=False)
        return f"<p><b>{title}</b></p>{table}{show_claims(self.claims)}"


def summarise(member: Member) -> dict[str, Any]:
    """A member's results in one row."""
    summary = member.summary
    row: dict[str, Any] = {"member": member.label or "-", "status": member.status}
    if "time_to_target" in summary:
        times = read_times(summary["time_to_target"])
        row["time to target"] = median(times)
        row["reached"] = f"{np.isfinite(times).sum()}/{len(times)}"
    for metric, values in summary.get("final", {}).items():
        row[metric] = mean_and_deviation(values)
    for key in ("mean_staleness", "utilisation", "updates"):
        row[key.replace("_", " ")] = summary.get(key)
    row["error"] = "; ".join(summary.get("errors", []))
    return row


def mean_and_deviation(values: list[float | None]) -> str:
    """`0.95 ± 0.01` over replicates; what is missing was not finite."""
    finite = np.array([value for value in values if value is not None], np.float64)
    if len(finite) < len(values) or not len(finite):
        return f"{len(values) - len(finite)} of {len(values)} not finite"
    spread = f" ± {finite.std(ddof=1):.2g}" if len(finite) > 1 else ""
    return f"{finite.mean():.4g}{spread}"
