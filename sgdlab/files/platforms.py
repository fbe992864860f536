"""What a platform may lack, and is then done without: flags of opening, locks, affinity."""

from __future__ import annotations

import ctypes
import os


def open_flags(*names: str) -> int:
    """The flags of `os.open` by these names, as `"O_NOFOLLOW"`; 0 for one that there is not."""
    flags = 0
    for name in names:
        flags |= getattr(os, name, 0)
    return flags


def take_lock(file: int, *, shared: bool = False) -> None:
    """Lock an open file until it is closed, for this process or for all that share.

    Where the system has no such locks (Windows) nothing is locked, and two processes must not be
    given the same folder.

    Raises:
      BlockingIOError: another process holds it.
      OSError: the file system has no locks.
    """
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def return_memory() -> None:
    """Give back to the system what has been freed, where the C library (glibc) can be asked to."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return


def count_cores() -> int:
    """The cores that this process may use, or that there are where it can't be said."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
