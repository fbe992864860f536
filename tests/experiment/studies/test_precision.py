"""The precision study: its shares and bytes from closed forms, its command, its experiments."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgdlab import plots
from sgdlab.cli import main
from sgdlab.experiment import ConfigError, choose_policies, load_experiment, study_precision
from sgdlab.experiment.studies.precision import POLICIES, format_ranges

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[3] / "experiments" / "precision"
# From w = 1 the gradient is (1, 2⁻²⁶), and a learning rate of 10⁻¹² moves nothing in float32.
BASE = {
    "name": "small",
    "task": {"name": "quadratic", "curvature": [1.0, 2.0**-26]},
    "rule": {"name": "momentum", "learning_rate": 1e-12},
    "worker": {"batch_size": 1},
    "cluster": {"workers": 1},
    "protocol": "synchronous",
    "updates": 3,
    "evaluations": 1,
    "seeds": 2,
}
CHOSEN = ("float32", "mixed_float16", "mixed_float16, dynamic scale", "bfloat16")


@pytest.fixture(scope="module")
def study():
    policies = {label: POLICIES[label] for label in CHOSEN}
    return study_precision(load_experiment(BASE), policies, repeats=1)


def column(study, name):
    return dict(zip(study["policy"], study[name], strict=True))


def test_the_share_that_float16_flushes_is_that_below_its_range(study):
    assert column(study, "flushed") == dict(zip(CHOSEN, [0, 0.5, 0, 0], strict=True))
    assert column(study, "overflowed") == dict.fromkeys(CHOSEN, 0)
    assert column(study, "by_layer")["mixed_float16"] == {"parameters": (0.5, 0.0)}
    ranges = study.attrs["ranges"]
    assert ranges["float16"] == {"parameters": (0.5, 0.0)}
    assert ranges["bfloat16"] == {"parameters": (0.0, 0.0)}


def test_exponents_are_those_of_the_curvatures(study):
    found = study.attrs["exponents"]
    assert found.lowest == -26
    assert found.zeros == 0
    np.testing.assert_array_equal(np.flatnonzero(found.counts), [0, 26])
    assert found.counts[0] == found.counts[26]


def test_bytes_are_those_of_two_numbers_in_each_dtype(study):
    assert column(study, "parameters") == dict(zip(CHOSEN, [8, 8, 8, 4], strict=True))
    assert column(study, "rule_state") == column(study, "parameters")  # a velocity each
    assert all(study["peak"] >= study["parameters"] + study["rule_state"])


def test_metric_scale_and_speed(study):
    assert set(study["metric"]) == {"loss"}
    np.testing.assert_allclose(study["mean"], 0.5, rtol=2**-8)  # (1 + 2⁻²⁶)/2, in bfloat16 too
    assert column(study, "loss_scale")["mixed_float16, dynamic scale"] == 2.0**15
    assert study["relative_speed"][0] == 1
    assert set(study["status"]) == {"done"}


def test_a_target_chooses_the_metric():
    config = BASE | {"target": {"metric": "distance", "at_most": 0.1}, "seeds": 1}
    found = study_precision(load_experiment(config), {"float32": POLICIES["float32"]}, repeats=1)
    np.testing.assert_allclose(found["mean"], np.sqrt(2), rtol=1e-6)


def test_a_sweep_over_precision_says_what_is_compared():
    assert choose_policies(load_experiment(BASE)) is POLICIES
    names = ["float32", "bfloat16"]
    swept = load_experiment(BASE | {"sweep": {"precision.policy": names}})
    assert [spec["policy"] for spec in choose_policies(swept).values()] == names
    rates = load_experiment(BASE | {"sweep": {"rule.learning_rate": [0.1, 0.2]}})
    with pytest.raises(ConfigError, match=r"rule\.learning_rate; allowed here: precision"):
        choose_policies(rates)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_an_experiment_opens_with_its_command_and_compares_with_float32(path):
    text = path.read_text()
    for word in ("Question:", "Command:", "Run time:", "After:", "Expected:", "Measured:"):
        assert f"# {word}" in text
    assert f"sgdlab precision experiments/precision/{path.name}" in text
    policies = choose_policies(load_experiment(path))
    assert next(iter(policies)) == "float32"
    assert len(policies) >= 3


def test_float16_behind_its_loss_scale_is_what_the_experiment_says():
    """A weight of curvature 2⁻²⁶ or less has no gradient in float16: three of them stay at 1."""
    experiment = load_experiment(FOLDER / "float16-loss-scale.yaml")
    found = study_precision(experiment, choose_policies(experiment), repeats=1)
    mean = column(found, "mean")
    assert mean["mixed_float16"] >= np.sqrt(3)
    assert mean["mixed_float16, dynamic scale"] < 0.01
    assert mean["mixed_bfloat16"] < 0.01


def test_the_command_prints_the_tables_and_draws_the_exponents(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sgdlab.experiment.prepare_backend", lambda: None, raising=False)
    file, picture = tmp_path / "small.yaml", tmp_path / "exponents.svg"
    file.write_text(
        "name: small\ntask: {name: quadratic, curvature: [1.0, 1.4901161193847656e-8]}\n"
        "rule: {name: sgd, learning_rate: 1e-12}\nprotocol: synchronous\nupdates: 2\n"
        "cluster: {workers: 1}\nsweep: {precision.policy: [float32, mixed_float16]}\n"
    )
    with pytest.raises(SystemExit) as ended:
        main(["precision", str(file), "-o", str(picture)])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert "50 % / 0 %" in out
    assert "final loss" in out
    assert out.splitlines()[-1] == str(picture)
    assert "<svg" in picture.read_text()


def test_a_bar_stands_at_every_exponent_and_a_line_below_each_format():
    figure = plots.gradient_exponents(
        np.array([1, 0, 3]), -20, formats={"float16": (-24, 15)}, zeros=0.25
    )
    boxes: list[Any] = list(figure.axes[0].patches)
    bars = [box.get_bbox() for box in boxes]
    assert [(bar.x0, bar.height) for bar in bars[:3]] == [(-20, 25), (-19, 0), (-18, 75)]
    assert bars[3].x0 == -24
    assert bars[3].x1 <= 16
    assert format_ranges()["float16"] == (-24, 15)


def test_the_study_takes_the_devices_of_its_file():
    """This process has one, and the file asks for two."""
    experiment = load_experiment(BASE | {"devices": {"data": 2}})
    with pytest.raises(ConfigError, match="devices: "):
        study_precision(experiment, {"float32": POLICIES["float32"]}, repeats=1)
