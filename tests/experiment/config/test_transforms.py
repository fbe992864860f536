"""What a config may say of the transforms that depend on the rule or on the cluster."""

import pytest

from sgdlab.experiment import ConfigError, load_experiment, run_experiment

BASE = {
    "name": "transforms",
    "task": {"name": "quadratic", "curvature": [1.0, 0.2], "noise": 0.5},
    "rule": {"name": "heavy_ball", "learning_rate": 0.05},
    "worker": {"name": "gradient", "batch_size": 1},
    "cluster": {"workers": 3},
    "protocol": "asynchronous",
    "updates": 30,
    "evaluations": 3,
}
LOCAL = {"name": "local_steps", "steps": 2, "rule": {"name": "sgd", "learning_rate": 0.1}}
MIXED = {"receive": ["mix_models"], "worker": LOCAL}
PLAIN = {"name": "sgd", "learning_rate": 1.0}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"receive": [{"name": "gap_aware", "learning_rate": 0.1}]},
            "receive.0.learning_rate: it is the rule's",
        ),
        ({"receive": [{"name": "gap_aware", "decay": 0.9}]}, "receive.0.decay: it is the rule's"),
        (
            {"receive": ["gap_aware"], "rule": {"name": "adam", "learning_rate": 0.1}},
            "receive.0: gap_aware .* rule adam; allowed: sgd, momentum, heavy_ball, nesterov",
        ),
        (MIXED, "receive.0: mix_models .*heavy_ball .*allowed: sgd with learning_rate 1.0"),
        (
            {**MIXED, "rule": PLAIN, "sweep": {"rule.learning_rate": [1.0, 0.5]}},
            "receive.0: mix_models .*sgd with learning_rate 0.5",
        ),
    ],
)
def test_what_doesnt_fit_the_rule_is_one_line(changes, line):
    with pytest.raises(ConfigError, match=line) as error:
        load_experiment({**BASE, **changes})
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {**MIXED, "rule": PLAIN, "protocol": {"name": "k_async", "k": 2}},
            "receive: mix_models takes one model an update",
        ),
        ({"receive": [{"name": "compensate_delay", "per_worker": True}]}, "only adaptive has"),
    ],
)
def test_what_doesnt_fit_the_timeline_is_one_line_before_anything_is_written(
    changes, line, tmp_path
):
    with pytest.raises(ConfigError, match=line) as error:
        run_experiment({**BASE, **changes}, root=tmp_path)
    assert len(str(error.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def final(changes, tmp_path):
    run = run_experiment({**BASE, **changes}, root=tmp_path)
    return [member.evaluations["loss"].iloc[-1] for member in run.members]


def test_the_gap_takes_the_rate_of_each_point(tmp_path):
    gap = {"receive": ["gap_aware"]}
    rates = [0.01, 0.05]
    swept = final({**gap, "sweep": {"rule.learning_rate": rates}}, tmp_path)
    rules = [{"name": "heavy_ball", "learning_rate": rate} for rate in rates]
    assert swept == [loss for rule in rules for loss in final({**gap, "rule": rule}, tmp_path)]
    # A constant penalty, by a rate that no sweep touches, would be another in one of them.
    schedule = {"name": "constant_schedule", "value": 0.05}
    scheduled = final({**gap, "rule": {"name": "heavy_ball", "learning_rate": schedule}}, tmp_path)
    assert scheduled == pytest.approx(swept[1:], rel=1e-5)


def test_models_are_mixed_and_workers_counted_from_a_config(tmp_path):
    assert final({**MIXED, "rule": PLAIN}, tmp_path)[0] < 0.6
    link = {"name": "compensate_delay", "adaptive": True, "per_worker": True}
    assert final({"receive": [link, "divide_by_staleness"]}, tmp_path)[0] < 0.6


def test_a_rate_goes_inside_the_compression(tmp_path):
    def compressed(rate, rule):
        compress = {"name": "top_k", "k": 1, **({} if rate is None else {"learning_rate": rate})}
        return final({"rule": rule, "worker": {"compress": compress}}, tmp_path)[0]

    schedule = {"name": "constant_schedule", "value": 0.05}
    inside = compressed(schedule, PLAIN)
    assert inside == compressed(0.05, PLAIN)
    outside = compressed(None, {"name": "sgd", "learning_rate": 0.05})
    assert inside == pytest.approx(outside, rel=1e-4)
    with pytest.raises(ConfigError, match="compress.learning_rate: -0.1 given; .* >= 0"):
        compressed(-0.1, PLAIN)


def test_a_worker_counts_its_own_messages_only():
    schedule = {"name": "constant_schedule", "value": 0.05, "count": "seconds"}
    compress = {"name": "top_k", "k": 1, "learning_rate": schedule}
    with pytest.raises(ConfigError, match="learning_rate.count: seconds given; allowed: updates"):
        load_experiment({**BASE, "worker": {"compress": compress}})
