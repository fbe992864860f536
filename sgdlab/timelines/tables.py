"""Measured numbers from CSV and Parquet files, which are data: read strictly, never executed."""

import csv
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sgdlab.files import UNPACKING_FAULTS, open_regular, open_unpacked
from sgdlab.timelines.arguments import TimelineError

_MOST_BYTES = 2**30

_HOSTS = ("host", "hostname", "node", "worker", "rank")


def read_numbers(
    path: str | Path, column: str | None = None, by: str | None = None
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One column of positive, finite numbers, or the seconds between two columns.

    Args:
      path: a table, as `read_table` takes it; a `.csv` may be without a header line.
      column: its name; may be left out where the file has one column, or `start` and `end`.
      by: the column that says whose each number is; "all" for nobody's in particular.

    Returns:
      `[rows]` float64, read-only, and the same by owner in alphabetical order, or whole numbers in
      theirs; no owner where `by` is none.

    Raises:
      TimelineError: names the file and the line, what stands there and what is allowed.
    """
    names, entries = read_table(path)
    pair = _find_pair(names) if column is None and len(names) > 1 else None
    first, last = pair or (-1, _column_index(path, names, column))
    owner = _find_owner(path, names, column, by)
    values, owners = [], []
    for line, row in entries:
        value = to_number(row[last]) - to_number(row[first]) if pair else row[last]
        values.append(positive(path, line, value))
        owners.append("" if owner is None else str(row[owner]).strip())
    if not values:
        raise TimelineError(f"{path}: no times in it; allowed: at least one row")
    numbers = np.array(values, np.float64)
    numbers.flags.writeable = False
    if owner is None:
        return numbers, {}
    are_numbers = all(each.isdecimal() for each in owners)
    each = sorted(set(owners), key=int if are_numbers else None)
    return numbers, {name: numbers[np.array(owners) == name] for name in each}


def _find_pair(names: Sequence[str]) -> tuple[int, int] | None:
    """Where a time begins and ends, if two columns say so."""
    for start, end in (("start", "end"), ("start_time", "end_time"), ("start_time", "compute_end")):
        if start in names and end in names:
            return names.index(start), names.index(end)
    return None


def _find_owner(
    path: str | Path, names: list[str], column: str | None, by: str | None
) -> int | None:
    """The column that says whose a number is.

    Raises:
      TimelineError: there is none of that name; or there are hosts, and nothing is said of them.
    """
    if by is not None and by in names:
        return names.index(by)
    if by not in (None, "all"):
        raise TimelineError(f"{path}: by is {by!r}; allowed: {', '.join(names)}, all")
    hosts = [name for name in names if name.lower() in _HOSTS and name != column]
    if hosts and by is None:
        raise TimelineError(
            f"{path}: has a column {hosts[0]}; allowed: by: {hosts[0]}, for each worker its host's "
            "own times, or by: all, which draws every worker's from all of them"
        )
    return None


def read_table(path: str | Path) -> tuple[list[str], Iterator[tuple[str, Sequence[Any]]]]:
    """The column names, and the rows, each with the words that say where it stands.

    Raises:
      TimelineError: the file cannot be read as a table, or a row has another number of columns.
    """
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    kind = suffixes[-2:-1] if suffixes[-1:] == [".gz"] else suffixes[-1:]
    if kind in ([".csv"], [".tsv"]):
        return _read_csv(path)
    if suffixes[-1:] == [".parquet"]:
        return _read_parquet(path)
    allowed = ".csv, .parquet, .tsv, .csv.gz, .tsv.gz"
    raise TimelineError(f"{path}: the suffix is {Path(path).suffix!r}; allowed: {allowed}")


def positive(path: str | Path, line: str, value: Any) -> float:
    """The value as a finite number above zero.

    Raises:
      TimelineError: names the file, the line and the value.
    """
    number = to_number(value)
    if not 0 < number < math.inf:
        raise TimelineError(f"{path}: {line} is {value!r}; allowed: a number of seconds > 0")
    return number


def to_number(value: Any) -> float:
    """The value as a float; NaN where it is none, or one that only Python would read."""
    try:
        if isinstance(value, str) and "_" in value:
            return math.nan
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _column_index(path: str | Path, names: list[str], column: str | None) -> int:
    if column is None and len(names) == 1:
        return 0
    if column not in names:
        raise TimelineError(f"{path}: column is {column!r}; allowed: {', '.join(names)}")
    return names.index(column)


def _read_csv(path: str | Path) -> tuple[list[str], Iterator[tuple[str, Sequence[Any]]]]:
    lines = _read_text(path).splitlines()
    delimiter = max(",;\t", key=(lines[0] if lines else "").count)  # a comma where there is none
    reader = csv.reader(lines, delimiter=delimiter)
    names = _first_row(path, reader)
    if all(math.isfinite(to_number(name)) for name in names):  # a file of bare numbers
        names = [str(index) for index in range(len(names))]
        reader = csv.reader(lines, delimiter=delimiter)
    return names, _csv_rows(path, reader, len(names))


def _read_text(path: str | Path) -> str:
    """A whole text, unpacked where it is packed; what unpacks to much more than it is, is refused.

    Raises:
      TimelineError: it cannot be read; names the file.
    """
    try:
        limit = 2**18 + 32 * Path(path).stat().st_size
        with open_unpacked(path) as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise TimelineError(f"{path}: unpacks to more than {limit:,} bytes; allowed: 32 times")
        return content.decode("utf-8-sig")
    except (*UNPACKING_FAULTS, UnicodeDecodeError) as error:
        raise TimelineError(f"{path}: cannot be read: {reason(error)}") from error


def _first_row(path: str | Path, reader: Iterator[list[str]]) -> list[str]:
    try:
        return [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise TimelineError(f"{path}: line 1 is no CSV: {error}") from error


def _csv_rows(path: str | Path, reader: Any, width: int) -> Iterator[tuple[str, Sequence[Any]]]:
    try:
        for row in reader:
            if len(row) != width:
                line = f"line {reader.line_num}"
                raise TimelineError(f"{path}: {line} has {len(row)} columns; allowed: {width}")
            yield f"line {reader.line_num}", row
    except csv.Error as error:
        raise TimelineError(f"{path}: line {reader.line_num} is no CSV: {error}") from error


def _read_parquet(path: str | Path) -> tuple[list[str], Iterator[tuple[str, Sequence[Any]]]]:
    from pyarrow import ArrowException, parquet

    try:
        with open_regular(path) as source, parquet.ParquetFile(source) as file:
            _check_size(path, file.metadata)
            table = file.read()
    except (OSError, ArrowException) as error:
        raise TimelineError(f"{path}: cannot be read: {reason(error)}") from error
    columns = [column.to_pylist() for column in table.columns]
    rows = zip(*columns, strict=True)
    return table.column_names, ((f"row {index}", row) for index, row in enumerate(rows))


def _check_size(path: str | Path, found: Any) -> None:
    """What a Parquet file unpacks to, before memory is taken for it."""
    groups = (found.row_group(index) for index in range(found.num_row_groups))
    size = max(8 * found.num_rows * found.num_columns, sum(each.total_byte_size for each in groups))
    if size > _MOST_BYTES:
        raise TimelineError(f"{path}: {size:,} bytes unpacked; allowed: {_MOST_BYTES:,}")


def reason(error: Exception) -> str:
    """Why, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return next(islice(str(error).splitlines(), 1), type(error).__name__)
