"""The data files that a config names: what is wrong with one is no fault of the config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sgdlab.experiment.errors import ConfigError, DataFileError


def make_error(lines: list[str], problems: list[str], data: Any) -> ConfigError:
    """The error for some problems: a `DataFileError` where each is about a file.

    Args:
      lines: the problems as a person reads them.
      problems: their texts alone, those about a file beginning with its path.
      data: the config that names the files.
    """
    paths = tuple(f"{path}:" for path in find_paths(data))
    about_files = all(text.startswith(paths) for text in problems) if paths else False
    return (DataFileError if about_files else ConfigError)(lines)


def find_paths(data: Any) -> Iterator[str]:
    """Every text under a key `path`, or in a sweep's axis that ends so."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            if str(key).rpartition(".")[2] == "path":
                values = value if isinstance(value, list) else [value]
                yield from (each for each in values if isinstance(each, str) and each)
            yield from find_paths(value)
    elif isinstance(data, list):
        for value in data:
            yield from find_paths(value)
