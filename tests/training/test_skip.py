"""A message that is not finite is left out of its mean, whatever the form of a replay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgdlab import rules, tasks, training, workers
from sgdlab.precision import DynamicLossScale
from sgdlab.training import replaying
from tests.training.leaving_out import CASES, check, options_of


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    "precision", ["float32", pytest.param("mixed_float16", marks=pytest.mark.slow)]
)
def test_a_bad_worker_is_left_out_and_the_others_are_not(name, precision):
    check(name, precision)


@pytest.mark.parametrize("name", CASES)
def test_every_case_has_the_form_that_it_is_named_for(name):
    arguments, options = options_of(name, "float32")
    assert replaying.prepare(*arguments, **options).program.form == CASES[name][-1]


def test_a_mean_by_worker_is_over_what_is_left_of_each(handmade):
    """Update 1 has two messages of worker 0, of which one was computed at version 0 and is not
    finite there, and two of worker 1: each worker still has half of the say."""
    targets = {"x": np.array([[1.0], [3.0]], np.float32)}

    def loss(params, batch, key):
        bad = jnp.any(params == 0) & jnp.any(batch["x"] == 1.0)
        return jnp.where(bad, jnp.inf, 1.0) * jnp.mean((params[None] - batch["x"]) ** 2) / 2, {}

    task = tasks.Task("bad-at-0", lambda key: jnp.zeros(1), loss, train=targets, test=targets)
    timeline = handmade(
        [1, 0, 0, 1, 1], [0, 0, 1, 1, 1], [0, 1, 1, 1, 1], average="workers", workers=2
    )
    history = training.replay(
        task,
        rules.sgd(0.5),
        timeline,
        partition=[np.array([0]), np.array([1])],
        batch_size=1,
        on_nonfinite="skip",
    )
    first = 0.5 * 3.0
    mean = ((first - 1.0) + (first - 3.0)) / 2
    np.testing.assert_array_equal(history.params, [first - 0.5 * mean])
    np.testing.assert_array_equal(history.skipped, [0, 1])


def test_what_receive_makes_of_a_message_may_be_out_of_range_too(handmade):
    """Worker 1's message, 2⁷⁰, is finite and its square is not."""
    square = optax.stateless(lambda updates, params: jax.tree.map(jnp.square, updates))
    history = training.replay(
        tasks.quadratic(curvature=1.0, start=0.0, targets=[[2.0], [-(2.0**70)]]),
        rules.sgd(0.25),
        handmade([0, 1], [0, 0], [0, 0]),
        receive=square,
        partition=[np.array([0]), np.array([1])],
        batch_size=1,
        on_nonfinite="skip",
    )
    np.testing.assert_array_equal(history.params, [-0.25 * 2.0**2])
    np.testing.assert_array_equal(history.skipped, [1])


@pytest.mark.parametrize(
    "worker", [workers.gradient(), workers.local_steps(1, rules.sgd(1.0))], ids=["fused", "mapped"]
)
def test_a_scale_is_halved_for_the_messages_of_its_own_worker(handmade, worker):
    """Worker 0's gradient, 120·S, fits into float16 up to S = 2⁹: 2¹¹ and 2¹⁰ are too much, though
    the mean of both workers' would fit at 2¹⁰. Worker 1 alone moves w by (1 − w)/4, twice."""
    history = training.replay(
        tasks.quadratic(curvature=1.0, start=0.0, targets=[[120.0], [1.0]]),
        rules.sgd(0.25),
        handmade([0, 1, 0, 1], [0, 0, 1, 1], [0, 0, 1, 1]),
        worker=worker,
        partition=[np.array([0]), np.array([1])],
        batch_size=1,
        precision="mixed_float16",
        loss_scale=DynamicLossScale(2.0**11),
    )
    np.testing.assert_array_equal(history.skipped, [1, 1])
    np.testing.assert_array_equal(history.loss_scale.loss_scale, [2.0**9, 2.0**11])
    np.testing.assert_array_equal(history.params, [0.25 + 0.75 / 4])


def test_a_worker_with_two_messages_in_an_update_has_its_scale_from_the_first(handmade):
    """Its gradient, 60·S, fits into float16 up to S = 2¹⁰: at 2¹¹ the first message overflows, and
    the second, at the same version, is computed at the half."""
    history = training.replay(
        tasks.quadratic(curvature=1.0, start=0.0, targets=[[60.0], [60.0]]),
        rules.sgd(0.25),
        handmade([0, 0], [0, 0], [0, 0], workers=1),
        batch_size=1,
        precision="mixed_float16",
        loss_scale=DynamicLossScale(2.0**11),
    )
    np.testing.assert_array_equal(history.skipped, [1])
    np.testing.assert_array_equal(history.params, [0.25 * 60.0])
    np.testing.assert_array_equal(history.loss_scale.loss_scale, [2.0**10])
