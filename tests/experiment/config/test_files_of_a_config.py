"""The files that a config names: what they are relative to, and the line that refuses them."""

import os

import numpy as np
import pytest
import yaml

from sgdlab.experiment import ConfigError, load_experiment
from sgdlab.experiment.reading.files import find_paths, resolve_paths
from sgdlab.experiment.running.preparing import prepare
from sgdlab.experiment.running.workshop import Workshop
from sgdlab.tasks import DataError

CONFIG = {
    "name": "files",
    "task": {"name": "logistic", "dataset": "t.npz"},
    "rule": {"name": "sgd", "learning_rate": 0.1},
    "protocol": "synchronous",
    "cluster": {"workers": 2},
    "updates": 2,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a config and its data, beside the one that we are in."""
    inside, here = tmp_path / "a", tmp_path / "b"
    inside.mkdir(), here.mkdir()
    np.savez(inside / "t.npz", x=np.ones((40, 3)), y=np.arange(40) % 2)
    (inside / "times.csv").write_text("1.0\n2.0\n")
    (inside / "c.yaml").write_text(yaml.safe_dump(CONFIG))
    monkeypatch.chdir(here)
    return inside


def test_paths_of_a_file_are_relative_to_its_folder(folder):
    for source in (folder / "c.yaml", os.path.relpath(folder / "c.yaml")):
        experiment = load_experiment(source)
        assert experiment.points[0].config.task.dataset == str(folder / "t.npz")
        assert experiment.config["task"]["dataset"] == str(folder / "t.npz")
        prepare(experiment, Workshop())


def test_paths_of_overrides_and_of_mappings_are_relative_to_where_one_is(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    for text in ("../a/t.npz", "~/t.npz", str(folder / "t.npz")):
        for experiment in (
            load_experiment(folder / "c.yaml", [f"task.dataset={text}"]),
            load_experiment({**CONFIG, "task": {"name": "logistic", "dataset": text}}),
            load_experiment(folder / "c.yaml", [f"sweep.task.dataset=[{text}]"]),
        ):
            assert experiment.points[0].config.task.dataset == str(folder / "t.npz")


def test_a_name_of_an_embedded_table_is_no_path(folder):
    experiment = load_experiment(folder / "c.yaml", ["task.dataset=wine"])
    assert experiment.points[0].config.task.dataset == "wine"


def test_traces_are_relative_too(folder):
    text = "cluster.compute={name: trace, path: times.csv}"
    config = {
        **CONFIG,
        "cluster": {"workers": 2, "compute": {"name": "trace", "path": "times.csv"}},
    }
    (folder / "d.yaml").write_text(yaml.safe_dump(config))
    assert load_experiment(folder / "d.yaml").points
    with pytest.raises(ConfigError, match=r"cluster.compute.path: .*b/times.csv: cannot") as caught:
        load_experiment(folder / "c.yaml", [text])
    assert caught.value.exit_code == 3


def test_the_line_names_the_key_and_where_it_looked(folder):
    experiment = load_experiment(folder / "c.yaml", ["task.dataset=t.npz"])
    with pytest.raises(DataError, match=r"c.yaml: task.dataset: .*/b/t.npz: no such file"):
        prepare(experiment, Workshop())


def test_a_pipe_is_no_config(folder):
    os.mkfifo(folder / "pipe.yaml")
    with pytest.raises(ConfigError, match="is a pipe; allowed: a regular file"):
        load_experiment(folder / "pipe.yaml")


def test_every_place_of_a_file_is_found_and_nothing_else():
    data = {
        "description": "path",
        "task": {"name": "images", "path": "a"},
        "cluster": {"compute": [{"name": "trace", "path": "b"}, {"name": "constant"}]},
        "protocol": {"name": "from_trace", "path": "c"},
        "precision": {"policy": {"path": "float32"}},
        "sweep": {"task.path": ["d", "e"], "task": [{"name": "logistic", "test": "f"}]},
        "claims": [{"path": "g"}],
    }
    assert [path for _, path in find_paths(data)] == ["a", "b", "c", "d", "e", "f"]
    again = resolve_paths(data, "/x")
    assert [path for _, path in find_paths(again)] == [f"/x/{name}" for name in "abcdef"]
    assert again["precision"] == data["precision"]
