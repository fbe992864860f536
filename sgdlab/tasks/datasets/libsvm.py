"""LIBSVM's text format: a line is a label and index:value pairs."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np

from sgdlab.tasks.datasets.dataset import (
    LARGEST_ARRAY,
    DataError,
    Dataset,
    class_numbers,
    finite_features,
    read_bytes,
)

# A dense table of sparse rows is larger than its file, but not without bound.
_FREE_CELLS, _CELLS_AN_ENTRY = 2**20, 2**10


def load_libsvm(path: str | PathLike[str]) -> Dataset:
    """A LIBSVM file as a dense table.

    Indices count from 1, or from 0 where an index 0 occurs; in a line they increase. What follows
    "#" is a comment.

    Args:
      path: the file; decompressed if its name ends in .gz.

    Returns:
      A `Dataset` with "input" `[n, d]` float32, absent entries 0.

    Raises:
      DataError: the file is missing, a line is damaged, or the dense table is too large.
    """
    path = Path(path)
    labels: list[float] = []
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    for number, line in enumerate(read_bytes(path).split(b"\n"), start=1):
        words = line.split(b"#", 1)[0].split()
        if not words:
            continue
        try:
            label, indices, entries = _parse(words)
        except ValueError as error:
            raise DataError(f"{path}: line {number}: {error}") from None
        rows.extend([len(labels)] * len(indices))
        columns.extend(indices)
        values.extend(entries)
        labels.append(label)
    if not columns:
        raise DataError(f"{path}: line 1: holds no row with an entry")
    table = _dense(path, len(labels), np.array(rows), columns, values)
    numbers = class_numbers(np.array(labels), path)
    return Dataset({"input": finite_features(table, path), "label": numbers}, None, str(path))


def _parse(words: list[bytes]) -> tuple[float, list[int], list[float]]:
    """The label, the indices and the values of one line; a `ValueError` says what is wrong."""
    label = _number(words[0])
    indices, entries = [], []
    for word in words[1:]:
        index, colon, value = word.partition(b":")
        if not colon or not index.isdigit() or len(index) > 12:
            raise ValueError(f"{_shown(word)} is no index:value pair")
        indices.append(int(index))
        entries.append(_number(value))
        if len(indices) > 1 and indices[-1] <= indices[-2]:
            raise ValueError(f"index {indices[-1]} follows {indices[-2]}; indices must increase")
    return label, indices, entries


def _number(word: bytes) -> float:
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"{_shown(word)} is no number") from None


def _shown(word: bytes) -> str:
    return repr(word[:40].decode(errors="replace"))


def _dense(path: Path, count: int, rows: np.ndarray, columns: list[int], values: list[float]):
    first = min(1, min(columns))
    width = max(columns) - first + 1
    most = min(LARGEST_ARRAY // 8, _FREE_CELLS + _CELLS_AN_ENTRY * len(columns))
    if count * width > most:
        line = np.flatnonzero(np.array(columns) == max(columns))[0]
        raise DataError(
            f"{path}: row {rows[line]}: index {max(columns)} makes a dense table of {count:,} × "
            f"{width:,}; allowed: {most:,} values for {len(columns):,} entries"
        )
    table = np.zeros((count, width))
    table[rows, np.array(columns) - first] = values
    return table
