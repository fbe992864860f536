"""The run folder: one run, one folder, one lock; files appear whole or not at all.

`root/name/id/`, where the id is the UTC time and six random hex digits, so that folders sort by
age and twenty launches in a second make twenty folders. No symbolic link is followed below the
root.
"""

from __future__ import annotations

import io
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from sgdlab.experiment.errors import BusyError, OutputError
from sgdlab.experiment.folders.files import check_directory, check_regular
from sgdlab.files import open_flags, take_lock

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LOCK = "lock"
_TEMPORARY = re.compile(
    r"\.(config\.yaml|(summary|claims|environment(-[0-9]+)?)\.json|timeline(-[0-9]+)?\.npz"
    r"|metrics\.jsonl|history\.npz|report\.html)\.[0-9a-f]{8}\.tmp"
)
_ATTEMPTS = 20


class RunFolder:
    """A run folder that this process holds the lock of, until it is closed.

    Attributes:
      path: the folder.
      lock: the descriptor that holds the lock; whoever inherits it holds it too.
      writes: whether anything that is written here is kept.
    """

    writes = True

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.lock = lock

    @property
    def id(self) -> str:
        """The folder's own name."""
        return self.path.name

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back. The file stays: it means nothing without its holder."""
        os.close(self.lock)

    def clear(self) -> None:
        """Remove what a process that was killed has left half written."""
        for where, _, names in os.walk(self.path):
            for name in names:
                if _TEMPORARY.fullmatch(name):
                    with telling(Path(where, name)):
                        os.unlink(Path(where, name))

    def directory(self, *parts: str) -> Path:
        """A folder within the run's, made where it is missing."""
        path = self.path
        for part in parts:
            path = path / part
            _make_directory(path)
        return path

    def write_text(self, text: str, *parts: str) -> Path:
        """Write a text file atomically."""
        return write_file(self.directory(*parts[:-1]) / parts[-1], text.encode())

    def write_json(self, data: Any, *parts: str) -> Path:
        """Write a JSON file atomically; values that are not finite become null."""
        text = json.dumps(to_json(data), indent=1, allow_nan=False)
        return self.write_text(text + "\n", *parts)

    def write_arrays(self, arrays: dict[str, np.ndarray], *parts: str) -> Path:
        """Write an uncompressed `.npz` file atomically."""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        return write_file(self.directory(*parts[:-1]) / parts[-1], buffer.getvalue())


def create_folder(root: str | Path, name: str, run_id: str | None = None) -> RunFolder:
    """Make a new run folder and take its lock.

    Args:
      root: where all runs lie; made where it is missing.
      name: the experiment's.
      run_id: the folder's name; by default a new one that sorts by time.

    Raises:
      BusyError: the folder of that id is another process's.
      OutputError: the folder cannot be made, or is there already.
    """
    for text, what in ((name, "name"), (run_id or "x", "id")):
        if not NAME.fullmatch(text):
            raise OutputError(f"{what}: {text!r} given; allowed: {NAME.pattern}")
    parent = Path(root) / name
    with telling(Path(root)):
        Path(root).mkdir(parents=True, exist_ok=True)
    _make_directory(parent)
    for _ in range(_ATTEMPTS):
        path = parent / (run_id or new_id())
        try:
            path.mkdir()
        except FileExistsError:
            if run_id is None:
                continue
            open_folder(path).close()  # says so if it is busy
            raise OutputError(f"{path}: exists; allowed: a new id") from None
        except OSError as error:
            raise OutputError(f"{path}: cannot be made: {error.strerror}") from error
        return open_folder(path)
    raise OutputError(f"{parent}: no free id in {_ATTEMPTS} attempts; try again")


def open_folder(path: str | Path) -> RunFolder:
    """Take the lock of a run folder that is there.

    Raises:
      BusyError: another process holds it.
      OutputError: it is no folder, a symbolic link, or cannot be written.
    """
    path = Path(path)
    check_directory(path)
    if os.path.lexists(path / LOCK):
        check_regular(path / LOCK)
    with telling(path):
        flags = os.O_RDWR | os.O_CREAT
        flags |= open_flags("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC")
        lock = os.open(path / LOCK, flags, 0o644)
    try:
        take_lock(lock)
    except OSError as error:
        os.close(lock)
        if isinstance(error, BlockingIOError):
            raise BusyError(f"{path}: busy: another process is writing this run") from None
        raise OutputError(f"{path}: cannot be locked: {error.strerror}") from error
    return RunFolder(path, lock)


def find_config(path: str | Path) -> Path:
    """The config of a run folder that is there.

    Raises:
      OutputError: it is no run folder, or a link to one; or its config is no regular file.
    """
    path = Path(path)
    if not os.path.lexists(path / "config.yaml"):
        raise OutputError(f"{path}: no run folder; allowed: a folder with a config.yaml")
    check_directory(path)
    check_regular(path / "config.yaml")
    return path / "config.yaml"


def is_busy(path: Path) -> bool:
    """Whether another process holds the run folder."""
    try:
        lock = os.open(path / LOCK, os.O_RDONLY | open_flags("O_NOFOLLOW", "O_NONBLOCK"))
    except OSError:
        return False
    try:
        take_lock(lock, shared=True)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def write_file(path: Path, content: bytes) -> Path:
    """Write a file beside its place, sync it, and let it take its name.

    Raises:
      OutputError: it cannot be written; nothing is left behind.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with telling(path), open(beside, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with telling(path):
            os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def to_json(value: Any) -> Any:
    """The value as strict JSON can hold it: NumPy unwrapped, what is not finite as null."""
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [to_json(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


@contextmanager
def telling(path: Path) -> Iterator[None]:
    """Failures of the file system in one line."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


def _make_directory(path: Path) -> None:
    with telling(path):
        path.mkdir(exist_ok=True)
    check_directory(path)


def new_id() -> str:
    """An id that no other run has, and that sorts by time."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
