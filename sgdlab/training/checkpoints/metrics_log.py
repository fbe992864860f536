"""A file of lines that a resumed run continues exactly: no line twice, none lost, none cut.

Before a checkpoint is written the log is synced and its length goes into the checkpoint. On resume
the log is cut back to that length: lines that came after the checkpoint, the last of them perhaps
half written, will be made again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from sgdlab.files import open_flags
from sgdlab.training.checkpoints.archive import CheckpointError
from sgdlab.training.checkpoints.writing import sync_folder, telling, write_all


class Log(Protocol):
    """What a replay needs of the file that its callback writes to."""

    def sync(self) -> int:
        """Bring all lines to the disk; the offset behind the last one."""
        ...

    def truncate(self, offset: int) -> None:
        """Go back to what a checkpoint has seen, which is nothing where the offset is 0."""
        ...

    def restore(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take the evaluations that the checkpoint holds, in case the file lacks them."""
        ...


class MetricsLog:
    """An append-only text file; each line reaches the system as a whole when it is added.

    Attributes:
      path: the file; made where it is missing, its name durable from then on.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        flags |= open_flags("O_NOFOLLOW", "O_CLOEXEC", "O_BINARY")
        flags |= open_flags("O_NONBLOCK")  # nor wait for a pipe
        with telling(self.path):
            self._file = os.open(self.path, flags, 0o644)
            sync_folder(self.path.parent)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, line: str) -> None:
        """Add a line.

        Raises:
          CheckpointError: it cannot be written.
          ValueError: the text holds a line's end.
        """
        if "\n" in line:
            raise ValueError(f"metrics: {line!r} is more than one line")
        with telling(self.path):
            write_all(self._file, (line + "\n").encode())

    def sync(self) -> int:
        """Bring all lines to the disk; returns the offset in bytes behind the last one."""
        with telling(self.path):
            os.fsync(self._file)
            return os.fstat(self._file).st_size

    def truncate(self, offset: int) -> None:
        """See `truncate_metrics`."""
        truncate_metrics(self.path, offset)

    def restore(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Nothing: the file has them."""

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def truncate_metrics(path: str | Path, offset: int) -> None:
    """Cut a file of lines back to what a checkpoint has seen of it, and sync.

    Args:
      path: the file; it may be missing where the offset is 0.
      offset: bytes, from `MetricsLog.sync`.

    Raises:
      CheckpointError: the file is shorter than that, or no line ends there: it is not the file that
        the checkpoint was written beside.
    """
    path = Path(path)
    flags = os.O_RDWR | open_flags("O_NOFOLLOW", "O_CLOEXEC", "O_BINARY")
    with telling(path):
        try:
            file = os.open(path, flags)
        except FileNotFoundError:
            if offset:
                raise
            return
        try:
            size = os.fstat(file).st_size
            if not 0 <= offset <= size:
                raise CheckpointError(f"{path}: has {size} bytes; the checkpoint saw {offset}")
            if offset and os.pread(file, 1, offset - 1) != b"\n":
                raise CheckpointError(f"{path}: no line ends at byte {offset}, as it did before")
            os.ftruncate(file, offset)
            os.fsync(file)
        finally:
            os.close(file)
