"""Reading within a run folder: regular files alone, and no link below the folder is followed.

What lies in a run folder may come from someone else. A pipe would be waited for, a device may never
end, and a link would show a file of whoever reads; each is refused at once, by name.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from sgdlab.experiment.errors import OutputError
from sgdlab.files import open_flags

MAX_JSON = 64 * 1024 * 1024
MAX_DEPTH = 32


def check_directory(path: Path) -> None:
    """Refuse what is no folder.

    Raises:
      OutputError: it is missing, a symbolic link, or something else.
    """
    mode = _mode(path)
    if stat.S_ISLNK(mode):
        raise OutputError(f"{path}: is a symbolic link; allowed: a folder")
    if not stat.S_ISDIR(mode):
        raise OutputError(f"{path}: is no folder; allowed: a folder")


def find_folder(root: Path, *parts: str) -> Path:
    """A folder within a run's, each one on the way looked at.

    Raises:
      OutputError: as `check_directory`.
    """
    path = root
    check_directory(path)
    for part in parts:
        path = path / part
        check_directory(path)
    return path


def check_regular(path: Path) -> int:
    """The size of a regular file, in bytes.

    Raises:
      OutputError: it is missing, a symbolic link, or something else.
    """
    mode = _mode(path)
    if not stat.S_ISREG(mode):
        what = "a symbolic link" if stat.S_ISLNK(mode) else "no regular file"
        raise OutputError(f"{path}: is {what}; allowed: a file")
    return path.lstat().st_size


@contextmanager
def open_regular(path: Path) -> Iterator[BufferedReader]:
    """A regular file, open for reading.

    Raises:
      OutputError: as `check_regular`, or it cannot be read.
    """
    check_regular(path)
    try:
        # Without waiting: it may have become a pipe since.
        flags = os.O_RDONLY | open_flags("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")
        with os.fdopen(os.open(path, flags), "rb") as file:
            yield file
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{path}: cannot be read: {error.strerror}") from error


def read_bytes(path: Path, limit: int = MAX_JSON) -> bytes:
    """A whole file of no more bytes than the limit.

    Raises:
      OutputError: as `open_regular`, or it is larger.
    """
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OutputError(f"{path}: larger than {limit} bytes; allowed: what a run wrote")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a run.

    Raises:
      OutputError: as `read_bytes`, or it holds something else; a key that stands twice, too.
    """
    try:
        data = json.loads(read_bytes(path), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{path}: damaged: {error}") from error
    if not isinstance(data, dict):
        raise OutputError(f"{path}: damaged: no JSON object")
    if _is_deeper(data, MAX_DEPTH):
        raise OutputError(f"{path}: damaged: more than {MAX_DEPTH} levels deep")
    return data


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{path}: cannot be read: {reason}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key in found if [name for name, _ in pairs].count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice")
    return found


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(each, levels - 1) for each in inside)
