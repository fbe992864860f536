"""Processes that watch one another; no jax, so they start in a moment."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sgdlab.training.devices.watching import find_own_host, watch_peers

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


def test_four_hundred_idle_strangers_leave_it_working(run):
    processes, port, token = run
    with contextlib.ExitStack() as stack:
        for _ in range(400):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        own = len(os.listdir(f"/proc/{processes[0].pid}/fd"))
        assert own < 150  # the 64 that are waited for, and what Python has open
        with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
            peer.sendall(token)
            assert peer.recv(1) == b"!"
            peer.sendall(b".")
        time.sleep(0.2)
        assert [process.poll() for process in processes] == [None] * 3
        processes[1].kill()
        assert [processes[0].wait(10), processes[2].wait(10)] == [75, 75]


def test_a_token_cannot_be_guessed_bit_by_bit(run):
    _, port, token = run
    for first in (token[:1], bytes([token[0] ^ 1])):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as stranger:
            stranger.sendall(first)
            stranger.settimeout(0.5)
            with pytest.raises(TimeoutError):  # right or wrong, nothing is told of a part
                stranger.recv(1)
            stranger.sendall(b"\0" * (len(token) - 1))
            stranger.settimeout(10)
            assert stranger.recv(1) == b""


def test_it_listens_where_the_coordinator_does(run):
    processes, port, _ = run
    tables = [Path(f"/proc/{processes[0].pid}/net/{name}").read_text() for name in ("tcp", "tcp6")]
    words = [line.split() for table in tables for line in table.splitlines()[1:]]
    bound = {each[1] for each in words if each[3] == "0A" and each[1].endswith(f":{port:04X}")}
    assert bound == {f"0100007F:{port:04X}"}  # 127.0.0.1, as Linux writes it, listening
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=10)


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("127.0.0.1:9", "127.0.0.1"),
        ("localhost:9", "127.0.0.1"),
        ("192.0.2.1:9", ""),  # of nobody (RFC 5737): one that is translated on the way
        ("node-0.cluster:9", ""),
    ],
)
def test_an_address_of_this_machine_is_enough_to_listen_on(address, host):
    assert find_own_host(address) == host


def test_a_port_that_cannot_be_reached_is_a_warning():
    class Client:
        def blocking_key_value_get(self, key, milliseconds):
            with socket.create_server(("127.0.0.1", 0)) as server:
                return f"{server.getsockname()[1]} token"

    with pytest.warns(UserWarning, match=r"port \d+ of 127.0.0.1 can't be reached .*refused"):
        watch_peers(Client(), "127.0.0.1:1", 1, os.abort)
