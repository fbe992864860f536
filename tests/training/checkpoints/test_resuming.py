"""A replay that is stopped anywhere and resumed ends in the bits of the one that was not."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from sgdlab import precision, rules, tasks, timelines, training, workers
from sgdlab.training.checkpoints import CheckpointError, CheckpointWarning, find
from sgdlab.training.checkpoints.identity import describe_program
from sgdlab.training.checkpoints.metrics_log import MetricsLog
from sgdlab.training.checkpoints.resuming import CheckpointPlan, RunInterrupted

pytestmark = pytest.mark.slow

CLUSTER = timelines.Cluster(workers=5, compute=timelines.gamma(mean=1.0, shape=2.0))
PROTOCOLS = {
    "asynchronous": {},
    "synchronous": {},
    "window": {"wait": 0.5},
    "ringleader": {},
}
CONFIG = {"rule": {"name": "momentum", "learning_rate": 0.1}, "task": {"name": "digits"}}
TASK, RULE = tasks.quadratic([1.0, 0.3, 2.0], noise=0.5), rules.momentum(0.1, decay=0.9)
DIGITS = tasks.digits(hidden=[8])


class Killed(Exception):
    pass


def draw(protocol="asynchronous", updates=40, seed=1):
    protocol_of = getattr(timelines, protocol)
    return protocol_of(CLUSTER, updates=updates, seed=seed, **PROTOCOLS[protocol])


def run(folder, *, timeline=None, kill_at=None, resume=False, plan=None, **options):
    """A replay with its metrics file; its callback fails in the chunk that ends at an update."""
    os.makedirs(folder, exist_ok=True)
    timeline = draw() if timeline is None else timeline

    def tell(chunk):
        for row in chunk.evaluations:
            log.append(json.dumps(row))
        if kill_at is not None and chunk.update == kill_at:
            raise Killed

    with MetricsLog(folder / "metrics.jsonl") as log:
        options = {
            "seed": 3,
            "batch_size": 4,
            "evaluate_every": 5,
            "loss_scale": precision.DynamicLossScale(2.0**127, period=5),
            **options,
        }
        checkpoint = CheckpointPlan(
            folder / "checkpoints",
            logs={0: log},
            **{"program": {"learning_rate": 0.1}, **(plan or {})},
        )
        return training.replay(
            options.pop("task", TASK),
            options.pop("rule", RULE),
            timeline,
            checkpoint=checkpoint,
            resume=resume,
            callback=tell,
            **options,
        )


def everything(folder):
    """The metrics file and the last checkpoint, which holds the whole state and all records."""
    newest = find(folder / "checkpoints" / "0")[0]
    return (folder / "metrics.jsonl").read_bytes(), newest.name, newest.read_bytes()


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_a_run_killed_in_any_chunk_ends_in_the_same_bytes(protocol, tmp_path):
    timeline = draw(protocol)
    options = {"timeline": timeline, "plan": {"every": 2}}
    if protocol == "asynchronous":
        scale = precision.DynamicLossScale(2.0**24, period=5)
        options |= {"task": DIGITS, "precision": "mixed_float16", "loss_scale": scale}
    whole = run(tmp_path / "whole", **options)
    assert whole.skipped.sum() > 0  # so that the loss scale has something to remember
    cut = tmp_path / "cut"
    with pytest.raises(Killed):
        run(cut, kill_at=15, **options)
    with pytest.raises(Killed):
        run(cut, kill_at=25, resume=True, **options)
    resumed = run(cut, resume=True, **options)
    assert everything(cut) == everything(tmp_path / "whole")
    for name in ("loss", "time", "staleness", "skipped"):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(whole, name))
    assert resumed.evaluations.equals(whole.evaluations)
    leaves = zip(jax.tree.leaves(resumed.params), jax.tree.leaves(whole.params), strict=True)
    assert all(np.array_equal(one, other) for one, other in leaves)


def test_worker_states_tables_and_records_survive_too(tmp_path):
    worker = workers.compressed(workers.gradient(), workers.top_k(0.2), error_feedback=True)
    options = {
        "worker": worker,
        "measures": ["distance", "cosine"],
        "record": lambda params: {"norm": abs(params).sum()},
    }
    whole = run(tmp_path / "whole", **options)
    with pytest.raises(Killed):
        run(tmp_path / "cut", kill_at=20, **options)
    resumed = run(tmp_path / "cut", resume=True, **options)
    assert everything(tmp_path / "cut") == everything(tmp_path / "whole")
    np.testing.assert_array_equal(resumed.records["norm"], whole.records["norm"])
    np.testing.assert_array_equal(resumed.measures["cosine"], whole.measures["cosine"])


def test_a_damaged_newest_checkpoint_costs_a_chunk_and_no_bit(tmp_path):
    run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "cut", kill_at=25)
    newest = find(tmp_path / "cut" / "checkpoints" / "0")[0]
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    with pytest.warns(CheckpointWarning, match=newest.name):
        run(tmp_path / "cut", resume=True)
    assert everything(tmp_path / "cut") == everything(tmp_path / "whole")


def test_a_run_killed_before_its_first_checkpoint_begins_anew(tmp_path):
    run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "cut", kill_at=0)
    run(tmp_path / "cut", resume=True)
    assert everything(tmp_path / "cut") == everything(tmp_path / "whole")


def test_a_finished_run_resumes_to_itself(tmp_path):
    whole = run(tmp_path)
    before = everything(tmp_path)
    again = run(tmp_path, resume=True)
    assert everything(tmp_path) == before
    np.testing.assert_array_equal(again.loss, whole.loss)


def test_a_stop_that_was_reached_stays_reached(tmp_path):
    losses = run(tmp_path / "free").evaluations["loss"]
    stop = {"metric": "loss", "at_most": float(losses[4])}
    whole = run(tmp_path, stop=stop)
    assert 0 < len(whole.loss) <= 20
    again = run(tmp_path, stop=stop, resume=True)
    np.testing.assert_array_equal(again.loss, whole.loss)
    assert all(map(np.array_equal, jax.tree.leaves(again.params), jax.tree.leaves(whole.params)))


def test_a_run_that_is_asked_to_end_has_saved_its_last_chunk(tmp_path):
    asked = iter([False, True])
    with pytest.raises(RunInterrupted, match="update 10 is saved"):
        run(tmp_path / "cut", plan={"every": 100, "interrupt": lambda: next(asked)})
    run(tmp_path / "cut", plan={"every": 100}, resume=True)
    run(tmp_path / "whole", plan={"every": 100})
    assert everything(tmp_path / "cut") == everything(tmp_path / "whole")


def test_members_that_advance_together_are_saved_together(tmp_path):
    options = {"seeds": [0, 1], "hyperparameters": {"learning_rate": [0.05, 0.1]}}
    options |= {"members": "vmap", "evaluate_every": 5, "batch_size": 4}
    arguments = TASK, rules.sgd, draw(updates=20)
    whole = training.replay_many(*arguments, **options)
    target = float(whole[0].evaluations["loss"].iloc[2])  # which some members reach before others
    options["stop"] = {"metric": "loss", "at_most": target}
    options["checkpoint"] = CheckpointPlan(tmp_path)
    whole = training.replay_many(*arguments, **options)
    assert len({len(history.loss) for history in whole}) > 1
    assert os.listdir(tmp_path) == ["0"]
    find(tmp_path / "0")[0].unlink()
    again = training.replay_many(*arguments, **options, resume=True)
    for one, other in zip(again, whole, strict=True):
        assert one.evaluations.equals(other.evaluations)
        np.testing.assert_array_equal(one.loss, other.loss)
        np.testing.assert_array_equal(one.params, other.params)


def test_members_of_a_sweep_have_a_folder_each(tmp_path):
    options = {"seeds": [0, 1], "hyperparameters": {"learning_rate": [0.05, 0.1]}}
    options |= {"evaluate_every": 10, "batch_size": 4, "checkpoint": CheckpointPlan(tmp_path)}
    arguments = TASK, rules.sgd, draw(updates=20)
    whole = training.replay_many(*arguments, **options)
    assert sorted(os.listdir(tmp_path)) == ["0", "1", "2", "3"]
    for path in find(tmp_path / "2")[:1] + find(tmp_path / "3"):
        path.unlink()
    again = training.replay_many(*arguments, **options, resume=True)
    for one, other in zip(again, whole, strict=True):
        assert one.evaluations.equals(other.evaluations)
        np.testing.assert_array_equal(one.loss, other.loss)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 4}, r"replay\.member\.0\.seed: 3 in the checkpoint, 4 in this run"),
        ({"batch_size": 8}, r"replay\.batch_size: 4 in the checkpoint, 8 in this run"),
        (
            {"precision": "mixed_bfloat16"},
            r"replay\.precision: .* in the checkpoint, .* in this run",
        ),
        ({"loss_scale": None, "on_nonfinite": "skip"}, r"replay\.loss_scale"),
        ({"partition": [np.arange(1)] * 5}, r"replay\.partition"),
        ({"task": DIGITS}, r"replay\.data: .* in the checkpoint, .* in this run"),
        ({"plan": {"program": {"learning_rate": 0.2}}}, r"learning_rate: 0.1 .* 0.2 in this run"),
        ({"timeline": draw(seed=2)}, "timeline: its first 40 updates are not those"),
        ({"timeline": draw(updates=30)}, "40 updates in the checkpoint, 30 in this run"),
        ({"rule": rules.adam(0.1)}, "rule/.* in the checkpoint|rule/.*: not in the checkpoint"),
        (
            {"task": tasks.quadratic([1.0, 0.3], noise=0.5)},
            r"state/params: float32\[3\] in the checkpoint, float32\[2\] in this program",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_run_is_refused_by_key_and_both_values(change, says, finished):
    with pytest.raises(CheckpointError, match=says) as error:
        run(finished, resume=True, **change)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    run(folder)
    return folder


def test_a_longer_synchronous_horizon_is_the_longer_run(tmp_path):
    short, long = draw("synchronous", updates=20), draw("synchronous", updates=40)
    run(tmp_path / "cut", timeline=short)
    run(tmp_path / "cut", timeline=long, resume=True)
    run(tmp_path / "whole", timeline=long)
    assert everything(tmp_path / "cut") == everything(tmp_path / "whole")


def test_a_longer_asynchronous_horizon_is_the_longer_run(tmp_path):
    """The longer timeline has another plan, in which the same versions lie in other slots."""
    short, long = draw(updates=40), draw(updates=80)
    with pytest.raises(Killed):
        run(tmp_path / "cut", timeline=short, kill_at=20)
    run(tmp_path / "cut", timeline=long, resume=True)
    run(tmp_path / "whole", timeline=long)
    assert everything(tmp_path / "cut") == everything(tmp_path / "whole")


EARLY = {"task": DIGITS, "loss_scale": None}  # five workers, so early from 125 updates on


def test_messages_under_way_survive_a_kill_and_a_longer_horizon(tmp_path):
    """Messages that wait for their update, and those that no update of the short run takes."""
    short, long = draw(updates=150), draw(updates=200)
    with pytest.raises(Killed):
        run(tmp_path / "cut", timeline=short, kill_at=60, **EARLY)
    run(tmp_path / "cut", timeline=short, resume=True, **EARLY)
    run(tmp_path / "short", timeline=short, **EARLY)
    assert everything(tmp_path / "cut") == everything(tmp_path / "short")
    run(tmp_path / "cut", timeline=long, resume=True, **EARLY)
    run(tmp_path / "long", timeline=long, **EARLY)
    assert everything(tmp_path / "cut") == everything(tmp_path / "long")


def test_a_longer_horizon_that_computes_in_another_form_begins_anew(tmp_path):
    """200 updates of five workers pay for computing early, and 60 don't."""
    short, long = draw(updates=60), draw(updates=200)
    run(tmp_path / "cut", timeline=short, **EARLY)
    with (
        pytest.warns(CheckpointWarning, match="begun anew: 200 updates .* early, slots, 60 were"),
        pytest.raises(Killed),
    ):
        run(tmp_path / "cut", timeline=long, resume=True, kill_at=10, **EARLY)
    # What there was goes once there is something in its place.
    assert [path.name for path in find(tmp_path / "cut" / "checkpoints" / "0")] == [
        "checkpoint-000000000005.ckpt"
    ]
    run(tmp_path / "cut", timeline=long, resume=True, **EARLY)
    run(tmp_path / "whole", timeline=long, **EARLY)
    assert everything(tmp_path / "cut") == everything(tmp_path / "whole")


def test_a_run_that_had_no_stale_message_yet_begins_anew(tmp_path):
    """The first message is fresh, so nothing is kept for those that read with it."""
    run(tmp_path / "cut", timeline=draw(updates=1))
    with pytest.warns(CheckpointWarning, match="begun anew: 40 updates are computed as single, "):
        run(tmp_path / "cut", timeline=draw(updates=40), resume=True)
    run(tmp_path / "whole", timeline=draw(updates=40))
    assert everything(tmp_path / "cut") == everything(tmp_path / "whole")


def test_a_stop_at_the_end_of_a_shorter_run_is_none_of_the_longer(tmp_path):
    """It ended at update 18 and looked there, as a run that goes on would not have."""
    short, long = draw(updates=18), draw(updates=40)
    losses = run(tmp_path / "free", timeline=short).evaluations["loss"]
    assert losses.iloc[-1] < losses.iloc[:-1].min()
    stop = {"metric": "loss", "at_most": float(losses.iloc[-1])}
    run(tmp_path / "cut", timeline=short, stop=stop)
    resumed = run(tmp_path / "cut", timeline=long, stop=stop, resume=True)
    whole = run(tmp_path / "whole", timeline=long, stop=stop)
    assert len(whole.loss) == len(resumed.loss) == 20  # where the longer one looks next
    assert everything(tmp_path / "cut") == everything(tmp_path / "whole")


def test_a_stop_that_was_reached_is_reached_over_a_longer_horizon_too(tmp_path):
    losses = run(tmp_path / "free").evaluations["loss"]
    stop = {"metric": "loss", "at_most": float(losses[3])}
    run(tmp_path / "cut", stop=stop)
    resumed = run(tmp_path / "cut", timeline=draw(updates=80), stop=stop, resume=True)
    whole = run(tmp_path / "whole", timeline=draw(updates=80), stop=stop)
    assert len(whole.loss) == len(resumed.loss) < 40
    assert resumed.evaluations.equals(whole.evaluations)
    np.testing.assert_array_equal(resumed.params, whole.params)


def test_a_new_run_is_not_mixed_with_an_old_one(tmp_path):
    run(tmp_path)
    with pytest.raises(CheckpointError, match="of an earlier run"):
        run(tmp_path)


def test_a_save_that_fails_fails_the_run(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(CheckpointError, match="cannot be"):
        run(tmp_path)


def test_a_run_that_diverged_keeps_its_last_good_checkpoint(tmp_path):
    options = {"precision": "float32", "loss_scale": None, "rule": rules.sgd(1e30)}
    with pytest.raises(training.NumericalError):
        run(tmp_path, **options)
    assert find(tmp_path / "checkpoints" / "0") == []


PROGRAM = """
import pathlib, signal, sys, os
from tests.training.checkpoints.test_resuming import run
folder, kill_at, resume = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "resume"
import sgdlab.training.checkpoints.metrics_log as logs
true = logs.MetricsLog.append
def append(self, line):
    if f'"update": {kill_at},' in line:
        logs.write_all(self._file, line.encode()[:20])
        os.kill(os.getpid(), signal.SIGKILL)
    true(self, line)
logs.MetricsLog.append = append
run(folder, resume=resume)
"""


def test_a_process_that_is_killed_half_way_through_a_line_resumes_exactly(tmp_path):
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path / "cut"), "25", "new"])
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "cut" / "metrics.jsonl").read_bytes().endswith(b"\n")
    run(tmp_path / "cut", resume=True)
    run(tmp_path / "whole")
    assert everything(tmp_path / "cut") == everything(tmp_path / "whole")


def test_the_examples_of_the_documentation_run():
    text = (Path(__file__).parents[3] / "docs" / "reliability.md").read_text()
    exec("\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)), {})


def test_a_config_is_described_by_what_decides_its_numbers():
    config = {**CONFIG, "updates": 10, "devices": {"data": 8, "reduction": "canonical"}}
    assert describe_program(config) == {
        "rule.name": "momentum",
        "rule.learning_rate": 0.1,
        "task.name": "digits",
        "devices.reduction": "canonical",
    }
