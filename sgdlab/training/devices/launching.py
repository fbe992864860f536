"""What must be set before jax starts, and starting several processes of one run on this machine.

Nothing here imports jax: thread counts and the number of simulated devices are read once, when
jax makes its devices.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, MutableMapping, Sequence


def simulate_devices(count: int, environ: MutableMapping[str, str] = os.environ) -> None:
    """Let the CPU of this machine stand for several devices.

    Each device runs its share on a thread and blocks it while it waits for the others in a
    collective, so there must be more threads than devices: twice as many are asked for, whatever
    the number of cores.

    Args:
      count: how many devices.
      environ: where it is set; what the caller had set there already stays, but for the count.

    Raises:
      ValueError: the count is below 1.
      RuntimeError: jax has been imported, and would not notice.
    """
    if count < 1:
        raise ValueError(f"simulate_devices: {count} is too few; at least 1")
    if environ is os.environ and "jax" in sys.modules:
        raise RuntimeError("simulate_devices: jax is already imported; set the devices before that")
    environ["JAX_PLATFORMS"] = "cpu"
    environ["JAX_NUM_CPU_DEVICES"] = str(count)
    environ.setdefault("NPROC", str(2 * max(count, os.cpu_count() or 1)))


def quiet_jax(environ: MutableMapping[str, str] = os.environ) -> None:
    """Keep jax's coordination service from telling of a lost process in twenty lines.

    `sgdlab.training.devices.distributed` tells it in one. What the caller had set stays, but for 1,
    which jax itself sets where nothing is, and hands on to child processes.
    """
    if environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":
        environ["TF_CPP_MIN_LOG_LEVEL"] = "4"


def quiet_libraries(environ: Mapping[str, str] = os.environ) -> None:
    """Keep the standard output for what Python prints; of gloo, each connection prints a line.

    With `TF_CPP_MIN_LOG_LEVEL=0`, which brings back jax's log, nothing is kept from it.
    """
    if environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        return
    sys.stdout.flush()
    sys.stdout = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def launch(
    command: Sequence[str],
    num_processes: int,
    *,
    devices_each: int = 1,
    timeout: float | None = None,
    grace: float = 2.0,
) -> list[int]:
    """Run one command as several processes that together are one run, on this machine.

    `--coordinator HOST:PORT --num-processes N --process-id I` are appended to the command, as one
    would type them on N hosts. Once a process fails the others have `grace` seconds to notice;
    then they are ended.

    Args:
      command: a program and its arguments.
      num_processes: N.
      devices_each: CPU devices that each process simulates.
      timeout: seconds after which all are ended.
      grace: seconds.

    Returns:
      The N exit codes; negative for one that was ended by a signal.
    """
    environ = dict(os.environ)
    simulate_devices(devices_each, environ)
    quiet_jax(environ)
    address = f"127.0.0.1:{free_port()}"
    flags = ["--coordinator", address, "--num-processes", str(num_processes), "--process-id"]
    processes = [
        subprocess.Popen([*command, *flags, str(index)], env=environ)
        for index in range(num_processes)
    ]
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        return _wait(processes, deadline, grace)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def _wait(processes: list[subprocess.Popen], deadline: float | None, grace: float) -> list[int]:
    failed = False
    while None in (codes := [process.poll() for process in processes]):
        now = time.monotonic()
        if not failed and any(codes):
            failed, deadline = True, min(deadline or now + grace, now + grace)
        if deadline is not None and now > deadline:
            break
        time.sleep(0.02)
    for process in processes:
        if process.poll() is None:
            process.kill()
    return [process.wait() for process in processes]


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
