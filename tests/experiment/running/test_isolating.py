"""A sweep survives its points: one that fails is marked, the others are made, it is tried again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sgdlab.experiment import (
    FailedError,
    Isolation,
    StoppedError,
    load_run,
    open_folder,
    resume_run,
    run_experiment,
)
from sgdlab.experiment.folders.folder import is_busy
from sgdlab.training import checkpoints

ROOT = Path(__file__).parents[3]
BASE = {
    "name": "quadratic",
    "task": {"name": "quadratic", "curvature": [1.0, 0.5], "noise": 0.1},
    "rule": {"name": "momentum", "learning_rate": 0.1, "decay": 0.9},
    "worker": {"batch_size": 2},
    "cluster": {"workers": 3, "compute": {"name": "exponential", "mean": 1.0}},
    "protocol": "asynchronous",
    "updates": 40,
    "evaluate_every": 4,
}
RATES = [0.1, 0.05, 0.02]
MEMORY = 6 * 10**9  # of address space, half of which JAX takes at its start
# What 10,000 workers keep of 75 million weights each is 3 TB.
GREEDY = {
    "task": {"name": "digits", "hidden": [1_000_000]},
    "cluster.workers": 10_000,
    "worker.compress": {"name": "top_k", "fraction": 0.5, "error_feedback": True},
}


def files(run, member):
    """All that a point has left, its last checkpoints too."""
    folder = run.path / "members" / str(member)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_program_that_fails_is_marked_and_the_others_go_on(tmp_path):
    sweep = [{"rule.learning_rate": 0.1}, GREEDY, {"worker.batch_size": 4}]
    with pytest.raises(FailedError, match=r"1 of 3 points failed: .* out of memory: ") as caught:
        run_experiment({**BASE, "sweep": sweep}, root=tmp_path)
    run = caught.value.run
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    assert [member.status for member in run.members] == ["done", "failed", "done"]
    assert run.summary["status"] == "failed"
    assert run.members[1].summary["errors"][0].startswith("out of memory: ")
    assert run.table()["error"].tolist()[0::2] == ["", ""]
    done, seen = files(run, 0), []
    with pytest.raises(FailedError):
        resume_run(run.path, progress=seen.append)
    assert {progress.label for progress in seen} <= {run.members[1].label}  # it alone is tried
    assert files(run, 0) == done


def test_an_exception_of_a_task_is_said_in_a_line_and_resuming_makes_the_point(
    tmp_path, monkeypatch
):
    from sgdlab import tasks

    make_task = tasks.make_task

    def broken(**arguments):
        task = make_task(**arguments)
        if arguments["noise"] == 0.2:
            object.__setattr__(task, "loss", raise_error)
        return task

    def raise_error(*_):
        raise RuntimeError("the loss\nis lost")

    config = {**BASE, "sweep": {"task.noise": [0.1, 0.2, 0.3]}}
    whole = run_experiment(config, root=tmp_path, run_id="whole")
    with monkeypatch.context() as patch:
        patch.setattr(tasks, "make_task", broken)
        with pytest.raises(FailedError, match="RuntimeError: the loss is lost"):
            run_experiment(config, root=tmp_path, run_id="mended")
    mended = resume_run(tmp_path / "quadratic" / "mended")
    assert mended.summary["status"] == "done"
    for member in range(3):
        assert files(mended, member) == files(whole, member)


@pytest.mark.slow
def test_isolated_points_have_the_bits_of_points_made_together(tmp_path):
    config = {**BASE, "seeds": 2, "sweep": {"rule.learning_rate": RATES}}
    together = run_experiment(config, root=tmp_path, run_id="together")
    seen = []
    apart = run_experiment(
        config, root=tmp_path, run_id="apart", isolate=Isolation(), progress=seen.append
    )
    assert apart.summary["status"] == "done"
    assert seen[-1].updates == seen[-1].total_updates == 3 * 2 * 40
    for member in range(3):
        assert files(apart, member) == files(together, member)
        for seed in range(2):
            one = together.path / "checkpoints" / "0" / str(2 * member + seed)
            other = apart.path / "checkpoints" / f"{member}-alone" / str(seed)
            assert last(one) == last(other)


def last(folder):
    """The leaves of the newest checkpoint; its header names its member, which is another."""
    path = checkpoints.find(folder)[0]
    return path.name, path.read_bytes()[-checkpoints.read_header(path).payload :]


@pytest.mark.slow
def test_isolated_points_that_are_asked_to_end_are_saved_and_go_on(tmp_path):
    config = {**BASE, "updates": 400, "sweep": {"rule.learning_rate": RATES}}
    whole = run_experiment(config, root=tmp_path, run_id="whole")
    seen = []
    options = {"progress": seen.append, "isolate": Isolation()}
    with pytest.raises(StoppedError, match="--isolate$"):
        run_experiment(
            config, root=tmp_path, run_id="cut", interrupt=lambda: len(seen) > 0, **options
        )
    assert load_run(tmp_path / "quadratic" / "cut").summary["status"] == "interrupted"
    mended = resume_run(tmp_path / "quadratic" / "cut", **options)
    for member in range(3):
        assert files(mended, member) == files(whole, member)


@pytest.mark.slow
def test_of_twenty_points_one_killed_one_hung_and_one_without_memory_leave_seventeen(tmp_path):
    rates = [{"rule.learning_rate": 0.1 - 0.004 * index} for index in range(19)]
    config = {**BASE, "sweep": [*rates, GREEDY]}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    folder = tmp_path / "runs" / "quadratic" / "twenty"
    options = ["--isolate", "--member-timeout", "20", "--member-memory", str(MEMORY)]

    process = start(tmp_path, "config.yaml", "--id", "twenty", *options)
    os.kill(find_child(process, folder, 3), signal.SIGSTOP)
    os.kill(find_child(process, folder, 7), signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    (line,) = err.splitlines()
    assert "3 of 20 points failed" in line
    members = load_run(folder).members
    failed = {index: m.summary["errors"] for index, m in enumerate(members) if m.status != "done"}
    assert failed[3] == ["hung: no progress for 20 s"]
    assert failed[7] == ["killed by SIGKILL"]
    assert failed[19][0].startswith("out of memory: ")
    assert set(failed) == {3, 7, 19}
    assert "hung: no progress" in out
    times = {member: (folder / "members" / str(member)).stat().st_mtime_ns for member in range(19)}
    process = start(tmp_path, "--resume", "runs/quadratic/twenty", *options)
    _, err = process.communicate(timeout=300)
    assert "1 of 20 points failed" in err  # there is no more memory than before
    assert [m.status for m in load_run(folder).members] == ["done"] * 19 + ["failed"]
    again = {member: (folder / "members" / str(member)).stat().st_mtime_ns for member in range(19)}
    assert {member for member in times if again[member] != times[member]} == {3, 7}


@pytest.mark.slow
def test_a_point_whose_parent_was_killed_ends_and_frees_the_folder(tmp_path):
    (tmp_path / "config.yaml").write_text(json.dumps({**BASE, "updates": 10**5}))
    folder = tmp_path / "runs" / "quadratic" / "one"
    process = start(tmp_path, "config.yaml", "--id", "one", "--isolate")
    child = find_child(process, folder, 0)
    os.kill(child, signal.SIGSTOP)
    process.kill()
    process.communicate()
    assert is_busy(folder)  # the child has the lock still
    os.kill(child, signal.SIGCONT)
    deadline = time.monotonic() + 60
    while is_busy(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_busy(folder)
    open_folder(folder).close()


def start(folder, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "sgdlab", "run", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def find_child(process, folder, index):
    """The process that makes one point, as soon as there is one."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:
                continue
            module = b"sgdlab.experiment.running.isolated"
            if words[2:5] == [module, bytes(folder), str(index).encode()]:
                return int(path.parent.name)
        time.sleep(0.02)
    raise AssertionError(f"point {index} was never begun")
