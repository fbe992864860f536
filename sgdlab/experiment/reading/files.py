"""The files that a config names: what they are relative to, and how one is told to be wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sgdlab.experiment.errors import ConfigError, DataFileError
from sgdlab.tasks.datasets.embedded import EMBEDDED

_SECTIONS = ("task", "cluster", "protocol", "sweep")
_OF_A_TASK = (("task", "dataset"), ("task", "test"))


def resolve_paths(data: Any, folder: str | Path, key: tuple[str, ...] = ()) -> Any:
    """A copy of a config in which every file is named from the root of the file system.

    Args:
      data: the plain data of a config; its sweep may name files too.
      folder: what relative paths are relative to; `~` is the home folder.
      key: where the data stand in the config.
    """
    if isinstance(data, Mapping):
        return {
            name: resolve_paths(value, folder, (*key, *str(name).split(".")))
            for name, value in data.items()
        }
    if isinstance(data, list):
        return [resolve_paths(value, folder, key) for value in data]
    return os.path.abspath(Path(folder, _expand(data))) if _is_path(key, data) else data


def find_paths(data: Any, key: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Every file that a config names: the dotted key, and the path."""
    if isinstance(data, Mapping):
        for name, value in data.items():
            yield from find_paths(value, (*key, *str(name).split(".")))
    elif isinstance(data, list):
        for value in data:
            yield from find_paths(value, key)
    elif _is_path(key, data):
        yield ".".join(key), data


def make_error(lines: list[str], problems: list[str], data: Any) -> ConfigError:
    """The error for some problems: a `DataFileError` where each is about a file.

    Args:
      lines: the problems as a person reads them; those about a file get the key that names it.
      problems: their texts alone, those about a file beginning with its path.
      data: the config that names the files.
    """
    paths = tuple(f"{path}:" for _, path in find_paths(data))
    about_files = all(text.startswith(paths) for text in problems) if paths else False
    kind = DataFileError if about_files else ConfigError
    return kind([name_key(line, data) for line in lines])


def name_key(line: str, data: Any) -> str:
    """The line with the key of the file that it is about, if it is about one."""
    for key, path in find_paths(data):
        before, found, after = line.partition(f"{path}:")
        if found and key not in before:
            section = key.partition(".")[0]
            return f"{before.removesuffix(f'{section}: ')}{key}: {found}{after}"
    return line


def _is_path(key: tuple[str, ...], value: Any) -> bool:
    if not isinstance(value, str) or not value or not key or key[0] not in _SECTIONS:
        return False
    return key[-1] == "path" or (key[-2:] in _OF_A_TASK and value not in EMBEDDED)


def _expand(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # nobody of that name
        return Path(text)
