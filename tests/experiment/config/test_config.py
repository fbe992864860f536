"""A config is checked as a whole: every problem at once, each one line with its path."""

import copy

import pytest
from hypothesis import given, settings, strategies as st

from sgdlab.experiment.config.experiment import load_experiment
from sgdlab.experiment.config.schema import Config, config_schema
from sgdlab.experiment.errors import ConfigError
from sgdlab.rules.table import OPTAX_RULES, RULES, SCHEDULES
from sgdlab.tasks.table import TASKS
from sgdlab.timelines import PROTOCOLS

BASE = {
    "name": "base",
    "task": {"name": "quadratic", "curvature": 1.0},
    "rule": {"name": "sgd", "learning_rate": 0.1},
    "protocol": {"name": "asynchronous"},
    "updates": 10,
}


def problems(overrides=(), **changes):
    with pytest.raises(ConfigError) as caught:
        load_experiment({**BASE, **changes}, overrides)
    assert not any("\n" in problem for problem in caught.value.problems)
    return list(caught.value.problems)


def config(overrides=(), **changes):
    return load_experiment({**BASE, **changes}, overrides).points[0].config


COSINE = {"name": "cosine_decay_schedule", "init_value": 0.1, "decay_steps": 9}

# What is wrong -> how its line begins, and a word that must stand in it.
WRONG = {
    "unknown key": (
        {"rulez": 1},
        "config: rulez: unknown key; did you mean rule?",
        "allowed: name,",
    ),
    "nested key": (
        {"rule": {"lerning_rate": 0.1}},
        "config: rule.lerning_rate: unknown key; did you mean learning_rate?",
        "allowed: name, learning_rate",
    ),
    "missing": ({"rule": {"name": "adam"}}, "config: rule.learning_rate: missing", "a number >= 0"),
    "name": (
        {"rule": {"name": "momentun", "learning_rate": 1}},
        "config: rule.name: unknown name 'momentun'; did you mean momentum?",
        "adamw",
    ),
    "short name": ({"protocol": "window"}, "config: protocol.wait: missing", "a number >= 0"),
    "type": ({"updates": 1.5}, "config: updates: 1.5 given", "a whole number >= 1"),
    "boolean": ({"updates": True}, "config: updates: true given", "a whole number"),
    "text": ({"updates": "10"}, "config: updates: '10' given", "a whole number"),
    "range": ({"rule": {"learning_rate": -1}}, "config: rule.learning_rate: -1 given", ">= 0"),
    "infinity": ({"seconds": float("inf"), "updates": None}, "config: seconds: inf given", "> 0"),
    "run name": ({"name": "../x"}, "config: name: '../x' given", "A-Za-z0-9"),
    "long name": ({"name": "x" * 65}, "config: name: ", "{0,63}"),
    "newline": ({"name": "x\n"}, "config: name: 'x\\n' given", "A-Za-z0-9"),
    "horizon": ({"seconds": 3}, "config: updates: updates and seconds given", "exactly one of"),
    "no horizon": ({"updates": None}, "config: seconds: none given", "updates, seconds, gradients"),
    "seed": ({"seed": 2**32}, "config: seed: 4294967296 given", "< 4294967296"),
    "seeds": ({"seeds": [0, "a"]}, "config: seeds.1: 'a' given", "a whole number >= 0"),
    "no seeds": ({"seeds": []}, "config: seeds: [] given", "allowed"),
    "kind": ({"task": 3}, "config: task: 3 given", "{name: ...}"),
    "list": ({"receive": {"name": "x"}}, "config: receive: {'name': 'x'} given", "a list"),
    "in a list": (
        {"receive": [{"name": "drop_stale"}]},
        "config: receive.0.bound: missing",
        ">= 0",
    ),
    "schedule": (
        {"rule": {"learning_rate": {"name": "cosin_decay_schedule"}}},
        "config: rule.learning_rate.name: unknown name",
        "did you mean cosine_decay_schedule?",
    ),
    "counted": (
        {"rule": {"name": "lars", "learning_rate": {**COSINE, "count": "seconds"}}},
        "config: rule.learning_rate.count: seconds given; allowed: updates",
        "the learning rate of lars is no last factor",
    ),
    "counted inside": (
        {
            "worker": {
                "name": "local_steps",
                "steps": 2,
                "rule": {"learning_rate": {**COSINE, "count": "gradients"}},
            }
        },
        "config: worker.rule.learning_rate.count: gradients given; allowed: updates",
        "counts its own steps",
    ),
    "two rates": (
        {
            "rule": {
                "name": "muon",
                "learning_rate": {**COSINE, "count": "seconds"},
                "adam_learning_rate": 0.1,
            }
        },
        "config: rule.learning_rate.count: seconds given; allowed: updates",
        "muon has learning_rate and adam_learning_rate",
    ),
    "count": (
        {"rule": {"learning_rate": {**COSINE, "count": "epochs"}}},
        "config: rule.learning_rate.count: 'epochs' given",
        "'seconds'",
    ),
    "part of an update": (
        {"rule": {"learning_rate": {**COSINE, "decay_steps": 2.5}}},
        "config: rule.learning_rate.decay_steps: 2.5 given",
        "a whole number, or count: seconds",
    ),
    "policy": ({"precision": {"policy": "f3"}}, "config: precision.policy:", "mixed_bfloat16"),
    "cluster": (
        {"cluster": {"workers": 4, "stragglers": {"count": 9, "factor": 2.0}}},
        "config: cluster: stragglers: count is 9",
        "allowed",
    ),
    "models": (
        {"cluster": {"workers": 2, "compute": [{"name": "lognormal", "mean": 1.0}]}},
        "config: cluster.compute.0.sigma: missing",
        "a number >= 0",
    ),
    "goal": ({"stop": {"metric": "loss"}}, "config: stop: none given", "at_least, at_most"),
    "queue": (
        {"protocol": {"name": "fixed_delay", "delay": 1}, "cluster": {"workers": 2}},
        "config: cluster: this protocol has no cluster",
        "none",
    ),
    "queue seconds": (
        {"protocol": {"name": "fixed_delay", "delay": 1}, "seconds": 2.0, "updates": None},
        "config: seconds: not for this protocol",
        "allowed: updates",
    ),
    "evaluations": (
        {"evaluations": 3, "evaluate_every": 4},
        "config: evaluations: both given",
        "exactly one",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_line_with_its_path(case):
    changes, start, word = WRONG[case]
    found = problems(**changes)
    assert len([line for line in found if line.startswith(start) and word in line]) == 1, found


def test_a_schedule_counts_parts_of_a_second_and_keeps_whole_numbers_whole():
    for spans, count in (((2.5, 9), "seconds"), ((9, 9), "gradients")):
        for span in spans:
            rate = {**COSINE, "decay_steps": span, "count": count}
            found = config(rule={"learning_rate": rate}).rule.arguments()["learning_rate"]
            assert (found["count"], repr(found["decay_steps"])) == (count, repr(span))


def test_all_problems_are_told_at_once():
    found = problems(
        ["cluster.workers=none", "seeds"],
        rule={"lerning_rate": 1},
        updates=None,
        worker={"batch_size": 0, "name": "gradient"},
        cluster={"stragglers": {"factor": -1.0}},
    )
    for start in (
        "override: seeds: no value",
        "config: rule.lerning_rate: unknown key",
        "config: rule.learning_rate: missing",
        "config: worker.batch_size: 0 given",
        "override: cluster.workers: 'none' given",
        "config: cluster.stragglers.factor: -1.0 given",
        "config: seconds: none given",
    ):
        assert len([line for line in found if line.startswith(start)]) == 1, found


def test_a_tagged_union_keeps_its_default_name_when_an_argument_is_overridden():
    assert config(["worker.batch_size=8"]).worker.arguments()["batch_size"] == 8
    assert config(["worker.batch_size=8"]).worker.name == "gradient"
    assert config(["rule.learning_rate=2"], rule={}).rule.name == "sgd"
    compute = config(["cluster.compute.mean=2"]).cluster.model_dump()["compute"]
    assert compute == {"name": "constant", "mean": 2.0}


def test_an_override_leaves_the_rest_of_its_mapping_alone():
    rule = {"name": "adam", "learning_rate": 0.1, "b1": 0.5}
    changed = config(["rule.learning_rate=1e-2"], rule=rule).rule.arguments()
    assert (changed["learning_rate"], changed["b1"]) == (0.01, 0.5)


def test_a_bare_name_stands_for_its_defaults():
    assert config(protocol="asynchronous") == config()
    assert (
        config(precision={"loss_scale": "dynamic"}).precision.loss_scale.arguments()["period"]
        == 2000
    )
    wait = config(["protocol.wait=2"], protocol="window").protocol.arguments()
    assert wait == {"wait": 2.0}


def test_infinity_is_taken_where_it_has_a_meaning():
    assert config(["protocol.wait=.inf"], protocol="window").protocol.arguments()["wait"] == float(
        "inf"
    )


def test_overrides_reach_into_lists():
    receive = [{"name": "scale_by_staleness"}, {"name": "drop_stale", "bound": 3.0}]
    changed = config(["receive.1.bound=5", "receive.0.power=0.5"], receive=receive).receive
    assert [link.arguments() for link in changed] == [{"power": 0.5}, {"bound": 5.0}]
    assert problems(["receive.2.bound=1"], receive=receive) == [
        "override: receive.2.bound: 2 is no index here; allowed: 0 to 1"
    ]


def test_overrides_are_yaml_and_their_values_are_checked():
    assert config(["seeds=[3, 5]"]).run_seeds == [3, 5]
    assert config(["seeds=2", "seed=7"]).run_seeds == [7, 8]
    assert problems(["description=no"])[0].startswith("override: description: no is ambiguous")
    assert problems(["updates.x=1"]) == [
        "override: updates.x: 10 has no key x; allowed: a path to a key"
    ]
    assert problems(["a..b=1"])[0].startswith("override: a..b: 'a..b' is no path")


def test_the_source_is_not_changed_by_overrides():
    data = copy.deepcopy(BASE)
    load_experiment(data, ["rule.learning_rate=3"])
    assert data == BASE


def test_the_resolved_config_resolves_to_itself():
    sweep = {"rule.learning_rate": [0.1, 0.2]}
    first = load_experiment({**BASE, "sweep": sweep})
    again = load_experiment(first.config)
    assert again.config == first.config
    assert again.points == first.points


@pytest.mark.parametrize("name", {**OPTAX_RULES, **RULES})
def test_every_rule_of_the_tables_can_be_named(name):
    assert config(rule={"name": name, "learning_rate": 0.1}).rule.name == name


@pytest.mark.parametrize("name", TASKS)
def test_every_task_of_the_table_is_known(name):
    task = {"name": name, "curvature": 1.0, "path": "x"}
    row = {key: value for key, value in task.items() if key == "name" or key in TASKS[name]}
    assert config(task=row).task.name == name


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_is_known(name):
    lines = problems(rule={"learning_rate": {"name": name, "zzz": 1}})
    assert (
        "config: rule.learning_rate.zzz: unknown key; allowed: "
        f"name, {', '.join(SCHEDULES[name])}, count" in lines
    )


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_is_known(name):
    lines = problems(protocol={"name": name, "zzz": 1})
    assert any(line.startswith("config: protocol.zzz: unknown key") for line in lines)


def test_local_steps_and_compression_are_built_from_their_tables():
    worker = {
        "name": "local_steps",
        "steps": 4,
        "rule": {"learning_rate": 0.1},
        "compress": {"name": "top_k", "fraction": 0.1, "error_feedback": False},
    }
    made = config(worker=worker).worker.arguments()
    assert made["rule"] == {"name": "sgd", "learning_rate": 0.1}
    assert made["compress"]["error_feedback"] is False
    assert problems(worker={**worker, "compress": "sing"})[0].startswith(
        "config: worker.compress: unknown name 'sing'; did you mean sign?"
    )


def test_the_schema_is_that_of_the_models():
    schema = config_schema()
    assert set(schema["properties"]) == {*Config.model_fields, "sweep"}
    assert schema["additionalProperties"] is False


SWEEPS = ["sweep", "sweep.rule.learning_rate", "sweep.protocol"]
LISTS = ["cluster.compute", "cluster.workers", "receive", "receive.0", "precision.policy"]
KEYS = ["rule", "rule.learning_rate", "protocol.name", "worker.batch_size", "seeds", "updates"]
KEYS += ["seconds", "stop", "name", "task.name", "x.y", "partition", *LISTS, *SWEEPS]
VALUES = """1|-1|1e-3|0.5|1e400|.nan|.inf|true|no|null||[1, 2]|[]|{}|momentum|window|*|: :|[[1]]
{name: window, wait: 1}|[synchronous, {name: window, wait: 2}]|{metric: loss, at_most: 1}
{a: {b: 1}}|&a 1|!!python/name:os.system""".replace("\n", "|").split("|")


def check(data, overrides=()):
    """The problems of an experiment; none if it is a good one, which then resolves to itself."""
    try:
        made = load_experiment(data, overrides)
    except ConfigError as error:
        return error.problems or ("no problem was told",)
    assert made.points
    assert load_experiment(made.config).points == made.points
    return ()


keys, values = st.sampled_from(KEYS), st.sampled_from(VALUES) | st.text(max_size=12)


@given(st.lists(st.tuples(keys, values), max_size=4))
@settings(max_examples=150, deadline=None)
def test_any_overrides_make_a_checked_experiment_or_lines_with_paths(pairs):
    for line in check(BASE, [f"{key}={value}" for key, value in pairs]):
        assert len(line.splitlines()) == 1
        assert line.startswith(("config: ", "override: "))


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
known = st.sampled_from(sorted([*Config.model_fields, "sweep"]))


@given(st.dictionaries(known, junk, max_size=4))
@settings(max_examples=150, deadline=None)
def test_any_data_makes_a_checked_experiment_or_lines_with_paths(changes):
    for line in check({**BASE, **changes}):
        assert len(line.splitlines()) == 1
        assert line.startswith("config: ")
