"""Weights & Biases: a run for each replicate, grouped by its point."""

from __future__ import annotations

import importlib
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sgdlab.experiment.outlets.following import Replicate, Row


class TrackedRuns:
    """Runs of Weights & Biases, written at the end, in order of their updates.

    They are kept in the run folder and sent nowhere (`wandb sync` sends them later), unless the
    environment says `WANDB_MODE=online`. `WANDB_PROJECT` names the project, by default "sgdlab".

    Args:
      path: the run folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[str, dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
        self._replicates: dict[str, Replicate] = {}

    def write(self, replicate: Replicate, update: int, time: float, row: Row) -> None:
        """Keep the numbers until the end."""
        self._replicates[replicate.folder] = replicate
        self._rows[replicate.folder][update] |= {"seconds": time, **row}

    def close(self) -> None:
        """Write the runs, one after the other."""
        for name, rows in self._rows.items():
            self._log(self._replicates[name], rows)

    def _log(self, replicate: Replicate, rows: Mapping[int, Row]) -> None:
        wandb: Any = importlib.import_module("wandb")
        experiment, run_id = self._path.parent.name, self._path.name
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "sgdlab"),
            mode=os.environ.get("WANDB_MODE", "offline"),
            dir=str(self._path),
            id=f"{experiment[:40]}-{run_id}-{replicate.index}-{replicate.draw}-{replicate.seed}",
            resume="allow",
            name=f"{replicate.label or experiment}, draw {replicate.draw}, seed {replicate.seed}",
            group=f"{experiment}/{run_id}: {replicate.label or experiment}"[:128],
            tags=[experiment],
            config={**replicate.config, "seed": replicate.seed, "timeline": replicate.draw},
            settings=wandb.Settings(silent=True, console="off", disable_git=True),
        )
        for axis in ("update", "seconds"):
            run.define_metric(axis, hidden=True)
        run.define_metric("*", step_metric="update")
        for update in sorted(rows):
            run.log({"update": update, **rows[update]})
        run.finish()
