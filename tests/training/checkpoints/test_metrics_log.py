"""Metrics are written exactly once, and only the same run continues a checkpoint."""

import copy
import math
import os

import pytest
from hypothesis import given, settings, strategies as st

from sgdlab.training.checkpoints import CheckpointError
from sgdlab.training.checkpoints.identity import (
    ResumeError,
    check_resume,
    describe_program,
    hash_program,
)
from sgdlab.training.checkpoints.metrics_log import MetricsLog, truncate_metrics


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("logs") / "metrics.jsonl"


@settings(deadline=None, max_examples=50)
@given(
    lines=st.lists(st.text(st.characters(exclude_characters="\n", codec="utf-8")), max_size=12),
    data=st.data(),
)
def test_a_log_that_is_cut_anywhere_and_continued_is_the_whole_log(path, lines, data):
    path.unlink(missing_ok=True)
    with MetricsLog(path) as log:
        offsets = [log.sync()]
        for line in lines:
            log.append(line)
            offsets.append(log.sync())
    whole = path.read_bytes()
    seen = data.draw(st.integers(0, len(lines)), label="lines at the checkpoint")
    crash = data.draw(st.integers(offsets[seen], len(whole)), label="bytes at the crash")
    os.truncate(path, crash)
    with MetricsLog(path) as log:
        log.truncate(offsets[seen])
        for line in lines[seen:]:
            log.append(line)
    assert path.read_bytes() == whole


def test_a_log_that_is_not_the_checkpoints_is_refused(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("first\nsecond\n")
    with pytest.raises(CheckpointError, match="has 13 bytes; the checkpoint saw 14"):
        truncate_metrics(path, 14)
    with pytest.raises(CheckpointError, match="no line ends at byte 5"):
        truncate_metrics(path, 5)
    assert path.read_text() == "first\nsecond\n"
    with pytest.raises(CheckpointError, match="No such file"):
        truncate_metrics(tmp_path / "missing", 6)
    truncate_metrics(tmp_path / "missing", 0)
    assert not (tmp_path / "missing").exists()


def test_a_line_is_one_line(tmp_path):
    with MetricsLog(tmp_path / "log") as log, pytest.raises(ValueError, match="more than one"):
        log.append("a\nb")


def test_a_full_disk_is_one_line():
    with (
        pytest.raises(CheckpointError, match="No space left") as error,
        MetricsLog("/dev/full") as log,
    ):
        log.append("x")
    assert "\n" not in str(error.value)


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError):
        MetricsLog(tmp_path / "log")
    assert not (tmp_path / "elsewhere").exists()


CONFIG = {
    "name": "run",
    "task": {"name": "digits", "model": "mlp", "hidden": [128, 64]},
    "rule": {"name": "momentum", "learning_rate": 0.1, "decay": 0.9},
    "receive": [{"name": "scale_by_staleness", "power": 1.0}],
    "precision": {"policy": "float32", "loss_scale": {"name": "none"}},
    "protocol": {"name": "window", "wait": math.inf},
    "devices": {"data": 4, "reduction": "canonical"},
    "updates": 100,
    "evaluations": 50,
    "seed": 0,
}


def changed(path, value):
    config = copy.deepcopy(CONFIG)
    place = config
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("task", "hidden", 1), 32, "task.hidden.1: 64 in the checkpoint, 32 in this run"),
        (("rule", "name"), "sgd", 'rule.name: "momentum" in the checkpoint, "sgd" in this run'),
        (("rule", "learning_rate"), 0.2, "rule.learning_rate: 0.1 in the checkpoint, 0.2 in"),
        (("receive",), [], 'receive.0.name: "scale_by_staleness" in the checkpoint, nothing'),
        (("precision", "policy"), "float16", 'precision.policy: "float32" in the checkpoint, "fl'),
        (("protocol", "wait"), 1.0, 'protocol.wait: "inf" in the checkpoint, 1.0 in this run'),
        (("seed",), 1, "seed: 0 in the checkpoint, 1 in this run"),
        (("devices", "reduction"), "fast", 'devices.reduction: "canonical" in the checkpoint'),
    ],
)
def test_what_decides_a_number_may_not_change(path, value, says):
    old, new = describe_program(CONFIG), describe_program(changed(path, value))
    with pytest.raises(ResumeError) as error:
        check_resume(old, new)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert hash_program(old) != hash_program(new)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("updates",), 1000),
        (("evaluations",), 10),
        (("devices", "data"), 1),
        (("name",), "other"),
    ],
)
def test_how_far_how_often_and_on_what_may_change(path, value):
    old, new = describe_program(CONFIG), describe_program(changed(path, value))
    check_resume(old, new)
    assert hash_program(old) == hash_program(new)
