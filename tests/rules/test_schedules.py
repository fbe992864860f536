"""Schedules that count seconds or gradients: the last factor of a rule, and told by the replay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgdlab.rules import CountedSchedule, make_rule, make_schedule, sgd
from sgdlab.rules.table import OPTAX_RULES, RATE_WITHIN, RULES

RNG = np.random.default_rng(0)


def draw():
    return {
        name: jnp.asarray(RNG.normal(size=shape), jnp.float32)
        for name, shape in (("kernel", (4, 3)), ("bias", (3,)))
    }


PARAMS, GRADIENTS = ([draw() for _ in range(4)] for _ in range(2))
SECONDS = [0.5, 1.25, 1.25, 7.0]
HALVING = optax.exponential_decay(0.3, transition_steps=1, decay_rate=0.5)


def follow(rule, counts=None, **extra):
    """What a rule makes of the gradients, each at its own parameters, whatever came before."""
    update = jax.jit(rule.update, compiler_options={"xla_backend_optimization_level": "0"})
    state, found = rule.init(PARAMS[0]), []
    for index, (params, gradient) in enumerate(zip(PARAMS, GRADIENTS, strict=True)):
        more = {} if counts is None else {"seconds": jnp.float32(counts[index])}
        updates, state = update(gradient, state, params, **more, **extra)
        found.append(updates)
    return found


def test_sgd_at_a_rate_that_halves_every_second():
    updates = follow(sgd(CountedSchedule(HALVING, "seconds")), SECONDS)
    for second, gradient, update in zip(SECONDS, GRADIENTS, updates, strict=True):
        for one, other in zip(jax.tree.leaves(gradient), jax.tree.leaves(update), strict=True):
            np.testing.assert_allclose(other, -0.3 * 0.5**second * one, rtol=1e-6)


def defaults_of(row):
    return {
        key: value for key, (_, value) in row.items() if value is not ... and key != "learning_rate"
    }


@pytest.mark.parametrize("name", sorted({*RULES, *OPTAX_RULES} - RATE_WITHIN))
def test_a_rule_is_its_unit_step_times_the_rate(name):
    arguments = defaults_of({**OPTAX_RULES, **RULES}[name])
    counted = make_rule(name, **arguments, learning_rate=CountedSchedule(HALVING, "seconds"))
    unit = follow(make_rule(name, **arguments, learning_rate=1.0))
    for second, one, update in zip(SECONDS, unit, follow(counted, SECONDS), strict=True):
        rate = 0.3 * 0.5**second
        expected = jax.tree.map(lambda leaf, rate=rate: rate * leaf, one)
        for found, wanted in zip(jax.tree.leaves(update), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=4e-7, atol=1e-12)


@pytest.mark.parametrize("name", sorted({*RULES, *OPTAX_RULES} - RATE_WITHIN - {"sm3"}))
def test_what_counts_updates_is_optaxs_own_schedule_to_the_bit(name):
    """Told the index of the update as seconds; sm3 takes no schedule of optax's."""
    arguments = defaults_of({**OPTAX_RULES, **RULES}[name])
    native = follow(make_rule(name, **arguments, learning_rate=HALVING))
    counted = make_rule(name, **arguments, learning_rate=CountedSchedule(HALVING, "seconds"))
    for one, other in zip(native, follow(counted, range(4)), strict=True):
        pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
        assert all(np.array_equal(*pair) for pair in pairs)


@pytest.mark.parametrize("name", sorted(RATE_WITHIN))
def test_a_rate_that_is_no_last_factor_is_refused_by_the_rules_name(name):
    with pytest.raises(ValueError, match=rf"^rule {name}: .*no last factor.*allowed: count: upda"):
        make_rule(name, learning_rate=CountedSchedule(HALVING, "seconds"))


@pytest.mark.parametrize("name", sorted(RATE_WITHIN - {"rprop"}))
def test_those_rules_make_something_else_of_their_rate(name):
    """Under optax's own schedule; rprop takes none, its rate is where the sizes of steps begin."""
    arguments = defaults_of(OPTAX_RULES[name])
    arguments |= {"momentum": 0.9} if "momentum" in OPTAX_RULES[name] else {}
    unit = follow(make_rule(name, **arguments, learning_rate=1.0))
    native = follow(make_rule(name, **arguments, learning_rate=HALVING))
    assert any(
        not np.array_equal(found, jnp.asarray(HALVING(index), jnp.float32) * one)
        for index, pair in enumerate(zip(native, unit, strict=True))
        for found, one in zip(*map(jax.tree.leaves, pair), strict=True)
    )


def test_a_rule_with_two_rates_is_refused():
    schedule = CountedSchedule(HALVING, "gradients")
    with pytest.raises(ValueError, match="rule muon: learning_rate is one of 2, so .* gradients"):
        make_rule("muon", learning_rate=schedule, adam_learning_rate=0.1)


def test_what_is_not_told_is_asked_for():
    with pytest.raises(ValueError, match="counts seconds, and needs seconds=.*count: updates"):
        follow(sgd(CountedSchedule(HALVING, "seconds")), gradients=jnp.int32(3))


def test_a_schedule_by_name_may_say_what_it_counts():
    cosine = {"name": "cosine_decay_schedule", "init_value": 0.2, "decay_steps": 8}
    assert float(make_schedule({**cosine, "count": "updates"})(4)) == pytest.approx(0.1)
    made = make_schedule({**cosine, "count": "seconds"})
    assert made.count == "seconds"
    # Half the cosine is half the rate; a quarter of the way cos(π/4).
    assert float(made.schedule(4.0)) == pytest.approx(0.1, rel=1e-6)
    assert float(made.schedule(2.0)) == pytest.approx(0.1 * (1 + 0.5**0.5), rel=1e-6)
    with pytest.raises(ValueError, match="count is 'minutes'; allowed are 'updates', 'gradients'"):
        make_schedule({**cosine, "count": "minutes"})
    with pytest.raises(ValueError, match="a part counts seconds; allowed: count beside schedules"):
        make_schedule(
            {
                "name": "join_schedules",
                "schedules": [{**cosine, "count": "seconds"}],
                "boundaries": [],
            }
        )
