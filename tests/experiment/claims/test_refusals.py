"""What a claim cannot say is refused before anything runs, in one line with the key's path."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from sgdlab import tasks
from sgdlab.experiment import ConfigError, config_schema, load_experiment
from sgdlab.experiment.claims import theories
from sgdlab.tasks.table import METRICS, TASKS

BASE = {
    "name": "base",
    "task": {"name": "digits"},
    "rule": {"name": "sgd", "learning_rate": 0.1},
    "protocol": "asynchronous",
    "updates": 10,
    "sweep": {
        "protocol.name": ["synchronous", "asynchronous"],
        "rule.learning_rate": [0.1, 0.2],
    },
}
FINAL = {
    "name": "final",
    "metric": "loss",
    "of": {"protocol.name": "asynchronous"},
    "over": "lowest",
}
CLAIM = {"claim": "It is so.", "left": FINAL, "is": "<", "right": 0.5}
CODE = '__import__("os").system("true")'
RATES = {"name": "limit", "axis": "rule.learning_rate", "of": {"protocol": "synchronous"}}


def theory(function, **arguments):
    return {"left": {"name": "theory", "function": function, "arguments": arguments}}


def problems(config=None, overrides=(), **changes):
    with pytest.raises(ConfigError) as caught:
        load_experiment({**BASE, "claims": [{**CLAIM, **changes}], **(config or {})}, overrides)
    assert caught.value.exit_code == 2
    assert not any("\n" in problem for problem in caught.value.problems)
    return list(caught.value.problems)


# What is wrong -> the change, how the line begins, what is allowed.
WRONG = {
    "code for a quantity": ({"left": CODE}, "left: '__imp", "a number or {name: ...}"),
    "code for a name": ({"left": {"name": CODE}}, "left.name: unknown name", "final, best"),
    "code for a number": ({"right": "1 + 1"}, "right: '1 + 1' given", "a number or {name: ...}"),
    "code for a factor": ({"factor": "2 * 3"}, "factor: '2 * 3' given", "a number > 0"),
    "code for a function": (
        theory(CODE),
        "left.function: unknown function",
        "asynchronous_throughput",
    ),
    "a hidden function": (theory("__class__"), "left.function: unknown", "asynchronous_throughput"),
    "no scalar": (theory("staleness_distribution"), "left.function: unknown", "mean_staleness"),
    "code for an argument": (
        theory("stability_limit", delay=CODE),
        "left.arguments.delay: '__imp",
        "a whole number",
    ),
    "an argument of another kind": (
        theory("harmonic_number", n=2.5),
        "left.arguments.n: 2.5 given",
        "a whole number",
    ),
    "an unknown argument": (
        theory("stability_limit", delays=1, delay=1),
        "left.arguments.delays: unknown argument; did you mean delay?",
        "delay, decay",
    ),
    "a missing argument": (theory("contraction", step=1.0), "left.arguments.delay: missing", "who"),
    "an argument without end": (
        theory("harmonic_number", n=10**9),
        "left.arguments.n: 1000000000 given",
        "up to 1000000",
    ),
    "a long polynomial": (
        theory("contraction", step=1.0, delay=10**5),
        "left.arguments.delay: 100000 given",
        "up to 1000",
    ),
    "what theory doesn't know": (
        theory("mean_staleness", protocol="window", workers=2, wait=1.0),
        "left.arguments: mean_staleness knows no value",
        "others",
    ),
    "what theory cannot take": (
        theory("mean_staleness", protocol="k_async", workers=2),
        "left.arguments: mean_staleness cannot take these",
        "KeyError",
    ),
    "an unknown quantity": (
        {"left": {"name": "finale", "metric": "loss"}},
        "left.name: unknown name 'finale'; did you mean final?",
        "throughput",
    ),
    "an unknown key": ({"left": {**FINAL, "at": 1}}, "left.at: unknown key", "metric"),
    "an unknown label": (
        {"left": {**FINAL, "of": "asynchronous"}},
        "left.of: no point is called 'asynchronous'",
        "'protocol.name=synchronous, rule.learning_rate=0.1'",
    ),
    "an unknown path": (
        {"left": {**FINAL, "of": {"protocol.nam": "x"}}},
        "left.of: no point has the key protocol.nam",
        "the labels",
    ),
    "an unknown value": (
        {"left": {**FINAL, "of": {"protocol.name": "window"}}},
        "left.of: no point matches",
        "the labels",
    ),
    "true is not one": (
        {"left": {**FINAL, "of": {"updates": True}}},
        "left.of: no point matches",
        "the labels",
    ),
    "several points": (
        {"left": {**FINAL, "over": None}},
        "left.over: missing, and 2 points match",
        "lowest, highest, mean",
    ),
    "an unknown metric": (
        {"left": {**FINAL, "metric": "acuracy"}},
        "left.metric: unknown metric 'acuracy'; did you mean accuracy?",
        "loss, accuracy",
    ),
    "no target": (
        {"left": {**FINAL, "name": "time_to", "metric": None}},
        "left.metric: missing, and the experiment has no target",
        "either",
    ),
    "a goal without its value": (
        {"left": {**FINAL, "name": "time_to"}},
        "left.metric: none given beside it",
        "exactly one of at_least, at_most",
    ),
    "a goal with two": (
        {"left": {**FINAL, "name": "updates_to", "at_least": 1, "at_most": 1}},
        "left.metric: both given beside it",
        "exactly one",
    ),
    "a value without its goal": (
        {"left": {"name": "messages_to", "over": "mean", "at_least": 1}},
        "left.metric: missing beside at_least",
        "a metric",
    ),
    "an unknown statistic": (
        {"left": {"name": "staleness", "statistic": "median"}},
        "left.statistic: 'median' given",
        "'mean' or 'max'",
    ),
    "an unknown comparison": ({"is": "=="}, "is: '==' given", "'<' or"),
    "within nothing": ({"is": "within"}, "is: within: none given", "exactly one of factor, toler"),
    "within both": ({"is": "within", "factor": 2, "tolerance": 1}, "is: within: both", "one of"),
    "within itself": ({"is": "within", "factor": 1}, "factor: 1 given", "a number > 1"),
    "a tolerance without within": ({"tolerance": 1}, "tolerance: given with <", "within alone"),
    "no factor": ({"factor": 0}, "factor: 0 given", "a number > 0"),
    "two numbers": ({"left": 1}, "left: two numbers", "a quantity on one side"),
    "infinity": ({"right": float("inf")}, "right: inf given", "a number"),
    "no claim": ({"claim": ""}, "claim: '' given", "a text"),
    "two records": (
        {"refuted": "No.", "undecided": "Who knows."},
        "undecided: given beside refuted",
        "one of them",
    ),
    "no reason": ({"refuted": ""}, "refuted: '' given", "a text"),
    "no axis": ({"left": {**RATES, "axis": "rule.rate"}}, "left.axis: no point has", "the path"),
    "no number": ({"left": {**RATES, "axis": "task.name"}}, "left.axis: 'digits' stands", "a num"),
    "one value": ({"left": {**RATES, "axis": "updates"}}, "left.axis: 1 value", "differ in"),
    "a limit of more": ({"left": {**RATES, "of": None}}, "left.of: points differ in more", "alone"),
    "half a goal": ({"left": {**RATES, "metric": "loss"}}, "left.metric: none given", "exactly"),
    "tuning by nothing": (
        {"left": {**RATES, "name": "tuned", "by": "throughput"}},
        "left.by: unknown name 'throughput'",
        "final, best",
    ),
    "tuning by an unknown metric": (
        {"left": {**RATES, "name": "tuned", "by": {"name": "best", "metric": "los"}}},
        "left.by.metric: unknown metric 'los'; did you mean loss?",
        "loss, accuracy",
    ),
    "tuning over more": (
        {"left": {"name": "tuned", "axis": "rule.learning_rate", "by": {**FINAL}}},
        "left.by.of: unknown key",
        "metric",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_it_is_refused_in_a_line_with_its_path(case):
    change, begins, allowed = WRONG[case]
    line = problems(**change)[0]
    assert line.startswith(f"config: claims.0.{begins}")
    assert "allowed: " in line or "cannot take" in line
    assert allowed in line or case == "a missing argument"


def test_replicates_must_pair():
    sweep = [{"label": "a", "seeds": 2}, {"label": "b", "seeds": 3}, {"label": "c", "seeds": 1}]
    claim = {**CLAIM, "left": {**FINAL, "of": "a"}, "right": {**FINAL, "of": "b"}}
    (line,) = problems({"sweep": sweep, "claims": [claim]})
    assert line == "config: claims.0: points of 2 and 3 seeds; allowed: as many in each, or one"
    claim["right"]["of"] = "c"
    assert load_experiment({**BASE, "sweep": sweep, "claims": [claim]}).claims


def test_an_override_is_its_own_source_and_a_sweep_has_no_claims():
    (line,) = problems(overrides=["claims.0.right=abc"])
    assert line.startswith("override: claims.0.right: 'abc' given")
    (line,) = problems({"sweep": {"claims": [[]]}})
    assert line.startswith("config: sweep.claims: no axis")


def test_a_sweep_put_over_the_files_own_takes_its_claims_away():
    data = {**BASE, "claims": [CLAIM]}
    kept = load_experiment(data, ["sweep.rule.learning_rate=[0.3, 0.4]"])
    assert len(kept.claims) == 1
    gone = load_experiment(data, ["sweep=null", "protocol=synchronous"])
    assert gone.claims == ()
    assert load_experiment(gone.config).claims == ()


def test_every_problem_is_told_at_once():
    lines = problems({"claims": [{**CLAIM, "is": "="}, {**CLAIM, "factor": -1}], "tags": [1]})
    assert [line.split(": ")[1] for line in lines] == ["claims.0.is", "claims.1.factor", "tags.0"]


@pytest.mark.parametrize(
    ("of", "count"),
    [
        (None, 4),
        ({"protocol": "asynchronous"}, 2),
        ({"protocol": {"name": "asynchronous"}}, 2),
        ({"protocol.name": "asynchronous", "rule.learning_rate": 0.2}, 1),
        ({"task.hidden": [128]}, 4),
        ({"task.hidden.0": 128}, 4),
        ("protocol.name=asynchronous, rule.learning_rate=0.2", 1),
    ],
)
def test_points_are_chosen_by_label_or_by_values(of, count):
    from sgdlab.experiment.claims.selecting import select

    assert len(select(of, load_experiment(BASE).points)) == count


def test_true_is_not_one():
    from sgdlab.experiment.claims.selecting import select

    points = load_experiment(BASE).points
    assert all(point.plain["timelines"] == 1 for point in points)
    assert len(select({"timelines": 1}, points)) == 4
    with pytest.raises(ValueError, match="no point matches"):
        select({"timelines": True}, points)


def test_claims_belong_to_the_whole_and_decide_no_number():
    plain = load_experiment(BASE)
    stated = load_experiment({**BASE, "claims": [CLAIM], "tags": ["fast", "fast"]})
    assert [point.config for point in stated.points] == [point.config for point in plain.points]
    assert [point.program for point in stated.points] == [point.program for point in plain.points]
    assert stated.tags == ("fast",)
    assert stated.claims[0].claim == CLAIM["claim"]
    assert load_experiment(stated.config).claims == stated.claims


def test_the_schema_knows_the_vocabulary():
    import json

    schema = config_schema()
    assert {"claims", "tags"} <= set(schema["properties"])
    text = json.dumps(schema)
    for word in ("messages_to", "utilisation", "tuned", "limit", "refuted", "tolerance"):
        assert f'"{word}"' in text


def test_checking_claims_imports_no_jax(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "{name: c, task: digits, rule: {learning_rate: 0.1}, protocol: synchronous, updates: 1,"
        " claims: [{claim: c, left: {name: theory, function: implicit_momentum,"
        " arguments: {workers: 2}}, is: '<', right: {name: final, metric: wrong}}]}"
    )
    code = (
        "import sys\nfrom sgdlab.cli import main\n"
        "try:\n    main(['verify', sys.argv[1]])\nexcept SystemExit as end:\n"
        "    print(end.code, sorted({'jax', 'pandas', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "2 []\n"
    assert "claims.0.right.metric: unknown metric 'wrong'" in done.stderr


def test_functions_that_a_claim_may_name_are_those_of_one_number():
    assert {"stability_limit", "mean_update_time", "rennala_time_bound"} <= set(theories.FUNCTIONS)
    assert theories.evaluate("stability_limit", {"delay": 0}) == pytest.approx(2.0)
    assert not theories.check("rennala_time_bound", {"times": [1.0, 2.0], "batch": 2})
    compute = {"name": "constant", "mean": 1.0}
    arguments = {"protocol": "asynchronous", "workers": 4, "compute": compute}
    assert theories.evaluate("mean_update_time", arguments) == 0.25


SMALL = {
    "quadratic": {"curvature": 1.0},
    "logistic": {},
    "digits": {},
    "text": {"size": "0.3M", "length": 8, "width": 16, "layers": 1, "heads": 2},
}


def test_every_task_has_its_metrics():
    assert set(METRICS) == set(TASKS)
    assert METRICS["images"] == METRICS["digits"]  # one loss; images come from a file


@pytest.mark.parametrize("name", SMALL)
def test_the_metrics_of_a_task_are_those_that_it_gives(name):
    task = tasks.make_task(name, **SMALL[name])
    batch = {key: jnp.asarray(rows[:1]) for key, rows in task.test.items()}
    found = jax.eval_shape(lambda key: task.loss(task.init(key), batch, None)[1], jax.random.key(0))
    assert sorted(METRICS[name]) == sorted(["loss", *found])
