"""The first signal counts wherever it lands; each child process is sent one and tells."""

import contextlib
import gc
import os
import re
import signal
import subprocess
import sys
import threading
import weakref

import pytest

from sgdlab.experiment.running.signals import Signals, Stopped
from sgdlab.training.interrupts import Interrupts, interruptible

CONFIG = """
name: s
task: {name: quadratic, curvature: [1.0, 0.1], noise: 0.1}
rule: {name: sgd, learning_rate: 0.05}
protocol: asynchronous
cluster: {workers: 4}
updates: 4000
evaluate_every: 20
"""


def send(number=signal.SIGINT):
    os.kill(os.getpid(), number)
    for _ in range(1000):  # Python's handlers run between its own steps
        pass


def in_a_collection(act):
    def callback(phase, info):
        del phase, info
        gc.callbacks.remove(callback)
        act()

    gc.callbacks.append(callback)
    gc.collect()


def in_a_weak_reference(act):
    class Thing:
        pass

    thing = Thing()
    kept = weakref.ref(thing, lambda _: act())
    del thing
    assert kept() is None


def in_a_finaliser(act):
    class Thing:
        def __del__(self):
            act()

    Thing()


def wait_for_it():
    for _ in range(5000):
        threading.Event().wait(0.001)
    pytest.fail("the signal was lost")


PLACES = [in_a_collection, in_a_weak_reference, in_a_finaliser, lambda act: act()]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("taking", "raised"), [(Interrupts, KeyboardInterrupt), (Signals, Stopped)]
)
def test_a_signal_is_raised_wherever_it_lands(place, taking, raised, capfd):
    taken = taking()

    def work():
        with taken:
            place(send)
            wait_for_it()

    with pytest.raises(raised):
        work()
    assert taken.number == signal.SIGINT
    assert capfd.readouterr().err == ""  # nothing is "ignored"


@pytest.mark.parametrize("place", PLACES)
def test_within_patience_it_is_noted_and_raises_nothing(place):
    with Signals() as taken:
        with taken.patient():
            place(send)
            threading.Event().wait(0.05)
            assert taken.asked()
        assert taken.number == signal.SIGINT


def test_other_exceptions_that_nobody_takes_are_still_told(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    class Thing:
        def __del__(self):
            raise ValueError("mine")

    with Interrupts():
        Thing()
    assert [str(each.exc_value) for each in told] == ["mine"]


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT), sys.unraisablehook
    with interruptible() as came:
        assert signal.getsignal(signal.SIGINT) is not before[0]
        assert not came()
    assert (signal.getsignal(signal.SIGINT), sys.unraisablehook) == before


def test_a_handler_of_somebody_else_stays():
    noted = []
    before = signal.signal(signal.SIGINT, lambda *_: noted.append(1))
    try:
        with interruptible() as came:
            send()
        assert (noted, came()) == ([1], False)
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_swallowed_the_exception_does_not_swallow_the_signal():
    def work():
        with interruptible() as came:
            with contextlib.suppress(BaseException):
                send()
            assert came()

    with pytest.raises(KeyboardInterrupt):
        work()


def start(arguments, folder):
    """A process in a folder of its own, whose standard error says what Python does not."""
    return subprocess.Popen(
        arguments,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


# A moment is told by what the process has done by then, and not by a clock.
AT_IMPORT = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from sgdlab.cli import main
sys.argv = ["sgdlab", *sys.argv[1:]]
main()
"""
MODULES = [
    "sgdlab.experiment.running.signals",
    "sgdlab.cli.entry",
    "typer",
    "sgdlab.cli.run",
    "pydantic",
    "numpy",
    "sgdlab.experiment.config.experiment",
]
HEAVY = ["jax", "jax._src.lib", "optax", "flax.linen", "pandas", "sgdlab.report", "matplotlib"]


def check_stopped(process, number=signal.SIGINT):
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in out + err
    assert "ignored" not in out + err
    assert process.returncode in (128 + number, -number), (out, err)
    lines = err.splitlines()
    assert len(lines) <= 1
    wanted = r"sgdlab: stopped by SIGINT|.*interrupted"
    assert all(re.match(wanted, line) for line in lines), lines


@pytest.mark.parametrize("name", MODULES)
def test_a_signal_at_an_import_ends_the_command(name, tmp_path):
    (tmp_path / "c.yaml").write_text(CONFIG)
    arguments = ["run", "c.yaml", "--dry-run"]
    check_stopped(start([sys.executable, "-c", AT_IMPORT.format(name=name), *arguments], tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", HEAVY)
def test_a_signal_at_an_import_of_a_run_ends_it(name, tmp_path):
    (tmp_path / "c.yaml").write_text(CONFIG)
    arguments = ["run", "c.yaml"]
    check_stopped(start([sys.executable, "-c", AT_IMPORT.format(name=name), *arguments], tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("made", ["experiment", "replay"])
def test_one_interrupt_at_a_random_moment_ends_a_run_from_python(made, tmp_path):
    # As Jupyter's stop button sends it. The moments are counted in calls of jax's own callback of
    # the garbage collector, where exceptions used to be discarded.
    script = f"""
import gc, os, random, signal, sys
import sgdlab
from sgdlab import rules, tasks, timelines, training
import jax
random.seed(int(sys.argv[1]))
left = random.randrange(1, 60)
def interrupt(phase, info):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(100):
            pass
run = sgdlab.run_experiment
config = {{"name": "c", "task": {{"name": "digits", "hidden": [16]}},
          "rule": {{"name": "sgd", "learning_rate": 0.1}}, "protocol": "synchronous",
          "cluster": {{"workers": 4}}, "updates": 30000, "evaluate_every": 100}}
try:
    if {made!r} == "experiment":
        gc.callbacks.insert(0, interrupt)
        run(config)
    else:
        cluster = timelines.Cluster(workers=4, compute=timelines.constant(1.0))
        line = timelines.synchronous(cluster, updates=30000)
        task, replay = tasks.digits(hidden=[16]), training.replay
        gc.callbacks.insert(0, interrupt)
        replay(task, rules.sgd(0.1), line, evaluate_every=100)
    print("lost" if left <= 0 else "too few collections")
except KeyboardInterrupt:
    print("interrupted")
"""
    for seed in range(3):
        process = start([sys.executable, "-c", script, str(seed)], tmp_path)
        out, err = process.communicate(timeout=300)
        assert (out, err) == ("interrupted\n", "")
