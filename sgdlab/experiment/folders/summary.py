"""What `summary.json` of a run holds, and reading it: of the shape that was written, or refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from sgdlab.experiment.errors import OutputError
from sgdlab.experiment.folders.files import read_json

SUMMARY = "summary.json"
FILES, DIGEST = "files", "digest"
"""The fields that seal a run; see `sgdlab.experiment.folders.seal`."""
FINISHED = ("done", "aborted")
"""What a point says that needs not be made again."""
ENDED = (*FINISHED, "failed")
"""What a run says that has come to its end."""

_Status = Literal["running", "interrupted", "done", "aborted", "failed"]
_Numbers = list[float | None]
_NAME = r"^(members/[0-9]+/)?[a-z][a-z0-9-]*\.(yaml|json|jsonl|npz)$"


class _Part(BaseModel):
    """Fields that this version doesn't know may stand there too."""

    model_config = ConfigDict(strict=True, extra="allow")


class _Goal(_Part):
    metric: str
    at_least: float | None = None
    at_most: float | None = None


class _Config(_Part):
    target: _Goal | None = None
    stop: _Goal | None = None


class _Results(_Part):
    mean_staleness: float | None = None
    max_staleness: int | None = None
    utilisation: float | None = None
    updates: float | None = None
    seconds: float | None = None
    errors: list[str] = []
    last_good: str | None = None
    time_to_target: _Numbers | None = None
    final: dict[str, _Numbers] = {}
    directions: dict[str, Literal["up", "down"]] = {}


class _Member(_Part):
    label: str = ""
    point: dict[str, Any] = {}
    config: _Config = _Config()
    folder: Annotated[str, StringConstraints(pattern=r"^(members/[0-9]+)?$")]
    draws: int = Field(default=0, ge=0)
    status: _Status
    updates: list[int] | None = None
    summary: _Results = _Results()


class _File(_Part):
    bytes: int = Field(ge=0)
    sha256: str


class _Summary(_Part):
    status: _Status
    started: str | None = None
    wall_seconds: float | None = None
    programs: int | None = None
    runs: int | None = None
    target: _Goal | None = None
    error: str | None = None
    members: list[_Member]
    digest: str | None = None
    files: dict[Annotated[str, StringConstraints(pattern=_NAME)], _File] = {}


def read_summary(path: Path) -> dict[str, Any]:
    """The summary in a run folder.

    Args:
      path: the folder.

    Raises:
      OutputError: it is missing, not what was written, or of another shape; names the file.
    """
    file = path / SUMMARY
    summary = read_json(file)
    try:
        _Summary.model_validate(summary)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise OutputError(f"{file}: damaged: {where}: {first['msg']}") from error
    if (DIGEST in summary or FILES in summary) and summary.get(DIGEST) != digest(summary):
        raise OutputError(f"{file}: damaged: its checksum is wrong")
    return summary


def digest(summary: Mapping[str, Any]) -> str:
    """SHA-256 of a summary's canonical JSON (sorted keys, no blanks), its digest left out."""
    said = {key: value for key, value in summary.items() if key != DIGEST}
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
