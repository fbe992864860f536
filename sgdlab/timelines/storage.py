"""Timelines on disk: an uncompressed `.npz` that is checked before it is believed.

A file holds one `.npy` member per array, `begun` (`[N]` int64, the messages each worker began) and
`header` (UTF-8 JSON as bytes). Members are stored, not deflated, so that no file can ask for more
memory than it has bytes; `begun` makes that true of `num_workers` too.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sgdlab.files import open_regular
from sgdlab.timelines.arguments import TimelineError

if TYPE_CHECKING:
    from sgdlab.timelines.timeline import Timeline

FORMAT = "sgdlab timeline 1"
_MEMBERS = {
    "header": np.dtype(np.uint8),
    "begun": np.dtype("<i8"),
    "worker": np.dtype("<i4"),
    "read_version": np.dtype("<i4"),
    "start_time": np.dtype("<f8"),
    "compute_end": np.dtype("<f8"),
    "arrival_time": np.dtype("<f8"),
    "update": np.dtype("<i4"),
    "last_update": np.dtype("<i4"),
    "apply_time": np.dtype("<f8"),
}
_SCALARS = {"num_workers": int, "gradients_per_message": int, "average": str, "metadata": dict}


def save(timeline: Timeline, path: str | Path) -> None:
    """Write a timeline atomically: into a file beside it, which then takes its name.

    Raises:
      TimelineError: the file cannot be written, or the metadata are no JSON; names the file.
    """
    path = Path(path)
    members = _members(timeline, path)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(beside, "xb") as file:
            np.savez(file, **members)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise TimelineError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)


def _members(timeline: Timeline, path: Path) -> dict[str, Any]:
    header = {"format": FORMAT} | {name: getattr(timeline, name) for name in _SCALARS}
    try:
        text = json.dumps(header).encode()
    except (TypeError, ValueError) as error:
        raise TimelineError(f"{path}: metadata are no JSON: {error}") from error
    begun = np.bincount(timeline.worker, minlength=timeline.num_workers)
    made = {"header": np.frombuffer(text, np.uint8), "begun": begun}
    return {
        name: made[name] if name in made else getattr(timeline, name).astype(dtype, copy=False)
        for name, dtype in _MEMBERS.items()
    }


def load(path: str | Path) -> dict[str, Any]:
    """The constructor arguments of the timeline in a file.

    Raises:
      TimelineError: the file cannot be read, or is not what `save` writes; names it.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            size = os.fstat(file.fileno()).st_size
            _check_directory(archive, size)
            arrays = {name: _read(archive, name, dtype) for name, dtype in _MEMBERS.items()}
        header = _read_header(arrays.pop("header"))
        _check_begun(arrays.pop("begun"), arrays["worker"], header["num_workers"])
    except OSError as error:
        raise TimelineError(f"{path}: cannot be read: {error.strerror or error}") from error
    except TimelineError as error:
        raise TimelineError(f"{path}: {error}") from error
    except Exception as error:  # zipfile and the .npy parser answer hostile bytes in many ways
        what = next(iter(str(error).splitlines()), type(error).__name__)
        raise TimelineError(f"{path}: no timeline file, or a damaged one: {what}") from error
    return arrays | header


def _check_directory(archive: zipfile.ZipFile, size: int) -> None:
    """The members are the expected ones, and none claims more bytes than the file has."""
    found = archive.infolist()
    names = [member.filename for member in found]
    if sorted(names) != sorted(f"{name}.npy" for name in _MEMBERS):
        raise TimelineError(f"members are {str(names)[:200]}; allowed: {', '.join(_MEMBERS)}")
    for member in found:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise TimelineError(f"{member.filename} is compressed; allowed: stored members")
    total = sum(member.file_size for member in found)
    if total > size:
        raise TimelineError(f"members claim {total} bytes; allowed: the file's {size}")


def _read(archive: zipfile.ZipFile, name: str, dtype: np.dtype) -> np.ndarray:
    """One member, its checksum verified before its header is parsed."""
    content = archive.read(f"{name}.npy")
    stream = io.BytesIO(content)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise TimelineError(f"{name}: another .npy version; allowed: 1.0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shape, fortran, found = np.lib.format.read_array_header_1_0(stream)
    if found.hasobject or found != dtype or len(shape) != 1 or fortran:
        raise TimelineError(
            f"{name} is {found} with shape {shape}; allowed: {dtype}, one dimension"
        )
    body = len(content) - stream.tell()
    if shape[0] * dtype.itemsize != body:
        raise TimelineError(
            f"{name} claims {shape[0]} values; allowed: the {body} bytes that follow"
        )
    return np.frombuffer(content, dtype, offset=stream.tell())


def _read_header(content: np.ndarray) -> dict[str, Any]:
    header = json.loads(content.tobytes())
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise TimelineError(f"header names no format; allowed: {FORMAT!r}")
    for name, kind in _SCALARS.items():
        value = header.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise TimelineError(f"{name} is {str(value)[:80]}; allowed: {kind.__name__}")
    return {name: header[name] for name in _SCALARS}


def _check_begun(begun: np.ndarray, worker: np.ndarray, num_workers: int) -> None:
    if len(begun) != num_workers:
        raise TimelineError(f"num_workers is {num_workers}; allowed: {len(begun)}, as begun")
    inside = worker[(worker >= 0) & (worker < num_workers)]
    wrong = begun != np.bincount(inside, minlength=num_workers)
    if len(inside) == len(worker) and wrong.any():
        index = int(np.argmax(wrong))
        raise TimelineError(f"begun[{index}] is {begun[index]}; allowed: its messages in worker")
