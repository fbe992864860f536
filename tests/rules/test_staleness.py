"""The staleness weights against their formulas, in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st

from sgdlab.rules import (
    clip_by_delay,
    divide_by_staleness,
    drop_stale,
    hinge_staleness,
    make_receive,
    momentum,
    scale_by_staleness,
    scale_by_worker_delay,
    sgd,
)

EPS32 = float(np.finfo(np.float32).eps)

# name: (transform, its weight by the paper's formula)
WEIGHTS = {
    "polynomial": (scale_by_staleness(power=0.5), lambda tau: (1 + tau) ** -0.5),
    "inverse": (scale_by_staleness(), lambda tau: 1 / (1 + tau)),
    "hinge": (
        hinge_staleness(a=10.0, b=4.0),
        lambda tau: 1.0 if tau <= 4 else 1 / (10 * (tau - 4) + 1),
    ),
    "clipped": (clip_by_delay(6.5), lambda tau: min(1.0, 6.5 / tau) if tau else 1.0),
    "dropped": (clip_by_delay(6.5, drop=True), lambda tau: float(tau <= 6.5)),
    "divided": (divide_by_staleness(), lambda tau: 1 / max(tau, 1)),
    "bounded": (drop_stale(3), lambda tau: float(tau <= 3)),
}


def apply(transform, message, params=None, **extra):
    state = transform.init(message)
    return transform.update(message, state, params, **extra)[0]


def weight(transform, staleness):
    return float(apply(transform, jnp.ones(1), staleness=staleness)[0])


@pytest.mark.parametrize("name", WEIGHTS)
@settings(deadline=None, max_examples=30)
@given(staleness=st.integers(0, 10_000))
def test_weight_is_the_formula(name, staleness):
    transform, formula = WEIGHTS[name]
    # float32's power is good to a few units in the last place of its exponent log2(1+τ) < 14.
    expected = formula(staleness)
    assert weight(transform, jnp.int32(staleness)) == pytest.approx(expected, rel=16 * EPS32)


@pytest.mark.parametrize("name", WEIGHTS)
def test_mean_staleness_of_an_update_is_weighed_alike(name):
    transform, formula = WEIGHTS[name]
    for staleness in (0.5, 3.25, 4.5, 6.75):
        assert weight(transform, jnp.float32(staleness)) == pytest.approx(
            formula(staleness), rel=16 * EPS32
        )


@pytest.mark.parametrize("name", WEIGHTS)
def test_fresh_message_passes_bit_for_bit(name):
    messages = [jax.random.normal(jax.random.key(0), (50,), t) for t in (jnp.float32, jnp.bfloat16)]
    for kind in (jnp.int32, jnp.float32):
        fresh = apply(WEIGHTS[name][0], messages, staleness=kind(0))
        for out, message in zip(fresh, messages, strict=True):
            assert out.dtype == message.dtype
            np.testing.assert_array_equal(out, message)


def test_dropping_wipes_out_even_what_is_not_a_number():
    stale = apply(drop_stale(2), jnp.asarray([jnp.nan, jnp.inf]), staleness=jnp.int32(3))
    np.testing.assert_array_equal(stale, 0.0)


def test_hinge_falls_to_one_over_a_plus_one_beyond_the_bound():
    assert weight(hinge_staleness(a=3.0, b=5.0), jnp.int32(6)) == pytest.approx(0.25)


@settings(deadline=None, max_examples=20)
@given(messages=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 50)), min_size=1, max_size=12))
def test_worker_delay_is_the_running_mean_of_each_worker(messages):
    transform = scale_by_worker_delay(num_workers=3, power=0.5)
    state, seen = transform.init(jnp.ones(1)), {0: [], 1: [], 2: []}
    for worker, staleness in messages:
        scaled, state = transform.update(
            jnp.ones(1), state, None, staleness=jnp.int32(staleness), worker=jnp.int32(worker)
        )
        seen[worker].append(staleness)
        # One rounding of the mean a message, and the power's own.
        expected = (1 + np.mean(seen[worker])) ** -0.5
        assert float(scaled[0]) == pytest.approx(expected, rel=4 * (len(messages) + 4) * EPS32)
    np.testing.assert_array_equal(state.messages, [len(seen[i]) for i in range(3)])


def test_equal_deterministic_workers_are_weighed_by_a_constant():
    # N equal workers in turn: τ = N − 1 for every message once all have started.
    transform = scale_by_worker_delay(num_workers=4)
    state, weights = transform.init(jnp.ones(1)), []
    for message in range(12):
        scaled, state = transform.update(
            jnp.ones(1), state, None, staleness=jnp.int32(3), worker=jnp.int32(message % 4)
        )
        weights.append(float(scaled[0]))
    np.testing.assert_array_equal(weights, 0.25)


@pytest.mark.parametrize("transform", [t for t, _ in WEIGHTS.values()] + [scale_by_worker_delay(2)])
def test_a_missing_staleness_is_told_in_one_line(transform):
    with pytest.raises(
        ValueError, match=r"needs staleness=, which is available in receive"
    ) as error:
        apply(transform, jnp.ones(1), worker=jnp.int32(0))
    assert "\n" not in str(error.value)


def test_a_missing_worker_is_told_in_one_line():
    with pytest.raises(ValueError, match=r"needs worker=.*in rule where every update applies one"):
        apply(scale_by_worker_delay(2), jnp.ones(1), staleness=jnp.int32(0))


def test_weights_chain_with_rules_and_with_stock_optax():
    message = jnp.asarray([3.0, 4.0])
    rule = optax.chain(
        optax.clip_by_global_norm(1.0), scale_by_staleness(power=1.0), momentum(0.1, decay=0.9)
    )
    updates = apply(rule, message, message, staleness=jnp.float32(1.0))
    np.testing.assert_allclose(updates, -0.1 * (1 - 0.9) * 0.5 * message / 5, rtol=10 * EPS32)


def test_powers_map_over_a_sweep():
    powers = jnp.asarray([0.0, 1.0, 2.0])
    swept = jax.vmap(lambda a: apply(scale_by_staleness(a), jnp.ones(1), staleness=jnp.int32(1)))(
        powers
    )
    np.testing.assert_allclose(swept[:, 0], [1.0, 0.5, 0.25], rtol=4 * EPS32)


def test_bounds_map_over_a_sweep():
    bounds = jnp.asarray([1.0, 2.0, 3.0])
    swept = jax.vmap(lambda b: apply(drop_stale(b), jnp.ones(1), staleness=jnp.int32(2)))(bounds)
    np.testing.assert_array_equal(swept[:, 0], [0.0, 1.0, 1.0])


def test_weighing_inside_a_linear_rule_is_weighing_at_the_door():
    message = jnp.asarray([1.0, -2.0])
    inside = apply(optax.chain(scale_by_staleness(), sgd(0.5)), message, staleness=jnp.int32(3))
    received = apply(
        make_receive([{"name": "scale_by_staleness"}]), message, staleness=jnp.int32(3)
    )
    np.testing.assert_array_equal(inside, apply(sgd(0.5), received))
