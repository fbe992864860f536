"""A sweep is points; points that differ in numbers of the rule are one program."""

import pytest

from sgdlab.experiment import ConfigError, load_experiment
from sgdlab.experiment.running.workshop import Workshop

BASE = {
    "name": "base",
    "task": {"name": "quadratic", "curvature": 1.0},
    "rule": {"name": "momentum", "learning_rate": 0.1},
    "cluster": {"workers": 3},
    "protocol": "asynchronous",
    "seconds": 5.0,
}


def load(sweep, **changes):
    return load_experiment({**BASE, **changes, "sweep": sweep})


def test_axes_are_multiplied_the_last_one_fastest():
    made = load({"protocol": ["synchronous", "asynchronous"], "rule.learning_rate": [0.1, 0.2]})
    assert [point.label for point in made.points] == [
        "protocol=synchronous, rule.learning_rate=0.1",
        "protocol=synchronous, rule.learning_rate=0.2",
        "protocol=asynchronous, rule.learning_rate=0.1",
        "protocol=asynchronous, rule.learning_rate=0.2",
    ]
    assert [len(group) for group in made.groups] == [2, 2]


def test_the_work_is_said_in_advance():
    sweep = {
        "protocol": ["synchronous", "asynchronous", {"name": "window", "wait": 1.0}],
        "rule.learning_rate": [0.1, 0.2],
        "rule.decay": [0.5, 0.9],
    }
    made = load(sweep, seeds=2, timelines=2)
    assert made.describe() == "48 runs, 12 points, 3 programs"


def test_only_numbers_of_the_program_share_a_program():
    assert len(load({"rule.learning_rate": [0.1, 0.2]}).groups) == 1
    assert len(load({"worker.batch_size": [8, 16]}).groups) == 2
    assert len(load({"rule.name": ["momentum", "heavy_ball"]}).groups) == 2
    schedule = {"name": "linear_schedule", "init_value": 1, "end_value": 0, "transition_steps": 9}
    assert len(load({"rule.learning_rate": [0.1, schedule]}).groups) == 2
    lion = {"name": "lion", "learning_rate": 0.1}
    assert len(load({"rule.learning_rate": [0.1, 0.2]}, rule=lion).groups) == 1
    assert len(load({"rule.b1": [0.8, 0.9]}, rule=lion).groups) == 2


def test_points_may_be_written_out_with_labels():
    made = load(
        [
            {"label": "slow", "protocol": "synchronous", "rule.learning_rate": 1},
            {"protocol": {"name": "window", "wait": 0.5}},
        ]
    )
    assert [point.label for point in made.points] == ["slow", "protocol=window(wait=0.5)"]
    assert [point.config.rule.arguments()["learning_rate"] for point in made.points] == [1.0, 0.1]


def test_a_point_refines_what_it_has_replaced():
    made = load({"protocol.wait": [1.0, 2.0], "protocol": ["window"]})
    assert [p.config.protocol.arguments() for p in made.points] == [{"wait": 1.0}, {"wait": 2.0}]


def test_points_that_differ_in_no_clock_share_the_timeline_object():
    made = load({"protocol": ["synchronous", "asynchronous"], "rule.learning_rate": [0.1, 0.2]})
    workshop = Workshop()
    drawn = [workshop.timelines(point.config)[0] for point in made.points]
    assert drawn[0] is drawn[1]
    assert drawn[2] is drawn[3]
    assert drawn[0] is not drawn[2]


def test_draws_have_seeds_of_their_own():
    made = load({}, seed=5, timelines=3)
    drawn = Workshop().timelines(made.points[0].config)
    assert [timeline.metadata["seed"] for timeline in drawn] == [5, 6, 7]


PROBLEMS = {
    "value": (
        {"rule.learning_rate": [0.1, "fast"]},
        "config: sweep.rule.learning_rate.1: 'fast' given",
    ),
    "nested": ({"protocol": [{"name": "window"}]}, "config: sweep.protocol.0.wait: missing"),
    "path": (
        {"rule.lerning_rate": [1]},
        "config: sweep.rule.lerning_rate.0: unknown key; did you mean",
    ),
    "empty": (
        {"rule.learning_rate": []},
        "config: sweep.rule.learning_rate: a list given; allowed:",
    ),
    "scalar": ({"rule.learning_rate": 0.1}, "config: sweep.rule.learning_rate: a number given"),
    "name": ({"name": ["a"]}, "config: sweep.name: no axis"),
    "kind": (3, "config: sweep: a number given"),
    "through": ({"seconds.x": [1]}, "config: sweep: seconds.x=1: 5.0 has no key x"),
    "point": ([3], "config: sweep.0: a number given"),
    "label": ([{"label": 3, "seconds": 1}], "config: sweep.0.label: 3 given"),
    "size": (
        {f"rule.{i}": [0] * 10 for i in range(4)},
        "config: sweep: 10000 points; allowed: 4096",
    ),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_a_sweeps_problems_name_the_value_of_the_axis(case):
    sweep, start = PROBLEMS[case]
    with pytest.raises(ConfigError) as caught:
        load(sweep)
    assert [line for line in caught.value.problems if line.startswith(start)], caught.value.problems


def test_an_override_that_the_sweep_would_undo_is_refused():
    data = {**BASE, "sweep": {"rule.learning_rate": [0.1]}}
    with pytest.raises(ConfigError, match=r"^override: rule.learning_rate: the sweep sets"):
        load_experiment(data, ["rule.learning_rate=3"])
    assert len(load_experiment(data, ["sweep.rule.learning_rate=[1, 2]"]).points) == 2
    assert len(load_experiment(data, ["sweep=null", "rule.learning_rate=3"]).points) == 1
