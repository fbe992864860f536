"""Any number in any key: read as it is, or refused by the key's name before memory is taken."""

import random
import re
import subprocess
import sys

import numpy as np
import pytest
import yaml

from sgdlab.experiment import check_timelines
from sgdlab.experiment.config.experiment import load_experiment
from sgdlab.experiment.config.schema import config_schema
from sgdlab.experiment.errors import ConfigError

BASE = {
    "name": "base",
    "task": {"name": "quadratic", "curvature": 1.0},
    "rule": {"name": "sgd", "learning_rate": 0.1},
    "protocol": {"name": "asynchronous"},
    "cluster": {"workers": 2},
    "updates": 10,
}
EXTREMES = [
    -1, 0, 1, 2, 7, 10**5, 10**7, 2**31 - 1, 2**31, 2**32, 10**9, 2**63, 10**18, 10**30,
    -(10**30), 0.5, 1e-9, 1e-30, 1e-300, 5e-324, -1e300, 1e7, 1e9, 1e30, 1e300, 1e308,
]  # fmt: skip
SECONDS = 1.0  # horizons of those keys that are read in a protocol with another one


def numeric_paths():
    """Every numeric key of the schema, as a config with a place for its value.

    Yields:
      `(path, wrap)`: the dotted path, and from a value to the changes of the base config.
    """
    schema = config_schema()
    definitions = schema["$defs"]

    def walk(node, path, wrap, seen):
        node = resolve(node, definitions)
        if node.get("type") in ("integer", "number"):
            yield ".".join(path), wrap
        for inner in [*node.get("anyOf", []), *node.get("oneOf", []), *node.get("allOf", [])]:
            yield from walk(inner, path, wrap, seen)
        if "items" in node:
            yield from walk(node["items"], (*path, "0"), lambda value: wrap([value]), seen)
        title = node.get("title", "")
        if title and title in seen:  # a schedule of schedules, once
            return
        for key, inner in node.get("properties", {}).items():
            others = fill(node, key, definitions)
            put = lambda value, key=key, others=others: wrap({**others, key: value})  # noqa: E731
            yield from walk(inner, (*path, key), put, seen | {title})

    for key, node in schema["properties"].items():
        if key not in ("sweep", "claims", "name"):
            yield from walk(node, (key,), lambda value, key=key: {key: value}, frozenset())


def resolve(node, definitions):
    while "$ref" in node:
        node = definitions[node["$ref"].rpartition("/")[2]]
    return node


def fill(node, missing, definitions):
    """What stands beside a key: the name of its alternative, and what it needs."""
    found = {}
    for key, inner in node["properties"].items():
        inner = resolve(inner, definitions)
        if "const" in inner:
            found[key] = inner["const"]
        elif key in node.get("required", ()) and key != missing:
            found[key] = example(inner, definitions)
    return found


def example(node, definitions):
    node = resolve(node, definitions)
    for inner in [*node.get("anyOf", []), *node.get("oneOf", [])]:
        return example(inner, definitions)
    if "enum" in node or "const" in node:
        return node.get("const", node.get("enum", [None])[0])
    if node.get("type") == "object":
        return {**fill(node, None, definitions)}
    return {"integer": 2, "number": 0.5, "array": [], "string": "none", "boolean": True}.get(
        node.get("type"), 0.5
    )


def draw(count, seed):
    """So many numeric keys with extreme values, every top-level key in its turn."""
    generator = random.Random(seed)
    by_key = {}
    for path, wrap in numeric_paths():
        by_key.setdefault(path.partition(".")[0], []).append((path, wrap))
    keys = sorted(by_key)
    for index in range(count):
        path, wrap = generator.choice(by_key[keys[index % len(keys)]])
        value = generator.choice(EXTREMES)
        changes = wrap(value)
        config = {**BASE, **changes}
        if {"seconds", "gradients"} & set(changes):
            del config["updates"]
        protocol = config["protocol"]["name"]
        if protocol in ("fixed_delay", "random_delay", "from_trace"):
            config.pop("cluster")
        if protocol == "from_trace":
            config.pop("updates")
        yield path, value, config


def test_the_walk_finds_every_kind_of_numeric_key():
    paths = {path for path, _ in numeric_paths()}
    assert len(paths) > 150
    assert {"cluster.workers", "seeds", "seeds.0", "task.hidden.0", "protocol.delay"} <= paths
    assert {"rule.learning_rate.warmup_steps", "cluster.compute.sigma", "worker.steps"} <= paths


def test_extreme_values_are_read_or_refused_by_their_key():
    refused = 0
    for path, value, config in draw(300, seed=7):
        problems = find_problems(config)
        refused += bool(problems)
        for line in problems:
            assert len(line) <= 300, line
            assert any(word in line for word in ("allowed", "memory", "read")), line
        first = path.partition(".")[0]
        known = (first, "cluster", "protocol", "updates", "seconds", "gradients", "no update")
        assert not problems or any(key in problems[0] for key in known), (path, value, problems)
    assert 100 < refused < 300


def find_problems(config):
    try:
        experiment = load_experiment(config)
        if not heavy(experiment):
            check_timelines(experiment)
    except ConfigError as error:
        return error.problems
    return ()


def heavy(experiment):
    """What is allowed and takes a minute to draw."""
    config = experiment.points[0].config
    workers = config.cluster.workers if config.cluster else 1  # pyright: ignore
    horizon = (config.updates or 0, config.gradients or 0, config.seconds or 0)
    return max(horizon) > 1e5 or workers > 1e4 or config.timelines > 100


def test_seeds_lie_in_their_range_together():
    for changes in ({"seed": 2**32 - 1, "seeds": 2}, {"seed": 2**32 - 3, "timelines": 4}):
        with pytest.raises(ConfigError, match=r"seeds|timelines: .* from seed .*; allowed: [13]"):
            load_experiment({**BASE, **changes})
    load_experiment({**BASE, "seed": 2**32 - 2, "seeds": 2, "timelines": 2})


SCHEDULES = {
    "a warm-up beyond the end": (
        {"name": "warmup_cosine_decay_schedule", "init_value": 0.0, "peak_value": 0.1,
         "warmup_steps": 400, "decay_steps": 400},
        "rule.learning_rate.warmup_steps: 400 given; allowed: < decay_steps, 400",
    ),
    "phases out of order": (
        {"name": "linear_onecycle_schedule", "transition_steps": 10, "peak_value": 0.1,
         "pct_start": 0.9, "pct_final": 0.5},
        "rule.learning_rate.pct_final: 0.5 given; allowed: > pct_start, 0.9",
    ),
    "boundaries that are too few": (
        {"name": "join_schedules", "boundaries": [],
         "schedules": [{"name": "constant_schedule", "value": 0.1}] * 2},
        "rule.learning_rate.boundaries: 0 given; allowed: 1",
    ),
    "boundaries out of order": (
        {"name": "join_schedules", "boundaries": [9, 3],
         "schedules": [{"name": "constant_schedule", "value": 0.1}] * 3},
        "rule.learning_rate.boundaries: [9, 3] given; allowed: each above the one before",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SCHEDULES)
def test_a_schedule_keeps_its_order(case):
    schedule, line = SCHEDULES[case]
    with pytest.raises(ConfigError) as error:
        load_experiment({**BASE, "rule": {"name": "sgd", "learning_rate": schedule}})
    assert line in str(error.value)
    inner = {"name": "local_steps", "steps": 2}
    inner["rule"] = {"name": "sgd", "learning_rate": schedule}
    with pytest.raises(ConfigError, match=r"config: worker\.rule\.learning_rate\."):
        load_experiment({**BASE, "worker": inner})


@pytest.mark.parametrize("value", [1e-300, 1e39, -1e39])
def test_a_number_that_float32_makes_another_of_is_refused(value):
    with np.errstate(over="ignore"):
        assert np.float32(value) in (0, np.inf, -np.inf)
    with pytest.raises(ConfigError, match=r"task\.start: .* which is (zero|infinity) in float32"):
        load_experiment({**BASE, "task": {"name": "quadratic", "curvature": 1.0, "start": value}})


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"seeds": np.int64(2), "updates": np.array(10)}, None),
        ({"seeds": np.arange(2)}, None),
        ({"task": {"name": "quadratic", "curvature": np.ones(3, np.float32)}}, None),
        ({"rule": {"name": "sgd", "learning_rate": np.float32(0.1)}}, None),
        ({"sweep": {"rule.learning_rate": np.array([0.1, 0.2])}}, None),
        ({"seeds": np.array([0.5])}, "seeds.0: 0.5 given"),
        ({"cluster": {"workers": np.float64(2.5)}}, "cluster.workers: 2.5 given"),
    ],
)
def test_numbers_of_numpy_are_numbers(changes, line):
    if line is None:
        load_experiment({**BASE, **changes})
    else:
        with pytest.raises(ConfigError, match=re.escape(line)):
            load_experiment({**BASE, **changes})


@pytest.mark.slow
def test_extreme_values_end_processes_with_a_line_under_two_gibibytes(tmp_path):
    limited = ["sh", "-c", 'ulimit -v 2097152 && exec "$@"', "sh"]
    for index, (path, value, config) in enumerate(draw(60, seed=11)):
        file = tmp_path / f"{index}.yaml"
        file.write_text(yaml.safe_dump(config))
        done = subprocess.run(
            [*limited, sys.executable, "-m", "sgdlab", "run", str(file), "--dry-run"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode in (0, 2, 3), (path, value, done.stderr)
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "runs").exists()
