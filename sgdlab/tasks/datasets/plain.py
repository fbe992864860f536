"""Plain text, as bytes."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from sgdlab.tasks.datasets.dataset import DataError, read_bytes


def load_text(path: str | PathLike[str]) -> bytes:
    """A text file's bytes, in whatever encoding it has.

    Args:
      path: the file; unpacked where it is gzip, bzip2 or xz by its content.

    Returns:
      The bytes, at least one.

    Raises:
      DataError: the file is missing, damaged, empty or too large.
    """
    content = bytes(read_bytes(Path(path)))
    if not content:
        raise DataError(f"{path}: offset 0: the file is empty")
    return content
