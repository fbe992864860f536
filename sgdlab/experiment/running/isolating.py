"""The points of a run, each in a process of its own, so that one which dies dies alone.

The parent holds the run's folder and writes its summary; a child makes one point into that folder
by the code that makes it otherwise, so the bits are the same. They talk in lines of JSON: the child
says how far it is and in the end what the summary says of the point; the parent asks it to end.
A child whose parent is gone ends itself, and the folder stays locked until it has.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sgdlab
from sgdlab import training
from sgdlab.experiment.errors import OutputError
from sgdlab.experiment.running.isolation import Isolation
from sgdlab.experiment.running.making import Making, Progress, open_point
from sgdlab.experiment.running.work import Work
from sgdlab.files import count_cores

_LOOK = 0.1  # seconds between two looks at the clock and at the caller's wish to end
_TAIL = 4096  # bytes of the child's last words
# What fails the whole run in whichever process it comes up, by name; else a `CheckpointError`.
_ENDING = {"ResumeError": training.ResumeError, "OutputError": OutputError}
_NO_MEMORY = (
    "out of memory",
    "bad_alloc",
    "cannot allocate memory",
    "memoryerror",
    "resource temporarily unavailable",  # a thread's stack
)


def make_apart(making: Making, isolation: Isolation, tell: Callable[[], None]) -> None:
    """Make every point that has not finished in a process of its own.

    As many run at once as the processor has room for, each of their replicates taking a core.

    Args:
      making: the run.
      isolation: when a point is given up.
      tell: called when a point has ended.

    Raises:
      RunInterrupted: `making.interrupt` asked for it; all is saved.
      CheckpointError, OutputError: the run's files cannot be written or read.
    """
    works = [work for work in making.works if work.entry is None]
    for work in works:
        open_point(making.folder, work).close()
        work.log = None
    tell()
    replicates = max((len(work.replicates) for work in works), default=1)
    at_once = max(1, count_cores() // replicates)
    supervisor = _Supervisor(making, isolation)
    with ThreadPoolExecutor(at_once) as pool:
        futures = [pool.submit(supervisor.make, work) for work in works]
        try:
            for future in as_completed(futures):
                future.result()
                tell()
        except BaseException:
            supervisor.ending.set()
            raise
    if making.interrupt():
        raise training.RunInterrupted


@dataclass
class _Supervisor:
    """Starts children, listens to them, and says what became of each."""

    making: Making
    isolation: Isolation
    ending: threading.Event = field(default_factory=threading.Event)
    made: dict[int, int] = field(default_factory=dict)
    reporting: threading.Lock = field(default_factory=threading.Lock)

    def make(self, work: Work) -> None:
        """Have one point made."""
        if self._asked():
            return
        with _start(self.making, work, self.isolation) as child:
            listener = _Listener(child, self._asked, self.isolation.timeout)
            try:
                for said in listener.listen():
                    self._take(work, said)
            except BaseException:
                child.kill()
                raise
        if work.status == "running" and not listener.obeyed:
            work.fail(_explain(child.returncode, listener, self.isolation))

    def _asked(self) -> bool:
        return self.ending.is_set() or self.making.interrupt()

    def _take(self, work: Work, said: dict[str, Any]) -> None:
        """One line of a child."""
        if "entry" in said:
            work.entry, work.status = said["entry"], said["entry"]["status"]
            if work.status == "failed":  # which is to be tried again, so it has not finished
                work.entry = None
                work.fail(said["entry"]["summary"]["errors"][0])
        elif "error" in said:
            raise _ENDING.get(said["kind"], training.CheckpointError)(said["error"])
        elif "warning" in said:
            warnings.warn(training.CheckpointWarning(said["warning"]), stacklevel=2)
        elif "updates" in said:
            self._report(work, said)

    def _report(self, work: Work, said: dict[str, Any]) -> None:
        if self.making.progress is None:
            return
        works = self.making.works
        with self.reporting:
            self.made[work.point.index] = said["updates"]
            before = sum(w.num_updates for w in works if w.entry and w.point.index not in self.made)
            done, total = before + sum(self.made.values()), sum(w.num_updates for w in works)
            label = work.point.label
            self.making.progress(Progress(done, total, said["loss"], said["time"], label))


def _start(making: Making, work: Work, isolation: Isolation) -> subprocess.Popen[bytes]:
    """A child for one point; it shares the lock and the compiled programs."""
    import jax

    lock = making.folder.lock
    arguments = [making.folder.path.absolute(), work.point.index, lock, isolation.memory or 0]
    paths = [str(Path(sgdlab.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    if cache := jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
        environ |= {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
    return subprocess.Popen(
        [sys.executable, "-m", "sgdlab.experiment.running.isolated", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ,
        pass_fds=[lock],
        start_new_session=True,  # a terminal's Ctrl-C is the parent's to hear
    )


class _Listener:
    """Hears what a child says.

    Attributes:
      hung: whether the child was ended because it made no progress.
      obeyed: whether it was asked to end and said that it has.
      tail: its last words on the standard error.
    """

    def __init__(
        self, child: subprocess.Popen[bytes], asked: Callable[[], bool], timeout: float | None
    ) -> None:
        self._child, self._asked, self._timeout = child, asked, timeout
        self.hung = self.obeyed = False
        self.tail = b""

    def listen(self) -> Iterator[dict[str, Any]]:
        """What the child says, line by line, until it has ended."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._child.stdout or 0, selectors.EVENT_READ, "lines")
            selector.register(self._child.stderr or 0, selectors.EVENT_READ, "words")
            heard, rest, told = time.monotonic(), b"", False
            while selector.get_map():
                for key, _ in selector.select(_LOOK):
                    read = os.read(key.fd, 1 << 16)
                    if not read:
                        selector.unregister(key.fileobj)
                    elif key.data == "words":
                        self.tail = (self.tail + read)[-_TAIL:]
                    else:
                        heard = time.monotonic()
                        *lines, rest = (rest + read).split(b"\n")
                        yield from filter(None, map(self._read, lines))
                if not told and self._asked():
                    told = self._ask()
                if self._timeout is not None and time.monotonic() - heard > self._timeout:
                    self.hung = True
                    self._child.kill()

    def _read(self, line: bytes) -> dict[str, Any] | None:
        said = json.loads(line)
        self.obeyed |= "stopped" in said
        return said

    def _ask(self) -> bool:
        """Ask the child to save itself and end."""
        with suppress(OSError):
            assert self._child.stdin is not None
            self._child.stdin.write(b"end\n")
            self._child.stdin.flush()
        return True


def _explain(code: int, listener: _Listener, isolation: Isolation) -> str:
    """What became of a child that has not said it itself, in one line."""
    words = listener.tail.decode("utf-8", "replace").split("\n")
    last = " ".join(next((word for word in reversed(words) if word.strip()), "").split())
    if listener.hung:
        return f"hung: no progress for {isolation.timeout:g} s"
    if isolation.memory is not None and any(word in last.lower() for word in _NO_MEMORY):
        return f"out of memory: {isolation.memory} bytes are allowed: {last}"
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"{how}: {last}" if last else how
