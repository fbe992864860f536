"""NumPy's .npz archives: headers are checked before memory is taken, nothing is unpickled."""

from __future__ import annotations

import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from sgdlab.files import open_regular
from sgdlab.tasks.datasets.dataset import (
    LARGEST_ARRAY,
    DataError,
    Dataset,
    Found,
    Rows,
    count_bytes,
    make_dataset,
    read_into,
)

DEFLATE_RATIO = 1032  # the best that deflate can do

# What a damaged archive makes zipfile, zlib and the header raise.
_FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    struct.error,
    MemoryError,
)
_LONGEST_HEADER = 10_000
_HEADER = re.compile(
    r"\{\s*'descr'\s*:\s*'(?P<dtype>[<>|=][biuf]\d{1,2})'\s*,"
    r"\s*'fortran_order'\s*:\s*(?P<fortran>True|False)\s*,"
    r"\s*'shape'\s*:\s*\((?P<shape>(\s*\d{1,18}\s*,)*(\s*\d{1,18})?\s*)\)\s*,?\s*\}\s*"
)
# Names for training rows, labels, test rows, labels: with and without a test set; MedMNIST's.
_NAMES = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x", "y", None, None),
)
# More arrays than anybody keeps in one file, whose list alone takes memory.
_MOST_ARRAYS = 10_000


def load_npz(path: str | PathLike[str]) -> Dataset:
    """An .npz with arrays "x", "y", or "x_train", "y_train", "x_test", "y_test".

    MedMNIST's files have "train_images", "train_labels", "test_images" and "test_labels"; other
    arrays, such as its validation set, are not read.

    Args:
      path: the file. x has rows on its first axis, y whole numbers `[n]` or `[n, 1]`.

    Returns:
      A `Dataset` with "input" as stored if uint8, else float32.

    Raises:
      DataError: the file is missing or damaged, or arrays are missing or don't match.
    """
    return make_dataset(read_rows(path))


def read_rows(path: str | PathLike[str]) -> Found:
    """What `load_npz` checks."""
    path = Path(path)
    with _opened(path) as archive:
        members = _members(archive, path)
        for x, y, *test in _NAMES:
            if x not in members or y not in members:
                continue
            names = [name for name in (x, y, *test) if name is not None]
            if missing := [name for name in names if name not in members]:
                raise DataError(f"{path}: has {x} and {y}, but no {' and '.join(missing)}")
            arrays = _read_members(archive, {name: members[name] for name in names}, path)
            made = [
                Rows(arrays[x], arrays[y], (x, y)) for x, y in zip(*[iter(names)] * 2, strict=True)
            ]
            return Found(path, made[0], made[1] if test[0] else None)
    raise DataError(
        f"{path}: holds {', '.join(members)[:100] or 'nothing'}; needed are x and y, or x_train, "
        "y_train, x_test and y_test"
    )


def read_npz(path: str | PathLike[str]) -> dict[str, np.ndarray]:
    """All arrays of an .npz, numbers only.

    Args:
      path: the file, compressed or not.

    Returns:
      Arrays by name.

    Raises:
      DataError: the file is missing or damaged, an array holds objects, or one is larger than the
        file can hold, or all together are larger than `LARGEST_ARRAY` bytes.
    """
    path = Path(path)
    with _opened(path) as archive:
        return _read_members(archive, _members(archive, path), path)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            yield archive
    except DataError:
        raise
    except _FAULTS as error:
        reason = getattr(error, "strerror", None) or _one_line(error)
        raise DataError(f"{path}: {reason}") from None


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """The arrays by name; no two lie in the same bytes, and none claims more than it can hold."""
    found = sorted(archive.infolist(), key=lambda member: member.header_offset)
    if len(found) > _MOST_ARRAYS:
        raise DataError(f"{path}: {len(found):,} arrays; at most {_MOST_ARRAYS:,}")
    end = 0
    for member in found:
        place = _place(member, path)
        # Deflate is the one method that NumPy writes, and its best ratio is known.
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{place}: compression method {member.compress_type} is not NumPy's")
        if member.header_offset < end:
            raise DataError(f"{place}: lies within the array before it")
        end = member.header_offset + member.compress_size
        if member.file_size > DEFLATE_RATIO * member.compress_size:
            raise DataError(
                f"{place}: claims {member.file_size:,} bytes of {member.compress_size:,}"
            )
    if end > archive.start_dir:  # pyright: ignore[reportAttributeAccessIssue]
        raise DataError(f"{path}: its arrays claim more bytes than it has")
    return {member.filename.removesuffix(".npy"): member for member in found}


def _read_members(
    archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], path: Path
) -> dict[str, np.ndarray]:
    """The arrays; all their sizes are checked before memory is taken for the first."""
    total = sum(member.file_size for member in members.values())
    if total > LARGEST_ARRAY:
        raise DataError(f"{path}: arrays of {total:,} bytes; at most {LARGEST_ARRAY:,}")
    checked = {name: _check_member(archive, each, path) for name, each in members.items()}
    return {name: _read_member(archive, members[name], path, *checked[name]) for name in members}


def _check_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path
) -> tuple[tuple[int, ...], bool, np.dtype]:
    """What the header says, and that so many bytes, and no others, follow it."""
    place = _place(member, path)
    with _telling(place), archive.open(member) as file:
        shape, fortran, dtype = _read_header(file)
        expected = dtype.itemsize * math.prod(shape)
        there = member.file_size - file.tell()
        if expected == there:
            there = count_bytes(cast(BinaryIO, file), expected, place)
        if expected != there:
            raise DataError(
                f"{place}: shape {shape} of {dtype} needs {expected:,} bytes, {there:,} are there"
            )
    return shape, fortran, dtype


def _read_member(
    archive: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    path: Path,
    shape: tuple[int, ...],
    fortran: bool,
    dtype: np.dtype,
) -> np.ndarray:
    place = _place(member, path)
    content = np.empty(math.prod(shape), dtype)
    with _telling(place), archive.open(member) as file:
        _read_header(file)
        read_into(cast(BinaryIO, file), content.view(np.uint8).data, place)
    array = content.reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


def _place(member: zipfile.ZipInfo, path: Path) -> str:
    return f"{path}: array {member.filename[:60]!r} at offset {member.header_offset}"


@contextmanager
def _telling(place: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except _FAULTS as error:
        raise DataError(f"{place}: {_one_line(error)}") from None


def _read_header(file) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, Fortran order and dtype of an .npy; read by pattern, so that nothing is evaluated."""
    magic = file.read(8)
    if magic[:6] != b"\x93NUMPY" or magic[6] not in (1, 2):
        raise ValueError(f"bytes {magic.hex(' ')} are no header of plain numbers")
    length = int.from_bytes(file.read(2 if magic[6] == 1 else 4), "little")
    if length > _LONGEST_HEADER:
        raise ValueError(f"a header of {length:,} bytes is longer than {_LONGEST_HEADER:,}")
    header = file.read(length).decode("latin1")
    found = _HEADER.fullmatch(header)
    if found is None:
        raise ValueError(f"header {header[:60]!r} is not that of an array of numbers")
    shape = tuple(int(axis) for axis in found["shape"].split(",") if axis.strip())
    return shape, found["fortran"] == "True", np.dtype(found["dtype"])


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
