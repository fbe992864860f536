"""What can go wrong with an experiment; each kind has its exit code."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sgdlab.experiment.folders.run import Run


MAX_LENGTH = 300


def cut(line: str) -> str:
    """A line of at most 300 characters: what it is about stands at its beginning."""
    return line if len(line) <= MAX_LENGTH else f"{line[: MAX_LENGTH - 3]}..."


class ExperimentError(Exception):
    """Any failure that a person can do something about, said in one line.

    Attributes:
      exit_code: what the command line ends with.
    """

    exit_code = 1


class ConfigError(ExperimentError, ValueError):
    """A config that cannot be run.

    Attributes:
      problems: every problem, each one line: where, what is wrong, what is allowed.
    """

    exit_code = 2

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(cut(in_one_line(problem)) for problem in problems)
        super().__init__("\n".join(self.problems))


class DataFileError(ConfigError):
    """A config that is fine, but for the data files that it names."""

    exit_code = 3


class BusyError(ExperimentError):
    """Another process holds the run folder."""

    exit_code = 4


class IncompleteError(ExperimentError):
    """A run did not come through.

    Attributes:
      run: the run as far as it came.
    """

    def __init__(self, message: str, run: Run | None = None) -> None:
        super().__init__(message)
        self.run = run


class FailedError(IncompleteError):
    """Points of a run failed: an error of theirs, too little memory, a killed process, a hang."""

    exit_code = 1


class AbortError(IncompleteError, ArithmeticError):
    """A run met a value that is not finite."""

    exit_code = 5


class StoppedError(ExperimentError):
    """A run was asked to end early; all that it had computed is saved.

    Attributes:
      path: its folder, from which it can go on.
    """

    exit_code = 130

    def __init__(self, path: Path, *, isolated: bool = False) -> None:
        command = f"sgdlab run --resume {shlex.quote(str(path))}"
        options = " --isolate" if isolated else ""
        super().__init__(f"stopped and saved; go on with: {command}{options}")
        self.path = path


class OutputError(ExperimentError, OSError):
    """A run folder that cannot be written, or cannot be read back."""

    exit_code = 6


def in_one_line(text: object) -> str:
    """A text of a file or a person, fit for a terminal: line ends and control characters shown.

    None is sent: an escape sequence could retitle the window, hide lines, or pretend to be ours.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
