"""Each rule against the closed forms of constant g, and against its neighbours."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgdlab.rules import (
    adagrad,
    adam,
    adamw,
    heavy_ball,
    make_rule,
    momentum,
    nesterov,
    rmsprop,
    sgd,
)
from sgdlab.rules.table import RULES

EPS32 = float(np.finfo(np.float32).eps)
STEPS = 20


def displacement(rule, gradients, start):
    """w_T − w₀ in float32 after the rule has been fed `gradients` [T, d]."""

    def step(carry, gradient):
        params, state = carry
        updates, state = rule.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    start = jnp.asarray(start, jnp.float32)
    gradients = jnp.asarray(gradients, jnp.float32)
    (params, _), _ = jax.jit(lambda g: jax.lax.scan(step, (start, rule.init(start)), g))(gradients)
    return np.asarray(params, np.float64) - np.asarray(start, np.float64)


@pytest.mark.parametrize(
    ("rule", "steps"),
    [
        # The sum of an average of ones: T − γ(1−γᵀ)/(1−γ).
        (momentum(0.1, decay=0.9), lambda t: 0.1 * (t - 9 * (1 - 0.9**t))),
        (heavy_ball(0.1, decay=0.9), lambda t: t - 9 * (1 - 0.9**t)),
        (adagrad(0.1), lambda t: 0.1 * sum(np.arange(1, t + 1) ** -0.5)),
        (
            rmsprop(0.1, decay=0.9),
            lambda t: 0.1 * sum((1 - 0.9 ** np.arange(1, t + 1)) ** -0.5),
        ),
        (adam(0.1), lambda t: 0.1 * t),
    ],
    ids=["momentum", "heavy_ball", "adagrad", "rmsprop", "adam"],
)
@pytest.mark.parametrize("count", [1, 7])
def test_constant_gradient_has_its_closed_form(rule, steps, count):
    moved = displacement(rule, np.ones((count, 1)), np.zeros(1))
    # adam's 1 − b2 = 0.001 is rounded to a relative 6e-5 twice, halved by the root.
    np.testing.assert_allclose(moved, [-steps(count)], rtol=1e-4)


def test_ema_form_is_heavy_ball_at_scaled_rate():
    gradients = np.random.default_rng(1).normal(size=(STEPS, 5))
    ema = displacement(momentum(0.1, decay=0.9), gradients, np.zeros(5))
    ball = displacement(heavy_ball(0.1 * (1 - 0.9), decay=0.9), gradients, np.zeros(5))
    np.testing.assert_allclose(ema, ball, rtol=0, atol=20 * STEPS * EPS32 * np.abs(ball).max())


def test_without_weight_decay_adamw_is_adam_bit_for_bit():
    gradients = np.random.default_rng(2).normal(size=(STEPS, 5))
    with_decay = displacement(adamw(0.1, weight_decay=0.0), gradients, np.ones(5))
    np.testing.assert_array_equal(with_decay, displacement(adam(0.1), gradients, np.ones(5)))


def test_without_decay_every_momentum_is_sgd_bit_for_bit():
    gradients = np.random.default_rng(3).normal(size=(STEPS, 5))
    expected = displacement(sgd(0.1), gradients, np.ones(5))
    for rule in (momentum, heavy_ball, nesterov):
        np.testing.assert_array_equal(
            displacement(rule(0.1, decay=0.0), gradients, np.ones(5)), expected
        )


@pytest.mark.parametrize(("factor", "stable"), [(0.98, True), (1.02, False)])
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_ema_form_is_stable_up_to_its_limit(decay, factor, stable):
    # On ½w² the characteristic roots leave the unit circle at h = 2(1+γ)/(1−γ).
    rule = momentum(factor * 2 * (1 + decay) / (1 - decay), decay=decay)

    def step(_, carry):
        params, state = carry
        updates, state = rule.update(params, state, params)
        return optax.apply_updates(params, updates), state

    start = jnp.ones(1)
    final, _ = jax.jit(lambda: jax.lax.fori_loop(0, 2000, step, (start, rule.init(start))))()
    assert (float(jnp.abs(final[0])) < 1e-3) == stable


def test_zero_gradient_moves_nothing():
    for name in RULES.keys() - {"adamw"}:
        moved = displacement(make_rule(name, learning_rate=0.1), np.zeros((3, 2)), np.ones(2))
        np.testing.assert_array_equal(moved, 0.0)


def test_schedule_counts_updates_from_zero():
    schedule = optax.piecewise_constant_schedule(1.0, {1: 0.5, 3: 0.0})
    for rule in (sgd(schedule), momentum(schedule, decay=0.0), heavy_ball(schedule, decay=0.0)):
        moved = displacement(rule, np.ones((5, 1)), np.zeros(1))
        np.testing.assert_array_equal(moved, -(1.0 + 0.5 + 0.5))


def test_traced_hyperparameters_map_over_a_sweep():
    rates, decays = jnp.asarray([0.1, 0.3]), jnp.asarray([0.5, 0.9])
    gradient = jnp.asarray([1.0, -2.0])

    def first_step(rate, decay):
        rule = momentum(rate, decay=decay)
        return rule.update(gradient, rule.init(gradient))[0]

    swept = jax.jit(jax.vmap(first_step))(rates, decays)
    expected = -rates[:, None] * (1 - decays[:, None]) * gradient[None, :]
    chex.assert_trees_all_close(swept, expected, rtol=4 * EPS32)
