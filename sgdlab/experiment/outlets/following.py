"""A run folder, followed while it is written: every evaluation is handed on once."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from sgdlab.experiment.config.experiment import Experiment, Point

if TYPE_CHECKING:
    from sgdlab.experiment.folders.run import Run
    from sgdlab.experiment.running.making import Progress

Row: TypeAlias = Mapping[str, float]
"""Numbers by their names: `held-out/loss`."""
MAX_UPDATES = 10_000  # of one replicate that are handed on; more are thinned out evenly
_EVERY = 1.0  # seconds between two looks at the files


@dataclass(frozen=True)
class Replicate:
    """One run of one point.

    Attributes:
      index: of the point.
      label: of the point; "" without a sweep.
      draw: of the clocks.
      seed: of the run.
      config: of the point.
    """

    index: int
    label: str
    draw: int
    seed: int
    config: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """A name that a folder can have: the label, as far as it can stand there."""
        label = re.sub(r"[^A-Za-z0-9.=+_-]+", "-", self.label)[:60].strip("-.")
        return f"{self.index}-{label or 'run'}/draw-{self.draw}-seed-{self.seed}"


class Outlet(Protocol):
    """Where metrics go."""

    def write(self, replicate: Replicate, update: int, time: float, row: Row) -> None:
        """Take numbers: of `held-out/...` and `training/...`, at an update and simulated second."""
        ...

    def close(self) -> None:
        """Nothing more will come."""
        ...


class Follower:
    """Reads what a run writes, and hands it on; its `update` is called as results come in.

    Args:
      path: the run folder, which need not be there yet.
      experiment: what is run.
      outlets: where to.
    """

    def __init__(self, path: Path, experiment: Experiment, outlets: Sequence[Outlet]) -> None:
        self._path, self._points, self._outlets = path, experiment.points, outlets
        self._seen: set[tuple[int, int, int, int]] = set()
        self._lock = threading.Lock()
        self._last = -math.inf

    def __enter__(self) -> Follower:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._outlets:
            self._look()
        for outlet in self._outlets:
            outlet.close()

    def update(self) -> None:
        """Look whether there is anything new, at most once a second."""
        with self._lock:
            if self._outlets and time.monotonic() - self._last >= _EVERY:
                self._last = time.monotonic()
                self._look()

    def beside(self, show: Callable[[Progress], None]) -> Callable[[Progress], None]:
        """A `progress` that shows how far it is and looks for what is new."""

        def both(progress: Progress) -> None:
            show(progress)
            self.update()

        return both

    def finish(self, run: Run) -> None:
        """Hand on what stands in a run that has ended: loss, staleness and measures by update."""
        if not self._outlets:
            return
        self._look()
        for point, member in zip(self._points, run.members, strict=True):
            for draw, history in enumerate(member.histories):
                for row, seed in enumerate(point.config.run_seeds):
                    replicate = _replicate(point, draw, seed)
                    self._hand_on_updates(replicate, history, row)

    def _hand_on_updates(
        self, replicate: Replicate, history: Mapping[str, np.ndarray], row: int
    ) -> None:
        made = np.flatnonzero(~np.isnan(history["loss"][row]))
        if len(made) > MAX_UPDATES:
            made = made[np.unique(np.linspace(0, len(made) - 1, MAX_UPDATES).round().astype(int))]
        columns = {
            f"training/{name}": values[row] if values.ndim == 2 else values
            for name, values in history.items()
            if name != "time"
        }
        for update in made:
            values = {name: float(column[update]) for name, column in columns.items()}
            self._write(replicate, int(update) + 1, float(history["time"][update]), values)

    def _look(self) -> None:
        for point in self._points:
            parts = ("members", str(point.index)) if len(self._points) > 1 else ()
            for line in _lines(self._path.joinpath(*parts, "metrics.jsonl")):
                self._hand_on(point, line)

    def _hand_on(self, point: Point, line: Mapping[str, Any]) -> None:
        rest = dict(line)
        seed, draw, update = (int(rest.pop(key)) for key in ("seed", "timeline", "update"))
        key = (point.index, draw, seed, update)
        if key in self._seen:
            return
        self._seen.add(key)
        at = float(rest.pop("time"))
        values = {f"held-out/{k}": math.nan if v is None else float(v) for k, v in rest.items()}
        self._write(_replicate(point, draw, seed), update, at, values)

    def _write(self, replicate: Replicate, update: int, at: float, row: Row) -> None:
        for outlet in self._outlets:
            outlet.write(replicate, update, at, row)


def _replicate(point: Point, draw: int, seed: int) -> Replicate:
    config = point.config.model_dump(mode="json", exclude_none=True)
    return Replicate(point.index, point.label, draw, seed, config)


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics file, as far as there is one."""
    try:
        content = path.read_bytes()
    except OSError:
        return []
    whole = content[: content.rfind(b"\n") + 1]
    return [json.loads(line) for line in whole.splitlines()]
