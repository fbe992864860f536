"""CIFAR's binary versions: records of one or two label bytes and 3,072 pixels."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sgdlab.tasks.datasets.dataset import (
    DataError,
    Dataset,
    Found,
    Rows,
    file_size,
    make_dataset,
    read_bytes,
)

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE


class _Version(NamedTuple):
    """Where a version lies, its classes, and a record's label bytes, of which the last counts."""

    folder: str
    train: str
    test: str
    classes: int
    label_bytes: int


_VERSIONS = (
    _Version("cifar-10-batches-bin", "data_batch_*.bin", "test_batch.bin", 10, 1),
    _Version("cifar-100-binary", "train.bin", "test.bin", 100, 2),
)


def load_cifar(directory: str | PathLike[str]) -> Dataset:
    """CIFAR-10 (data_batch_1.bin …, test_batch.bin) or CIFAR-100 (train.bin, test.bin).

    Of CIFAR-100's two labels the fine one is taken.

    Args:
      directory: it, or the one that holds "cifar-10-batches-bin" or "cifar-100-binary".

    Returns:
      A `Dataset` with "input" `[n, 32, 32, 3]` uint8.

    Raises:
      DataError: a file is missing, has no whole number of records, or a label that is too large.
    """
    return make_dataset(read_cifar(directory))


def read_cifar(directory: str | PathLike[str]) -> Found:
    """What `load_cifar` checks."""
    found = _find(Path(directory))
    if found is None:
        raise DataError(f"{directory}: holds no data_batch_1.bin and no train.bin")
    folder, version = found
    parts = [_read_batch(path, version) for path in sorted(folder.glob(version.train))]
    inputs, labels = (np.concatenate([part[column] for part in parts]) for column in (0, 1))
    test = _read_batch(folder / version.test, version)
    return Found(directory, Rows(inputs, labels), test, version.classes)


def is_cifar(directory: Path) -> bool:
    """Whether a directory holds CIFAR's training batches."""
    return _find(directory) is not None


def _find(directory: Path) -> tuple[Path, _Version] | None:
    for version in _VERSIONS:
        for folder in (directory / version.folder, directory):
            if folder.is_dir() and any(folder.glob(version.train)):
                return folder, version
    return None


def _read_batch(path: Path, version: _Version) -> Rows:
    record, size = version.label_bytes + _PIXELS, file_size(path)
    if size == 0 or size % record:
        raise DataError(
            f"{path}: offset {size - size % record}: {size} bytes are no whole number of records "
            f"of {record}"
        )
    records = np.frombuffer(read_bytes(path), np.uint8).reshape(-1, record)
    labels = records[:, version.label_bytes - 1]
    bad = np.flatnonzero(labels >= version.classes)
    if len(bad):
        raise DataError(
            f"{path}: offset {bad[0] * record}: label {labels[bad[0]]}; "
            f"labels go from 0 to {version.classes - 1}"
        )
    pixels = records[:, version.label_bytes :].reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return Rows(np.ascontiguousarray(pixels), labels.astype(np.int32))
