"""Hyperparameters as a NumPy user writes them are taken, or refused by their name."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgdlab import rules
from sgdlab.rules.table import OPTAX_RULES, RULES, TRANSFORMS

made: Any = rules  # what a type checker would tell, before the call is made
NEEDED = {"learning_rate": 0.5, "concurrency": 2, "num_workers": 2, "bound": 2}
OURS = {
    name: {key: NEEDED.get(key, default) for key, (_, default) in row.items()}
    for name, row in {**RULES, **TRANSFORMS}.items()
}
NUMBERS = [
    (name, key)
    for name, row in OURS.items()
    for key, value in row.items()
    if isinstance(value, float | int) and not isinstance(value, bool)
]


@pytest.mark.parametrize(("name", "argument"), NUMBERS)
def test_a_number_of_numpy_or_jax_is_that_number(name, argument):
    value = np.float32(OURS[name][argument]).item()
    whole = argument == "num_workers"
    make = getattr(made, name)
    expected = make(**{**OURS[name], argument: int(value) if whole else value})
    kinds = (np.int64, jnp.int32, np.array) if whole else (np.float32, np.array, jnp.float32)
    for kind in kinds:
        given = kind(int(value) if whole else value)
        assert make(**{**OURS[name], argument: given}) is expected


@pytest.mark.parametrize(("name", "argument"), NUMBERS)
@pytest.mark.parametrize(
    "wrong", ["0.1", True, [0.1], {"a": 1}, -1.0, np.nan, np.inf, np.array([0.1, 0.2]), 1e39]
)
def test_what_is_no_number_in_range_is_refused_by_its_name(name, argument, wrong):
    if argument == "strength" and isinstance(wrong, np.ndarray):
        pytest.skip("a number for each coordinate")
    with pytest.raises(ValueError, match=rf"^{name}: {argument} is .*; allowed: ") as error:
        getattr(made, name)(**{**OURS[name], argument: wrong})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", RULES)
def test_a_traced_scalar_stays_one_and_a_schedule_is_taken(name):
    def step(rate):
        rule = getattr(made, name)(rate)
        params = jnp.ones(2)
        return rule.update(jnp.ones(2), rule.init(params), params)[0]

    np.testing.assert_allclose(jax.jit(step)(0.5), step(0.5), rtol=1e-6)
    np.testing.assert_allclose(step(optax.constant_schedule(0.5)), step(0.5), rtol=1e-6)
    with pytest.raises(ValueError, match=rf"^{name}: learning_rate has shape \(2,\); allowed: one"):
        jax.jit(step)(jnp.ones(2))


def test_flags_are_numpys_too():
    assert made.clip_by_delay(2, np.bool_(True)) is rules.clip_by_delay(2, drop=True)
    with pytest.raises(ValueError, match="^clip_by_delay: drop is 1; allowed: true or false"):
        made.clip_by_delay(2, 1)


SCHEDULE = {"name": "linear_schedule", "init_value": 1, "end_value": 0, "transition_steps": 2}
REFUSED = {
    "a rate in words": (lambda: made.make_rule("lion", learning_rate="0.1"), "rule lion: learning"),
    "rates": (lambda: made.make_rule("lion", learning_rate=np.ones(2)), "rule lion: learning_rate"),
    "two decays": (lambda: made.make_rule("lion", learning_rate=1, b1=np.ones(2)), "rule lion: b1"),
    "a decay": (lambda: made.make_rule("adam", learning_rate=1, b1="0.9"), "adam: b1 is '0.9'"),
    "a list of names": (lambda: made.make_rule(["sgd"]), "rule: ['sgd'] given"),
    "a function": (lambda: made.make_rule(rules.sgd), "rule: <function sgd"),
    "a name": (lambda: made.make_receive("drop_stale"), "receive: 'drop_stale' given"),
    "one": (lambda: made.make_receive({"name": "drop_stale", "bound": 1}), "receive: {'name'"),
    "transforms": (lambda: made.make_receive([rules.drop_stale(1)]), "receive: [Gradient"),
    "a bound": (lambda: made.make_receive([{"name": "drop_stale", "bound": "1"}]), "bound is '1'"),
    "a schedule": (lambda: made.make_schedule("linear_schedule"), "schedule: 'linear_schedule'"),
    "values": (lambda: made.make_schedule({**SCHEDULE, "init_value": np.ones(2)}), "init_value is"),
    "half a step": (
        lambda: made.make_schedule({**SCHEDULE, "transition_steps": 1.5}),
        "transition",
    ),
    "a constant": (lambda: made.CountedSchedule(0.1, "seconds"), "schedule: 0.1 given"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_makers_refuse_in_one_line(case):
    make, line = REFUSED[case]
    with pytest.raises(ValueError, match="allowed: ") as error:
        make()
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_makers_take_numpys_numbers_and_what_no_config_can_say():
    rule = made.make_rule("lion", learning_rate=np.array(0.5), mu_dtype=jnp.bfloat16)
    assert rule.init(jnp.ones(2))[0].mu.dtype == jnp.bfloat16
    assert "lion" in OPTAX_RULES
    steps = {**SCHEDULE, "init_value": np.float32(1), "transition_steps": np.int64(2)}
    assert made.make_schedule(steps)(1) == 0.5
    parts = [{"name": "constant_schedule", "value": value} for value in (1, 2)]
    join = {"name": "join_schedules", "schedules": parts, "boundaries": np.array([3])}
    assert [float(made.make_schedule(join)(at)) for at in (2, 3)] == [1, 2]
