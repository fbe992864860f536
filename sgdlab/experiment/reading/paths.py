"""Dotted paths into plain data: `rule.learning_rate`, `receive.0.power`."""

import copy
from collections.abc import Mapping
from typing import Any

from sgdlab.experiment.errors import ConfigError
from sgdlab.experiment.reading.parsing import parse

Path = tuple[str, ...]


def split(text: str) -> Path:
    """The parts of a dotted path. Behind `sweep.` stands one key, which is a path itself.

    Raises:
      ValueError: a part is empty.
    """
    if text.startswith("sweep."):
        return ("sweep", text.removeprefix("sweep."))
    parts = tuple(text.split("."))
    if not all(part and part.strip() == part for part in parts):
        raise ValueError(f"{text!r} is no path; allowed: key.key, such as rule.learning_rate")
    return parts


def put(data: Any, path: Path, value: Any) -> Any:
    """A copy of the data with the value at the path; what stood there is replaced.

    A text on the way stands for the mapping with that name: `window` is `{name: window}`.

    Raises:
      ValueError: the path leads through a value, or outside a list.
    """
    if not path:
        return copy.deepcopy(value)
    head, rest = path[0], path[1:]
    if isinstance(data, list):
        if not head.isdecimal() or int(head) >= len(data):
            raise ValueError(f"{head} is no index here; allowed: 0 to {len(data) - 1}")
        return [put(x, rest, value) if i == int(head) else x for i, x in enumerate(data)]
    if isinstance(data, str):
        data = {"name": data}
    if data is not None and not isinstance(data, Mapping):
        raise ValueError(f"{data!r} has no key {head}; allowed: a path to a key")
    items = dict(data or {})
    key = int(head) if head.isdecimal() and head not in items else head
    items[key] = put(items.get(key), rest, value)
    return items


def apply_overrides(data: Any, overrides: list[str]) -> tuple[Any, list[Path], list[str]]:
    """The data with every `key.path=value` put into it.

    Args:
      data: the plain data of a config.
      overrides: each `path=value`, the value in YAML.

    Returns:
      The new data, the paths that were set, and a line for every override that cannot be read.
    """
    problems: list[str] = []
    paths: list[Path] = []
    for override in overrides:
        text, equals, value = override.partition("=")
        try:
            if not equals:
                raise ValueError("no value; allowed: key.path=value")
            path = split(text.strip())
            data = put(data, path, parse(value, f"override: {text}"))
            paths.append(path)
        except ConfigError as error:
            problems += [problem.replace(": line 1: ", ": ", 1) for problem in error.problems]
        except ValueError as error:
            problems.append(f"override: {text}: {error}")
    return data, paths, problems
