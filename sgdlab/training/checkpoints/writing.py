"""Writing so that it lasts: whole buffers, synced files, synced folders, failures in one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sgdlab.files import open_flags
from sgdlab.training.checkpoints.archive import CheckpointError


def write_all(file: int, data: Any) -> None:
    """Write a whole buffer to a file descriptor, however little the system takes at once."""
    view = memoryview(data)
    while len(view):
        view = view[os.write(file, view) :]


def write_file(path: Path, buffers: list[Any]) -> None:
    """A new file with these bytes, on the disk when this returns."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    flags |= open_flags("O_NOFOLLOW", "O_CLOEXEC", "O_BINARY")
    file = os.open(path, flags, 0o644)
    try:
        for buffer in buffers:
            write_all(file, buffer)
        os.fsync(file)
    finally:
        os.close(file)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each durable in the one that holds it."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir()
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no folders
        return
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextmanager
def telling(path: Path) -> Iterator[None]:
    """Failures of the file system in one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(f"{path}: cannot be written: {reason}") from error
