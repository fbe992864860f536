"""Signals that end a run: the first one counts, wherever it lands.

Python raises a signal's exception wherever the main thread stands. Where that is a callback of the
garbage collector, of a weak reference or a `__del__`, nobody is there to take it, and Python
discards it: JAX has such a callback, so one Ctrl-C in some is lost. Here a signal is noted before
its exception is raised, an exception that was discarded is raised again, and the loops ask.
"""

from __future__ import annotations

import _thread
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

_AGAIN = 0  # no signal has this number: on the socket it says that an exception was discarded
_PAUSE = 0.01  # seconds until it is raised again, elsewhere


class Interrupts:
    """Takes signals while it is entered, in the main thread.

    The first one raises an exception, or within `patient` only notes itself, so that whoever works
    there can end in order. Later ones raise it wherever they come.

    Attributes:
      number: of the first signal; 0 before there was one.
    """

    def __init__(
        self,
        handled: Sequence[int] = (signal.SIGINT,),
        make: Callable[[int], BaseException] = lambda number: KeyboardInterrupt(),
    ) -> None:
        """Args: the numbers of the signals, and the exception of each."""
        self.number = 0
        self._handled, self._make = handled, make
        self._patient = self._taken = False
        self._raised: BaseException | None = None
        self._old: dict[int, Any] = {}

    def asked(self) -> bool:
        """Whether a signal came."""
        return bool(self.number)

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Within, the first signal raises nothing."""
        before, self._patient = self._patient, True
        try:
            yield
        finally:
            self._patient = before

    def __enter__(self) -> Interrupts:
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        self._unraisable, sys.unraisablehook = sys.unraisablehook, self._take_discarded
        threading.Thread(target=self._watch, args=(self._read,), daemon=True).start()
        self._old = {number: signal.signal(number, self._take) for number in self._handled}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        sys.unraisablehook = self._unraisable
        self._write.close()  # which ends the watching

    def _take(self, number: int, _: FrameType | None) -> None:
        first, self._taken = not self._taken, True
        self.number = self.number or number
        if not (self._patient and first):
            self._raised = self._make(number)
            raise self._raised

    def _take_discarded(self, unraisable: Any) -> None:
        """Python's hook for an exception that nobody can take."""
        if unraisable.exc_value is self._raised is not None:
            self._raised = None
            self._write.send(bytes([_AGAIN]))  # no lock may be waited for here
        else:
            self._unraisable(unraisable)

    def _watch(self, waked: socket.socket) -> None:
        with waked:
            while numbers := waked.recv(64):
                for number in numbers:
                    self._see(number)

    def _see(self, number: int) -> None:
        if number == _AGAIN:
            time.sleep(_PAUSE)
            self._raise_again()

    def _raise_again(self) -> None:
        if self._write.fileno() >= 0:  # otherwise it has been left in the meantime
            _thread.interrupt_main(signal.Signals(self.number))


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Within, Ctrl-C in Python or a notebook raises `KeyboardInterrupt` once at least.

    Where somebody has taken SIGINT already, as the command line has, or outside the main thread,
    it is theirs and nothing changes.

    Yields:
      Whether it came.

    Raises:
      KeyboardInterrupt: at the end at the latest.
    """
    if not _is_ours():
        yield lambda: False
        return
    with Interrupts() as interrupts:
        yield interrupts.asked
    if interrupts.asked():
        raise KeyboardInterrupt


def _is_ours() -> bool:
    if threading.current_thread() is not threading.main_thread():
        return False
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler
