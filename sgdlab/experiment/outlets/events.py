"""TensorBoard: an event file for each replicate, its wall time the simulated one."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from sgdlab.experiment.outlets.following import Replicate, Row


class EventFiles:
    """Event files in `tensorboard/` of a run folder, a folder for each replicate.

    An event's step is the update, and its wall time the simulated second: TensorBoard's "relative"
    axis shows time on the simulated cluster.

    Args:
      path: the run folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path / "tensorboard"
        self._writers: dict[str, Any] = {}

    def write(self, replicate: Replicate, update: int, time: float, row: Row) -> None:
        """Write a scalar for each number."""
        writer = self._writer(replicate)
        for name, value in row.items():
            writer.add_scalar(name, value, update, walltime=time)

    def close(self) -> None:
        """Bring everything to the disk."""
        for writer in self._writers.values():
            writer.close()

    def _writer(self, replicate: Replicate) -> Any:
        name = replicate.folder
        if name not in self._writers:
            # What an earlier part of the run has written is written again, and purged by this.
            make: Any = importlib.import_module("tensorboardX").SummaryWriter
            folder = str(self._path / name)
            self._writers[name] = make(folder, purge_step=0, flush_secs=5)
        return self._writers[name]
