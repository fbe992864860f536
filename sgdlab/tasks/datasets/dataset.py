"""What every loader returns, the one error that it raises, and the checks that loaders share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from sgdlab.files import UNPACKING_FAULTS, open_regular, open_unpacked

# The most bytes that one array or text may take once decoded: a file that claims more, or that
# unpacks to more, is refused before any memory is taken.
LARGEST_ARRAY = 2**33
LARGEST_TEXT = 2**30
_PIECE = 2**16


class DataError(ValueError):
    """A data file is missing, damaged or not of its kind: path, place and fault in one line."""


@dataclass(frozen=True)
class Dataset:
    """Rows to learn from.

    Attributes:
      train: {"input": `[n, …]` float32 or uint8, "label": `[n]` int32, class numbers from 0}.
      test: the same for held-out rows, or `None` where the source has no split of its own.
      source: where it came from, as a person would say it.
      classes: C, which a source may know to be more than its rows have.
    """

    train: dict[str, Any]
    test: dict[str, Any] | None
    source: str
    classes: int


class Rows(NamedTuple):
    """Rows as a file has them.

    Attributes:
      input: `[n, …]` numbers.
      label: `[n]` or `[n, 1]` whole numbers.
      names: what the file calls the two.
    """

    input: Any
    label: np.ndarray
    names: tuple[str, str] = ("input", "label")


class Found(NamedTuple):
    """What lies at a path, before it is checked.

    Attributes:
      path: named in errors.
      train: training rows.
      test: held-out rows, if there are any.
      classes: C, where the labels are class numbers 0…C−1 already.
    """

    path: Any
    train: Rows
    test: Rows | None = None
    classes: int | None = None


def make_dataset(found: Found, convert: Callable[..., tuple[Any, ...]] | None = None) -> Dataset:
    """The rows, checked: the two parts fit one another, and the labels are class numbers.

    Args:
      found: where `classes` isn't known, labels are numbered in sorted order of the training
        labels' values.
      convert: from `(path, inputs of train[, of test])` to as many arrays; by default to float32,
        but for uint8, and all finite.

    Raises:
      DataError: rows and labels don't match, a label is no whole number, or a test label is one
        that no training row has.
    """
    path, train, test, classes = found
    parts = [train] if test is None else [train, test]
    labels = [_labels(part, path) for part in parts]
    if test is not None and train.input.shape[1:] != test.input.shape[1:]:
        raise DataError(
            f"{path}: rows of {train.names[0]} are {train.input.shape[1:]}, of {test.names[0]} of "
            f"the test set {test.input.shape[1:]}"
        )
    values = _values(labels[0], classes, path)
    if test is not None:
        _check_known(labels[1], labels[0], path)
    inputs = (convert or as_stored)(path, *(part.input for part in parts))
    made = [
        {"input": rows, "label": np.searchsorted(values, each).astype(np.int32)}
        for rows, each in zip(inputs, labels, strict=True)
    ]
    return Dataset(made[0], made[1] if test is not None else None, str(path), len(values))


def _labels(part: Rows, path: Any) -> np.ndarray:
    """`[n]` whole numbers, as many as there are rows."""
    rows, labels = part.input, np.asarray(part.label)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    x, y = part.names
    if len(rows.shape) < 2 or 0 in rows.shape or labels.shape != rows.shape[:1]:
        raise DataError(
            f"{path}: {x} {rows.shape} and {y} {labels.shape}; needed are [n, …] and [n], not empty"
        )
    if labels.dtype.kind not in "biuf":
        raise DataError(f"{path}: {y} holds {labels.dtype}; needed are whole numbers")
    if labels.dtype.kind == "f":
        fault = np.flatnonzero(~np.isfinite(labels) | (labels != np.round(labels)))
        if len(fault):
            raise DataError(
                f"{path}: {y}: label {labels[fault[0]]} of row {fault[0]} is no whole number"
            )
    return labels


def _values(labels: np.ndarray, classes: int | None, path: Any) -> np.ndarray:
    """The label of each class, in order."""
    if classes is None:
        values = np.unique(labels)
    else:
        values = np.arange(classes)
        wrong = np.flatnonzero((labels < 0) | (labels >= classes))
        if len(wrong):
            raise DataError(
                f"{path}: train label {labels[wrong[0]]} of row {wrong[0]}; "
                f"labels go from 0 to {classes - 1}"
            )
    if len(values) < 2:
        raise DataError(f"{path}: all {len(labels)} labels are {labels[0]}; two classes are needed")
    return values


def _check_known(test: np.ndarray, train: np.ndarray, path: Any) -> None:
    """A class that only test rows have is one that nobody can predict."""
    unknown = np.flatnonzero(~np.isin(test, train))
    if len(unknown) and np.all(test == -1):
        raise DataError(
            f"{path}: all {len(test)} test labels are -1, which means unlabelled; needed are "
            "labels, or no test rows"
        )
    if len(unknown):
        raise DataError(
            f"{path}: test label {test[unknown[0]]} of row {unknown[0]} is one that no training "
            f"row has ({len(unknown)} of {len(test)} test rows); needed are the training labels"
        )


def as_stored(path: Any, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
    """Each as it is where all are uint8, else as float32, and all finite."""
    if all(rows.dtype == np.uint8 for rows in inputs):
        return inputs
    return tuple(finite_features(rows, path) for rows in inputs)


def finite_features(features: np.ndarray, path: Any) -> np.ndarray:
    """Features as float32, all finite."""
    with np.errstate(over="ignore"):
        features = features.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(features.reshape(len(features), -1)).all(1))
    if len(bad):
        raise DataError(f"{path}: row {bad[0]} has a value that is not finite in float32")
    return features


def file_size(path: Path) -> int:
    """Bytes of a regular file; a `DataError` where it is missing, unreadable or of another kind."""
    with _telling(path), open_regular(path) as file:
        return file.seek(0, 2)


@contextmanager
def open_data(path: Path) -> Iterator[BinaryIO]:
    """A regular file, unpacked by its content (gzip, bzip2, xz); its faults are `DataError`s."""
    with _telling(path), open_unpacked(path) as file:
        yield file


def read_bytes(path: Path, limit: int = LARGEST_TEXT) -> bytearray:
    """A whole file, unpacked, up to `limit` bytes; they are counted before memory is taken.

    Raises:
      DataError: it is missing, damaged or too large.
    """
    with open_data(path) as file:
        count = count_bytes(file, limit, path)
    with open_data(path) as file:
        content = bytearray(count)
        read_into(file, content, path)
    return content


def count_bytes(file: BinaryIO, limit: int, path: Any) -> int:
    """How many bytes a stream has left; a `DataError` where they are more than `limit`."""
    count = 0
    while piece := file.read(_PIECE):
        count += len(piece)
        if count > limit:
            raise DataError(
                f"{path}: offset {limit}: more bytes than the {limit:,} that are allowed"
            )
    return count


def read_into(file: BinaryIO, content: bytearray | memoryview, path: Any) -> None:
    """Fill memory from a stream; a `DataError` where the stream ends before."""
    view, start = memoryview(content), 0
    while start < len(view):
        piece = file.read(min(_PIECE, len(view) - start))
        if not piece:
            raise DataError(f"{path}: offset {start}: the file ends before its {len(view):,} bytes")
        view[start : start + len(piece)] = piece
        start += len(piece)


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Failures of the file system, and of damaged streams, in one line."""
    try:
        yield
    except UNPACKING_FAULTS as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise DataError(f"{path}: {reason or 'too little memory'}") from None
