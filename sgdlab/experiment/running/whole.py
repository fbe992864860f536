"""What of a run is whole when a file of it could not be written, or read."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sgdlab.experiment.errors import OutputError
from sgdlab.experiment.running.work import Work
from sgdlab.training import CheckpointError, ResumeError, checkpoints


@contextmanager
def telling_what_is_whole(path: Path, works: Sequence[Work]) -> Iterator[None]:
    """A failure of the run's files, with a note of what is left and how to go on."""
    try:
        yield
    except (CheckpointError, OutputError) as error:
        if not isinstance(error, ResumeError):
            error.add_note(describe_whole(path, works))
        raise


def describe_whole(path: Path, works: Sequence[Work]) -> str:
    """What stands in a run folder and can be relied on, in a line.

    Every file is written beside its place before it takes its name, so what has one is whole.

    Args:
      path: the run folder.
      works: the points of the run.
    """
    if not os.path.lexists(path / "config.yaml"):
        return "nothing of the run is there"
    finished = sum(work.entry is not None for work in works)
    parts = [f"{finished} of {len(works)} points finished"] if len(works) > 1 or finished else []
    if finished < len(works):
        found = [checkpoints.find(folder)[:1] for folder in path.glob("checkpoints/*/*")]
        updates = [int(newest.stem.rpartition("-")[2]) for (newest,) in filter(None, found)]
        parts.append(_show_updates(updates))
    how = f"sgdlab run --resume {shlex.quote(str(path))}"
    return f"whole: {', '.join(parts)}; once the cause is gone, go on with: {how}"


def _show_updates(updates: list[int]) -> str:
    """The newest checkpoint of each replicate that has one."""
    if not updates:
        return "no checkpoint yet"
    low, high = min(updates), max(updates)
    return f"checkpoints of update {low}" + (f" to {high}" if high > low else "")
