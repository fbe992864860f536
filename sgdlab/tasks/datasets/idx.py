"""IDX files, the format of MNIST and its kin (Fashion-MNIST, EMNIST, KMNIST)."""

from __future__ import annotations

import math
import struct
from os import PathLike
from pathlib import Path

import numpy as np

from sgdlab.tasks.datasets.dataset import (
    LARGEST_ARRAY,
    DataError,
    Dataset,
    Found,
    Rows,
    count_bytes,
    make_dataset,
    open_data,
    read_into,
)

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | PathLike[str]) -> np.ndarray:
    """One IDX file: two zero bytes, a type byte, the number of axes, their lengths, the entries.

    Args:
      path: the file; unpacked where it is gzip, bzip2 or xz by its content.

    Returns:
      The array, in the machine's byte order.

    Raises:
      DataError: the file is missing or damaged, or is not exactly as long as its header says.
    """
    path = Path(path)
    with open_data(path) as file:
        dtype, shape = _read_header(file, path)
        expected = dtype.itemsize * math.prod(shape)
        _check_length(file, path, shape, expected)
    array = np.empty(shape, dtype)
    with open_data(path) as file:
        _read_header(file, path)
        read_into(file, array.reshape(-1).view(np.uint8).data, path)
    return array.astype(dtype.newbyteorder("="), copy=False)


def load_mnist(directory: str | PathLike[str]) -> Dataset:
    """A directory with MNIST's four files, each plain or .gz, under their usual names.

    Args:
      directory: holds train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
        t10k-labels-idx1-ubyte (a dot for the last hyphen is fine).

    Returns:
      A `Dataset` with "input" `[n, H, W, 1]` uint8.

    Raises:
      DataError: a file is missing or damaged, or images and labels don't match.
    """
    return make_dataset(read_mnist(directory))


def read_mnist(directory: str | PathLike[str]) -> Found:
    """What `load_mnist` checks."""
    train, test = (_pair(Path(directory), stem) for stem in ("train", "t10k"))
    return Found(directory, train, test)


def is_mnist(directory: Path) -> bool:
    """Whether a directory holds MNIST's training images."""
    return _find(directory, "train-images", "idx3") is not None


def _read_header(file, path: Path) -> tuple[np.dtype, tuple[int, ...]]:
    magic = _read_exactly(file, 4, path, 0)
    if magic[:2] != b"\0\0" or magic[2] not in _DTYPES or not 0 < magic[3] <= 32:
        raise DataError(f"{path}: offset 0: bytes {magic.hex(' ')} are no IDX header")
    lengths = _read_exactly(file, 4 * magic[3], path, 4)
    return np.dtype(_DTYPES[magic[2]]), struct.unpack(f">{magic[3]}I", lengths)


def _read_exactly(file, count: int, path: Path, offset: int) -> bytes:
    """`count` bytes of a header at `offset`, or a `DataError`."""
    content = file.read(count)
    if len(content) < count:
        raise DataError(f"{path}: offset {offset + len(content)}: the file ends inside its header")
    return content


def _check_length(file, path: Path, shape: tuple[int, ...], expected: int) -> None:
    """What follows the header is what it declares, before memory is taken for it."""
    start = 4 + 4 * len(shape)
    if expected > LARGEST_ARRAY:
        raise DataError(
            f"{path}: offset 4: shape {shape} needs {expected:,} bytes; at most {LARGEST_ARRAY:,}"
        )
    count = count_bytes(file, expected, path)
    if count < expected:
        raise DataError(
            f"{path}: offset {start + count}: the file ends, but its header promises "
            f"{start + expected:,} bytes for shape {shape}"
        )


def _pair(directory: Path, stem: str) -> Rows:
    paths = [_find(directory, f"{stem}-{kind}", f"idx{axes}") for kind, axes in _KINDS.items()]
    for path, kind in zip(paths, _KINDS, strict=True):
        if path is None:
            raise DataError(f"{directory}: holds no {stem}-{kind}-idx{_KINDS[kind]}-ubyte")
    images, labels = (read_idx(path) for path in paths if path is not None)
    if images.ndim != 3 or 0 in images.shape:
        raise DataError(f"{paths[0]}: offset 3: shape {images.shape}; images have three axes")
    if labels.shape != images.shape[:1]:
        raise DataError(f"{paths[1]}: labels {labels.shape} for {len(images)} images")
    return Rows(images[..., None], labels)


_KINDS = {"images": 3, "labels": 1}


def _find(directory: Path, stem: str, axes: str) -> Path | None:
    names = (f"{stem}{dot}{axes}-ubyte{suffix}" for dot in "-." for suffix in ("", ".gz"))
    return next((directory / name for name in names if (directory / name).is_file()), None)
