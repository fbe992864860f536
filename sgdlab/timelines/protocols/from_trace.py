"""A timeline that was recorded: a real run, replayed as it went.

The measurements are whatever system made them; the format is the table that `to_dataframe` gives,
as CSV or Parquet, or a file that `Timeline.save` wrote.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from sgdlab.timelines.arguments import Count, Examples, TimelineError, check_argument
from sgdlab.timelines.tables import read_table, to_number
from sgdlab.timelines.timeline import Timeline

_REQUIRED = ("worker", "read_version", "start_time", "arrival_time", "update")
_OPTIONAL = ("compute_end", "last_update", "apply_time")
_INTEGERS = ("worker", "read_version", "update", "last_update")


def from_trace(
    path: Annotated[str, Examples(lambda n: ["run.csv"])],
    *,
    workers: Count | None = None,
    gradients_per_message: Count = 1,
    average: Literal["messages", "workers"] = "messages",
) -> Timeline:
    """Read a recorded timeline.

    Args:
      path: a `.npz` file of `Timeline.save`, to which the other arguments don't apply, or a `.csv`
        or `.parquet` table with a row per message, in any order: `worker`, `read_version`,
        `start_time`, `arrival_time` (seconds; inf if never) and `update` (or −1 dropped, −2 in
        flight, −3 cancelled). Optional: `compute_end` (else `arrival_time`), `last_update` (else
        `update`) and `apply_time` of the message's update (else its last message's arrival).
      workers: N; left out, it follows from the workers in the table.
      gradients_per_message: H.
      average: how the messages of an update are averaged.

    Returns:
      The timeline, validated.

    Raises:
      TimelineError: names the file and the line or the index that is wrong.
    """
    if workers is not None:
        check_argument("from_trace", "workers", Count, workers)
    check_argument("from_trace", "gradients_per_message", Count, gradients_per_message)
    check_argument("from_trace", "average", Literal["messages", "workers"], average)
    if Path(path).suffix.lower() == ".npz":
        return Timeline.load(path)
    columns = _read_columns(path, workers)
    apply_time = _apply_times(columns)
    columns.pop("apply_time", None)
    order = np.lexsort((columns["worker"], columns["arrival_time"]))
    parameters = {"path": str(path), "gradients_per_message": gradients_per_message}
    try:
        timeline = Timeline(
            num_workers=workers or int(columns["worker"].max()) + 1,
            gradients_per_message=gradients_per_message,
            **{name: column[order] for name, column in columns.items()},
            apply_time=apply_time,
            average=average,
            metadata={
                "protocol": "from_trace",
                "parameters": parameters | {"workers": workers, "average": average},
                "cluster": None,
                "seed": 0,
            },
        )
        timeline.validate()
    except TimelineError as error:
        raise TimelineError(f"{path}: {error}") from error
    timeline.metadata["seconds"] = timeline.seconds
    return timeline


def _read_columns(path: str, workers: int | None) -> dict[str, np.ndarray]:
    """The known columns, each value a number and every index small enough to count up to."""
    names, rows = read_table(path)
    for name in _REQUIRED:
        if name not in names:
            raise TimelineError(f"{path}: no column {name}; allowed: {', '.join(_REQUIRED)}")
    known = [(names.index(name), name) for name in (*_REQUIRED, *_OPTIONAL) if name in names]
    lines, values = [], []
    for line, row in rows:
        lines.append(line)
        values.append([_number(path, line, name, row[index]) for index, name in known])
    if not values:
        raise TimelineError(f"{path}: no messages in it; allowed: at least one row")
    table = np.array(values, np.float64)
    columns = {name: table[:, index] for index, (_, name) in enumerate(known)}
    _check_below(path, lines, "worker", columns["worker"], workers or len(lines))
    for name in ("read_version", "update", "last_update"):
        if name in columns:
            _check_below(path, lines, name, columns[name], len(lines) + (name == "read_version"))
    columns.setdefault("compute_end", columns["arrival_time"])
    return {n: c.astype(np.int32) if n in _INTEGERS else c for n, c in columns.items()}


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


def _apply_times(columns: dict[str, np.ndarray]) -> np.ndarray:
    """`[T]` when each update happened: as recorded, or when its last message came."""
    used = columns["update"] >= 0
    update = columns["update"][used]
    recorded = columns.get("apply_time", columns["arrival_time"])[used]
    recorded = np.where(np.isnan(recorded), columns["arrival_time"][used], recorded)
    times = np.zeros(int(update.max(initial=-1)) + 1)
    np.maximum.at(times, update, recorded)
    return np.maximum.accumulate(times)
