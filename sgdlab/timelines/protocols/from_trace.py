"""A timeline that was recorded: a real run, replayed as it went.

The measurements are whatever system made them; the format is the table that `to_dataframe` gives,
as CSV or Parquet, or a file that `Timeline.save` wrote.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from sgdlab.arguments import show
from sgdlab.timelines.arguments import (
    Examples,
    NonNegative,
    Steps,
    TimelineError,
    Workers,
    check_argument,
)
from sgdlab.timelines.skew import settle_clocks
from sgdlab.timelines.tables import read_table, to_number
from sgdlab.timelines.timeline import Timeline

_REQUIRED = ("worker", "read_version", "start_time", "arrival_time", "update")
_OPTIONAL = ("compute_end", "last_update", "apply_time")
_INTEGERS = ("worker", "read_version", "update", "last_update")
_TIMES = ("start_time", "arrival_time", "compute_end", "apply_time")
_ALIASES = {
    "worker": ("host", "hostname", "node", "rank"),
    "start_time": ("start",),
    "arrival_time": ("end", "end_time", "arrival"),
}
Average = Literal["messages", "workers"]


def from_trace(
    path: Annotated[str, Examples(lambda n: ["run.csv"])],
    *,
    workers: Workers | None = None,
    gradients_per_message: Steps = 1,
    average: Average | None = None,
    tolerance: NonNegative = 0.0,
) -> Timeline:
    """Read a recorded timeline.

    Workers may be numbers from 0, numbers from 1 or names of hosts, which are numbered in their
    alphabetical order (`metadata["workers"]`). Times may count from anywhere: where the run began
    later than it lasted, as in Unix times, its first start is second 0. Versions are the truth:
    where a worker's clock says that it read a version before there was one, it read later, by
    `tolerance` seconds at the most, and what follows from that happens later too.

    Args:
      path: a `.npz` file of `Timeline.save`, to which the other arguments don't apply, or a table
        (`.csv`, `.tsv`, either of them `.gz`, `.parquet`; commas, semicolons or tabs) with a row
        per message, in any order: `worker` (or `host`), `read_version`, `start_time` (or `start`),
        `arrival_time` (or `end`; seconds; inf if never) and `update` (or −1 dropped, −2 in flight,
        −3 cancelled). Optional: `compute_end` (else `arrival_time`), `last_update` (else
        `update`), `apply_time` of the message's update (else its last message's arrival), and
        `average`, the same in every row.
      workers: N; left out, it follows from the workers in the table.
      gradients_per_message: H.
      average: how the messages of an update are averaged; left out, as the table says, and the
        mean over messages where it says nothing.
      tolerance: how far clocks may be apart, seconds.

    Returns:
      The timeline, validated.

    Raises:
      TimelineError: names the file and the line or the index that is wrong.
    """
    workers = check_argument("from_trace", "workers", Workers | None, workers)
    steps = check_argument("from_trace", "gradients_per_message", Steps, gradients_per_message)
    average = check_argument("from_trace", "average", Average | None, average)
    tolerance = check_argument("from_trace", "tolerance", NonNegative, tolerance)
    if Path(path).suffix.lower() == ".npz":
        return Timeline.load(path)
    columns, lines, names, said = _read_columns(path, workers)
    if average is not None and said is not None and average != said:
        raise TimelineError(f"{path}: average is {said!r} there; allowed: average={said!r}")
    how: str = average or said or "messages"
    parameters = {"path": str(path), "gradients_per_message": steps, "workers": workers}
    parameters |= {"average": how} | ({"tolerance": tolerance} if tolerance else {})
    _begin_at_zero(columns)
    apply_time = settle_clocks(columns, path, lines, tolerance)
    order = np.lexsort((columns["worker"], columns["arrival_time"]))
    try:
        timeline = Timeline(
            num_workers=workers or int(columns["worker"].max()) + 1,
            gradients_per_message=steps,
            **{name: column[order] for name, column in columns.items()},
            apply_time=apply_time,
            average=how,
            metadata={
                "protocol": "from_trace",
                "parameters": parameters,
                "cluster": None,
                "seed": 0,
            }
            | ({"workers": names} if names else {}),
        )
        timeline.validate()
    except TimelineError as error:
        raise TimelineError(f"{path}: {_name_line(str(error), lines, order)}") from error
    timeline.metadata["seconds"] = timeline.seconds
    return timeline


def _read_columns(
    path: str, workers: int | None
) -> tuple[dict[str, np.ndarray], list[str], list[str], str | None]:
    """The known columns, where each row stands, the workers' names, and the `average`.

    Each value is a number and every index small enough to count up to.
    """
    found, rows = read_table(path)
    places = {name: _find(found, name) for name in (*_REQUIRED, *_OPTIONAL)}
    known = {name: index for name, index in places.items() if index is not None}
    for name in _REQUIRED:
        if name not in known:
            raise TimelineError(f"{path}: no column {name}; allowed: {', '.join(_REQUIRED)}")
    entries = list(rows)
    if not entries:
        raise TimelineError(f"{path}: no messages in it; allowed: at least one row")
    lines, rows = [line for line, _ in entries], [row for _, row in entries]
    raw = [row[known["worker"]] for row in rows]
    ids, names = _number_workers(path, lines, raw, workers)
    columns = {"worker": ids.astype(np.float64)}
    for name, index in known.items():
        if name != "worker":
            values = [
                _number(path, line, name, row[index]) for line, row in zip(lines, rows, strict=True)
            ]
            columns[name] = np.array(values, np.float64)
    _check_below(path, lines, "worker", columns["worker"], workers or len(lines))
    for name in ("read_version", "update", "last_update"):
        if name in columns:
            _check_below(path, lines, name, columns[name], len(lines) + (name == "read_version"))
    columns.setdefault("compute_end", columns["arrival_time"].copy())
    columns = {n: c.astype(np.int32) if n in _INTEGERS else c for n, c in columns.items()}
    return columns, lines, names, _read_average(path, lines, found, rows)


def _find(names: Sequence[str], name: str) -> int | None:
    for each in (name, *_ALIASES.get(name, ())):
        if each in names:
            return list(names).index(each)
    return None


def _read_average(path: str, lines, names, rows) -> str | None:
    if "average" not in names:
        return None
    values = [str(row[list(names).index("average")]) for row in rows]
    for line, value in zip(lines, values, strict=True):
        if value not in ("messages", "workers") or value != values[0]:
            allowed = "'messages' | 'workers', the same in every row"
            raise TimelineError(f"{path}: {line}: average is {show(value)}; allowed: {allowed}")
    return values[0]


def _number_workers(
    path: str, lines: Sequence[str], raw: Sequence[Any], workers: int | None
) -> tuple[np.ndarray, list[str]]:
    """Workers as numbers from 0, and their names where they had some."""
    numbers = np.array([to_number(value) for value in raw])
    if np.isfinite(numbers).all():
        for line, value, number in zip(lines, raw, numbers, strict=True):
            if not number.is_integer():
                raise TimelineError(f"{path}: {line}: worker is {value!r}; allowed: an integer")
        from_one = numbers.min() == 1 and (workers is None or numbers.max() >= workers)
        return numbers - 1 if from_one else numbers, []
    for line, value in zip(lines, raw, strict=True):
        if not str(value).strip() or str(value).strip().lower() in ("nan", "none"):
            allowed = "a number or a name"
            raise TimelineError(f"{path}: {line}: worker is {show(value)}; allowed: {allowed}")
    texts = [str(value).strip() for value in raw]
    names = sorted(set(texts))
    place = {name: index for index, name in enumerate(names)}
    return np.array([place[text] for text in texts]), names


def _begin_at_zero(columns: dict[str, np.ndarray]) -> None:
    """Take the first start as second 0, where the run began later than it lasted."""
    first = float(columns["start_time"].min())
    ends = columns["arrival_time"][np.isfinite(columns["arrival_time"])]
    last = max(float(ends.max(initial=first)), float(columns["start_time"].max()))
    if first > last - first:
        for name in _TIMES:
            if name in columns:
                columns[name] = columns[name] - first


def _name_line(text: str, lines: Sequence[str], order: np.ndarray) -> str:
    """What is wrong with a message, at its line."""
    found = re.match(r"(\w+)\[(\d+)\] ", text)
    if not found or found[1] == "apply_time":
        return text
    return f"{lines[order[int(found[2])]]}: {text}"


def _number(path: str, line: str, name: str, value: Any) -> float:
    number = to_number(value)
    if name == "apply_time" and (math.isnan(number) or value in ("", None)):
        return math.nan
    if math.isnan(number) or (name in _INTEGERS and not number.is_integer()):
        allowed = "an integer" if name in _INTEGERS else "a number of seconds"
        raise TimelineError(f"{path}: {line}: {name} is {value!r}; allowed: {allowed}")
    return number


def _check_below(
    path: str, lines: Sequence[str], name: str, values: np.ndarray, limit: int
) -> None:
    """No index may ask for more room than the rows of the file justify."""
    broken = (values >= limit) | (values < -3)
    if broken.any():
        index = int(np.argmax(broken))
        value = int(values[index])
        raise TimelineError(f"{path}: {lines[index]}: {name} is {value}; allowed: < {limit}")
