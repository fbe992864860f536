"""A folder of checkpoints: the last good one is there at every instant.

A new checkpoint is written under another name, synced, renamed, and the folder synced; only then is
an older one removed. Whatever stops a save, and wherever, the folder holds the one before it or the
new one, whole. One writer at a time: the run's lock sees to that.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sgdlab.training.checkpoints.archive import (
    Checkpoint,
    CheckpointError,
    DamagedError,
    Header,
    encode,
    load,
)

_NAME = re.compile(r"checkpoint-([0-9]{12})\.ckpt")
_UNFINISHED = "checkpoint.tmp"


class CheckpointWarning(UserWarning):
    """A damaged checkpoint was passed over for an older one."""


def save(
    folder: str | Path,
    state_tree: Any,
    *,
    update: int,
    metadata: Mapping[str, Any] | None = None,
    keep: int = 2,
) -> Path:
    """Write a checkpoint that is durable when this returns.

    Args:
      folder: where the run's checkpoints lie; made where it is missing.
      state_tree: any pytree of arrays, numbers and typed keys.
      update: how many updates were made; it names the file.
      metadata: what JSON can hold: config hash, metrics offset and the like.
      keep: how many are kept of those up to this update, at least 2.

    Returns:
      The file.

    Raises:
      CheckpointError: it cannot be written; the checkpoints that were there are untouched.
      ValueError: `update` or `keep` is out of range.
    """
    if not 0 <= update < 10**12:
        raise ValueError(f"update: {update} is out of range; allowed: 0 to 10**12 - 1")
    if keep < 2:
        raise ValueError(f"keep: {keep} is too few; at least 2, since the newest may be damaged")
    folder = Path(folder)
    path = folder / f"checkpoint-{update:012d}.ckpt"
    buffers = encode(state_tree, update, metadata or {})
    with telling(path):
        _make_folder(folder)
        unfinished = folder / _UNFINISHED
        try:
            _write(unfinished, buffers)
            os.replace(unfinished, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(unfinished)
            raise
        sync_folder(folder)
        upto = [old for old in find(folder) if _update_of(old) <= update]
        for old in upto[keep:]:
            os.unlink(old)
    return path


def latest(folder: str | Path, like: Any | Callable[[Header], Any]) -> Checkpoint | None:
    """Load the newest checkpoint that is sound.

    Those that are damaged are passed over with one warning, which names them.

    Args:
      folder: where the run's checkpoints lie.
      like: as for `load`.

    Returns:
      The `Checkpoint`, or `None` where the folder holds none at all.

    Raises:
      CheckpointError: there are some and none is sound, or a sound one belongs to another program.
    """
    damaged: list[str] = []
    for path in find(folder):
        try:
            found = load(path, like)
            if found.update != _update_of(path):
                raise DamagedError(f"{path}: holds update {found.update}, not what its name says")
        except DamagedError as error:
            damaged.append(str(error).removeprefix(f"{folder}/"))
            continue
        if damaged:
            text = f"{folder}: passed over {'; '.join(damaged)}; {path.name} is used"
            warnings.warn(text, CheckpointWarning, stacklevel=2)
        return found
    if damaged:
        raise CheckpointError(f"{folder}: no checkpoint is sound: {'; '.join(damaged)}")
    return None


def find(folder: str | Path) -> list[Path]:
    """The checkpoints in a folder by name, newest first; none where there is no folder.

    Raises:
      CheckpointError: the folder cannot be read.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read: {error.strerror}") from error
    return [Path(folder, name) for name in sorted(names, reverse=True) if _NAME.fullmatch(name)]


def write_all(file: int, data: Any) -> None:
    """Write a whole buffer to a file descriptor, however little the system takes at once."""
    view = memoryview(data)
    while len(view):
        view = view[os.write(file, view) :]


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _write(path: Path, buffers: list[Any]) -> None:
    """A new file with these bytes, on the disk when this returns."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(path, flags, 0o644)
    try:
        for buffer in buffers:
            write_all(file, buffer)
        os.fsync(file)
    finally:
        os.close(file)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each durable in the one that holds it."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir()
        sync_folder(folder.parent)


def _update_of(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


@contextmanager
def telling(path: Path) -> Iterator[None]:
    """Failures of the file system in one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(f"{path}: cannot be written: {reason}") from error
