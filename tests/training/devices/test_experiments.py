"""An experiment whose config has a block for devices, in a process that has eight of them."""

import json

import numpy as np
import pytest

from sgdlab.experiment import ConfigError, StoppedError, resume_run, run_experiment
from sgdlab.training import checkpoints

pytestmark = pytest.mark.slow

# DESIGN's asynchronous example, for a shorter time.
EXAMPLE = {
    "name": "digits-async",
    "task": {"name": "digits", "model": "mlp", "hidden": [128]},
    "partition": {"name": "dirichlet", "alpha": 0.3},
    "rule": {"name": "momentum", "learning_rate": 0.1, "decay": 0.9},
    "receive": [{"name": "scale_by_staleness", "power": 1.0}],
    "worker": {"name": "gradient", "batch_size": 32},
    "precision": {"policy": "mixed_bfloat16", "loss_scale": "none"},
    "cluster": {"workers": 16, "compute": {"name": "lognormal", "mean": 1.0, "sigma": 0.5}},
    "protocol": "asynchronous",
    "seconds": 4,
    "evaluations": 4,
    "checkpoint_every": 1,
}


def run(root, devices, run_id, **changes):
    config = {**EXAMPLE, **changes, "devices": devices}
    return run_experiment(config, root=root, run_id=run_id)


def losses(run):
    return run.members[0].histories[0]["loss"][0]


def test_the_asynchronous_example_on_eight_devices_is_that_on_one(tmp_path):
    """In float32 to rounding, of some sixty updates that sum 32 rows in another order."""
    one = run(tmp_path, {}, "one", precision={"policy": "float32"})
    many = run(tmp_path, {"data": 4, "fsdp": 2}, "many", precision={"policy": "float32"})
    assert len(losses(one)) > 40
    np.testing.assert_allclose(losses(many), losses(one), rtol=1e-5)


def test_a_canonical_run_leaves_the_same_files_on_any_number_of_devices(tmp_path):
    """The example as it stands, in bfloat16: metrics, histories and checkpoints, byte for byte."""
    kept = []
    for data in (1, 2, 8):
        made = run(tmp_path, {"data": data, "reduction": "canonical"}, f"on-{data}")
        newest = checkpoints.find(made.path / "checkpoints" / "0" / "0")[0]
        files = [made.path / "history.npz", made.path / "metrics.jsonl"]
        kept.append([path.read_bytes() for path in [*files, newest]])
    assert kept[0] == kept[1] == kept[2]


class After:
    def __init__(self, asked):
        self.left = asked

    def __call__(self):
        self.left -= 1
        return self.left < 0


def test_a_run_may_go_on_on_other_devices_and_on_no_other_sum(tmp_path):
    config = {**EXAMPLE, "devices": {"data": 2, "fsdp": 2}}
    with pytest.raises(StoppedError):
        run_experiment(config, root=tmp_path, run_id="cut", interrupt=After(2))
    path = tmp_path / "digits-async" / "cut"
    for key, value in (("reduction", "canonical"), ("microbatches", 2)):
        with pytest.raises(ConfigError, match=f"devices.{key}: .* in the run, .*{value}"):
            resume_run(path, overrides=[f"devices.{key}={value}"])
    resumed = resume_run(path, overrides=["devices.data=1", "devices.fsdp=4"])
    whole = run_experiment(config, root=tmp_path, run_id="whole")
    np.testing.assert_allclose(losses(resumed), losses(whole), rtol=2.0**-5)  # bfloat16
    lines = (path / "metrics.jsonl").read_text().splitlines()
    updates = [json.loads(line)["update"] for line in lines]
    assert updates == sorted(set(updates))


@pytest.mark.parametrize(
    ("devices", "changes", "says"),
    [
        ({"data": 16}, {}, "devices: data=16 .* needs 16 devices and there are 8; .* at most 8"),
        ({"data": "all", "fsdp": 3}, {}, "does not divide the 8 devices; .*: 1, 2, 4, 8"),
        ({"data": 3}, {}, "batch: 32 rows can't be spread over 3 devices .*: 30 or 33"),
        ({"expert": 2}, {}, "devices.expert: unknown key; .*allowed: data, fsdp, tensor"),
        ({"data": 2, "tensor": 2}, {}, "devices: tensor: 2 given; allowed: 1, since the task"),
        ({"data": 4, "fsdp": 2, "collective": "pmap"}, {}, "pmap needs whole parameters"),
        ({"data": 2, "microbatches": 5}, {}, "32 rows can't be cut into 5 each on 2 devices"),
        ({"microbatches": 5}, {}, "32 rows can't be cut into 5 each; rows that can: 30 or 35"),
        ({"data": 2, "reduction": "canonical", "microbatches": 6}, {}, "6 is not a power of two"),
        (
            {"data": 2, "collective": "pmap"},
            {"task": {"name": "quadratic", "curvature": [1.0], "noise": 0.1}, "partition": None},
            "draws from its key",
        ),
    ],
)
def test_what_cannot_be_spread_is_refused_before_anything_is_written(
    tmp_path, monkeypatch, devices, changes, says
):
    from sgdlab.training import members

    monkeypatch.setattr(members, "_step", None)  # nothing gets as far as that
    with pytest.raises(ConfigError, match=says) as caught:
        run(tmp_path, devices, "no", **changes)
    assert len(caught.value.problems) == 1
    assert "\n" not in caught.value.problems[0]
    assert caught.value.exit_code == 2
    assert not list(tmp_path.iterdir())
