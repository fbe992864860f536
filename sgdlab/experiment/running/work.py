"""One point of a run on its way: its parts, its files, and what has come in."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sgdlab import training
from sgdlab.experiment.config.experiment import Point
from sgdlab.experiment.folders.folder import RunFolder, to_json
from sgdlab.statistics import Direction
from sgdlab.timelines import Timeline
from sgdlab.training import checkpoints
from sgdlab.training.checkpoints.metrics_log import truncate_metrics

FINISHED = ("done", "aborted")


class PointLog(training.MetricsLog):
    """The metrics file of a point, which all its replicates write to.

    A replicate that goes on from a checkpoint makes the lines behind it again, byte for byte; those
    that the file has already are left out. So nothing is cut back on resume but half a line.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        lines = path.read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            truncate_metrics(path, sum(map(len, lines[:-1])))
        self._held = {line.decode() for line in lines}
        self._lock = threading.Lock()

    def append(self, line: str) -> None:
        """Add a line that the file did not have when it was opened."""
        with self._lock:
            if line + "\n" not in self._held:
                super().append(line)

    def sync(self) -> int:
        """Bring all lines to the disk; 0, since nobody has to cut the file."""
        super().sync()
        return 0

    def truncate(self, offset: int) -> None:
        """Nothing: see above."""


@dataclass
class Work:
    """One point on its way.

    Attributes:
      point: of the sweep.
      timelines: one for each draw.
      parts: its folder below the run's.
      log: its metrics file, while it runs.
      histories: of its replicates, draws first, once they are there.
      status: "running", "interrupted", "done", "aborted" or "failed".
      entry: what the summary says of it, once it has finished.
      checkpoints: the folder of each replicate's.
      failure: why it failed, in one line.
      directions: which way each metric improves, as the task declares.
    """

    point: Point
    timelines: tuple[Timeline, ...]
    parts: tuple[str, ...]
    log: PointLog | None = None
    histories: list[training.History] = field(default_factory=list)
    status: str = "running"
    entry: dict[str, Any] | None = None
    checkpoints: list[Path] = field(default_factory=list)
    failure: str = ""
    directions: Mapping[str, Direction] = field(default_factory=dict)

    @property
    def errors(self) -> list[str]:
        """Why it failed, or why replicates aborted."""
        if self.failure:
            return [self.failure]
        return [history.error for history in self.histories if history.error]

    @property
    def replicates(self) -> list[tuple[int, int]]:
        """(draw, seed) of each run, seeds fastest."""
        draws = range(len(self.timelines))
        return list(itertools.product(draws, self.point.config.run_seeds))

    @property
    def made(self) -> list[int]:
        """Updates that each replicate has made, as far as they are known."""
        return [len(history.loss) for history in self.histories]

    @property
    def num_updates(self) -> int:
        """Planned, over all replicates."""
        return sum(t.num_updates for t in self.timelines) * len(self.point.config.run_seeds)

    @property
    def last_good(self) -> str | None:
        """The newest checkpoint of the first replicate that aborted, below the run's folder."""
        for history, folder in zip(self.histories, self.checkpoints, strict=False):
            if history.error:
                found = checkpoints.find(folder)
                return "/".join(found[0].parts[-4:]) if found else None
        return None

    def fail(self, line: str) -> None:
        """Note why it failed, unless it has finished before."""
        if self.entry is None:
            self.status, self.failure = "failed", line

    def write_line(self, row: Mapping[str, Any]) -> None:
        """Add an evaluation to the metrics file and hand it to the system at once."""
        if self.log is not None:
            self.log.append(_to_line(row))


def finish(folder: RunFolder, work: Work) -> None:
    """Write what a point has brought, its evaluations in order, and say how it ended."""
    work.status = "aborted" if work.errors else "done"
    seeds = len(work.point.config.run_seeds)
    arrays: dict[str, np.ndarray] = {}
    for draw in range(len(work.timelines)):
        histories = work.histories[draw * seeds : (draw + 1) * seeds]
        longest = max(histories, key=lambda history: len(history.loss))
        rows = {"loss": [h.loss for h in histories]}
        rows |= {name: [h.measures[name] for h in histories] for name in longest.measures}
        for name, values in rows.items():
            arrays[f"{name}_{draw}"] = _stack(values, len(longest.loss))
        arrays[f"staleness_{draw}"] = np.asarray(longest.staleness, np.float32)
        arrays[f"time_{draw}"] = np.asarray(longest.time, np.float64)
    folder.write_arrays(arrays, *work.parts, "history.npz")
    lines = [
        _to_line({"seed": seed, "timeline": draw, **row})
        for (draw, seed), history in zip(work.replicates, work.histories, strict=True)
        for row in history.evaluations.to_dict("records")
    ]
    folder.write_text("".join(f"{line}\n" for line in lines), *work.parts, "metrics.jsonl")


def _stack(rows: list[np.ndarray], length: int) -> np.ndarray:
    """`[S, T]` float32, NaN behind the end of a shorter row."""
    stacked = np.full((len(rows), length), np.nan, np.float32)
    for target, row in zip(stacked, rows, strict=True):
        target[: len(row)] = row
    return stacked


def _to_line(row: Mapping[str, Any]) -> str:
    return json.dumps(to_json(dict(row)), allow_nan=False)
