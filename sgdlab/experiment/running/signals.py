"""Ctrl-C and SIGTERM: the first ends in order, the second at once."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

HANDLED = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A signal asked for the end.

    Attributes:
      number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Signals:
    """Takes SIGINT and SIGTERM while it is entered, in the main thread.

    The first one raises `Stopped`, or within `patient` only notes itself, so that whoever works
    there can end in order. The second one ends the process at once. Python's own handlers have to
    wait until compiled code returns; a thread that the system wakes does not.

    Attributes:
      number: of the first signal; 0 before there was one.
    """

    def __init__(self) -> None:
        self.number = 0
        self._patient = False
        self._old: dict[int, Any] = {}

    def asked(self) -> bool:
        """Whether a signal came."""
        return bool(self.number)

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Within, the first signal raises nothing."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False

    def __enter__(self) -> Signals:
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        self._waked = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        self._old = {number: signal.signal(number, self._take) for number in HANDLED}
        threading.Thread(target=self._watch, args=(self._read,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._waked)
        self._write.close()  # which ends the watching

    def _take(self, number: int, _: FrameType | None) -> None:
        self.number = self.number or number
        if not self._patient:
            raise Stopped(number)

    def _watch(self, waked: socket.socket) -> None:
        seen = 0
        with waked:
            while numbers := waked.recv(64):
                for number in numbers:
                    if number not in HANDLED:
                        continue
                    seen += 1
                    self.number = self.number or number
                    if seen > 1:
                        name = signal.Signals(number).name
                        os.write(2, f"sgdlab: ended at once by a second signal, {name}\n".encode())
                        os._exit(128 + number)
