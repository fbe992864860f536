"""How a failure ends: its exit code, and the lines that tell of it."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from sgdlab.experiment.errors import in_one_line
from sgdlab.experiment.running.signals import Signals, Stopped

EXIT_USAGE, EXIT_OUTPUT = 2, 6
_LOST = (errno.EPIPE, errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO)
# By name, since importing the rooms that these come from would import jax.
_EXITS = {"FloatingPointError": 5, "DataError": 3, "ResumeError": 2, "CheckpointError": 6}


def explain_failure(error: BaseException, signals: Signals) -> tuple[int, list[str]]:
    """The exit code of a failure and the lines that tell of it."""
    if isinstance(error, Stopped):
        return explain_stop(error.number)
    if isinstance(error, OSError) and error.errno in _LOST and error.filename is None:
        # A file of ours would have been named. What was to be written would fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 0, []
        return EXIT_OUTPUT, [f"sgdlab: the standard output cannot be written: {error.strerror}"]
    if hasattr(error, "format_message"):  # what typer says of a wrong option or argument
        return EXIT_USAGE, [f"sgdlab: {' '.join(str(error.format_message()).split())}"]  # pyright: ignore
    from sgdlab.experiment import ExperimentError, StoppedError
    from sgdlab.experiment.errors import cut

    text, notes = " ".join(str(error).split()), getattr(error, "__notes__", ())
    if isinstance(error, StoppedError):
        return 128 + signals.number, [text]
    if isinstance(error, ExperimentError):
        return error.exit_code, list(getattr(error, "problems", ())) or ["; ".join([text, *notes])]
    text = "; ".join([cut(text), *notes])
    for kind in type(error).__mro__:
        if kind.__name__ in _EXITS:
            return _EXITS[kind.__name__], [f"sgdlab: {text}"]
    if isinstance(error, OSError):
        return EXIT_OUTPUT, [f"sgdlab: {text}"]
    if signals.number:  # it became this on its way through somebody's code
        return explain_stop(signals.number)
    return 1, [f"sgdlab: {type(error).__name__}: {text}; --traceback shows where"]


def explain_stop(number: int) -> tuple[int, list[str]]:
    """The exit code of a command that a signal ended, and the line that tells of it."""
    name = signal.Signals(number).name
    return 128 + number, [f"sgdlab: stopped by {name}; what was written stays"]


def show_warning(otherwise: Callable[..., None]) -> Callable[..., None]:
    """What a checkpoint warns of is a line; what else there is, as it was."""

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if category.__name__ == "CheckpointWarning":
            print(in_one_line(f"sgdlab: {' '.join(str(message).split())}"), file=sys.stderr)
        elif "persistent compilation cache" not in str(message):  # which a run can do without
            otherwise(message, category, *where, **more)

    return show
