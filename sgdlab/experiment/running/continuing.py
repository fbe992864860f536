"""What an earlier part of a run has left, and whether this one may go on from there."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sgdlab.experiment.config.experiment import Experiment
from sgdlab.experiment.config.schema import HORIZONS
from sgdlab.experiment.errors import ConfigError, OutputError
from sgdlab.experiment.folders.files import read_bytes, read_json
from sgdlab.experiment.folders.folder import RunFolder, telling, to_json, write_file
from sgdlab.experiment.folders.loading import load_member
from sgdlab.experiment.folders.seal import check_files, find_of, find_own
from sgdlab.experiment.folders.summary import FILES, FINISHED, SUMMARY, read_summary
from sgdlab.experiment.running.work import Work
from sgdlab.training import CheckpointWarning, ResumeError, describe_program
from sgdlab.training.checkpoints.files import clear
from sgdlab.training.checkpoints.identity import check_resume

# Of the keys that a replay could go on without, those that a run folder is made of.
_FIXED = ("name", "description", "target", "seeds", "timelines", "sweep")
_CADENCE = "checkpoint_every"
_LARGEST = 1 << 34  # bytes of a file that is kept


def check_same(old: Experiment, new: Experiment) -> None:
    """Refuse to go on with another experiment, or a shorter one.

    Raises:
      ConfigError: names the key and both values.
    """
    try:
        check_resume(_describe(old.config), _describe(new.config))
    except ResumeError as error:
        text = str(error).replace("in the checkpoint", "in the run").replace("this run", "this one")
        raise ConfigError([text]) from error
    for one, other in zip(old.points, new.points, strict=True):
        for key in HORIZONS:
            then, now = getattr(one.config, key), getattr(other.config, key)
            if then is not None and (now is None or now < then):
                now = "nothing" if now is None else now
                line = f"resume: {key}: {then} in the run, {now} given; allowed: no less"
                raise ConfigError([line])


def describe_point(config: Mapping[str, Any], mapped: Mapping[str, float]) -> dict[str, Any]:
    """What of a point decides the numbers of all the points that share its program."""
    rule = {key: value for key, value in config["rule"].items() if key not in mapped}
    rest = {key: value for key, value in config.items() if key != _CADENCE}
    return describe_program({**rest, "rule": rule})


def take_summary(path: Path) -> dict[str, Any]:
    """The summary that a run has left; empty where there is none, or a damaged one.

    What it says is made again from the checkpoints; a warning says so.

    Raises:
      OutputError: the config is not the one that was written, so nothing can be made again.
    """
    if not os.path.lexists(path / SUMMARY):
        return {}
    try:
        summary = read_summary(path)
    except OutputError as error:
        _warn(f"{error}; made again")
        return {}
    check_files(path, summary, ["config.yaml"])
    return summary


def clear_unfinished(folder: RunFolder) -> None:
    """Remove what a process that was killed has left half written."""
    folder.clear()
    for path in folder.path.glob("checkpoints/*/*"):
        if path.is_dir() and not path.is_symlink():
            with telling(path):
                clear(path)


def mend_own(folder: RunFolder, summary: Mapping[str, Any]) -> None:
    """Take away what is damaged of the files about the whole run: it is written anew."""
    path = folder.path
    for name in {*find_own(path), *(each for each in summary.get(FILES, ()) if "/" not in each)}:
        if not name.endswith(".json"):
            continue
        try:
            check_files(path, summary, [name])
            read_json(path / name)
        except OutputError as error:
            _warn(f"{error}; written anew")
            with telling(path / name):
                (path / name).unlink(missing_ok=True)


def take_finished(path: Path, works: list[Work], summary: Mapping[str, Any]) -> None:
    """Points that finished over the same horizon keep what stands in the summary.

    One whose files are damaged is made again, from its checkpoints; a warning names the file.
    """
    entries = summary.get("members", ())
    if len(entries) != len(works):
        return
    for work, entry in zip(works, entries, strict=True):
        config = to_json(work.point.config.model_dump(exclude_none=True))
        old, parts = entry.get("config", {}), "/".join(work.parts)
        same = all(old.get(key) == config.get(key) for key in HORIZONS)
        if entry["status"] not in FINISHED or not same or entry["folder"] != parts:
            continue
        try:
            sealed = [name for name in summary.get(FILES, ()) if name.rpartition("/")[0] == parts]
            check_files(path, summary, sealed)
            if not sealed:
                load_member(path, entry)
        except OutputError as error:
            _warn(f"{error}; made again")
            continue
        work.entry, work.status = entry, entry["status"]


class Kept:
    """Files as they are now, to be put back if the run turns out not to go on."""

    def __init__(self, folder: RunFolder, works: list[Work]) -> None:
        self._path = folder.path
        names = find_own(folder.path)
        for work in works:
            if work.entry is None:
                files = find_of(folder.path, "/".join(work.parts))
                names += [name for name in files if name.endswith(".npz")]
        self._content: dict[Path, bytes] = {}
        for name in [*names, SUMMARY]:  # which seals the others
            with suppress(OutputError):  # what is no file is none to be kept
                self._content[folder.path / name] = read_bytes(folder.path / name, _LARGEST)

    @contextmanager
    def unless_refused(self) -> Iterator[None]:
        """Write them as they were where the run is another one, and not gone on with."""
        try:
            yield
        except ResumeError:
            with suppress(OutputError):  # what fails here was said by what went wrong before
                for path, content in self._content.items():
                    write_file(path, content)
                for name in find_own(self._path):
                    if self._path / name not in self._content:
                        (self._path / name).unlink(missing_ok=True)
            raise


def _warn(text: str) -> None:
    warnings.warn(CheckpointWarning(text), stacklevel=3)


def _describe(config: Mapping[str, Any]) -> dict[str, Any]:
    plain = to_json({key: value for key, value in config.items() if key != _CADENCE})
    return {**describe_program(plain), **{key: plain.get(key) for key in _FIXED}}
