"""Several processes on this machine, as on several hosts."""

import contextlib
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from sgdlab.training.devices.distributed import PEER_LOST, ending_together, initialize, is_writer
from sgdlab.training.devices.launching import free_port, launch, quiet_jax, simulate_devices

pytestmark = pytest.mark.slow

WORKER = """
import argparse, os, pathlib, sys, time
import jax, jax.numpy as jnp, numpy as np
from sgdlab.training.devices.collectives import Average
from sgdlab.training.devices.distributed import ending_together, initialize, is_writer, spread_rows
from sgdlab.training.devices.mesh import make_mesh

parser = argparse.ArgumentParser()
parser.add_argument("out", type=pathlib.Path)
parser.add_argument("--dies", type=int, default=-1)
parser.add_argument("--coordinator")
parser.add_argument("--num-processes", type=int)
parser.add_argument("--process-id", type=int)
args = parser.parse_args()
initialize(args.coordinator, args.num_processes, args.process_id, start_timeout=40)

def local(params, batch, key):
    def loss(params):
        hidden = jnp.tanh(batch["x"] @ params["a"])
        return jnp.mean(jnp.square(hidden @ params["b"] - batch["y"])), {}
    return jax.value_and_grad(loss, has_aux=True)(params)

def step(params, batch):
    (loss, _), gradient = average(local)(params, batch, None)
    return jax.tree.map(lambda w, g: w - 0.1 * g, params, gradient), loss

with ending_together():
    mesh = make_mesh()
    average = Average(mesh, reduction="canonical", microbatches=8)
    draw = np.random.default_rng(0).standard_normal
    batch = spread_rows({"x": draw((64, 32), np.float32), "y": draw((64, 4), np.float32)}, mesh)
    params = {"a": draw((32, 64), np.float32) / 8, "b": draw((64, 4), np.float32) / 8}
    step = jax.jit(step)
    for index in range(100):
        params, loss = jax.block_until_ready(step(params, batch))
    if is_writer():
        np.savez(args.out, loss=loss, **params)
    if args.dies >= 0:
        for index in range(100_000):
            if index == 50 and args.process_id == args.dies:
                os._exit(3)
            params, loss = jax.block_until_ready(step(params, batch))
"""

WRITER = """
import argparse, pathlib, time
import jax, numpy as np
from sgdlab.training import checkpoints
from sgdlab.training.checkpoints import sharded
from sgdlab.training.devices.distributed import ending_together, initialize
from sgdlab.training.devices.mesh import make_mesh

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=pathlib.Path)
parser.add_argument("--never-writes", type=int)
parser.add_argument("--coordinator")
parser.add_argument("--num-processes", type=int)
parser.add_argument("--process-id", type=int)
args = parser.parse_args()
initialize(args.coordinator, args.num_processes, args.process_id, start_timeout=40)

class Slow:
    def save(self, *_):
        time.sleep(60)

with ending_together():
    spread = jax.NamedSharding(make_mesh(), jax.P("data"))
    tree = jax.make_array_from_callback((6,), spread, lambda index: np.ones(6, np.float32)[index])
    checkpoints.save(args.folder, tree, update=1)
    if args.process_id == args.never_writes:
        sharded._orbax = Slow
    (args.folder / f"process-{args.process_id}").touch()
    checkpoints.save(args.folder, tree, update=2)
"""


@pytest.fixture(autouse=True)
def children_find_the_package(monkeypatch, request):
    monkeypatch.setenv("PYTHONPATH", str(request.config.rootpath), prepend=os.pathsep)


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    path = tmp_path_factory.mktemp("hosts") / "worker.py"
    path.write_text(WORKER)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="gloo is the CPU transport on Linux")
def test_two_processes_have_the_bits_of_one_and_a_lost_peer_ends_the_other(worker, tmp_path, capfd):
    command = [sys.executable, str(worker)]
    one, two = tmp_path / "one.npz", tmp_path / "two.npz"
    assert launch([*command, str(one)], 1, timeout=60) == [0]
    capfd.readouterr()
    # A process still there 2 s after the other is gone would be ended by signal: −9 in place of 75.
    assert launch([*command, str(two), "--dies", "1"], 2, timeout=60, grace=2.0) == [PEER_LOST, 3]
    told = [line for line in capfd.readouterr().err.splitlines() if "distributed:" in line]
    assert len(told) == 1
    assert told[0].startswith("distributed: another process was lost (")
    with np.load(one) as expected, np.load(two) as found:
        assert sorted(expected) == ["a", "b", "loss"]
        for name in expected:
            assert expected[name].tobytes() == found[name].tobytes()


@pytest.mark.skipif(sys.platform != "linux", reason="gloo is the CPU transport on Linux")
@pytest.mark.parametrize("victim", [0, 2])
def test_a_process_killed_in_a_checkpoint_ends_the_others_within_2_seconds(tmp_path, victim):
    """The others wait for its part in a barrier that is no collective."""
    program = tmp_path / "writer.py"
    program.write_text(WRITER)
    command = [sys.executable, str(program), str(tmp_path), "--never-writes", str(victim)]
    flags = ["--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", "3", "--process-id"]
    environ = dict(os.environ)
    simulate_devices(1, environ)
    quiet_jax(environ)
    processes = [
        subprocess.Popen([*command, *flags, str(i)], env=environ, stderr=subprocess.PIPE, text=True)
        for i in range(3)
    ]
    with contextlib.ExitStack() as stack:
        for process in processes:
            stack.enter_context(process)
            stack.callback(process.kill)
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("process-*"))) < 3:
            assert [process.poll() for process in processes] == [None] * 3
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1.0)  # they wait by then
        assert [process.poll() for process in processes] == [None] * 3
        processes.pop(victim).kill()
        killed = time.monotonic()
        told = [process.communicate(timeout=30)[1].splitlines() for process in processes]
        assert time.monotonic() - killed < 2.0
    assert [process.returncode for process in processes] == [PEER_LOST] * 2
    for lines in told:
        assert len(lines) == 1
        assert lines[0].startswith("distributed: another process was lost")


def test_a_process_that_outlives_a_failed_one_is_ended_after_the_grace():
    code = "import sys, time; time.sleep(60 * (sys.argv[-1] == '0')); sys.exit(4)"
    start = time.monotonic()
    assert launch([sys.executable, "-c", code], 2, grace=0.2, timeout=30) == [-9, 4]
    assert time.monotonic() - start < 10


def test_a_run_that_takes_too_long_is_ended():
    code = "import time; time.sleep(60)"
    assert launch([sys.executable, "-c", code], 1, timeout=0.2) == [-9]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("host:1234", 2, None), "process_id is missing; give all of coordinator, num_processes"),
        (("host", 2, 0), "coordinator is 'host'; it has the form HOST:PORT"),
        (("host:99999", 2, 0), "HOST:PORT"),
        (("host:1234", 2, 2), r"process_id is 2 of num_processes 2; it lies in \[0, 1\]"),
    ],
)
def test_an_incomplete_or_wrong_address_is_refused(given, says):
    with pytest.raises(ValueError, match=says):
        initialize(*given)


def test_one_process_writes_and_its_errors_pass_untouched():
    assert is_writer()
    with pytest.raises(KeyError), ending_together():
        raise KeyError("mine")


def test_simulated_devices_are_set_before_jax_and_get_threads_enough():
    code = (
        "from sgdlab.training.devices.launching import simulate_devices; simulate_devices(8); "
        "import os, jax; print(jax.device_count(), os.environ['NPROC'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    devices, threads = map(int, done.stdout.split())
    assert devices == 8
    assert threads >= 16


def test_simulated_devices_come_too_late_once_jax_is_imported():
    with pytest.raises(RuntimeError, match="jax is already imported"):
        simulate_devices(8)
    with pytest.raises(ValueError, match="0 is too few"):
        simulate_devices(0, {})


def test_a_thread_count_of_the_callers_own_stays():
    environ = {"NPROC": "3"}
    simulate_devices(4, environ)
    assert environ == {"NPROC": "3", "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "4"}
