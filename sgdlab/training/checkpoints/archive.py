"""The bytes of one checkpoint: a header that is checked first, then every leaf's own bits.

    magic (8) | length of the header (8) | SHA-256 of the header (32) | header, JSON | leaves

The header lists each leaf's path, dtype, shape, place and SHA-256, so any changed bit is found, and
found by name. Leaves are stored as they lie in memory: NaN payloads, signed zeros and 16-bit
formats come back bit for bit. Nothing is ever unpickled: a file can hold numbers and text only.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgdlab.files import open_flags

MAGIC = b"\x89sgdlab\n"
SCHEMA = 1
_PREFIX = struct.Struct("<8sQ32s")
_MAX_HEADER = 64 << 20  # bytes


class CheckpointError(Exception):
    """A checkpoint cannot be written, read or used here, in one line."""


class DamagedError(CheckpointError):
    """A file is not the checkpoint that was written."""


class MismatchError(CheckpointError):
    """A sound checkpoint belongs to another program."""


class Leaf(NamedTuple):
    """One leaf of a checkpoint.

    Attributes:
      path: its place in the tree, such as `params/dense/kernel`.
      dtype: `float32`, `bfloat16`, …, or `key<…>` for typed PRNG keys.
      shape: of the array (of the keys, not of their data).
      offset: its first byte, counted from the end of the header.
      sha256: of its bytes, in hexadecimal.
    """

    path: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    sha256: str


@dataclass(frozen=True)
class Header:
    """What a checkpoint says of itself.

    Attributes:
      update: how many updates had been made.
      metadata: what was given to `save`.
      leaves: every leaf, in the tree's order; without offsets and checksums of their own where the
        checkpoint is a folder of parts.
      payload: bytes of all leaves together.
    """

    update: int
    metadata: dict[str, Any]
    leaves: tuple[Leaf, ...]
    payload: int


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and found sound.

    Attributes:
      path: the file.
      update: how many updates had been made.
      metadata: what was given to `save`.
      state: the tree; NumPy arrays, and typed keys where there were typed keys.
    """

    path: Path
    update: int
    metadata: dict[str, Any]
    state: Any


def encode(tree: Any, update: int, metadata: Mapping[str, Any]) -> list[Any]:
    """The file as buffers, to be written one after another.

    Args:
      tree: any pytree of arrays, numbers and typed keys; fetched to the host here.
      update: how many updates were made.
      metadata: what JSON can hold.

    Raises:
      CheckpointError: a leaf is no array of numbers, or the metadata are not JSON.
    """
    leaves: list[Leaf] = []
    buffers: list[Any] = []
    offset = 0
    for part in list_parts(tree):
        data = _to_bytes(part.value)
        digest = hashlib.sha256(data).hexdigest()
        leaves.append(Leaf(part.path, part.dtype, part.shape, offset, digest))
        buffers.append(data)
        offset += len(data)
    fields = {
        "schema": SCHEMA,
        "byteorder": sys.byteorder,
        "update": update,
        "metadata": dict(metadata),
        "payload": offset,
        "leaves": [leaf._asdict() for leaf in leaves],
    }
    try:
        text = json.dumps(fields, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"metadata: {error}; allowed: what JSON can hold") from error
    if len(text) > _MAX_HEADER:
        raise CheckpointError(f"metadata: {len(text)} bytes; at most {_MAX_HEADER}")
    prefix = _PREFIX.pack(MAGIC, len(text), hashlib.sha256(text).digest())
    return [prefix + text, *buffers]


def load(path: str | Path, like: Any | Callable[[Header], Any]) -> Checkpoint:
    """Read a checkpoint, checking every bit.

    What the file claims is compared with `like` and with the file's real size before memory is
    taken, and each leaf with its checksum as it is read.

    Args:
      path: the file; a symbolic link is not followed.
      like: a tree of arrays or `jax.ShapeDtypeStruct`s with the structure, shapes and dtypes that
        the state must have; or a function of the `Header` that gives it, where they depend on it.

    Returns:
      The `Checkpoint`.

    Raises:
      DamagedError: the file is cut, changed, or no checkpoint.
      MismatchError: a leaf is missing, or has another shape or dtype; its path and both are named.
      CheckpointError: it cannot be opened, or a newer schema made it.
    """
    path = Path(path)
    with _open(path) as file:
        header = _read_header(path, file)
        tree = like(header) if callable(like) else like
        parts = list_parts(tree)
        _compare(path, header, parts)
        values = [
            _read_leaf(path, file, leaf, part)
            for leaf, part in zip(header.leaves, parts, strict=True)
        ]
        state = jax.tree.structure(tree).unflatten(values)
        return Checkpoint(path, header.update, header.metadata, state)


def read_header(path: str | Path) -> Header:
    """What a checkpoint says of itself; its leaves are not read.

    Raises:
      CheckpointError: as for `load`.
    """
    with _open(Path(path)) as file:
        return _read_header(Path(path), file)


def _open(path: Path) -> FileIO:
    """A regular file, never a link or a pipe that would block."""
    try:
        flags = os.O_RDONLY | open_flags("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")
        file = FileIO(os.open(path, flags))
    except OSError as error:
        raise DamagedError(f"{path}: cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise DamagedError(f"{path}: is no regular file")
    return file


def _read_header(path: Path, file: FileIO) -> Header:
    size = os.fstat(file.fileno()).st_size
    if size < _PREFIX.size:
        raise DamagedError(f"{path}: has {size} bytes; a checkpoint has more")
    magic, length, digest = _PREFIX.unpack(_read(path, file, _PREFIX.size))
    if magic != MAGIC:
        raise DamagedError(f"{path}: does not begin as a checkpoint does")
    if length > min(size - _PREFIX.size, _MAX_HEADER):
        raise DamagedError(f"{path}: a header of {length} bytes in a file of {size}")
    text = _read(path, file, length)
    if hashlib.sha256(text).digest() != digest:
        raise DamagedError(f"{path}: the header's checksum is wrong")
    header = _parse(path, text)
    whole = _PREFIX.size + length + header.payload
    if size != whole:
        raise DamagedError(f"{path}: has {size} bytes; {whole} were written")
    return header


def _parse(path: Path, text: bytes) -> Header:
    try:
        fields = json.loads(text)
        if fields["schema"] != SCHEMA:
            raise CheckpointError(
                f"{path}: schema {fields['schema']}; this version of sgdlab reads {SCHEMA}"
            )
        if fields["byteorder"] != sys.byteorder:
            raise CheckpointError(
                f"{path}: {fields['byteorder']}-endian; this machine is {sys.byteorder}-endian"
            )
        leaves = tuple(
            Leaf(
                str(leaf["path"]),
                str(leaf["dtype"]),
                tuple(map(int, leaf["shape"])),
                int(leaf["offset"]),
                str(leaf["sha256"]),
            )
            for leaf in fields["leaves"]
        )
        return Header(
            int(fields["update"]), dict(fields["metadata"]), leaves, int(fields["payload"])
        )
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise DamagedError(f"{path}: the header cannot be understood: {error!r}") from error


def _compare(path: Path, header: Header, parts: list[Part]) -> None:
    """Every leaf as it should be, one behind another, and nothing else."""
    found, wanted = [leaf.path for leaf in header.leaves], [part.path for part in parts]
    if found != wanted:
        raise MismatchError(f"{path}: {first_difference(found, wanted)}")
    offset = 0
    for leaf, part in zip(header.leaves, parts, strict=True):
        if (leaf.dtype, leaf.shape) != (part.dtype, part.shape):
            raise MismatchError(
                f"{path}: {leaf.path}: {leaf.dtype}{list(leaf.shape)} in the checkpoint, "
                f"{part.dtype}{list(part.shape)} in this program"
            )
        if leaf.offset != offset:
            raise DamagedError(
                f"{path}: {leaf.path}: at byte {leaf.offset}; it belongs at {offset}"
            )
        offset += part.size
    if offset != header.payload:
        raise DamagedError(f"{path}: {header.payload} bytes of leaves; {offset} are needed")


def first_difference(found: list[str], wanted: list[str]) -> str:
    """In which leaf two lists of paths differ first, in a line."""
    for name in wanted:
        if name not in found:
            return f"{name}: not in the checkpoint, which has {len(found)} leaves; needed here"
    for name in found:
        if name not in wanted:
            return f"{name}: in the checkpoint, not in this program, which has {len(wanted)} leaves"
    index = next(i for i, pair in enumerate(zip(found, wanted, strict=False)) if len({*pair}) > 1)
    return f"leaf {index}: {found[index]} in the checkpoint, {wanted[index]} in this program"


def _read_leaf(path: Path, file: FileIO, leaf: Leaf, part: Part) -> Any:
    data = np.empty(part.size, np.uint8)
    _fill(path, file, data.data)
    if hashlib.sha256(data.data).hexdigest() != leaf.sha256:
        raise DamagedError(f"{path}: {leaf.path}: the checksum is wrong")
    if part.is_key:
        return _wrap_keys(data, part.value)
    return data.view(jnp.dtype(part.dtype)).reshape(part.shape)


def _wrap_keys(data: np.ndarray, like: Any) -> jax.Array:
    """Typed keys of the implementation that `like` has, which may be abstract."""
    found = []
    words = jax.eval_shape(jax.random.key_data, like)
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), like)
    array = jnp.array(data.view(words.dtype).reshape(words.shape))
    return jax.random.wrap_key_data(array, impl=found[0])


def _read(path: Path, file: FileIO, size: int) -> bytes:
    buffer = bytearray(size)
    _fill(path, file, memoryview(buffer))
    return bytes(buffer)


def _fill(path: Path, file: FileIO, view: memoryview) -> None:
    """Read until the buffer is full."""
    while len(view):
        try:
            count = file.readinto(view)
        except OSError as error:
            raise DamagedError(f"{path}: cannot be read: {error.strerror}") from error
        if not count:
            raise DamagedError(f"{path}: ends {len(view)} bytes too early")
        view = view[count:]


class Part(NamedTuple):
    """A leaf of a tree in memory; `size` in bytes."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    value: Any
    is_key: bool


def list_parts(tree: Any) -> list[Part]:
    """Every leaf with its path, such as `rule/0/trace/kernel`."""
    return [
        _part(jax.tree_util.keystr(path, simple=True, separator="/") or "state", leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def _part(path: str, value: Any) -> Part:
    value = value if hasattr(value, "dtype") else np.asarray(value)
    dtype, shape = value.dtype, tuple(value.shape)
    is_key = jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not (is_key or jnp.issubdtype(dtype, jnp.number) or dtype == np.bool_):
        raise CheckpointError(f"{path}: {dtype} cannot be kept; allowed: numbers and typed keys")
    name = str(dtype) if is_key else np.dtype(dtype).name
    return Part(path, name, shape, math.prod(shape) * dtype.itemsize, value, is_key)


def _to_bytes(value: Any) -> memoryview:
    """The leaf's bits in C order and this machine's byte order."""
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    array = np.asarray(value)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
