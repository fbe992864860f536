"""Gap awareness beside the rule whose steps it measures."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgdlab.rules import gap_aware, heavy_ball, make_receive, make_rule, make_schedule


def penalties(receive, rule, gradients, delay):
    """The mean penalty of each update of a queue: message u was computed `delay` updates before."""
    w = jnp.zeros(gradients.shape[1])
    past = jnp.zeros((delay + 1, len(w)))  # the newest version first

    def step(carry, g):
        w, past, received, state = carry
        past = jnp.concatenate([w[None], past[:-1]])
        sent, received = receive.update(g, received, w, stale_params=past[-1])
        updates, state = rule.update(sent, state, w)
        return (optax.apply_updates(w, updates), past, received, state), jnp.mean(g / sent)

    carry = (w, past, receive.init(w), rule.init(w))
    return np.asarray(jax.jit(lambda: jax.lax.scan(step, carry, gradients)[1])())


def beside(name, **arguments):
    """`gap_aware` filled in from a rule, and the rule."""
    rule = make_rule(name, **arguments)
    return make_receive([{"name": "gap_aware"}], rule={"name": name, **arguments}), rule


def test_one_step_of_a_constant_gradient_is_a_gap_of_one():
    # The gap of delay 1 is the last step ηv, and √R̂ tends to |v|: the penalty tends to 1 + 1. It
    # is above 2 before, since R remembers the smaller v of the start, by 48 in a thousand updates.
    found = penalties(*beside("heavy_ball", learning_rate=0.1, decay=0.9), jnp.ones((4000, 1)), 1)
    assert found[0] == 1.0
    np.testing.assert_allclose(found[:1000].mean(), 2.048, atol=0.002)
    np.testing.assert_allclose(found[-1], 2.0, atol=0.002)


def test_noise_of_delay_four_is_penalised_by_four():
    # 400 coordinates of 1,000 updates; the band is that of the derivation, by simulation.
    noise = jax.random.normal(jax.random.key(0), (1000, 400))
    found = penalties(*beside("heavy_ball", learning_rate=0.1, decay=0.9), noise, 4)
    np.testing.assert_allclose(found.mean(), 4.28, atol=0.05)


def test_without_momentum_a_constant_gradient_is_penalised_by_the_golden_ratio():
    # The last step is ηg/p and the typical one ηg, so p = 1 + 1/p.
    found = penalties(*beside("sgd", learning_rate=0.1), jnp.ones((200, 1)), 1)
    np.testing.assert_allclose(found[-1], (1 + 5**0.5) / 2, rtol=1e-4)


@pytest.mark.parametrize("rate", [0.003, 0.1, 3.0])
def test_the_penalty_of_given_gradients_doesnt_depend_on_the_rules_rate(rate):
    # Gap and typical step are both in proportion to it.
    noise = jax.random.normal(jax.random.key(1), (50, 5))
    found = penalties(*beside("nesterov", learning_rate=rate), noise, 2)
    usual = penalties(*beside("nesterov", learning_rate=1.0), noise, 2)
    np.testing.assert_allclose(found, usual, rtol=1e-3)


def test_the_averaging_form_is_the_heavy_ball_of_its_rate():
    noise = jax.random.normal(jax.random.key(2), (50, 5))
    average = penalties(*beside("momentum", learning_rate=0.5, decay=0.8), noise, 2)
    ball = penalties(*beside("heavy_ball", learning_rate=0.5 * (1 - 0.8), decay=0.8), noise, 2)
    np.testing.assert_allclose(average, ball, rtol=1e-3)


@pytest.mark.parametrize("name", ["sgd", "momentum"])
def test_the_largest_rate_so_far_counts(name):
    # Up, then down: the typical step is that of the largest rate, so a gap of one small step is a
    # tenth of one after the fall from 1.0 to 0.1.
    schedule = {"name": "piecewise_constant_schedule", "init_value": 1.0}
    schedule["boundaries_and_scales"] = {5: 0.1}
    rule = {"name": name, "learning_rate": schedule}
    if name == "momentum":
        rule["decay"] = 0.5
    receive = make_receive([{"name": "gap_aware"}], rule=rule)
    largest = [1.0 if name == "sgd" else 0.5] * 8
    found, state = [], receive.init(jnp.zeros(1))
    for _ in range(8):
        _, state = receive.update(jnp.ones(1), state, jnp.zeros(1), stale_params=jnp.zeros(1))
        found.append(float(state[0].largest_rate))
    assert found == largest


def test_a_rate_that_starts_at_zero_leaves_messages_alone():
    warm = make_schedule(
        {"name": "linear_schedule", "init_value": 0.0, "end_value": 1.0, "transition_steps": 4}
    )
    found = penalties(gap_aware(warm), optax.sgd(warm), jnp.ones((6, 2)), 1)
    assert found[0] == found[1] == 1.0
    assert np.all(np.isfinite(found))
    assert found[-1] > 1.1


def test_rate_and_decay_map_over_a_sweep_that_has_no_momentum_in_one_member():
    noise = jax.random.normal(jax.random.key(3), (30, 4))

    def swept(rate, decay):
        rule = {"name": "heavy_ball", "learning_rate": rate, "decay": decay}
        receive = make_receive([{"name": "gap_aware"}], rule=rule)
        w, state = jnp.zeros(4), receive.init(jnp.zeros(4))
        for g in noise:
            sent, state = receive.update(g, state, w + 0.1, stale_params=w)
        return sent

    rates, decays = jnp.asarray([0.1, 0.3]), jnp.asarray([0.0, 0.9])
    actual = jax.jit(jax.vmap(swept))(rates, decays)
    expected = [swept(0.1, 0.0), swept(0.3, 0.9)]
    chex.assert_trees_all_close(actual, jnp.stack(expected), rtol=1e-4)


@pytest.mark.parametrize("name", ["adam", "adagrad", "lion"])
def test_a_rule_whose_step_it_cannot_know_is_refused_in_one_line(name):
    with pytest.raises(ValueError, match=f"rule {name}; allowed: sgd, momentum, heavy_ball") as e:
        make_receive([{"name": "gap_aware"}], rule={"name": name, "learning_rate": 0.1})
    assert "\n" not in str(e.value)


def test_sixteen_bit_parameters_keep_their_averages_in_float32():
    state = gap_aware(0.1, decay=0.9).init(jnp.zeros(2, jnp.bfloat16))
    assert state.mean_square.dtype == state.velocity.dtype == jnp.float32


def test_from_python_it_chains_with_its_rule():
    rule = optax.chain(gap_aware(0.1, decay=0.9), heavy_ball(0.1, decay=0.9))
    w = jnp.ones(2)
    updates, _ = rule.update(w, rule.init(w), w, stale_params=w)
    np.testing.assert_array_equal(updates, heavy_ball(0.1).update(w, heavy_ball(0.1).init(w))[0])
