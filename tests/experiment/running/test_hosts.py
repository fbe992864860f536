"""Several processes that are one run, through the command line."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sgdlab.experiment import ConfigError
from sgdlab.experiment.running import hosts
from sgdlab.experiment.running.signals import Signals
from sgdlab.training import checkpoints
from sgdlab.training.devices.distributed import GIVEN_UP, PEER_LOST
from sgdlab.training.devices.launching import free_port, launch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="gloo is the CPU transport on Linux"),
]
SGDLAB = [sys.executable, "-m", "sgdlab"]
CONFIG = """
name: spread
task: {name: digits, hidden: [64]}
rule: {name: momentum, learning_rate: 0.1, decay: 0.9}
cluster: {workers: 4, compute: {name: lognormal, mean: 1.0, sigma: 0.5}}
protocol: asynchronous
updates: 20
evaluate_every: 5
checkpoint_every: 1
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, request):
    monkeypatch.setenv("PYTHONPATH", str(request.config.rootpath), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    Path("spread.yaml").write_text(CONFIG)
    return tmp_path / "runs" / "spread"


def test_two_processes_leave_the_files_of_one(folder, capfd):
    devices = "devices={data: 2, reduction: canonical}"
    command = [*SGDLAB, "run", "-q", "spread.yaml", "--id"]
    assert launch([*command, "two", devices], 2, timeout=100, grace=20) == [0, 0]
    assert capfd.readouterr().out == "runs/spread/two/report.html\n"
    one = "devices={data: 1, reduction: canonical}"
    subprocess.run([*command, "one", one], check=True, timeout=100, stdout=subprocess.DEVNULL)
    assert files(folder / "one") == files(folder / "two")
    newest = "checkpoints/0/0/checkpoint-000000000020.ckpt"
    for name in ("history.npz", "metrics.jsonl", "timeline.npz", newest):
        assert (folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes()


def files(path):
    return sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())


class Two:
    """Two processes that train for long; those that are left at the end are killed."""

    def __init__(self, folder, run_id, *given, devices_each=1):
        self.log = folder / run_id / "metrics.jsonl"
        environ = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices_each)}
        environ["NPROC"] = "8"
        flags = ["--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", "2"]
        command = [*SGDLAB, "run", "spread.yaml", "--id", run_id, *given, *flags, "--process-id"]
        self.processes = [
            subprocess.Popen(
                [*command, str(index)], env=environ, text=True,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )
            for index in range(2)
        ]  # fmt: skip

    def __enter__(self):
        deadline = time.monotonic() + 90
        while not self.log.exists() or self.log.read_text().count("\n") < 4:
            assert time.monotonic() < deadline
            assert [p.poll() for p in self.processes] == [None, None]
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.communicate()

    def end(self, victim, number, within):
        """Send a signal; what the other one's exit code is, and what it says."""
        self.processes[victim].send_signal(number)
        other = self.processes[1 - victim]
        _, told = other.communicate(timeout=within)
        return other.returncode, told.splitlines()


LONG = ["updates=100000", "devices={data: 2}"]


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_ends_the_other_within_2_seconds_with_one_line(folder, victim):
    with Two(folder, "x", *LONG) as two:
        code, told = two.end(victim, signal.SIGKILL, within=2)
    assert code == PEER_LOST
    assert len(told) == 1
    assert told[0].startswith("distributed: another process was lost")


def test_a_process_that_hangs_ends_the_other_within_15_seconds_with_one_line(folder):
    with Two(folder, "x", *LONG) as two:
        assert two.end(1, signal.SIGSTOP, within=15) == (PEER_LOST, [GIVEN_UP])


def test_a_signal_to_one_process_ends_both_in_order(folder):
    with Two(folder, "x", *LONG) as two:
        assert two.end(1, signal.SIGTERM, within=30) == (
            128 + signal.SIGTERM,
            ["stopped and saved; go on with: sgdlab run --resume runs/spread/x"],
        )
        _, told = two.processes[1].communicate(timeout=10)
        assert two.processes[1].returncode == 128 + signal.SIGTERM
        assert told.splitlines() == []
    assert json.loads((folder / "x" / "summary.json").read_text())["status"] == "interrupted"


def test_a_run_killed_on_2_by_2_goes_on_on_1_by_4(folder):
    """Two processes of two devices; then one process that simulates four."""
    with Two(folder, "x", "updates=400", "devices={data: 2, fsdp: 2}", devices_each=2) as two:
        code, told = two.end(1, signal.SIGKILL, within=2)
    assert (code, len(told)) == (PEER_LOST, 1)
    saved = checkpoints.find(folder / "x" / "checkpoints" / "0" / "0")
    assert {path.suffix for path in saved} == {".shards"}
    made = checkpoints.read_header(saved[-1]).update
    assert 0 < made < 400
    resume = [*SGDLAB, "run", "--resume", "runs/spread/x", "--simulate-devices", "4"]
    given = ["devices.data=1", "devices.fsdp=4"]
    subprocess.run([*resume, *given], check=True, timeout=100, stdout=subprocess.DEVNULL)
    whole = [*SGDLAB, "run", "spread.yaml", "--id", "whole", "updates=400"]
    subprocess.run(whole, check=True, timeout=100, stdout=subprocess.DEVNULL)
    cut, one = (np.load(folder / name / "history.npz")["loss_0"] for name in ("x", "whole"))
    assert cut.shape == one.shape == (1, 400)
    np.testing.assert_allclose(cut[0, :50], one[0, :50], rtol=1e-4)
    np.testing.assert_allclose(cut.mean(), one.mean(), rtol=1e-2)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--simulate-devices", "0"], "simulate_devices: 0 is too few; at least 1"),
        (["--coordinator", "here"], "distributed: num_processes, process_id is missing"),
        (
            ["--simulate-devices", "2", "devices.data=4"],
            "data=4 .* needs 4 devices and there are 2; with these, data is at most 2",
        ),
    ],
)
def test_options_that_do_not_fit_are_one_line_and_exit_code_2(options, says, folder):
    done = subprocess.run(
        [*SGDLAB, "run", "spread.yaml", *options], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert re.search(says, done.stderr)
    assert not folder.exists()


def test_what_no_process_can_do_each_of_them_says_itself(capfd):
    """The first to leave is no lost peer to one that is about to leave for the same reason."""
    devices = "devices={data: 3}"
    assert launch([*SGDLAB, "run", "spread.yaml", devices], 2, timeout=100) == [2, 2]
    told = capfd.readouterr().err.splitlines()
    assert len(told) == 2
    assert all("needs 3 devices and there are 2" in line for line in told)


def test_a_run_of_one_process_leads_and_asks_nobody():
    assert hosts.is_leader()
    with pytest.raises(ConfigError, match="jax is already imported"):
        hosts.start(simulate=2)


def test_a_signal_that_comes_while_all_are_asked_counts_the_next_time(monkeypatch):
    """This process alone would leave, and the others wait for it."""
    signals = Signals()

    def gather(number):
        signals.number = signal.SIGTERM
        return np.array([number, 0])

    monkeypatch.setattr(hosts, "_count", lambda: 2)
    monkeypatch.setattr("jax.experimental.multihost_utils.process_allgather", gather)
    asked = hosts.agree(signals)
    assert [asked(), asked()] == [False, True]
