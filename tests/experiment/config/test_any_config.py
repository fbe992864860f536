"""Whatever a person writes is run, or refused in lines that name the key; never a traceback."""

import contextlib
import copy
import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings, strategies as st

from sgdlab.experiment import ConfigError, load_experiment
from sgdlab.experiment.config.building import draw_timelines
from sgdlab.experiment.config.schema import HORIZONS, config_schema
from sgdlab.timelines import TimelineError

ROOT = Path(__file__).parents[3]
BASE = {
    "name": "any",
    "task": {"name": "quadratic", "curvature": [1.0, 0.5]},
    "rule": {"name": "momentum", "learning_rate": 0.1},
    "receive": [{"name": "scale_by_staleness", "power": 1.0}],
    "worker": {"name": "local_steps", "steps": 2, "rule": {"name": "sgd", "learning_rate": 0.1}},
    "precision": {"policy": "mixed_float16", "loss_scale": {"name": "dynamic"}},
    "cluster": {
        "workers": 3,
        "compute": {"name": "lognormal", "mean": 1.0, "sigma": 0.5},
        "network": {"latency": 0.1, "bandwidth": 1e6, "message_bytes": 100.0},
        "failures": {"mtbf": 50.0, "repair": 1.0},
        "stragglers": {"count": 1, "factor": 5.0},
        "joins": {0: 1.0},
    },
    "protocol": {"name": "window", "wait": 0.5},
    "updates": 4,
    "seeds": [0, 1],
    "stop": {"metric": "loss", "at_most": 0.1},
    "sweep": {"rule.learning_rate": [0.1, 0.2]},
}


@functools.cache
def words():
    """Every key and every name that the schema knows."""
    found = set()

    def walk(node):
        if isinstance(node, dict):
            found.update(map(str, node.get("properties", {})))
            found.update(x for x in (node.get("const"), *node.get("enum", [])) if x)
            for part in node.values():
                walk(part)
        elif isinstance(node, list):
            for part in node:
                walk(part)

    walk(config_schema())
    return sorted(x for x in found if isinstance(x, str))


def paths(data, prefix=()):
    """Every place in a config."""
    yield prefix
    items = {dict: lambda: data.items(), list: lambda: enumerate(data)}
    for key, value in items.get(type(data), list)():
        yield from paths(value, (*prefix, key))


PLACES = [path for path in paths(BASE) if path]
WHOLE = st.sampled_from([0, 1, -1, 2, 3, 7, 10**6, 2**31, 2**32, 2**63, 10**30])
REAL = st.sampled_from([0.0, -0.0, 0.5, 1e-300, 1e300, -1.5, float("inf"), float("nan"), 1e-9])
WORDS = st.deferred(lambda: st.sampled_from(words()))
TEXTS = st.sampled_from(["", "yes", "1e-3", "p=f32,c=bf16", "ü", "a\nb", "\x00", "none.csv", "[x"])
VALUES = st.recursive(
    st.none() | st.booleans() | WHOLE | REAL | WORDS | TEXTS | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(WORDS | st.text(max_size=3), inner, max_size=3)
        | st.fixed_dictionaries({"name": WORDS}, optional={"learning_rate": inner, "k": inner})
    ),
    max_leaves=5,
)
CHANGES = st.just([]) | st.lists(
    st.tuples(st.sampled_from(PLACES), st.sampled_from(["set", "drop", "add"]), WORDS, VALUES),
    max_size=3,
)
DOTTED = st.sampled_from([".".join(map(str, path)) for path in PLACES])
IN_YAML = VALUES.map(lambda value: yaml.safe_dump(value, default_flow_style=True).split("\n...")[0])
LIKELY = st.sampled_from(
    [
        *(f"protocol={{name: {name}}}" for name in ("synchronous", "asynchronous", "ringleader")),
        "protocol={name: k_sync, k: 2}",
        "protocol.wait=.inf",
        "cluster.workers=5",
        "cluster.compute={name: trace, path: none.csv}",
        "cluster.leaves={1: 2.0}",
        "seeds=3",
        "worker=gradient",
        "worker.compress={name: top_k, share: 0.1}",
        "rule={name: adam, learning_rate: 1e-3}",
        "task={name: digits, hidden: [8]}",
        "sweep={seed: [1, 2]}",
        "timelines=2",
    ]
)
OVERRIDES = st.lists(LIKELY, max_size=3) | st.lists(
    st.builds(
        lambda path, value: f"{path}={value}",
        DOTTED | WORDS | st.text(max_size=6),
        IN_YAML | st.text(max_size=8),
    ),
    max_size=2,
)


def changed(changes):
    """The base config with some places set, dropped, or given another key."""
    data = copy.deepcopy(BASE)
    for path, how, word, value in changes:
        node = data
        for part in path[:-1]:
            node = node[part] if isinstance(node, dict | list) and has(node, part) else {}
        if how == "add" and has(node, path[-1]) and isinstance(node[path[-1]], dict):
            node[path[-1]][word] = value
        elif how == "drop" and isinstance(node, dict):
            node.pop(path[-1], None)
        elif isinstance(node, dict) or has(node, path[-1]):
            node[path[-1]] = value
    return data


def has(node, part):
    if isinstance(node, list):
        return isinstance(part, int) and part < len(node)
    return isinstance(node, dict) and part in node


def check(changes, overrides, seen):
    try:
        experiment = load_experiment(changed(changes), overrides)
    except ConfigError as error:
        seen["refused"] += 1
        for line in error.problems:
            assert len(line.splitlines()) == 1, line
            assert re.match(r"(config|override): .+: .+", line), line
        return
    seen["read"] += 1
    for point in experiment.points[:2]:
        draw(point.config)


def draw(config):
    """The clocks of what was accepted, where they are few; they may refuse them still."""
    horizons = {getattr(config, key) for key in HORIZONS}
    workers = 0 if config.cluster is None else config.cluster.workers
    if horizons <= {None, 4} and config.timelines <= 2 and workers <= 100:
        with contextlib.suppress(TimelineError):
            draw_timelines(config)


def test_any_config_is_read_or_refused_by_its_keys(long_form):
    seen = {"refused": 0, "read": 0}

    @settings(
        max_examples=5000 if long_form else 300,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(changes=CHANGES, overrides=OVERRIDES)
    def test(changes, overrides):
        check(changes, overrides, seen)

    test()
    assert min(seen.values()) > 30


ENDS = """
import json, sys, time
from sgdlab.cli import main
for arguments in json.load(sys.stdin):
    began = time.perf_counter()
    try:
        main(arguments)
    except SystemExit as end:
        heavy = sorted({"jax", "optax", "sklearn", "pandas"} & set(sys.modules))
        print(json.dumps([end.code, heavy, time.perf_counter() - began]), flush=True)
"""
WRONG = [
    ["task.curvature=x"],
    ["rule={name: adam, learning_rat: 1}"],
    ["cluster.compute=[{name: constant}]"],
    ["protocol={name: k_sync, k: 9}", "updates=-1"],
    ["sweep={a..b: [1]}"],
    ["seeds=[]", "seed=4294967296"],
    ["precision.policy={a: b}"],
    ["receive.3.power=1"],
    ["=", "a", "\x00=1", "name=../up"],
    ["worker.rule.learning_rate={name: join_schedules, schedules: [{name: join_schedules}]}"],
]


@pytest.mark.slow
def test_the_command_line_refuses_without_jax(tmp_path):
    path = tmp_path / "any.yaml"
    path.write_text(yaml.safe_dump(BASE))
    done = subprocess.run(
        [sys.executable, "-c", ENDS],
        input=json.dumps([["run", "-q", str(path), *wrong] for wrong in WRONG]),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    ends = [json.loads(line) for line in done.stdout.splitlines()]
    assert [end[:2] for end in ends] == [[2, []]] * len(WRONG)
    lines = done.stderr.splitlines()
    assert len(lines) >= len(WRONG)
    assert all(re.match(r"(.*any\.yaml|override): .+", line) for line in lines), lines
    assert sorted(os.listdir(tmp_path)) == ["any.yaml"]
