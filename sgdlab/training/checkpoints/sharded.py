"""A checkpoint whose leaves are spread over devices or hosts: a folder that all of them write.

    manifest.ckpt   what is whole anyway, in the one-file format; in its header the list of all
                    leaves, and size and SHA-256 of every file in `arrays`
    arrays/         the spread leaves, each process writing and reading its own parts (orbax)

No process ever holds a spread leaf as a whole. The parts may be read back onto another mesh, or one
device. Every file is read and compared with the manifest before a single number is believed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgdlab.training.checkpoints import archive
from sgdlab.training.checkpoints.archive import (
    Checkpoint,
    CheckpointError,
    DamagedError,
    Header,
    Leaf,
    MismatchError,
    Part,
    first_difference,
    list_parts,
)
from sgdlab.training.checkpoints.writing import sync_folder, telling, write_file

MANIFEST, ARRAYS = "manifest.ckpt", "arrays"


class Sharded:
    """The format of states that no one device, or no one process, holds as a whole."""

    suffix = "shards"

    def write(
        self, path: Path, unfinished: Path, tree: Any, update: int, metadata: Mapping[str, Any]
    ) -> None:
        """Write the folder beside its place and let it take its name; all processes together.

        Raises:
          CheckpointError: it cannot be written, or a leaf is no array of numbers.
        """
        parts = list_parts(tree)
        spread = {_key(i): part.value for i, part in enumerate(parts) if is_spread(part.value)}
        whole = {part.path: part.value for part in parts if not is_spread(part.value)}
        if _leads():
            with telling(path):
                unfinished.mkdir()
        _wait("made")
        try:
            with _unlogged():
                _orbax().save((unfinished / ARRAYS).absolute(), spread)
        except Exception as error:  # whatever it meets: a lost peer is found behind it
            raise CheckpointError(f"{path}: cannot be written: {_reason(error)}") from error
        with telling(path):
            names = _list_files(unfinished / ARRAYS)
            digests = _hash_together(unfinished / ARRAYS, names, sync=True)
        if _leads():
            facts = {
                "metadata": dict(metadata),
                "leaves": [[part.path, part.dtype, list(part.shape)] for part in parts],
                "files": {
                    name: [os.path.getsize(unfinished / ARRAYS / name), digest]
                    for name, digest in zip(names, digests, strict=True)
                },
            }
            content = archive.encode(whole, update, facts)
            with telling(path):
                write_file(unfinished / MANIFEST, content)
                for folder, _, _ in os.walk(unfinished, topdown=False):
                    sync_folder(Path(folder))
                if path.exists():
                    shutil.rmtree(path)
                os.replace(unfinished, path)
        _wait("named")

    def load(self, path: Path, like: Any | Callable[[Header], Any]) -> Checkpoint:
        """Read it, checking every file; see `archive.load`.

        Leaves that were spread come back as arrays with the sharding that `like` has, whatever the
        mesh that wrote them; the others as NumPy arrays.
        """
        manifest, facts = _read_manifest(path)
        header = _header(manifest, facts)
        tree = like(header) if callable(like) else like
        parts = list_parts(tree)
        _compare(path, facts["leaves"], parts)
        _check_files(path, facts["files"])
        held = {leaf.path for leaf in manifest.leaves}
        whole = {part.path: part.value for part in parts if part.path in held}
        found = archive.load(path / MANIFEST, whole).state
        spread = {_key(i): part for i, part in enumerate(parts) if part.path not in held}
        found |= _read_arrays(path, spread)
        state = jax.tree.structure(tree).unflatten([found[part.path] for part in parts])
        return Checkpoint(path, header.update, header.metadata, state)

    def read_header(self, path: Path) -> Header:
        """What it says of itself; the arrays are not read."""
        return _header(*_read_manifest(path))


def is_spread(leaf: Any) -> bool:
    """Whether no device holds all of a leaf."""
    return isinstance(leaf, jax.Array) and not leaf.is_fully_replicated


def _read_manifest(path: Path) -> tuple[Header, dict[str, Any]]:
    for folder in (path, path / ARRAYS):
        if folder.is_symlink():
            raise DamagedError(f"{folder}: is a symbolic link; allowed: a folder")
    manifest = archive.read_header(path / MANIFEST)
    if not {"metadata", "leaves", "files"} <= set(manifest.metadata):
        raise DamagedError(f"{path}: its manifest is that of another checkpoint")
    return manifest, manifest.metadata


def _header(manifest: Header, facts: Mapping[str, Any]) -> Header:
    """All leaves, without a place or a checksum of their own."""
    leaves = tuple(Leaf(path, dtype, tuple(shape), 0, "") for path, dtype, shape in facts["leaves"])
    payload = manifest.payload + sum(size for size, _ in facts["files"].values())
    return Header(manifest.update, facts["metadata"], leaves, payload)


def _compare(path: Path, leaves: list[Any], parts: list[Part]) -> None:
    """Every leaf as this program has it."""
    found, wanted = [leaf[0] for leaf in leaves], [part.path for part in parts]
    if found != wanted:
        raise MismatchError(f"{path}: {first_difference(found, wanted)}")
    for (name, dtype, shape), part in zip(leaves, parts, strict=True):
        if (dtype, tuple(shape)) != (part.dtype, part.shape):
            raise MismatchError(
                f"{path}: {name}: {dtype}{shape} in the checkpoint, "
                f"{part.dtype}{list(part.shape)} in this program"
            )


def _check_files(path: Path, files: Mapping[str, list[Any]]) -> None:
    """Just the files that were written, bit for bit."""
    folder = path / ARRAYS
    try:
        names = _list_files(folder)
        if names != sorted(files):
            name = sorted({*names} ^ {*files})[0]
            raise DamagedError(f"{path}: {name}: {'missing' if name in files else 'not its own'}")
        for name in names:
            found = os.lstat(folder / name)
            if not stat.S_ISREG(found.st_mode):
                raise DamagedError(f"{path}: {name}: is no regular file")
            if (size := found.st_size) != files[name][0]:
                raise DamagedError(f"{path}: {name}: has {size} bytes; {files[name][0]} written")
        digests = _hash_together(folder, names)
    except OSError as error:
        raise DamagedError(f"{path}: cannot be read: {error.strerror}") from error
    for name, digest in zip(names, digests, strict=True):
        if digest != files[name][1]:
            raise DamagedError(f"{path}: {name}: the checksum is wrong")


def _read_arrays(path: Path, parts: Mapping[str, Part]) -> dict[str, Any]:
    """The spread leaves by path, laid out as `like` has them."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def abstract(part: Part) -> jax.ShapeDtypeStruct:
        sharding = getattr(part.value, "sharding", None) or device
        return jax.ShapeDtypeStruct(part.shape, jnp.dtype(part.dtype), sharding=sharding)

    wanted = {key: abstract(part) for key, part in parts.items()}
    try:
        found = _orbax().load((path / ARRAYS).absolute(), wanted)
    except Exception as error:
        raise CheckpointError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    return {part.path: found[key] for key, part in parts.items()}


def _list_files(folder: Path) -> list[str]:
    """Names of all files below a folder, sorted."""
    found = [Path(where, name) for where, _, names in os.walk(folder) for name in names]
    return sorted(str(name.relative_to(folder)) for name in found)


def _hash_together(folder: Path, names: list[str], *, sync: bool = False) -> list[str]:
    """SHA-256 of each file, every process reading its share, and bringing it to the disk."""
    digests = np.zeros((len(names), 32), np.uint8)
    for index in range(jax.process_index(), len(names), jax.process_count()):
        with open(folder / names[index], "rb") as file:
            digests[index] = np.frombuffer(hashlib.file_digest(file, "sha256").digest(), np.uint8)
            if sync:
                os.fsync(file.fileno())
    if jax.process_count() > 1:
        from jax.experimental.multihost_utils import process_allgather

        digests = np.bitwise_or.reduce(np.asarray(process_allgather(digests)), axis=0)
    return [digest.tobytes().hex() for digest in digests]


@contextmanager
def _unlogged() -> Iterator[None]:
    """Without Orbax's log, which tells of a failure in a hundred lines before it raises it."""
    log = logging.getLogger("absl")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _reason(error: Exception) -> str:
    """What the system said, where it was that; else all that Orbax says, in one line."""
    found = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(found[1])) if found else " ".join(str(error).split())


def _key(index: int) -> str:
    """A leaf's name in `arrays`; its path may hold what no file name should."""
    return f"{index:06d}"


def _leads() -> bool:
    return jax.process_index() == 0


def _wait(what: str) -> None:
    """Until all processes are here."""
    if jax.process_count() > 1:
        from jax.experimental.multihost_utils import sync_global_devices

        sync_global_devices(f"checkpoint {what}")


def _orbax() -> Any:
    """Imported where it is needed: it takes a second."""
    from orbax.checkpoint.experimental import v1

    return v1
