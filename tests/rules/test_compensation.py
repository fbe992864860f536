"""Delay compensation and gap awareness where the truth is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgdlab.rules import compensate_delay, gap_aware

EPS32 = float(np.finfo(np.float32).eps)
TRANSFORMS = {
    "constant": compensate_delay(0.5),
    "adaptive": compensate_delay(0.5, adaptive=True),
    "gap_aware": gap_aware(0.1),
    "gap_aware with momentum": gap_aware(0.1, decay=0.9),
}


def run(transform, messages, params, stale_params):
    """The transform over messages [T, d], each with its own params and stale_params [T, d]."""
    state = transform.init(jnp.asarray(params[0], jnp.float32))

    def step(state, inputs):
        message, w, stale = inputs
        updates, state = transform.update(message, state, w, stale_params=stale)
        return state, updates

    inputs = tuple(jnp.asarray(each, jnp.float32) for each in (messages, params, stale_params))
    return jax.jit(lambda: jax.lax.scan(step, state, inputs)[1])()


@pytest.mark.parametrize("name", TRANSFORMS)
def test_no_gap_is_the_identity_bit_for_bit(name):
    messages = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    params = np.random.default_rng(1).normal(size=(5, 7))
    np.testing.assert_array_equal(run(TRANSFORMS[name], messages, params, params), messages)


def test_no_gap_is_the_identity_where_the_square_overflows():
    huge = np.full((1, 1), 3e38)
    np.testing.assert_array_equal(
        run(compensate_delay(1.0), huge, [[1.0]], [[1.0]]), np.float32(huge)
    )


def test_with_the_exact_curvature_delay_vanishes_on_a_quadratic():
    # On ½Σλw² the gradient at w is g + λ(w − w_read); λ_c = λ/g² makes λ_c·g⊙g the Hessian.
    curvature = jnp.asarray([1.0, 0.5, 0.25])
    path = [jnp.asarray([1.0, -2.0, 3.0])] * 4
    plain = path[0]
    for _ in range(20):
        stale, w = path[-4], path[-1]
        message = curvature * stale
        transform = compensate_delay(curvature / message**2)
        updates, _ = transform.update(message, transform.init(w), w, stale_params=stale)
        path.append(w - 0.3 * updates)
        plain = plain - 0.3 * curvature * plain
    # The sum cancels: what is left carries the rounding of the largest iterate that went in.
    np.testing.assert_allclose(path[-1], plain, rtol=0, atol=20 * 8 * EPS32 * 3.0)


def test_epsilon_stands_inside_the_root():
    # m = 0 leaves MS = g² = 1, so λ = 2/√(1 + 3) = 1; outside the root it would be 2/(1 + √3).
    transform, w = compensate_delay(2.0, adaptive=True, decay=0.0, eps=3.0), jnp.ones(1)
    sent, _ = transform.update(jnp.ones(1), transform.init(w), w, stale_params=w - 0.5)
    np.testing.assert_array_equal(sent, [1.0 + 1.0 * 0.5])


@pytest.mark.parametrize("arguments", [{}, {"adaptive": True}])
def test_a_mean_square_per_worker_needs_to_know_how_many(arguments):
    with pytest.raises(ValueError, match="per_worker") as error:
        compensate_delay(per_worker=True, **arguments)
    assert "\n" not in str(error.value)


def test_workers_with_gradients_of_their_own_scale_have_mean_squares_of_their_own():
    # Worker 0 sends 10 and worker 1 sends 0.1, in turn: MS₁ is 0.01·(1 − m^k) all the same.
    transform = compensate_delay(
        1.0, adaptive=True, decay=0.5, eps=1e-10, per_worker=True, num_workers=2
    )
    state, w = transform.init(jnp.zeros(1)), jnp.ones(1)
    for k in range(1, 4):
        for worker, g in ((0, 10.0), (1, 0.1)):
            sent, state = transform.update(
                jnp.full(1, g), state, w, stale_params=w - 1, worker=jnp.int32(worker)
            )
        expected = 0.1 + 0.01 / np.sqrt(0.01 * (1 - 0.5**k) + 1e-10)
        np.testing.assert_allclose(sent, expected, rtol=20 * EPS32)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_missing_trees_are_told_in_one_line(name):
    transform, w = TRANSFORMS[name], jnp.ones(2)
    state = transform.init(w)
    with pytest.raises(ValueError, match=r"needs stale_params=.*every update applies one message"):
        transform.update(w, state, w, staleness=jnp.int32(0))
    with pytest.raises(ValueError, match="needs the current parameters"):
        transform.update(w, state, None, stale_params=w)
