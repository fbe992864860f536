"""Processes that watch one another; no jax, so they start in a moment."""

import contextlib
import os
import socket
import subprocess
import sys
import time

import pytest

from sgdlab.training.devices.watching import watch_peers

pytestmark = pytest.mark.slow

PROGRAM = """
import os, pathlib, sys, time
from sgdlab.training.devices.watching import watch_peers

class Client:
    told = pathlib.Path(sys.argv[1])

    def key_value_set(self, key, value):
        self.told.with_suffix(".part").write_text(value)
        self.told.with_suffix(".part").rename(self.told)

    def blocking_key_value_get(self, key, milliseconds):
        while not self.told.exists():
            time.sleep(0.01)
        return self.told.read_text()

watch_peers(Client(), "127.0.0.1:1", int(sys.argv[2]), lambda: os._exit(75))
print("watching", flush=True)
input()
"""


@pytest.fixture
def run(tmp_path):
    """Three processes that wait for a line and then end, and the port and token of process 0."""
    told = tmp_path / "told"
    with contextlib.ExitStack() as stack:
        processes = []
        for index in range(3):
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(told), str(index)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            processes.append(process)
        for process in processes:
            assert process.stdout.readline() == "watching\n"
        port, token = told.read_text().split()
        yield processes, int(port), token.encode()


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_killed_process_ends_all_others(run, victim):
    processes, _, _ = run
    processes.pop(victim).kill()
    assert [process.wait(10) for process in processes] == [75, 75]


@pytest.mark.parametrize("first", [0, 1, 2])
def test_a_process_that_ends_properly_ends_no_other_and_the_rest_still_watch(run, first):
    processes, _, _ = run
    ending = processes.pop(first)
    ending.communicate("\n", timeout=10)
    assert ending.returncode == 0
    time.sleep(0.5)
    assert [process.poll() for process in processes] == [None, None]
    if first != 0:  # nobody is between the others once process 0 has ended
        processes[0].kill()
        assert processes[1].wait(10) == 75


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n", b"half"])
def test_a_stranger_who_comes_and_goes_is_no_peer(run, said):
    processes, port, token = run
    said = token[:16] if said == b"half" else said
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(said)
    time.sleep(0.5)
    assert [process.poll() for process in processes] == [None] * 3
    processes[1].kill()
    assert [processes[0].wait(10), processes[2].wait(10)] == [75, 75]


def test_a_port_that_cannot_be_reached_is_a_warning():
    class Client:
        def blocking_key_value_get(self, key, milliseconds):
            with socket.create_server(("127.0.0.1", 0)) as server:
                return f"{server.getsockname()[1]} token"

    with pytest.warns(UserWarning, match=r"port \d+ of 127.0.0.1 can't be reached .*refused"):
        watch_peers(Client(), "127.0.0.1:1", 1, os.abort)
