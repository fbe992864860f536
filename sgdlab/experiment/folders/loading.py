"""A run that was made, read back from its folder; and all runs of a root as a table."""

from __future__ import annotations

import json
import math
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sgdlab.experiment.claims.judging import Judgement
from sgdlab.experiment.errors import ExperimentError, OutputError
from sgdlab.experiment.folders.folder import is_busy
from sgdlab.experiment.folders.run import Member, Run
from sgdlab.experiment.reading.parsing import parse
from sgdlab.timelines import Timeline, TimelineError

if TYPE_CHECKING:
    import pandas

_COLUMNS = ("name", "id", "status", "started", "wall_seconds", "members", "runs", "updates")
_COLUMNS = (*_COLUMNS, "error", "path")
_MAX_JSON = 64 * 1024 * 1024


def load_run(path: str | Path) -> Run:
    """Read a run folder.

    Args:
      path: the folder.

    Returns:
      The `Run`.

    Raises:
      OutputError: the folder is no run or is damaged; names the file, in one line.
    """
    path = Path(path)
    summary = read_json(path / "summary.json")
    config = _read_config(path / "config.yaml")
    environment = read_json(path / "environment.json")
    entries = summary.get("members")
    if not isinstance(entries, list):
        raise OutputError(f"{path / 'summary.json'}: no list of members; allowed: what a run wrote")
    members = tuple(_load_member(path, entry) for entry in entries)
    rest = {key: value for key, value in summary.items() if key != "members"}
    rest["status"] = _status(rest, path)
    name = str(config.get("name", path.parent.name))
    claims = _read_claims(path / "claims.json")
    return Run(path, name, path.name, config, environment, rest, members, claims)


def load_runs(root: str | Path = "runs") -> pandas.DataFrame:
    """A table of all runs below a root: one row each, the newest first.

    Args:
      root: the folder that runs lie in.

    Returns:
      Columns name, id, status, started, wall_seconds, members, runs, updates (made by all runs
      that have finished), path, and error: what is wrong with a damaged folder, in one line.
    """
    import pandas

    rows = [_row(path) for path in find_runs(root)]
    return pandas.DataFrame(rows, columns=list(_COLUMNS)).sort_values(
        "id", ascending=False, ignore_index=True, kind="stable"
    )


def find_runs(root: str | Path) -> list[Path]:
    """The run folders below a root, symbolic links left out."""
    return sorted(
        entry
        for parent in _folders(Path(root))
        for entry in _folders(parent)
        if (entry / "config.yaml").exists() or (entry / "summary.json").exists()
    )


def _row(path: Path) -> dict[str, Any]:
    row = {"name": path.parent.name, "id": path.name, "path": str(path), "error": ""}
    try:
        summary = read_json(path / "summary.json")
    except ExperimentError as error:
        return {**row, "status": "damaged", "error": str(error)}
    members = summary.get("members")
    return {
        **row,
        "status": _status(summary, path),
        "started": summary.get("started"),
        "wall_seconds": summary.get("wall_seconds"),
        "members": len(members) if isinstance(members, list) else None,
        "runs": summary.get("runs"),
        "updates": _count_updates(members),
    }


def _count_updates(members: Any) -> int | None:
    """Made by all replicates of all members; none where no member says."""
    each = [entry.get("updates") for entry in members or () if isinstance(entry, dict)]
    found = [made for made in each if isinstance(made, list)]
    return sum(count for made in found for count in made) if found else None


def _status(summary: dict[str, Any], path: Path) -> Any:
    """What a run, or a point of it, says of itself; whoever died running could not say so."""
    said = summary.get("status", "")
    return "interrupted" if said == "running" and not is_busy(path) else said


def _folders(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            return [Path(e.path) for e in entries if e.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _load_member(path: Path, entry: Any) -> Member:
    if not isinstance(entry, dict) or not isinstance(entry.get("folder"), str):
        raise OutputError(f"{path / 'summary.json'}: a member without its folder")
    where = path / entry["folder"] if entry["folder"] else path
    if ".." in Path(entry["folder"]).parts or Path(entry["folder"]).is_absolute():
        raise OutputError(f"{path / 'summary.json'}: {entry['folder']!r} is outside the run")
    draws = int(entry.get("draws", 0))
    try:
        timelines = tuple(Timeline.load(_real(where / timeline_name(d))) for d in range(draws))
    except TimelineError as error:
        raise OutputError(str(error)) from error
    return Member(
        label=str(entry.get("label", "")),
        point=dict(entry.get("point", {})),
        config=dict(entry.get("config", {})),
        status=str(_status(entry, path)),
        timelines=timelines,
        evaluations=_read_evaluations(where / "metrics.jsonl"),
        histories=_read_histories(where / "history.npz", draws),
        summary=dict(entry.get("summary", {})),
    )


def timeline_name(draw: int) -> str:
    """The file of a draw's timeline."""
    return f"timeline-{draw}.npz" if draw else "timeline.npz"


def _real(path: Path) -> Path:
    if path.is_symlink():
        raise OutputError(f"{path}: is a symbolic link; allowed: a file")
    return path


def _read_bytes(path: Path, limit: int = _MAX_JSON) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > limit:
        raise OutputError(f"{path}: larger than {limit} bytes; allowed: what a run wrote")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a run, or an `OutputError` that names the file."""
    try:
        data = json.loads(_read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise OutputError(f"{path}: damaged: {error}") from error
    if not isinstance(data, dict):
        raise OutputError(f"{path}: damaged: no JSON object")
    return data


def _read_config(path: Path) -> dict[str, Any]:
    data = parse(_read_bytes(path).decode("utf-8", "replace"), str(path))
    if not isinstance(data, dict):
        raise OutputError(f"{path}: damaged: no mapping")
    return data


def _read_claims(path: Path) -> tuple[Judgement, ...]:
    """What was judged at the end; nothing where there is no such file."""
    if not path.exists():
        return ()
    found = read_json(path).get("claims")
    try:
        return tuple(Judgement.from_dict(each) for each in found or ())
    except (TypeError, ValueError) as error:
        raise OutputError(f"{path}: damaged: {error}") from error


def _read_evaluations(path: Path) -> pandas.DataFrame:
    """The lines of a metrics file; a last line without its end was cut off and is left out."""
    import pandas

    rows = []
    lines = _read_bytes(path, 16 * _MAX_JSON).split(b"\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise OutputError(f"{path}: line {number} is damaged: {error}") from error
        if not isinstance(row, dict):
            raise OutputError(f"{path}: line {number} is damaged: no JSON object")
        rows.append({key: math.nan if value is None else value for key, value in row.items()})
    columns = None if rows else ["seed", "timeline", "update", "time", "loss"]
    return pandas.DataFrame(rows, columns=columns)


def _read_histories(path: Path, draws: int) -> tuple[dict[str, np.ndarray], ...]:
    """The arrays of each draw; none where the run did not get so far."""
    if not path.exists():
        return ()
    try:
        with open(_real(path), "rb") as file, np.lib.npyio.NpzFile(file) as arrays:
            stored = all(part.compress_type == zipfile.ZIP_STORED for part in _parts(arrays))
            if not stored:  # so that no file can ask for more memory than it has bytes
                raise OutputError(f"{path}: damaged: compressed members")
            names = [name.removesuffix("_0") for name in arrays.files if name.endswith("_0")]
            if not {"loss", "staleness", "time"} <= set(names):
                raise OutputError(f"{path}: damaged: without loss, staleness or time")
            return tuple({name: arrays[f"{name}_{d}"] for name in names} for d in range(draws))
    except (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{path}: damaged: {' '.join(str(error).split())}") from error


def _parts(arrays: np.lib.npyio.NpzFile) -> list[zipfile.ZipInfo]:
    return arrays.zip.infolist() if arrays.zip is not None else []
