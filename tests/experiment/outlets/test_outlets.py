"""Metrics out: what TensorBoard and Weights & Biases are given is what the run has."""

import json
import struct
import sys
import types
from collections import defaultdict

import numpy as np
import pytest

from sgdlab.cli import main
from sgdlab.experiment import (
    ConfigError,
    Follower,
    StoppedError,
    check_outlets,
    export_run,
    load_experiment,
    load_run,
    open_outlets,
    resume_run,
    run_experiment,
)
from sgdlab.experiment.outlets import following
from sgdlab.experiment.outlets.following import Replicate

CONFIG = {
    "name": "out",
    "task": {"name": "quadratic", "curvature": [1.0, 0.5], "noise": 0.1},
    "rule": {"name": "sgd", "learning_rate": 0.1},
    "cluster": {"workers": 3, "compute": {"name": "exponential", "mean": 1.0}},
    "protocol": "asynchronous",
    "updates": 12,
    "evaluate_every": 4,
    "measures": ["distance"],
    "seeds": 2,
    "timelines": 2,
    "sweep": [
        {"label": "gentle/../ <b>", "rule.learning_rate": 0.1},
        {"label": "bold", "rule.learning_rate": 0.2},
    ],
}


class Remembered:
    """An outlet that remembers, by replicate and update."""

    def __init__(self):
        self.rows, self.times, self.closed = defaultdict(lambda: defaultdict(list)), {}, False

    def write(self, replicate, update, time, row):
        self.rows[replicate.index, replicate.draw, replicate.seed][update].append(dict(row))
        self.times[replicate.index, replicate.draw, replicate.seed, update] = time

    def close(self):
        self.closed = True


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_experiment(CONFIG, root=tmp_path_factory.mktemp("runs"))


def events(path):
    """The events of the one file in a folder, by TensorFlow's framing of records."""
    from tensorboardX.proto.event_pb2 import Event

    (file,) = path.glob("events.out.tfevents.*")
    content, start = file.read_bytes(), 0
    while start < len(content):
        (size,) = struct.unpack_from("<Q", content, start)
        yield Event.FromString(content[start + 12 : start + 12 + size])
        start += 16 + size


def expected(run, index, draw, seed):
    """(update, time, name) to value, from what the run folder holds."""
    member = run.members[index]
    found = {}
    table = member.evaluations
    rows = table[(table["timeline"] == draw) & (table["seed"] == seed)]
    for row in rows.to_dict("records"):
        for name in ("loss", "distance"):
            found[row["update"], f"held-out/{name}"] = row[name]
    history = member.histories[draw]
    for update in range(12):
        for name in ("loss", "staleness", "distance"):
            values = history[name]
            value = values[update] if values.ndim == 1 else values[seed][update]
            found[update + 1, f"training/{name}"] = value
    return found


def test_event_files_hold_every_evaluation_and_every_update(run):
    export_run(run, ["tensorboard"])
    folders = sorted(path for path in (run.path / "tensorboard").rglob("draw-*"))
    assert [str(path.relative_to(run.path / "tensorboard")) for path in folders[::4]] == [
        "0-gentle-..-b/draw-0-seed-0",
        "1-bold/draw-0-seed-0",
    ]
    for folder in folders:
        index = int(folder.parent.name.split("-")[0])
        _, draw, _, seed = folder.name.split("-")
        read = list(events(folder))
        found = {(e.step, v.tag): v.simple_value for e in read for v in e.summary.value}
        wanted = expected(run, index, int(draw), int(seed))
        assert set(found) == set(wanted)
        for key, value in wanted.items():
            assert found[key] == np.float32(value)
        times = {e.step: e.wall_time for e in read if e.summary.value}
        clock = run.members[index].histories[int(draw)]["time"]
        assert times == {0: 0.0, **{u + 1: time for u, time in enumerate(clock)}}


def test_what_an_earlier_part_has_written_is_purged(run):
    export_run(run, ["tensorboard"])
    folder = next((run.path / "tensorboard").rglob("draw-0-seed-0"))
    for file in sorted(folder.iterdir())[:-1]:
        file.unlink()
    kinds = [event.WhichOneof("what") for event in events(folder)]
    assert kinds.index("session_log") < kinds.index("summary")
    (start,) = (event for event in events(folder) if event.WhichOneof("what") == "session_log")
    assert (start.step, start.session_log.status) == (0, start.session_log.START)


@pytest.fixture
def wandb(monkeypatch):
    """A module that remembers what it is told."""
    module, told = types.ModuleType("wandb"), []

    class Run:
        def __init__(self, arguments):
            self.arguments, self.rows, self.finished = arguments, [], False
            told.append(self)

        def define_metric(self, name, **options): ...

        def log(self, row):
            self.rows.append(row)

        def finish(self):
            self.finished = True

    module.init = lambda **arguments: Run(arguments)
    module.Settings = lambda **settings: settings
    module.__spec__ = types.SimpleNamespace(name="wandb")
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return told


def test_tracked_runs_hold_every_evaluation_and_every_update_in_order(run, wandb):
    export_run(run, ["wandb"])
    assert len({each.arguments["id"] for each in wandb}) == 8
    for each in wandb:
        config = each.arguments["config"]
        index = [0.1, 0.2].index(config["rule"]["learning_rate"])
        found = {}
        updates = [row.pop("update") for row in each.rows]
        clock = run.members[index].histories[config["timeline"]]["time"]
        assert [row.pop("seconds") for row in each.rows] == [0.0, *clock]
        assert updates == sorted(set(updates))
        for update, row in zip(updates, each.rows, strict=True):
            found |= {(update, name): value for name, value in row.items()}
        assert found == expected(run, index, config["timeline"], config["seed"])
        assert each.finished
        label = run.members[index].label
        assert each.arguments["name"].startswith(label)
        assert each.arguments["group"].endswith(label)


def test_nothing_is_sent_unless_the_environment_says_so(run, wandb, monkeypatch):
    export_run(run, ["wandb"])
    assert {each.arguments["mode"] for each in wandb} == {"offline"}
    assert {each.arguments["dir"] for each in wandb} == {str(run.path)}
    wandb.clear()
    monkeypatch.setenv("WANDB_MODE", "online")
    export_run(run, ["wandb"])
    assert {each.arguments["mode"] for each in wandb} == {"online"}


def test_a_run_is_followed_while_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(following, "_EVERY", 0.0)
    seen, outlet = [], Remembered()
    experiment = load_experiment(CONFIG)

    def progress(_):
        follower.update()
        seen.append(sum(len(rows) for rows in outlet.rows.values()))

    with Follower(tmp_path / "out" / "one", experiment, [outlet]) as follower:
        made = run_experiment(experiment, root=tmp_path, run_id="one", progress=progress)
        during = seen[-1]
        follower.finish(made)
    assert 0 < seen[0] < during == 2 * 4 * 4  # points, replicates, evaluations
    assert outlet.closed
    for (index, draw, seed), rows in outlet.rows.items():
        found = {(u, n): v for u, parts in rows.items() for part in parts for n, v in part.items()}
        assert found == expected(made, index, draw, seed)
        assert sum(len(part) for parts in rows.values() for part in parts) == len(found)


def test_an_interrupted_run_has_given_what_it_has(tmp_path):
    experiment, outlet = load_experiment(CONFIG), Remembered()
    asked = iter([False, False, True])
    path = tmp_path / "out" / "one"
    with (
        pytest.raises(StoppedError),
        Follower(path, experiment, [outlet]),
    ):
        run_experiment(experiment, root=tmp_path, run_id="one", interrupt=lambda: next(asked, True))
    metrics = (path / "members" / "0" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in metrics.splitlines()]
    given = [(d, s, u) for (i, d, s), rows in outlet.rows.items() for u in rows if i == 0]
    assert sorted(given) == sorted((r["timeline"], r["seed"], r["update"]) for r in lines)
    assert outlet.closed
    resume_run(path)


def test_long_runs_are_thinned_out_evenly(run, monkeypatch):
    monkeypatch.setattr(following, "MAX_UPDATES", 4)
    outlet = Remembered()
    with Follower(run.path, load_experiment(run.config), [outlet]) as follower:
        follower.finish(run)
    for rows in outlet.rows.values():
        updates = [u for u, parts in rows.items() if any("training/loss" in part for part in parts)]
        assert sorted(updates) == [1, 5, 8, 12]  # 0, 11/3, 22/3 and 11, rounded, and one more


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["tensorbord"], "outlet: unknown name 'tensorbord'; allowed: tensorboard, wandb"),
        (["wandb"], 'wandb: wandb is not installed; allowed: after pip install -e ".[wandb]"'),
        (
            ["tensorboard"],
            "tensorboard: tensorboardX is not installed; "
            'allowed: after pip install -e ".[tensorboard]"',
        ),
    ],
)
def test_what_is_not_there_is_refused_in_a_line(monkeypatch, names, line):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        check_outlets(names)
    assert caught.value.problems == (line,)


def test_the_command_line_refuses_before_anything_is_written(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as caught:
        main(["run", "missing.yaml", "--wandb"])
    assert caught.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_writes_event_files(monkeypatch, tmp_path, capsys):
    import yaml

    monkeypatch.setattr("sgdlab.experiment.prepare_backend", lambda: None, raising=False)
    monkeypatch.chdir(tmp_path)
    small = {**CONFIG, "sweep": None, "seeds": 1, "timelines": 1}
    (tmp_path / "out.yaml").write_text(yaml.safe_dump(small))
    with pytest.raises(SystemExit) as caught:
        main(["run", "out.yaml", "--tensorboard", "--id", "one", "-q"])
    assert caught.value.code == 0
    folder = tmp_path / "runs" / "out" / "one" / "tensorboard" / "0-run" / "draw-0-seed-0"
    found = {(e.step, v.tag): v.simple_value for e in events(folder) for v in e.summary.value}
    wanted = expected(load_run(tmp_path / "runs" / "out" / "one"), 0, 0, 0)
    assert found == {key: np.float32(value) for key, value in wanted.items()}


@pytest.mark.parametrize("label", ["", "../../x", "a b", "/etc", "..", "🙂", "x" * 200])
def test_a_label_stays_within_its_folder(label):
    name = Replicate(3, label, 1, 2, {}).folder
    first, second = name.split("/")
    assert first.startswith("3-")
    assert len(first) <= 62
    assert second == "draw-1-seed-2"
    assert first.isascii()


def test_no_outlets_read_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(following, "_lines", None)
    with Follower(tmp_path, load_experiment(CONFIG), open_outlets([], tmp_path)) as follower:
        follower.update()
