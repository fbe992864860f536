"""One command, from its arguments to its exit code."""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

from sgdlab.cli.app import app
from sgdlab.cli.failures import explain_failure, show_warning
from sgdlab.experiment.errors import in_one_line
from sgdlab.experiment.running.signals import Signals, Stopped


def run_command(arguments: Sequence[str], signals: Signals) -> int:
    """Run a command and tell of its failure.

    Args:
      arguments: of the command line.
      signals: entered already.

    Returns:
      The exit code, as `sgdlab.cli.main` lists them.
    """
    # Wherever it stands: one wants it after the command has failed.
    explain = "--traceback" in arguments
    given = [argument for argument in arguments if argument != "--traceback"]
    _quiet_streams()
    with warnings.catch_warnings():
        warnings.showwarning = show_warning(warnings.showwarning)
        try:
            code = app(given, prog_name="sgdlab", standalone_mode=False, obj=signals)
            sys.stdout.flush()
            return code or 0
        except (Exception, KeyboardInterrupt, Stopped) as error:
            if explain:
                traceback.print_exc()
            from sgdlab.experiment.running import hosts

            hosts.end_if_peer_lost(error)
            code, lines = explain_failure(error, signals)
            lines = [in_one_line(line) for line in lines]
            hosts.leave(error, lines, code)
            for line in lines if hosts.is_leader() else ():
                print(line, file=sys.stderr)
            return code


def _quiet_streams() -> None:
    """Let a terminal that is no UTF-8 get what it can show, and no log of the figures' library.

    Matplotlib logs where it keeps its fonts and that HOME cannot be written: no matter of a run.
    """
    stream: Any
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what stands in for one, as in a notebook, may not
            stream.reconfigure(errors="replace")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
