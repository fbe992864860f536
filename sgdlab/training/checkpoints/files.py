"""A folder of checkpoints: the last good one is there at every instant.

A new checkpoint is written under another name, synced, renamed, and the folder synced; only then is
an older one removed. Whatever stops a save, and wherever, the folder holds the one before it or the
new one, whole. One writer at a time: the run's lock sees to that.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import jax

from sgdlab.training.checkpoints import archive
from sgdlab.training.checkpoints.archive import Checkpoint, CheckpointError, DamagedError, Header
from sgdlab.training.checkpoints.sharded import Sharded, is_spread
from sgdlab.training.checkpoints.writing import make_folder, sync_folder, telling, write_file

_NAME = re.compile(r"checkpoint-([0-9]{12})\.(ckpt|shards)")
_UNFINISHED, _OLD = "checkpoint.tmp", "checkpoint.old"


class CheckpointWarning(UserWarning):
    """A damaged checkpoint was passed over for an older one."""


class Format(Protocol):
    """How the bytes of one checkpoint lie on the disk.

    Attributes:
      suffix: of its name.
    """

    suffix: str

    def write(
        self, path: Path, unfinished: Path, tree: Any, update: int, metadata: Mapping[str, Any]
    ) -> None:
        """Write it under the name `unfinished`, durably, and rename it to `path`."""
        ...

    def load(self, path: Path, like: Any | Callable[[Header], Any]) -> Checkpoint:
        """As `archive.load`."""
        ...

    def read_header(self, path: Path) -> Header:
        """As `archive.read_header`."""
        ...


class OneFile:
    """The format of states that are whole on every device: process 0 writes them."""

    suffix = "ckpt"

    def write(
        self, path: Path, unfinished: Path, tree: Any, update: int, metadata: Mapping[str, Any]
    ) -> None:
        """Write the file."""
        if jax.process_index():
            return
        buffers = archive.encode(tree, update, metadata)
        with telling(path):
            try:
                write_file(unfinished, buffers)
                os.replace(unfinished, path)
            except BaseException:
                with suppress(OSError):
                    os.unlink(unfinished)
                raise

    def load(self, path: Path, like: Any | Callable[[Header], Any]) -> Checkpoint:
        """Read the file."""
        return archive.load(path, like)

    def read_header(self, path: Path) -> Header:
        """Read its header."""
        return archive.read_header(path)


FORMATS: dict[str, Format] = {each.suffix: each for each in (OneFile(), Sharded())}


def choose_format(tree: Any) -> Format:
    """One file for what is whole on every device; a folder of parts for what is not."""
    return FORMATS["shards" if any(map(is_spread, jax.tree.leaves(tree))) else "ckpt"]


def save(
    folder: str | Path,
    state_tree: Any,
    *,
    update: int,
    metadata: Mapping[str, Any] | None = None,
    keep: int = 2,
    anew: bool = False,
) -> Path:
    """Write a checkpoint that is durable when this returns.

    In a run of several processes all of them call it.

    Args:
      folder: where the run's checkpoints lie; made where it is missing.
      state_tree: any pytree of arrays, numbers and typed keys.
      update: how many updates were made; it names the file.
      metadata: what JSON can hold: config hash, metrics offset and the like.
      keep: how many are kept of those up to this update, at least 2.
      anew: none of those that were there is kept: they are of another run.

    Returns:
      The file; a folder where the state is spread over devices.

    Raises:
      CheckpointError: it cannot be written; the checkpoints that were there are untouched.
      ValueError: `update` or `keep` is out of range.
    """
    if not 0 <= update < 10**12:
        raise ValueError(f"update: {update} is out of range; allowed: 0 to 10**12 - 1")
    if keep < 2:
        raise ValueError(f"keep: {keep} is too few; at least 2, since the newest may be damaged")
    folder, form = Path(folder), choose_format(state_tree)
    path = folder / f"checkpoint-{update:012d}.{form.suffix}"
    leads = jax.process_index() == 0
    if leads:
        with telling(path):
            make_folder(folder)
            clear(folder)
    form.write(path, folder / _UNFINISHED, state_tree, update, metadata or {})
    if leads:
        with telling(path):
            sync_folder(folder)
            there = find(folder)
            upto = [old for old in there if _update_of(old) <= update][keep:]
            for old in [old for old in there if old != path] if anew else upto:
                _remove(old)
    return path


def load(path: str | Path, like: Any | Callable[[Header], Any]) -> Checkpoint:
    """Read a checkpoint of either format, checking every bit; see `archive.load`."""
    return _format_of(Path(path)).load(Path(path), like)


def read_header(path: str | Path) -> Header:
    """What a checkpoint of either format says of itself; its leaves are not read.

    Raises:
      CheckpointError: as for `load`.
    """
    return _format_of(Path(path)).read_header(Path(path))


def latest(folder: str | Path, like: Any | Callable[[Header], Any]) -> Checkpoint | None:
    """Load the newest checkpoint that is sound.

    Those that are damaged are passed over with one warning, which names them.

    Args:
      folder: where the run's checkpoints lie.
      like: as for `load`.

    Returns:
      The `Checkpoint`, or `None` where the folder holds none at all.

    Raises:
      CheckpointError: there are some and none is sound, or a sound one belongs to another program.
    """
    damaged: list[str] = []
    for path in find(folder):
        try:
            found = load(path, like)
            if found.update != _update_of(path):
                raise DamagedError(f"{path}: holds update {found.update}, not what its name says")
        except DamagedError as error:
            damaged.append(str(error).removeprefix(f"{folder}/"))
            continue
        if damaged:
            text = f"{folder}: passed over {'; '.join(damaged)}; {path.name} is used"
            warnings.warn(text, CheckpointWarning, stacklevel=2)
        return found
    if damaged:
        raise CheckpointError(f"{folder}: no checkpoint is sound: {'; '.join(damaged)}")
    return None


def find(folder: str | Path) -> list[Path]:
    """The checkpoints in a folder by name, newest first; none where there is no folder.

    Raises:
      CheckpointError: the folder cannot be read.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read: {error.strerror}") from error
    return [Path(folder, name) for name in sorted(names, reverse=True) if _NAME.fullmatch(name)]


def clear(folder: Path) -> None:
    """Remove what a save that was killed has left behind."""
    for name in (_UNFINISHED, _OLD):
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    """Remove a checkpoint; a folder loses its name first, for it can't go at once."""
    if not path.is_dir():
        os.unlink(path)
        return
    old = path.with_name(_OLD)
    os.replace(path, old)
    shutil.rmtree(old)


def _format_of(path: Path) -> Format:
    return FORMATS.get(path.suffix.removeprefix("."), FORMATS["ckpt"])


def _update_of(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])
