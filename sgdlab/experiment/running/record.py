"""The run's summary, written anew whenever it changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import numpy as np

from sgdlab.experiment.config.experiment import Experiment
from sgdlab.experiment.errors import ExperimentError
from sgdlab.experiment.folders.folder import RunFolder, to_json
from sgdlab.experiment.folders.seal import (
    Files,
    find_of,
    find_own,
    measure,
    measure_all,
    write_summary,
)
from sgdlab.experiment.folders.summary import FINISHED
from sgdlab.experiment.running.work import Work
from sgdlab.statistics import time_to
from sgdlab.timelines import Timeline, head


class Record:
    """What `summary.json` says.

    Args:
      experiment: what is run.
      folder: where to.
      works: its points.
      before: the summary that an earlier part of the run has left: its start and its wall time.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: RunFolder,
        works: list[Work],
        before: Mapping[str, Any],
    ) -> None:
        self._experiment, self._folder, self._works = experiment, folder, works
        self._started = before.get("started") or datetime.now(UTC).isoformat(timespec="seconds")
        self._clock = time.monotonic() - (before.get("wall_seconds") or 0.0)
        self._final: dict[str, dict[str, Any]] = {}
        self._sealed: set[int] = set()

    def write(self, *, done: bool = False) -> None:
        """Write it: what is final so far is sealed, or nothing where claims are still to be judged.

        Args:
          done: every point has come to its end.
        """
        if not done:
            self._write("running", self._find_final)
            return
        ended = {work.status for work in self._works}
        status = "failed" if "failed" in ended else "aborted" if ended == {"aborted"} else "done"
        self._write(status, dict)

    def _write(
        self, status: str, find_files: Callable[[], Files], error: str | None = None
    ) -> None:
        goal = self._experiment.points[0].config.goal
        for work in self._works:
            if work.status in FINISHED and work.entry is None:
                work.entry = describe(work)
        if not self._folder.writes:
            return
        write_summary(
            self._folder,
            {
                "status": status,
                "started": self._started,
                "wall_seconds": round(time.monotonic() - self._clock, 3),
                "programs": len(self._experiment.groups),
                "runs": self._experiment.num_runs,
                "target": goal and goal.model_dump(exclude_none=True),
                **({} if error is None else {"error": error}),
                "members": [work.entry or describe(work) for work in self._works],
            },
            find_files(),
        )

    def _find_final(self) -> Files:
        """What will not change any more: the run's own files, and those of finished points."""
        path = self._folder.path
        if not self._final:
            self._final = measure(path, find_own(path))
        for work in self._works:
            if work.entry is not None and work.point.index not in self._sealed:
                self._sealed.add(work.point.index)
                self._final |= measure(path, find_of(path, "/".join(work.parts)))
        return self._final

    def interrupt(self, error: str | None = None) -> None:
        """Say that it ended early; the failure itself matters more than that this one fails.

        Args:
          error: why, in one line, where nobody asked for it.
        """
        for work in self._works:
            if work.status == "running":
                work.status = "interrupted"
        with suppress(ExperimentError):
            self._write("interrupted", lambda: measure_all(self._folder.path), error)


def describe(work: Work) -> dict[str, Any]:
    """What the summary says of a point."""
    entry = {
        "label": work.point.label,
        "point": work.point.values,
        "config": work.point.config.model_dump(exclude_none=True),
        "folder": "/".join(work.parts),
        "draws": len(work.timelines),
        "status": work.status,
        "updates": work.made,
        "summary": _summarise(work),
    }
    return to_json(entry)


def _summarise(work: Work) -> dict[str, Any]:
    """Where each replicate ended and when it reached the target; what the timelines say of it."""
    timelines = _as_made(work)
    staleness = np.concatenate([t.staleness[t.update >= 0] for t in timelines])
    summary: dict[str, Any] = {
        "mean_staleness": float(staleness.mean()) if len(staleness) else 0.0,
        "max_staleness": int(staleness.max(initial=0)),
        "utilisation": float(np.mean([t.utilisation().mean() for t in timelines])),
        "updates": round(float(np.mean(work.made))) if work.made else None,
        "seconds": float(np.mean([t.seconds for t in timelines])),
        "errors": work.errors,
        "directions": {"loss": "down", **work.directions},
    }
    if work.last_good is not None:
        summary["last_good"] = work.last_good
    if not work.histories:
        return summary
    goal = work.point.config.goal
    if goal is not None:
        bound = {"at_least": goal.at_least, "at_most": goal.at_most}
        summary["time_to_target"] = [
            time_to(
                h.evaluations["time"],
                h.evaluations[goal.metric],
                goal.metric,
                work.directions,
                **bound,
            )
            for h in work.histories
        ]
    metrics = [c for c in work.histories[0].evaluations.columns if c not in ("update", "time")]
    summary["final"] = {
        name: [float(h.evaluations[name].iloc[-1]) for h in work.histories] for name in metrics
    }
    return summary


def _as_made(work: Work) -> list[Timeline]:
    """The timelines as far as replicates have come; whole where none has ended early."""
    seeds = len(work.point.config.run_seeds)
    planned = [timeline for timeline in work.timelines for _ in range(seeds)]
    if all(made == line.num_updates for made, line in zip(work.made, planned, strict=False)):
        return list(work.timelines)
    return [head(timeline, made) for timeline, made in zip(planned, work.made, strict=True)]
