"""The seal of a run: its summary says what every file was when it ended, so that damage is named.

    "files":  {name below the run folder: {"bytes": size, "sha256": of the content}}
    "digest": SHA-256 of the summary's canonical JSON (sorted keys, no blanks) without this field

Sealed are the config, the environment, the claims' verdicts, and each point's timelines, metrics
and history. Checkpoints have checksums of their own; reports, figures, event files and what a
person adds are not sealed. The digest stands in every summary; `files` lists what is final already,
so all of it once the run has ended, and nothing while it is changed. A seal finds damage; it is no
signature, for whoever can write the files can seal them.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sgdlab.experiment.errors import OutputError
from sgdlab.experiment.folders.files import check_regular, find_folder, open_regular
from sgdlab.experiment.folders.folder import RunFolder, to_json
from sgdlab.experiment.folders.summary import (
    DIGEST,
    ENDED,
    FILES,
    SUMMARY,
    digest,
    read_summary,
)

Files = Mapping[str, Mapping[str, Any]]
_OF_RUN = re.compile(r"config\.yaml|claims\.json|environment(-[0-9]+)?\.json")
_OF_POINT = re.compile(r"timeline(-[0-9]+)?\.npz|metrics\.jsonl|history\.npz")


def write_summary(
    folder: RunFolder, summary: Mapping[str, Any], files: Files | None = None
) -> None:
    """Write a run's summary with its digest.

    Args:
      folder: of the run.
      summary: what it says.
      files: what it seals, from `measure`.
    """
    said = {key: value for key, value in summary.items() if key not in (DIGEST, FILES)}
    said = to_json(said | ({FILES: files} if files else {}))
    folder.write_json({DIGEST: digest(said), **said}, SUMMARY)


def seal(folder: RunFolder) -> None:
    """Seal a run that has ended: all its files, as they are now."""
    write_summary(folder, read_summary(folder.path), measure_all(folder.path))


def unseal(folder: RunFolder) -> None:
    """Take the seal off a run whose files are about to change."""
    write_summary(folder, read_summary(folder.path))


def lacks_seal(summary: Mapping[str, Any]) -> bool:
    """Whether a run has ended and was not sealed: by an earlier version, or for it was killed."""
    return summary["status"] in ENDED and FILES not in summary


def check_seal(path: Path, summary: Mapping[str, Any], *, contents: bool) -> None:
    """Compare a run's files with its seal; one without a seal passes.

    Args:
      path: the run folder.
      summary: its summary.
      contents: compare every byte, and not presence and size alone.

    Raises:
      OutputError: a file is missing, or not what it was; names the first.
    """
    check_files(path, summary, summary.get(FILES, ()), contents=contents)


def check_files(
    path: Path, summary: Mapping[str, Any], names: Iterable[str], *, contents: bool = True
) -> None:
    """The same of some files, as far as they are sealed."""
    seals = summary.get(FILES, {})
    for name in (name for name in names if name in seals):
        file, sealed = path / name, seals[name]
        find_folder(path, *Path(name).parts[:-1])
        if (size := check_regular(file)) != sealed["bytes"]:
            text = f"{file}: damaged: has {size} bytes; {sealed['bytes']} were written"
            raise OutputError(text)
        if contents and _hash(file) != sealed["sha256"]:
            raise OutputError(f"{file}: damaged: its checksum is wrong")


def measure_all(path: Path) -> Files:
    """Size and SHA-256 of all files of a run that are sealed, as far as they are there."""
    points = ["", *(f"members/{name}" for name in _list(path / "members") if name.isdigit())]
    return measure(path, [*find_own(path), *(name for p in points for name in find_of(path, p))])


def find_own(path: Path) -> list[str]:
    """Those that are about the whole run."""
    return [name for name in _list(path) if _OF_RUN.fullmatch(name)]


def find_of(path: Path, point: str) -> list[str]:
    """Those of a point, by its folder below the run's."""
    names = (name for name in _list(path / point) if _OF_POINT.fullmatch(name))
    return [f"{point}/{name}".lstrip("/") for name in names]


def measure(path: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of files of a run, by their names below its folder.

    Raises:
      OutputError: one is no regular file, or cannot be read.
    """
    return {
        name: {"bytes": check_regular(path / name), "sha256": _hash(path / name)} for name in names
    }


def _hash(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _list(path: Path) -> list[str]:
    """The names in a folder, sorted; none where there is no such folder, or a link to one."""
    try:
        return [] if path.is_symlink() else sorted(os.listdir(path))
    except OSError:
        return []
