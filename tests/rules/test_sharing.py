"""Equal rules are one object, and nothing that belongs to a trace is remembered."""

import inspect

import jax
import jax.numpy as jnp
import pytest

from sgdlab import rules
from sgdlab.rules.table import RULES, TRANSFORMS

ARGUMENTS = {"learning_rate": 0.1, "num_workers": 4, "concurrency": 4.0, "bound": 3.0}


def make(name):
    function = getattr(rules, name)
    known = inspect.signature(function).parameters
    return function(**{key: value for key, value in ARGUMENTS.items() if key in known})


@pytest.mark.parametrize("name", [*RULES, *TRANSFORMS])
def test_a_rule_made_twice_is_one_object(name):
    assert make(name) is make(name)


def test_how_an_argument_is_given_makes_no_difference():
    assert rules.momentum(0.1) is rules.momentum(decay=0.9, learning_rate=0.1)


def test_other_arguments_make_another_rule():
    assert rules.sgd(0.1) is not rules.sgd(0.2)
    assert rules.clip_by_delay(2.0, drop=True) is not rules.clip_by_delay(2.0, drop=False)


def test_a_traced_learning_rate_is_not_remembered():
    @jax.jit
    def step(rate):
        rule = rules.sgd(rate)
        return rule.update(jnp.ones(2), rule.init(jnp.ones(2)))[0]

    with jax.checking_leaks():
        assert step(jnp.float32(0.5)).tolist() == [-0.5, -0.5]
        assert step(jnp.float32(0.25)).tolist() == [-0.25, -0.25]


def test_an_array_is_not_remembered():
    strength = jnp.ones(2)
    assert rules.compensate_delay(strength) is not rules.compensate_delay(strength)
