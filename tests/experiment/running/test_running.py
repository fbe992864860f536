"""From a config to a folder and back: what was computed is what is read."""

import json
import math
import shutil

import numpy as np
import pytest

from sgdlab import rules, tasks, timelines, training
from sgdlab.experiment import (
    AbortError,
    ConfigError,
    OutputError,
    load_run,
    load_runs,
    run_experiment,
)
from sgdlab.experiment.folders.folder import open_folder
from sgdlab.experiment.folders.seal import unseal, write_summary
from sgdlab.experiment.reading.parsing import parse

BASE = {
    "name": "quadratic",
    "task": {"name": "quadratic", "curvature": [1.0, 0.5]},
    "rule": {"name": "sgd", "learning_rate": 0.1},
    "worker": {"batch_size": 2},
    "cluster": {"workers": 3, "compute": {"name": "exponential", "mean": 1.0}},
    "protocol": "asynchronous",
    "updates": 12,
    "evaluate_every": 4,
    "seeds": 2,
    "target": {"metric": "loss", "at_most": 0.5},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    sweep = {"protocol": ["synchronous", "asynchronous"], "rule.learning_rate": [0.1, 0.05]}
    config = {**BASE, "timelines": 2, "sweep": sweep}
    return run_experiment(config, root=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    seen = []
    made = run_experiment(BASE, root=tmp_path_factory.mktemp("runs"), progress=seen.append)
    return made, seen


def test_a_run_is_the_replay_that_its_config_says(single):
    run, _ = single
    cluster = timelines.Cluster(workers=3, compute=timelines.exponential(1.0))
    timeline = timelines.asynchronous(cluster, updates=12, seed=0)
    task = tasks.quadratic(curvature=[1.0, 0.5])
    expected = training.replay_many(
        task,
        lambda learning_rate: rules.sgd(learning_rate),
        timeline,
        seeds=[0, 1],
        hyperparameters={"learning_rate": [0.1]},
        batch_size=2,
        evaluate_every=4,
    )
    (member,) = run.members
    (history,) = member.histories
    np.testing.assert_array_equal(history["loss"], np.stack([h.loss for h in expected]))
    np.testing.assert_array_equal(history["time"], timeline.apply_time)
    np.testing.assert_array_equal(history["staleness"], timeline.staleness[timeline.update >= 0])
    for seed, one in enumerate(expected):
        rows = member.evaluations[member.evaluations["seed"] == seed]
        np.testing.assert_array_equal(rows["loss"], one.evaluations["loss"])
        assert member.summary["final"]["loss"][seed] == one.evaluations["loss"].iloc[-1]
        reached = one.time_to("loss", 0.5)
        assert member.summary["time_to_target"][seed] == (None if math.isinf(reached) else reached)


def test_the_folder_holds_what_the_design_says(single):
    run, _ = single
    files = {path.name for path in run.path.iterdir()}
    assert files == {
        "checkpoints",
        "config.yaml",
        "environment.json",
        "history.npz",
        "lock",
        "metrics.jsonl",
        "summary.json",
        "timeline.npz",
    }
    assert parse((run.path / "config.yaml").read_text(), "x") == run.config
    assert run.environment["versions"]["jax"]
    assert len(run.environment["data"]["quadratic"]) == 64
    assert run.summary["status"] == "done"
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["seed"], line["update"]) for line in lines] == [
        (seed, update) for seed in (0, 1) for update in (0, 4, 8, 12)
    ]


def test_progress_ends_where_the_work_ends(single):
    _, seen = single
    assert seen[-1].updates == seen[-1].total_updates == 24
    assert [p.updates for p in seen] == sorted(p.updates for p in seen)


def test_a_sweep_has_a_folder_for_every_point(run):
    assert [member.point for member in run.members] == [
        {"protocol": protocol, "rule.learning_rate": rate}
        for protocol in ("synchronous", "asynchronous")
        for rate in (0.1, 0.05)
    ]
    for index, member in enumerate(run.members):
        assert {p.name for p in (run.path / "members" / str(index)).iterdir()} == {
            "timeline.npz",
            "timeline-1.npz",
            "history.npz",
            "metrics.jsonl",
        }
        assert len(member.timelines) == len(member.histories) == 2
        assert [t.metadata["seed"] for t in member.timelines] == [0, 1]
        assert member.config["rule"]["learning_rate"] == member.point["rule.learning_rate"]
        assert sorted(
            set(zip(member.evaluations["timeline"], member.evaluations["seed"], strict=True))
        ) == [(d, s) for d in (0, 1) for s in (0, 1)]
    fresh, stale = run.members[0], run.members[2]
    assert fresh.summary["mean_staleness"] == 0
    assert stale.summary["mean_staleness"] > 0
    assert np.all(fresh.histories[0]["staleness"] == 0)


def test_a_point_of_a_sweep_is_its_own_single_run(run, tmp_path):
    rate = {"rule": {"name": "sgd", "learning_rate": 0.05}, "timelines": 2}
    alone = run_experiment({**BASE, **rate}, root=tmp_path).members[0]
    swept = run.members[3]
    for one, other in zip(alone.histories, swept.histories, strict=True):
        np.testing.assert_array_equal(one["loss"], other["loss"])


def test_the_same_config_writes_the_same_files(single, tmp_path):
    run, _ = single
    again = run_experiment(BASE, root=tmp_path)
    for name in ("config.yaml", "metrics.jsonl", "history.npz", "timeline.npz"):
        assert (again.path / name).read_bytes() == (run.path / name).read_bytes(), name


def test_an_uneven_sweep_runs_point_by_point(tmp_path):
    sweep = [{"rule.learning_rate": 0.1}, {"rule.learning_rate": 0.2}, {"rule.learning_rate": 0.2}]
    made = run_experiment({**BASE, "sweep": sweep}, root=tmp_path)
    losses = [member.histories[0]["loss"] for member in made.members]
    np.testing.assert_array_equal(losses[1], losses[2])
    assert not np.array_equal(losses[0], losses[1])


def test_what_diverges_is_marked_and_the_others_finish(tmp_path):
    config = {**BASE, "updates": 400, "evaluate_every": 100}
    sweep = {"rule.learning_rate": [0.1, 100.0]}
    made = run_experiment({**config, "sweep": sweep}, root=tmp_path)
    assert [member.status for member in made.members] == ["done", "aborted"]
    assert "update" in made.members[1].summary["errors"][0]
    with pytest.raises(AbortError) as caught:
        run_experiment(config, root=tmp_path, overrides=["rule.learning_rate=100"])
    assert caught.value.run.members[0].status == "aborted"
    assert load_run(caught.value.run.path).summary["status"] == "aborted"


WRONG = {
    "metric": ({"target": {"metric": "lss", "at_most": 1.0}}, "target.metric: .*did you mean loss"),
    "protocol": ({"protocol": {"name": "k_sync", "k": 9}}, "protocol: k_sync: k is 9"),
    "horizon": ({"updates": None, "seconds": 1e-9}, "no update happens"),
    "compressor": ({"worker": {"compress": {"name": "top_k"}}}, "top_k"),
    "memory": (
        {"worker": {"batch_size": 2_000_000_000_000}},
        "worker.batch_size: 2000000000000 rows take at least .* there are .* at most [1-9]",
    ),
    "labels": ({"partition": "iid"}, "partition: .*no labels"),
}


@pytest.mark.parametrize("case", WRONG)
def test_nothing_is_written_by_what_cannot_run(case, tmp_path):
    changes, message = WRONG[case]
    with pytest.raises(ConfigError, match=message):
        run_experiment({**BASE, **changes}, root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_recorded_timeline_of_other_messages_is_refused(single, tmp_path):
    path = str(single[0].path / "timeline.npz")
    changes = {"protocol": {"name": "from_trace", "path": path}, "updates": None, "cluster": None}
    replayed = run_experiment({**BASE, **changes}, root=tmp_path / "same")
    loss, original = (run.members[0].histories[0]["loss"] for run in (replayed, single[0]))
    np.testing.assert_array_equal(loss, original)
    worker = {"name": "local_steps", "steps": 2, "rule": {"learning_rate": 0.1}}
    with pytest.raises(ConfigError, match="messages of 1 gradients; allowed: 2"):
        run_experiment({**BASE, **changes, "worker": worker}, root=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_runs_are_listed_and_damage_is_told_in_a_line(single, tmp_path):
    run, _ = single
    shutil.copytree(run.path, tmp_path / "quadratic" / "good")
    shutil.copytree(run.path, tmp_path / "quadratic" / "torn")
    (tmp_path / "quadratic" / "torn" / "summary.json").write_text('{"status": "do')
    (tmp_path / "linked").symlink_to(run.path.parent)
    table = load_runs(tmp_path)
    assert dict(zip(table["id"], table["status"], strict=True)) == {
        "good": "done",
        "torn": "damaged",
    }
    error = table.set_index("id").loc["torn", "error"]
    assert "summary.json: damaged" in error
    assert "\n" not in error
    assert load_runs(tmp_path / "none").empty


def test_a_run_and_its_points_are_running_as_long_as_somebody_holds_the_folder(single, tmp_path):
    path = tmp_path / "quadratic" / "cut"
    shutil.copytree(single[0].path, path)
    said = (path / "summary.json").read_text().replace('"status": "done"', '"status": "running"')
    with open_folder(path) as folder:
        write_summary(folder, json.loads(said))

    def told():
        run = load_run(path)
        return [load_runs(tmp_path).loc[0, "status"], run.summary["status"], run.members[0].status]

    with open_folder(path):
        assert told() == ["running"] * 3
    assert told() == ["interrupted"] * 3


FILES = ["summary.json", "history.npz", "timeline.npz", "environment.json", "metrics.jsonl"]
DAMAGES = [(name, how) for name in FILES for how in ("cut", "empty", "noise", "gone", "link")]
# A run that was stopped has no history, and a metrics file may be empty or end in half a line: only
# the seal of one that has ended tells.
SEALED = [("history.npz", "gone"), *(("metrics.jsonl", how) for how in ("cut", "empty", "noise"))]


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_a_damaged_run_is_refused_in_one_line(single, tmp_path, name, damage, sealed):
    path = tmp_path / "run"
    shutil.copytree(single[0].path, path)
    if not sealed:
        with open_folder(path) as folder:
            unseal(folder)
    content = (path / name).read_bytes()
    (path / name).unlink()
    if damage == "link":
        (path / name).symlink_to(single[0].path / name)
    elif damage != "gone":
        new = {"cut": content[: len(content) // 2], "empty": b"", "noise": b"\xff" * 100}
        (path / name).write_bytes(new[damage])
    if not sealed and (name, damage) in SEALED:
        load_run(path)
        return
    with pytest.raises(OutputError) as caught:
        load_run(path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_last_line_that_was_cut_off_is_left_out(single, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(single[0].path, path)
    with open_folder(path) as folder:
        unseal(folder)
    content = (path / "metrics.jsonl").read_text()
    (path / "metrics.jsonl").write_text(content[:-10])
    assert len(load_run(path).members[0].evaluations) == 7


def test_a_run_shows_itself_with_its_label_escaped(tmp_path):
    label = "<script>alert(1)</script>"
    made = run_experiment(
        {**BASE, "updates": 2, "sweep": [{"label": label, "seeds": 1}]}, root=tmp_path
    )
    assert made.members[0].label == label
    assert "<script>" not in made._repr_html_()
    assert list(made.to_dataframe()["member"].unique()) == [label]


def lost_in_some(path, times, finals):
    """A made run whose summary says that replicates never got there or diverged."""
    summary = json.loads((path / "summary.json").read_text())
    summary["members"][0]["summary"]["time_to_target"] = times
    summary["members"][0]["summary"]["final"]["loss"] = finals
    with open_folder(path) as folder:
        write_summary(folder, summary)
    return load_run(path)


@pytest.mark.parametrize(
    ("times", "time", "reached"),
    [
        ([3.0, None, 1.0, 2.0], 2.5, "3/4"),
        ([2.0, None, None, None], math.inf, "1/4"),
        ([2.0, None, None, 1.0], math.inf, "2/4"),
    ],
)
def test_a_table_counts_replicates_that_never_got_there(single, tmp_path, times, time, reached):
    path = shutil.copytree(single[0].path, tmp_path / "copy" / "one")
    row = lost_in_some(path, times, [0.5, None, 0.4, 0.3]).table().iloc[0]
    assert (row["time to target"], row["reached"]) == (time, reached)
    assert row["loss"] == "1 of 4 not finite"


def test_a_folder_carries_the_directions_of_its_metrics(single):
    (member,) = single[0].members
    assert member.summary["directions"] == {"loss": "down", "distance": "down"}


def test_updates_are_those_that_were_made_where_stop_ends_a_run(tmp_path):
    # w = 0.9ᵗ, ½·w² ≤ 0.1 first at t = 8: ½·0.81⁸ = 0.093
    config = {
        "name": "stopped",
        "task": {"name": "quadratic", "curvature": 1.0},
        "rule": {"name": "sgd", "learning_rate": 0.1},
        "cluster": {"workers": 2, "compute": [1.0, 2.0]},
        "protocol": "synchronous",
        "seconds": 100.0,
        "evaluate_every": 1,
        "seeds": 2,
        "stop": {"metric": "loss", "at_most": 0.1},
    }
    config["cluster"]["compute"] = [{"name": "constant", "mean": m} for m in (1.0, 2.0)]
    run = run_experiment(config, root=tmp_path)
    (member,) = run.members
    assert member.timelines[0].num_updates == 50
    assert json.loads((run.path / "summary.json").read_text())["members"][0]["updates"] == [8, 8]
    assert (member.summary["updates"], member.summary["seconds"]) == (8, 16.0)
    assert member.summary["utilisation"] == 0.75
    assert run.table()["updates"].tolist() == [8]
    assert load_runs(tmp_path)["updates"].tolist() == [16]
