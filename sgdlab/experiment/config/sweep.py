"""A sweep as points: the product of its axes, or the list of points it writes out."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sgdlab.experiment.reading.paths import Path, put, split
from sgdlab.experiment.reading.problems import Problem, show, wrong_kind

MAX_POINTS = 4096
_WHOLE = ("sweep", "tags", "claims")  # keys of the experiment as a whole, which no point has
_FIXED = ("name", "description", *_WHOLE)


@dataclass(frozen=True)
class Setting:
    """A path that a point sets, the value, and where in the file the value stands."""

    path: Path
    value: Any
    origin: Path


def read_sweep(sweep: Any) -> tuple[list[dict[str, Setting]], list[str], list[Problem]]:
    """The points of a sweep.

    Args:
      sweep: `{path: [value, ...], ...}` for the product, the last axis fastest; or a list of
        points `{path: value, ..., label: text}`.

    Returns:
      The settings of each point by path, a label for each point ("" where it has to be made), and
      the problems.
    """
    if sweep is None or sweep == {}:
        return [{}], [""], []
    if isinstance(sweep, list):
        return _read_points(sweep)
    if isinstance(sweep, Mapping):
        return _read_product(sweep)
    return [], [], [(("sweep",), wrong_kind(sweep, "{path: [value, ...]} or a list of points"))]


def apply(base: Any, settings: Mapping[str, Setting]) -> Any:
    """The data of one point; shorter paths are set first, so that longer ones refine them.

    Raises:
      ValueError: a path leads through a value, or outside a list.
    """
    data = {key: value for key, value in base.items() if key not in _WHOLE}
    for setting in sorted(settings.values(), key=lambda setting: len(setting.path)):
        data = put(data, setting.path, setting.value)
    return data


def make_label(settings: Mapping[str, Setting]) -> str:
    """What tells a point from the others: `protocol.name=window, rule.learning_rate=0.1`."""
    return ", ".join(f"{path}={_brief(setting.value)}" for path, setting in settings.items())


def _read_product(sweep: Mapping[Any, Any]):
    problems: list[Problem] = []
    axes: list[list[tuple[str, Setting]]] = []
    for text, values in sweep.items():
        path, wrong = _read_path(text)
        where = ("sweep", str(text))
        if wrong:
            problems.append((where, wrong))
        elif not isinstance(values, list) or not values:
            problems.append((where, wrong_kind(values, "a list of values, at least one")))
        else:
            origins = [(*where, str(index)) for index in range(len(values))]
            axes.append(
                [
                    (str(text), Setting(path, value, origin))
                    for value, origin in zip(values, origins, strict=True)
                ]
            )
    count = 1
    for axis in axes:
        count *= len(axis)
    if count > MAX_POINTS:
        problems.append((("sweep",), f"{count} points; allowed: {MAX_POINTS}"))
    if problems:
        return [], [], problems
    points = [dict(chosen) for chosen in itertools.product(*axes)]
    return points, [""] * len(points), []


def _read_points(sweep: list[Any]):
    problems: list[Problem] = []
    points: list[dict[str, Setting]] = []
    labels: list[str] = []
    for index, entry in enumerate(sweep):
        where = ("sweep", str(index))
        if not isinstance(entry, Mapping) or not entry:
            problems.append((where, wrong_kind(entry, "{path: value, ...}")))
            continue
        label = entry.get("label", "")
        if not isinstance(label, str) or len(label) > 80 or "\n" in label:
            problems.append(((*where, "label"), f"{show(label)} given; allowed: a short text"))
        point = {}
        for text, value in entry.items():
            if text == "label":
                continue
            path, wrong = _read_path(text)
            if wrong:
                problems.append(((*where, str(text)), wrong))
            point[str(text)] = Setting(path, value, (*where, str(text)))
        points.append(point)
        labels.append(str(label))
    if len(sweep) > MAX_POINTS or not sweep:
        problems.append((("sweep",), f"{len(sweep)} points; allowed: 1 to {MAX_POINTS}"))
    return ([], [], problems) if problems else (points, labels, [])


def _read_path(text: Any) -> tuple[Path, str]:
    """The path of an axis, and what is wrong with it."""
    try:
        path = split(text) if isinstance(text, str) else ()
    except ValueError as error:
        return (), str(error)
    if not path or path[0] in _FIXED:
        return (), f"no axis; allowed: the path of a key but {', '.join(_FIXED)}"
    return path, ""


def _brief(value: Any) -> str:
    """A value in a label: a mapping by its name, a number in few digits, an empty list as none."""
    if isinstance(value, bool) or value is None:
        return show(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"[{', '.join(_brief(item) for item in value)}]" if value else "none"
    if isinstance(value, Mapping):
        rest = ", ".join(f"{key}={_brief(item)}" for key, item in value.items() if key != "name")
        name = str(value.get("name", ""))
        return f"{name}({rest})" if rest else name
    return str(value)
