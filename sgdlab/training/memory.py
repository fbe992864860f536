"""What a replay takes at the very least, held against what there is before anything is compiled.

A system that promises more memory than it has lets a program run until it stands still.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax

from sgdlab.tasks.rows import row_bytes

_ROW_NUMBER = 4  # bytes; each row that a chunk's messages use is drawn before its loop


def check_batch_size(batch_size: int, train: Any, minibatches: int) -> None:
    """Refuse a minibatch that can't be held, its activations not counted.

    Args:
      batch_size: B, its rows.
      train: training rows by name.
      minibatches: how many are drawn at once, those of a chunk.

    Raises:
      ValueError: B rows of the data and B row numbers a minibatch are more bytes than there are.
    """
    each, there_are = row_bytes(train) + _ROW_NUMBER * minibatches, memory_bytes()
    if batch_size * each > there_are:
        raise ValueError(
            f"worker.batch_size: {batch_size} rows take at least {batch_size * each / 1e9:,.0f} GB "
            f"and there are {there_are / 1e9:,.0f}; allowed here: at most {there_are // each}"
        )


def memory_bytes() -> int:
    """Of all devices of a run; of the CPU it is the hosts', as far as this process may use it."""
    limits = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in jax.local_devices()]
    if not all(limits):
        limits = [_host_bytes()]
    return sum(limits) * jax.process_count()


def _host_bytes() -> int:
    if not hasattr(os, "sysconf"):  # Windows does not say
        return sys.maxsize
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # "max", or no such file: there is no limit
        return min(physical, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return physical
