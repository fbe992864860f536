"""One point of a run on its way: its parts, its files, and what has come in."""

from __future__ import annotations

import itertools
import json
import os
import stat
import threading
from collections.abc import Mapping, Sequence
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
from sgdlab.training.checkpoints.writing import telling


class PointLog(training.MetricsLog):
    """The metrics file of a point, which all its replicates write to.

    What it held is no part of a resumed run: the first replicate that goes on empties it, and each
    writes again what its checkpoint holds. So no damage of the file outlives a resume.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            self.close()
            raise training.CheckpointError(f"{path}: is no regular file; allowed: a file")
        self._lock = threading.Lock()
        self._is_anew = False

    def append(self, line: str) -> None:
        """Add a line."""
        with self._lock:
            super().append(line)

    def begin_anew(self) -> None:
        """Empty it, once."""
        with self._lock, telling(self.path):
            if not self._is_anew:
                os.ftruncate(self._file, 0)
                self._is_anew = True


@dataclass(frozen=True)
class ReplicateLog:
    """The part of a point's metrics file that one replicate writes.

    Attributes:
      log: of the point.
      seed: of the replicate.
      draw: of the clocks.
    """

    log: PointLog
    seed: int
    draw: int

    def sync(self) -> int:
        """Bring all lines to the disk; 0, since a resume keeps none of them."""
        self.log.sync()
        return 0

    def truncate(self, offset: int) -> None:
        """Begin the file anew, unless another replicate has."""
        del offset
        self.log.begin_anew()

    def restore(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write again what the checkpoint holds."""
        for row in rows:
            self.log.append(to_line({"seed": self.seed, "timeline": self.draw, **row}))


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
            self.log.append(to_line(row))


def finish(folder: RunFolder, work: Work) -> None:
    """Write what a point has brought, its evaluations in order, and say how it ended."""
    work.status = "aborted" if work.errors else "done"
    seeds = len(work.point.config.run_seeds)
    arrays: dict[str, np.ndarray] = {}
    for draw in range(len(work.timelines)):
        histories = work.histories[draw * seeds : (draw + 1) * seeds]
        longest = max(histories, key=lambda history: len(history.loss))
        rows = {"loss": [h.loss for h in histories]}
        none = np.zeros(0, np.float32)
        rows |= {n: [h.measures.get(n, none) for h in histories] for n in longest.measures}
        for name, values in rows.items():
            arrays[f"{name}_{draw}"] = _stack(values, len(longest.loss))
        arrays[f"staleness_{draw}"] = np.asarray(longest.staleness, np.float32)
        arrays[f"time_{draw}"] = np.asarray(longest.time, np.float64)
    folder.write_arrays(arrays, *work.parts, "history.npz")
    lines = [
        to_line({"seed": seed, "timeline": draw, **row})
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


def to_line(row: Mapping[str, Any]) -> str:
    """An evaluation as the metrics file has it."""
    return json.dumps(to_json(dict(row)), allow_nan=False)
