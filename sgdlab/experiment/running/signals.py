"""Ctrl-C and SIGTERM of a command: the first ends in order, the second at once."""

from __future__ import annotations

import os
import signal

from sgdlab.training.interrupts import Interrupts

HANDLED = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A signal asked for the end.

    Attributes:
      number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Signals(Interrupts):
    """Takes SIGINT and SIGTERM while it is entered, in the main thread.

    The first one raises `Stopped`, or within `patient` only notes itself. The second one ends the
    process at once. Python's own handlers have to wait until compiled code returns; a thread that
    the system wakes does not.
    """

    def __init__(self) -> None:
        super().__init__(HANDLED, Stopped)
        self._seen = self._repeated = 0

    def __enter__(self) -> Signals:
        super().__enter__()
        self._waked = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._waked)
        super().__exit__()

    def settle(self) -> None:
        """From here on the first signal raises nothing: the command is over."""
        self._patient = True

    def give_up(self) -> None:
        """Leave the signals to the system, which ends a process that has nothing left to do."""
        self._old = dict.fromkeys(HANDLED, signal.SIG_DFL)

    def _see(self, number: int) -> None:
        if number not in HANDLED:
            super()._see(number)
        elif self._repeated:
            self._repeated -= 1  # our own
        else:
            self._seen += 1
            self.number = self.number or number
            if self._seen > 1:
                name = signal.Signals(number).name
                os.write(2, f"sgdlab: ended at once by a second signal, {name}\n".encode())
                os._exit(128 + number)

    def _raise_again(self) -> None:
        self._repeated += 1  # it wakes this thread as a signal of the system does
        super()._raise_again()
