"""Many hosts: one process on each, all running the same program.

Every process compiles the same steps and holds its own devices' part of every array; process 0
writes the files. A process that fails must end and be seen to: its peers wait for it, and would
wait long for its clean goodbye.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
import numpy as np
from jax._src.distributed import global_state  # its client has no public name
from jax.sharding import Mesh

from sgdlab.training.devices.mesh import batch_sharding
from sgdlab.training.devices.watching import find_own_host, watch_peers

PEER_LOST = 75  # sysexits' EX_TEMPFAIL: nothing is wrong with the run itself, start it again
GIVEN_UP = (
    "distributed: another process was lost, or never came "
    "(TF_CPP_MIN_LOG_LEVEL=0 shows what jax says of it)"
)

_GOODBYE = 120  # seconds: process 0 may still be writing its report
_GRACE = 1.0  # seconds in which what fails in all processes alike is told by each of them
_ending = threading.Lock()
_LOST = (
    "Gloo", "NCCL", "Connection reset", "Connection closed", "Socket closed", "heartbeat",
    "coordination service", "UNAVAILABLE", "DEADLINE_EXCEEDED",
)  # fmt: skip


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    start_timeout: int = 60,
    heartbeat_timeout: int = 10,
) -> None:
    """Join the other processes of a run; to be called before any array is made.

    Without arguments jax finds them out under SLURM, Open MPI, Kubernetes and on TPU pods.

    Args:
      coordinator: `HOST:PORT` of process 0.
      num_processes: how many there are.
      process_id: which of them this is, from 0.
      start_timeout: seconds to wait for the others.
      heartbeat_timeout: seconds without a sign of life after which a process counts as dead.

    From then on this process ends when another one has gone or is silent for too long, whatever it
    is doing: the exit code is then `PEER_LOST`, and what is said of it one line.

    Raises:
      ValueError: some of the three are given and not all, or one is out of range.
      RuntimeError: jax has made its devices already, or could not find the others out.
    """
    given = {
        "coordinator": coordinator,
        "num_processes": num_processes,
        "process_id": process_id,
    }
    _check(given)
    # With it, SIGTERM would be noted and not obeyed: a scheduler could not end the process.
    jax.config.update("jax_enable_preemption_service", False)
    _catch_abort()
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=start_timeout,
            heartbeat_timeout_seconds=heartbeat_timeout,
            shutdown_timeout_seconds=_GOODBYE,
            coordinator_bind_address=_find_bind_address(coordinator, process_id),
        )
    except ValueError as error:
        raise RuntimeError(
            f"distributed: no cluster was found ({error}); give coordinator, num_processes, "
            "process_id"
        ) from None
    state = global_state
    address, index = state.coordinator_address or "", state.process_id
    watch_peers(state.client, address, index, _on_death, timeout=start_timeout)


def is_writer() -> bool:
    """Whether this process writes the run's files."""
    return jax.process_index() == 0


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """End this process when it or a peer fails, so that all of them end.

    A lost peer shows as an error of the collective that waited for it; it is told in one line and
    the exit code is `PEER_LOST`. Any other exception is this process's own: its traceback is
    printed and the exit code is 1. Neither waits for jax's farewell, which the others can't join.
    In a run of one process nothing is changed.
    """
    try:
        yield
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        if is_lost_peer(error):
            end_lost(error)
        if isinstance(error, SystemExit) and error.code in (0, None):
            raise
        end_failed("".join(traceback.format_exception(error)).rstrip(), 1)


def end_failed(text: str, code: int) -> NoReturn:
    """End this process, which has failed by itself; the others then find it lost.

    First it stays for a moment, so that those which are about to fail alike can say so.
    """
    _end_once(text, code, stay=_GRACE)


def end_lost(error: BaseException) -> NoReturn:
    """End this process, whose collective failed because another process is gone."""
    reason = str(error).split("\n", 1)[0]
    _end_once(f"distributed: another process was lost ({reason})")


def spread_rows(rows: Any, mesh: Mesh) -> Any:
    """A global batch on a mesh, each process handing its devices their own rows alone.

    Args:
      rows: tree of NumPy arrays `[B, …]`, the same on every process.
      mesh: from `make_mesh`.

    Returns:
      The same tree as global arrays, rows over `data` and `fsdp`.
    """
    sharding = batch_sharding(mesh)

    def place(leaf):
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(place, rows)


def _find_bind_address(coordinator: str | None, process_id: int | None) -> str | None:
    """Where process 0 listens: at the address given where it is this machine's; None: at all."""
    if coordinator is None or process_id != 0 or not (host := find_own_host(coordinator)):
        return None
    port = coordinator.rpartition(":")[2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check(given: dict[str, Any]) -> None:
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return
    if missing:
        raise ValueError(
            f"distributed: {', '.join(missing)} is missing; give all of {', '.join(given)}, or "
            "none under SLURM, Open MPI, Kubernetes or on a TPU pod"
        )
    host, _, port = given["coordinator"].rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(
            f"distributed: coordinator is {given['coordinator']!r}; it has the form HOST:PORT"
        )
    count, index = given["num_processes"], given["process_id"]
    if count < 1 or not 0 <= index < count:
        raise ValueError(
            f"distributed: process_id is {index} of num_processes {count}; it lies in "
            f"[0, {max(count, 1) - 1}]"
        )


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error means that another process is gone.

    By its text: what a dead peer raises differs by transport and by jax version.
    """
    known = isinstance(error, jax.errors.JaxRuntimeError | ValueError)
    return known and any(sign in str(error) for sign in _LOST)


def _catch_abort() -> None:
    """Let an abort end the process with `PEER_LOST`.

    jax aborts when a process no longer answers, from a thread of its own, in which Python's signal
    handlers never run; and what it offers to be called instead can't be called from Python.
    """
    library = ctypes.CDLL(None)
    library.signal.restype = ctypes.c_void_p
    library.signal(int(signal.SIGABRT), _on_abort)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _on_abort(_: int) -> None:
    _end_once(GIVEN_UP)


def _on_death() -> None:
    _end_once("distributed: another process was lost (its connection closed)")


def _end_once(line: str, code: int = PEER_LOST, stay: float = 0.0) -> NoReturn:
    """What fails, jax's own thread and the watch come to the same end; one of them tells."""
    try:
        if _ending.acquire(blocking=False):
            sys.stdout.flush()
            os.write(2, f"{line}\n".encode() if line else b"")
            time.sleep(stay)
        else:
            time.sleep(2 * _GRACE)
    finally:  # a signal is no way out
        os._exit(code)
