"""A run that was ended, anywhere and however, goes on to the files of one that was not."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from sgdlab.experiment import (
    AbortError,
    ConfigError,
    OutputError,
    StoppedError,
    load_run,
    resume_run,
    run_experiment,
)
from sgdlab.training import CheckpointError, CheckpointWarning, ResumeError, checkpoints

ROOT = Path(__file__).parents[3]
BASE = {
    "name": "quadratic",
    "task": {"name": "quadratic", "curvature": [1.0, 0.5], "noise": 0.1},
    "rule": {"name": "momentum", "learning_rate": 0.1, "decay": 0.9},
    "worker": {"batch_size": 2},
    "precision": {"policy": "mixed_float16", "loss_scale": {"name": "dynamic", "period": 10}},
    "cluster": {"workers": 3, "compute": {"name": "exponential", "mean": 1.0}},
    "protocol": "asynchronous",
    "updates": 40,
    "evaluate_every": 4,
    "seeds": 2,
    "timelines": 2,
    "target": {"metric": "loss", "at_most": 0.1},
    "measures": ["distance", "cosine"],
    "checkpoint_every": 2,
    "sweep": {"protocol": ["asynchronous", "synchronous"], "rule.learning_rate": [0.1, 0.05]},
}
ALONE = {**BASE, "sweep": None, "seeds": 1, "timelines": 1}


# What a summary says of when it was made and on what, and the digests of both.
APART = ("started", "wall_seconds", "digest", "files")


def results(path):
    """All files that must not depend on interruptions, the last checkpoint of each member too."""
    kept = {}
    for name in sorted(p for p in path.rglob("*") if p.is_file()):
        where = str(name.relative_to(path))
        if name.suffix == ".ckpt":
            where, content = str(name.parent.relative_to(path)), checkpoints.find(name.parent)[0]
            kept[where] = content.name, content.read_bytes()
        elif name.name == "summary.json":
            summary = json.loads(name.read_text())
            kept[where] = {k: v for k, v in summary.items() if k not in APART}
        elif not name.name.startswith(("environment", "report", "lock")):
            kept[where] = name.read_bytes()
    return kept


class After:
    """Says yes from the n-th time on that it is asked."""

    def __init__(self, asked):
        self.left = asked

    def __call__(self):
        self.left -= 1
        return self.left < 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run_experiment(BASE, root=tmp_path_factory.mktemp("runs"), run_id="whole")


def test_a_run_that_is_asked_to_end_anywhere_resumes_to_the_same_files(whole, tmp_path):
    path = tmp_path / "quadratic" / "cut"
    rng = random.Random(0)
    with pytest.raises(StoppedError, match="sgdlab run --resume"):
        run_experiment(BASE, root=tmp_path, run_id="cut", interrupt=After(5))
    assert load_run(path).summary["status"] == "interrupted"
    for _ in range(12):
        try:
            resumed = resume_run(path, interrupt=After(rng.randrange(1, 40)))
            break
        except StoppedError:
            continue
    else:
        resumed = resume_run(path)
    assert resumed.summary["status"] == "done"
    assert results(path) == results(whole.path)


def test_a_finished_run_is_not_run_again(whole):
    before, seen = results(whole.path), []
    resume_run(whole.path, progress=seen.append)
    assert seen == []
    assert results(whole.path) == before


def test_half_a_line_and_lines_behind_the_checkpoint_are_made_once(tmp_path):
    with pytest.raises(StoppedError):
        run_experiment(ALONE, root=tmp_path, run_id="cut", interrupt=After(7))
    metrics = tmp_path / "quadratic" / "cut" / "metrics.jsonl"
    lines = metrics.read_text().splitlines()
    metrics.write_text("\n".join(lines) + '\n{"seed": 0, "time')
    with pytest.raises(StoppedError):
        resume_run(metrics.parent, interrupt=After(3))
    updates = [json.loads(line)["update"] for line in metrics.read_text().splitlines()]
    assert updates == sorted(set(updates))
    assert len(updates) > len(lines)


def test_measures_are_stored_and_read_back(whole):
    stale, fresh = whole.members[0].histories[1], whole.members[2].histories[1]
    assert stale["distance"].shape == stale["cosine"].shape == stale["loss"].shape == (2, 40)
    assert np.all(fresh["distance"] == 0)
    assert np.all(stale["distance"][:, stale["staleness"] == 0] == 0)
    assert np.all(stale["distance"][:, stale["staleness"] > 0] > 0)
    np.testing.assert_allclose(fresh["cosine"], 1.0, atol=1e-6)  # float32 rounding of a dot product


@pytest.mark.parametrize("protocol", ["synchronous", {"name": "window", "wait": 0.5}])
def test_a_longer_horizon_goes_on_to_the_longer_runs_files(protocol, tmp_path):
    config = {**ALONE, "protocol": protocol, "measures": []}
    longer = run_experiment({**config, "updates": 60}, root=tmp_path, run_id="long")
    with pytest.raises(StoppedError):
        run_experiment(config, root=tmp_path, run_id="short", interrupt=After(6))
    short = resume_run(tmp_path / "quadratic" / "short", overrides=["updates=60"])
    assert results(short.path) == results(longer.path)


def test_a_sweep_that_has_ended_goes_on_to_the_longer_runs_files(whole, tmp_path):
    """Two protocols, rates, seeds and draws each; 22 updates end between two evaluations."""
    run_experiment({**BASE, "updates": 22}, root=tmp_path, run_id="short")
    short = resume_run(tmp_path / "quadratic" / "short", overrides=["updates=40"])
    assert results(short.path) == results(whole.path)


@pytest.mark.parametrize("horizon", ["seconds", "gradients"])
def test_other_horizons_are_lengthened_too(horizon, tmp_path):
    """Each draw of the clocks makes as many updates as it does, and ends where it does."""
    config = {**ALONE, "timelines": 2, "updates": None, "measures": []}
    longer = run_experiment({**config, horizon: 40}, root=tmp_path, run_id="long")
    run_experiment({**config, horizon: 23}, root=tmp_path, run_id="short")
    short = resume_run(tmp_path / "quadratic" / "short", overrides=[f"{horizon}=40"])
    assert results(short.path) == results(longer.path)


def test_other_settings_of_jax_are_refused_and_the_folder_stays_as_it_was(tmp_path):
    run = run_experiment(ALONE, root=tmp_path, run_id="cut")
    settings = json.loads((run.path / "environment.json").read_text())["settings"]
    assert settings["jax.default_prng_impl"] == "threefry2x32"
    before, names = results(run.path), sorted(path.name for path in run.path.iterdir())
    jax.config.update("jax_default_prng_impl", "rbg")
    try:
        with pytest.raises(ResumeError, match='prng_impl: "threefry2x32" in the .*, "rbg" in this'):
            resume_run(run.path, overrides=["updates=60"])
    finally:
        jax.config.update("jax_default_prng_impl", "threefry2x32")
    assert results(run.path) == before
    assert sorted(path.name for path in run.path.iterdir()) == names


REFUSED = {
    "task={name: digits, hidden: [8]}": 'task.name: "quadratic" in the run, "digits" in this one',
    "rule.decay=0.5": "rule.decay: 0.9 in the run, 0.5 in this one",
    "task.noise=0.2": "task.noise: 0.1 in the run, 0.2 in this one",
    "precision.policy=float32": 'precision.policy: "mixed_float16" in the run, "float32"',
    "seed=1": "seed: 0 in the run, 1 in this one",
    "seeds=3": "seeds: 2 in the run, 3 in this one",
    "updates=20": "updates: 40 in the run, 20 given",
    "sweep={rule.learning_rate: [0.1, 0.2]}": "sweep: ",
}


@pytest.mark.parametrize("override", REFUSED)
def test_another_run_is_refused_by_key_and_both_values_and_nothing_changes(whole, override):
    before = results(whole.path)
    with pytest.raises(ConfigError) as caught:
        resume_run(whole.path, overrides=[override])
    (line,) = caught.value.problems
    assert REFUSED[override] in line
    assert caught.value.exit_code == 2
    assert results(whole.path) == before


def test_other_data_are_refused_and_the_folder_stays_as_it_was(tmp_path):
    path = tmp_path / "times.csv"
    path.write_text("1.0\n2.0\n")
    cluster = {"workers": 3, "compute": {"name": "trace", "path": str(path)}}
    with pytest.raises(StoppedError):
        run_experiment(
            {**ALONE, "cluster": cluster}, root=tmp_path, run_id="cut", interrupt=After(6)
        )
    folder = tmp_path / "quadratic" / "cut"
    before = results(folder)
    path.write_text("2.0\n5.0\n")
    with pytest.raises(ResumeError, match="timeline"):
        resume_run(folder, overrides=["updates=80"])
    assert results(folder) == before


def test_what_is_no_run_is_said_in_a_line(tmp_path):
    with pytest.raises(OutputError, match="no run folder"):
        resume_run(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_damaged_checkpoint_is_passed_over_and_where_none_is_sound_the_run_ends(tmp_path):
    whole = run_experiment(ALONE, root=tmp_path, run_id="whole")
    with pytest.raises(StoppedError):
        run_experiment(ALONE, root=tmp_path, run_id="cut", interrupt=After(8))
    folder = tmp_path / "quadratic" / "cut"
    newest, older = checkpoints.find(folder / "checkpoints" / "0" / "0")
    sound = older.read_bytes()
    damage(newest)
    damage(older)
    with pytest.raises(CheckpointError, match="no checkpoint is sound"):
        resume_run(folder)
    older.write_bytes(sound)
    with pytest.warns(CheckpointWarning, match=f"{older.name} is used"):
        resume_run(folder)
    assert results(folder) == results(whole.path)


def damage(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_an_abort_names_the_update_the_parameter_and_the_last_good_checkpoint(tmp_path):
    # The first coordinate grows fourfold an update, past float32 after log(2**128) / log(4) = 64.
    config = {**ALONE, "precision": {"policy": "float32"}, "protocol": "synchronous"}
    rule = {"name": "sgd", "learning_rate": 5.0}
    with pytest.raises(AbortError, match=r"update \d+: .*parameters not finite") as caught:
        run_experiment({**config, "rule": rule, "updates": 400}, root=tmp_path)
    path = Path(str(caught.value).rpartition("the last good checkpoint is ")[2])
    update = int(str(caught.value).partition("update ")[2].partition(":")[0])
    assert 0 < checkpoints.read_header(path).update <= update <= 64 + 4
    folder = path.parents[3]
    assert load_run(folder).summary["status"] == "aborted"
    with pytest.raises(AbortError):
        resume_run(folder)


@pytest.mark.slow
def test_kills_at_random_moments_change_no_byte(tmp_path):
    config = {**ALONE, "sweep": {"protocol": ["asynchronous", "synchronous"]}}
    config |= {"updates": 300, "evaluate_every": 2, "checkpoint_every": 1, "measures": []}
    whole = run_experiment(config, root=tmp_path, run_id="whole")
    (tmp_path / "config.yaml").write_bytes((whole.path / "config.yaml").read_bytes())
    folder, rng = tmp_path / "quadratic" / "cut", random.Random(8)
    start = ["run", "config.yaml", "--root", ".", "--id", "cut"]
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        resuming = ["run", "--resume", "quadratic/cut"] if folder.exists() else start
        before = count_checkpoints(folder)
        process = subprocess.Popen(
            [sys.executable, "-m", "sgdlab", *resuming],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 60
        while count_checkpoints(folder) == before and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.1))
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
        if number == signal.SIGKILL:
            assert process.returncode == -number
        else:
            assert process.returncode == 128 + number
            command = "sgdlab run --resume quadratic/cut"
            assert err.splitlines() == [f"stopped and saved; go on with: {command}"]
    assert load_run(folder).summary["status"] == "interrupted"
    assert list((tmp_path / "sgdlab" / "compiled").iterdir())
    resume_run(folder)
    assert results(folder) == results(whole.path)


def count_checkpoints(folder):
    """How far all members are, in updates that are saved."""
    members = folder.glob("checkpoints/*/*")
    return sum(int(found[0].stem[-12:]) for m in members if (found := checkpoints.find(m)))
