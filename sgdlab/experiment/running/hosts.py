"""Several processes that are one run: their devices, who writes, and what they agree on.

Every process walks the same experiment and computes with its own devices. Process 0 leads: it makes
the run folder and writes everything in it, but for the parts of a state that is spread over hosts.
What a process would decide by itself, a signal or where the run lies, is settled among them first,
for a process that went another way would leave the others waiting in a collective.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sgdlab.experiment.errors import AbortError, ConfigError, StoppedError
from sgdlab.experiment.folders.folder import RunFolder
from sgdlab.experiment.running.signals import Signals

if TYPE_CHECKING:
    from sgdlab.experiment.running.work import Work


def start(
    simulate: int | None = None,
    distributed: bool = False,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Make the devices and join the other processes; to be called before jax is imported.

    Args:
      simulate: how many devices the CPU stands for.
      distributed: whether other processes belong to the run; said, too, by the three below.
      coordinator: `HOST:PORT` of process 0.
      num_processes: how many there are.
      process_id: which of them this is, from 0.

    Raises:
      ConfigError: the options don't fit one another.
    """
    from sgdlab.training.devices.launching import quiet_jax, quiet_libraries, simulate_devices

    given = coordinator, num_processes, process_id
    try:
        if simulate is not None:
            simulate_devices(simulate)
        if distributed or any(each is not None for each in given):
            quiet_jax()
            from sgdlab.training.devices.distributed import initialize

            initialize(*given)
            quiet_libraries()
    except (ValueError, RuntimeError) as error:
        raise ConfigError([" ".join(str(error).split())]) from error


def is_leader() -> bool:
    """Whether this process writes; every run of one process does."""
    return _count() == 1 or _jax().process_index() == 0


class ReadOnlyFolder(RunFolder):
    """The run folder as the other processes see it: they know where it lies and write nothing."""

    writes = False

    def __init__(self, path: Path) -> None:
        self.path = path

    def close(self) -> None:
        """There is no lock to give back."""

    def directory(self, *parts: str) -> Path:
        """A folder within the run's, which process 0 makes."""
        return self.path.joinpath(*parts)

    def write_text(self, text: str, *parts: str) -> Path:
        """Nothing is written."""
        return self.path.joinpath(*parts)

    def write_arrays(self, arrays: dict[str, np.ndarray], *parts: str) -> Path:
        """Nothing is written."""
        return self.path.joinpath(*parts)


def announce(folder: RunFolder, works: Sequence[Work]) -> None:
    """Process 0 tells the others where the run lies and which points have finished."""
    if _count() > 1:
        finished = [index for index, work in enumerate(works) if work.entry is not None]
        _broadcast({"folder": os.path.abspath(folder.path), "finished": finished})


def follow(works: Sequence[Work]) -> ReadOnlyFolder:
    """What process 0 announces: the folder; finished points are marked in `works`."""
    told = _broadcast(None)
    for index in told["finished"]:
        works[index].entry = {}
    return ReadOnlyFolder(Path(told["folder"]))


def agree(signals: Signals) -> Callable[[], bool]:
    """Whether any process was sent a signal, asked by all at the same points of the run."""
    if _count() == 1:
        return signals.asked

    def asked() -> bool:
        from jax.experimental.multihost_utils import process_allgather

        told = int(np.max(process_allgather(np.int32(signals.number))))
        signals.number = signals.number or told
        return bool(told)  # and not what has come since, of which the others don't know

    return asked


def end_if_peer_lost(error: BaseException) -> None:
    """End this process, with one line and exit code 75, if the error comes from a lost peer."""
    if _count() == 1:
        return
    from sgdlab.training.devices.distributed import end_lost, is_lost_peer

    cause: BaseException | None = error
    while cause is not None:
        if is_lost_peer(cause):
            end_lost(cause)
        cause = cause.__cause__ or cause.__context__


def leave(error: BaseException, lines: Sequence[str], code: int) -> None:
    """End after a failure of this process alone, which the others would wait for, and tell it."""
    if _count() == 1 or _is_common(error):
        return  # the others come to the same end, and all say goodbye
    from sgdlab.training.devices.distributed import end_failed

    end_failed("\n".join(lines), code)


def _is_common(error: BaseException) -> bool:
    return isinstance(error, StoppedError | AbortError)


def _broadcast(facts: dict[str, Any] | None) -> dict[str, Any]:
    """Process 0's facts, on every process."""
    from jax.experimental.multihost_utils import broadcast_one_to_all

    content = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    size = int(broadcast_one_to_all(np.int32(len(content))))
    padded = np.zeros(size, np.uint8)
    padded[: len(content)] = content[:size]
    return json.loads(np.asarray(broadcast_one_to_all(padded)).tobytes())


def _count() -> int:
    """How many processes belong to the run; jax is not started to find out."""
    if "sgdlab.training.devices.distributed" not in sys.modules:
        return 1
    return _jax().process_count() if _jax().distributed.is_initialized() else 1


def _jax() -> Any:
    import jax

    return jax
