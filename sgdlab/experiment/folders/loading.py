"""A run that was made, read back from its folder; and all runs of a root as a table."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sgdlab.experiment.claims.judging import Judgement
from sgdlab.experiment.errors import ConfigError, ExperimentError, OutputError
from sgdlab.experiment.folders.files import (
    MAX_JSON,
    check_directory,
    check_regular,
    find_folder,
    read_bytes,
    read_json,
)
from sgdlab.experiment.folders.folder import is_busy
from sgdlab.experiment.folders.run import Member, Run
from sgdlab.experiment.folders.seal import check_seal, lacks_seal
from sgdlab.experiment.folders.summary import DIGEST, FILES, SUMMARY, read_summary
from sgdlab.experiment.reading.parsing import parse
from sgdlab.tasks.datasets import DataError, read_npz
from sgdlab.timelines import Timeline, TimelineError

if TYPE_CHECKING:
    import pandas

_COLUMNS = ("name", "id", "status", "started", "wall_seconds", "members", "runs", "updates")
_COLUMNS = (*_COLUMNS, "error", "path")
_OWN = {"members", DIGEST, FILES}  # what a summary holds that a `Run` has elsewhere, or not at all
_INTEGERS = ("seed", "timeline", "update")


def load_run(path: str | Path) -> Run:
    """Read a run folder.

    Args:
      path: the folder; a symbolic link is not followed, nor is one in it.

    Returns:
      The `Run`, all of whose sealed files are what they were when it ended; one that is being
      written, or was never sealed, as it is.

    Raises:
      OutputError: the folder is no run or is damaged; names the file, in one line.
    """
    path = Path(path)
    check_directory(path)
    summary = read_summary(path)
    claims = _read_claims(path / "claims.json")
    if not is_busy(path):
        check_seal(path, summary, contents=True)
    config = _read_config(path / "config.yaml")
    environment = read_json(path / "environment.json")
    members = tuple(load_member(path, entry) for entry in summary["members"])
    rest = {key: value for key, value in summary.items() if key not in _OWN}
    rest["status"] = _status(rest, path)
    name = str(config.get("name", path.parent.name))
    return Run(path, name, path.name, config, environment, rest, members, claims)


def load_runs(root: str | Path = "runs") -> pandas.DataFrame:
    """A table of all runs below a root: one row each, the newest first.

    Args:
      root: the folder that runs lie in.

    Returns:
      Columns name, id, status, started, wall_seconds, members, runs, updates (made by all runs
      that have finished), path, and error: what is wrong with a damaged folder, in one line, or
      that a run that has ended is not sealed. Files are compared with the seal by presence and size
      alone; `load_run` compares every byte.
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
        if any(os.path.lexists(entry / name) for name in ("config.yaml", SUMMARY))
    )


def _row(path: Path) -> dict[str, Any]:
    row = {"name": path.parent.name, "id": path.name, "path": str(path), "error": ""}
    if _has_only_begun(path):
        return {**row, "status": _status({"status": "running"}, path)}
    try:
        summary = read_summary(path)
        if not is_busy(path):
            check_seal(path, summary, contents=False)
    except ExperimentError as error:
        return {**row, "status": "damaged", "error": str(error)}
    return {
        **row,
        "status": _status(summary, path),
        "started": summary.get("started"),
        "wall_seconds": summary.get("wall_seconds"),
        "members": len(summary["members"]),
        "runs": summary.get("runs"),
        "updates": _count_updates(summary["members"]),
        "error": "not sealed" if lacks_seal(summary) else summary.get("error") or "",
    }


def _count_updates(members: list[dict[str, Any]]) -> int | None:
    """Made by all replicates of all members; none where no member says."""
    found = [entry["updates"] for entry in members if entry.get("updates") is not None]
    return sum(count for made in found for count in made) if found else None


def _has_only_begun(path: Path) -> bool:
    """Whether there is no summary yet, nor anything that one is written before."""
    if os.path.lexists(path / SUMMARY):
        return False
    later = ("history.npz", "members", "checkpoints")
    return is_busy(path) or not any(os.path.lexists(path / name) for name in later)


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


def load_member(path: Path, entry: dict[str, Any]) -> Member:
    """One point of a run.

    Args:
      path: the run folder.
      entry: what its summary says of the point.

    Raises:
      OutputError: a file of the point is missing or damaged; names it.
    """
    where = find_folder(path, *Path(entry["folder"]).parts)
    draws = entry.get("draws", 0)
    timelines = tuple(_read_timeline(where / timeline_name(d)) for d in range(draws))
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


def _read_timeline(path: Path) -> Timeline:
    check_regular(path)
    try:
        return Timeline.load(path)
    except TimelineError as error:
        raise OutputError(str(error)) from error


def _read_config(path: Path) -> dict[str, Any]:
    try:
        data = parse(read_bytes(path).decode("utf-8", "replace"), str(path))
    except ConfigError as error:
        raise OutputError(error.problems[0]) from error
    if not isinstance(data, dict):
        raise OutputError(f"{path}: damaged: no mapping")
    return data


def _read_claims(path: Path) -> tuple[Judgement, ...]:
    """What was judged at the end; nothing where there is no such file."""
    if not os.path.lexists(path):
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
    lines = read_bytes(path, 16 * MAX_JSON).split(b"\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise OutputError(f"{path}: line {number} is damaged: {error}") from error
        if not _is_evaluation(row):
            raise OutputError(f"{path}: line {number} is damaged: no evaluation")
        rows.append({key: math.nan if value is None else value for key, value in row.items()})
    columns = None if rows else ["seed", "timeline", "update", "time", "loss"]
    return pandas.DataFrame(rows, columns=columns)


def _is_evaluation(row: Any) -> bool:
    """Whether a line holds numbers by name, whole ones where it says whose it is."""
    if not isinstance(row, dict) or not {*_INTEGERS, "time"} <= set(row):
        return False
    whole = all(type(row[key]) is int and 0 <= row[key] < 2**53 for key in _INTEGERS)
    return whole and all(value is None or type(value) in (int, float) for value in row.values())


def _read_histories(path: Path, draws: int) -> tuple[dict[str, np.ndarray], ...]:
    """The arrays of each draw; none where the run did not get so far."""
    if not os.path.lexists(path):
        return ()
    check_regular(path)
    try:
        arrays = read_npz(path)
    except DataError as error:
        raise OutputError(f"{path}: damaged: {str(error).removeprefix(f'{path}: ')}") from error
    names = [name.removesuffix("_0") for name in arrays if name.endswith("_0")]
    histories = []
    for draw in range(draws):
        history = {name: arrays.get(f"{name}_{draw}") for name in names}
        if not _is_history(history):
            text = f"draw {draw} without its loss, staleness and time, or of another shape"
            raise OutputError(f"{path}: damaged: {text}")
        histories.append(history)
    return tuple(histories)


def _is_history(history: dict[str, Any]) -> bool:
    """Whether all arrays are over the same updates, and the loss `[S, T]` is among them."""
    if not {"loss", "staleness", "time"} <= set(history) or any(
        array is None or array.ndim not in (1, 2) for array in history.values()
    ):
        return False
    shape = history["loss"].shape
    return len(shape) == 2 and all(array.shape[-1] == shape[1] for array in history.values())
