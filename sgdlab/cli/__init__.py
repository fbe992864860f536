"""The command line: what a person types. Thin: every command hands on to a room.

`entry` runs a command, `app` lists them, `options` are those that several have, and `failures` says
how one ends that didn't come through. Nothing heavy is imported before a command needs it, so that
help and a config's problems come at once; and nothing at all before signals are taken, so that the
first one counts from the first moment on.
"""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command; every failure is one line on the standard error.

    Args:
      arguments: of the command line; by default the process's own, which ends with the command.

    Raises:
      SystemExit: always, with 0 done, 1 points that failed or a fault of ours, 2 usage or config,
        3 data, 4 busy, 5 numerical abort, 6 checkpoint or output, 130 or 143 a signal.
    """
    if arguments is None:  # until they are taken nothing has begun that could not just end
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from sgdlab.experiment.running.signals import Signals, Stopped

    code = 0
    with Signals() as signals:
        try:
            from sgdlab.cli.entry import run_command

            code = run_command(sys.argv[1:] if arguments is None else arguments, signals)
            signals.settle()
        except Stopped:
            signals.settle()
        if signals.number and not code:  # it came before the command began, or as it ended
            from sgdlab.cli.failures import explain_stop

            code, (line,) = explain_stop(signals.number)
            print(line, file=sys.stderr)
        if arguments is None:
            signals.give_up()
    sys.exit(code)
