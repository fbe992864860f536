"""LIBSVM's text format, by scikit-learn's reader: a line is a label and index:value pairs."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from sgdlab.tasks.datasets.dataset import (
    LARGEST_ARRAY,
    LARGEST_TEXT,
    DataError,
    Dataset,
    Found,
    Rows,
    as_stored,
    file_size,
    make_dataset,
    open_data,
)

# What a line may unpack to: indices that increase pack no better than this, so a longer line is one
# of blanks, or one that would take its memory only to be refused.
_LINE, _LINE_RATIO, _PIECE = 2**18, 16, 2**16
_SHORT = 2**12
_NUMBER = rb"[-+]?(?:\d++\.?+\d*+|\.\d++)(?:[eE][-+]?\d++)?+"
_VALUE = rb"(?:" + _NUMBER + rb"|[-+]?(?i:nan|inf|infinity)(?![a-z]))"  # told as not finite later
_ENTRY = rb"\d{1,9}:" + _VALUE
_ROW = re.compile(rb"\s*+" + _NUMBER + rb"(?:\s++qid:\d{1,18})?+(?:\s++" + _ENTRY + rb")*+\s*+")
# A table is held dense where that is small, or where so large a share of its values is set.
_SMALL, _SHARE = 2**20, 0.1
# What weights may be asked for by the largest index alone.
_FREE_FEATURES, _FEATURES_AN_ENTRY = 2**17, 64


def load_libsvm(path: str | PathLike[str], test: str | PathLike[str] | None = None) -> Dataset:
    """A LIBSVM file, and perhaps another with its test rows.

    Indices count from 1, or from 0 where an index 0 occurs in either file; in a line they increase.
    What follows "#" is a comment; `qid:` is no feature.

    Args:
      path: the file; unpacked where it is gzip, bzip2 or xz by its content.
      test: the file of the test rows.

    Returns:
      A `Dataset` with "input" `[n, d]` float32, absent entries 0: a `scipy.sparse.csr_array` where
      a table of more than 2²⁰ values has fewer than a tenth of them set, else an array.

    Raises:
      DataError: a file is missing, a line is damaged, a label is no plain finite number, or an
        index is too large for so few entries.
    """
    return make_dataset(read_libsvm(path, test), to_table)


def read_libsvm(path: str | PathLike[str], test: str | PathLike[str] | None = None) -> Found:
    """What `load_libsvm` checks, with rows that are a `scipy.sparse.csr_array` of float32."""
    paths = [Path(each).expanduser() for each in (path, test) if each is not None]
    tables = [_read(each) for each in paths]
    first = min(1, *(int(table.indices.min()) for table, _ in tables))
    width = max(table.shape[1] for table, _ in tables) - first
    rows = [_cut(table, labels, first, width) for table, labels in tables]
    return Found(paths[0], rows[0], rows[1] if test is not None else None)


def _cut(table: Any, labels: np.ndarray, first: int, width: int) -> Rows:
    """The rows with their columns counted from 0, and int32 indices."""
    from scipy.sparse import csr_array

    columns, start = (table.indices - first).astype(np.int32), table.indptr.astype(np.int32)
    return Rows(csr_array((table.data, columns, start), shape=(len(labels), width)), labels)


def _read(path: Path) -> tuple[Any, np.ndarray]:
    """The table with a column for each index from 0 on, and the labels."""
    # Importing scikit-learn's datasets takes a second: only those who need it pay.
    library, lines = importlib.import_module("sklearn.datasets"), _Lines(path)
    try:
        table, labels = library.load_svmlight_file(lines, dtype=np.float32, zero_based=True)
    except DataError:
        raise
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path}: line {lines.number}: {_explain(lines.line) or error}") from None
    if not table.nnz:
        raise DataError(f"{path}: line {lines.number}: holds no row with an entry")
    return table, labels


class _Lines:
    """The lines of a file, unpacked and checked one by one: what scikit-learn's reader walks.

    Attributes:
      number: of the line that was read last, from 1.
      line: that line, without its comment.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.number, self.line = path, 0, b""
        self._longest = _LINE + _LINE_RATIO * file_size(path)

    def read(self) -> bytes:
        """Nobody calls it; by it the reader tells a file from a path."""
        return b"".join(self)

    def __iter__(self) -> Iterator[bytes]:
        for line in self._split():
            self.number += 1
            line = line.split(b"#", 1)[0]
            if not line or line.isspace():
                continue
            self.line = line
            wrong = _ROW.fullmatch(line) is None
            if wrong or (len(line) > _SHORT and not _increases(line)):
                raise DataError(f"{self.path}: line {self.number}: {_explain(line)}")
            yield line

    def _split(self) -> Iterator[bytes]:
        """The lines; a stretch of nothing but blanks is counted and not kept."""
        parts: list[bytes] = []
        length = count = 0
        with open_data(self.path) as file:
            if (start := file.read(3)) != b"\xef\xbb\xbf":
                parts, length = [start], len(start)
            while piece := file.read(_PIECE):
                count += len(piece)
                if count > LARGEST_TEXT:
                    raise DataError(
                        f"{self.path}: line {self.number + 1}: more than {LARGEST_TEXT:,} bytes"
                    )
                if not parts and piece.isspace():
                    self.number += piece.count(b"\n")
                    continue
                first, *others = piece.split(b"\n")
                parts.append(first)
                length += len(first)
                if length > self._longest:
                    raise DataError(
                        f"{self.path}: line {self.number + 1}: has more than {length:,} bytes"
                    )
                if others:
                    yield b"".join(parts)
                    yield from others[:-1]
                    parts, length = [others[-1]] if others[-1] else [], len(others[-1])
        yield b"".join(parts)


def _increases(line: bytes) -> bool:
    """Whether the indices of a line do, told without taking it apart."""
    last = -1
    for found in re.finditer(rb"\s(\d++):", line):
        if int(found[1]) <= last:
            return False
        last = int(found[1])
    return True


def _explain(line: bytes) -> str:
    """What is wrong with a line; nothing where nothing is."""
    last = -1
    for position, found in enumerate(re.finditer(rb"\S++", line)):
        word = found[0]
        index, colon, value = word.partition(b":")
        if position == 0 and re.fullmatch(_NUMBER, word) is None:
            return f"{_shown(word)} is no number"
        if position == 0 or (position == 1 and re.fullmatch(rb"qid:\d{1,18}", word)):
            continue
        if not colon or re.fullmatch(rb"\d{1,9}", index) is None:
            return f"{_shown(word)} is no index:value pair"
        if re.fullmatch(_VALUE, value) is None:
            return f"{_shown(value)} is no number"
        if int(index) <= last:
            return f"index {int(index)} follows {last}; indices must increase"
        last = int(index)
    return ""


def _shown(word: bytes) -> str:
    return repr(word[:40].decode(errors="replace"))


def to_table(path: Any, *parts: Any) -> tuple[Any, ...]:
    """Rows `[n, d]`: uint8 where all are, else float32; sparse ones dense where that is small.

    Args:
      path: named in errors.
      *parts: arrays `[n, …]`, or each a `scipy.sparse.csr_array`.
    """
    if isinstance(parts[0], np.ndarray):
        return as_stored(path, *(part.reshape(len(part), -1) for part in parts))
    entries, width = sum(part.nnz for part in parts), parts[0].shape[1]
    if width > (most := _FREE_FEATURES + _FEATURES_AN_ENTRY * entries):
        raise DataError(
            f"{path}: an index makes {width:,} features; at most {most:,} for {entries:,} entries"
        )
    for part in parts:
        bad = np.flatnonzero(~np.isfinite(part.data))
        if len(bad):
            row = np.searchsorted(part.indptr, bad[0], "right") - 1
            raise DataError(f"{path}: row {row} has a value that is not finite in float32")
    cells = width * sum(part.shape[0] for part in parts)
    if cells > _SMALL and (entries < _SHARE * cells or 4 * cells > LARGEST_ARRAY):
        return parts
    return tuple(part.toarray() for part in parts)
