"""What an earlier part of a run has left, and whether this one may go on from there."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sgdlab.experiment.config.experiment import Experiment
from sgdlab.experiment.config.schema import HORIZONS
from sgdlab.experiment.errors import ConfigError, OutputError
from sgdlab.experiment.folders.folder import RunFolder, to_json, write_file
from sgdlab.experiment.folders.loading import read_json
from sgdlab.experiment.running.work import FINISHED, Work
from sgdlab.training import ResumeError, describe_program
from sgdlab.training.checkpoints.identity import check_resume

# Of the keys that a replay could go on without, those that a run folder is made of.
_FIXED = ("name", "description", "target", "seeds", "timelines", "sweep")
_CADENCE = "checkpoint_every"


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


def read_summary(path: Path) -> dict[str, Any]:
    """The summary that a run has left; empty where it was ended before it wrote one."""
    if not (path / "summary.json").exists():
        return {}
    return read_json(path / "summary.json")


def take_finished(works: list[Work], summary: Mapping[str, Any]) -> None:
    """Points that finished over the same horizon keep what stands in the summary."""
    entries = summary.get("members")
    if not isinstance(entries, list) or len(entries) != len(works):
        return
    for work, entry in zip(works, entries, strict=True):
        config = to_json(work.point.config.model_dump(exclude_none=True))
        if not isinstance(entry, dict) or entry.get("status") not in FINISHED:
            continue
        old = entry.get("config")
        if isinstance(old, dict) and all(old.get(key) == config.get(key) for key in HORIZONS):
            work.entry, work.status = entry, entry["status"]


class Kept:
    """Files as they are now, to be put back if the run turns out not to go on."""

    def __init__(self, folder: RunFolder, works: list[Work]) -> None:
        names = [folder.path / name for name in ("config.yaml", "summary.json")]
        for work in works:
            if work.entry is None:
                names += sorted(folder.path.joinpath(*work.parts).glob("timeline*.npz"))
        self._content = {path: path.read_bytes() for path in names if path.exists()}

    def put_back(self) -> None:
        """Write them as they were; what fails here was said by what went wrong before."""
        with suppress(OutputError):
            for path, content in self._content.items():
                write_file(path, content)


def _describe(config: Mapping[str, Any]) -> dict[str, Any]:
    plain = to_json({key: value for key, value in config.items() if key != _CADENCE})
    return {**describe_program(plain), **{key: plain.get(key) for key in _FIXED}}
