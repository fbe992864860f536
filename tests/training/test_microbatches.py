"""A gradient in parts, one after another, is the gradient, in less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgdlab import rules, tasks, timelines, training
from sgdlab.training.gradients import accumulate

WIDTH, ROWS, DEPTH = 32, 256, 8


def deep(params, batch, key):
    """A loss with DEPTH activations `[B, WIDTH]` to keep; its key shifts every row."""

    def loss(params):
        hidden = batch["x"] if key is None else batch["x"] + jax.random.normal(key)
        for kernel in params:
            hidden = jnp.tanh(hidden @ kernel)
        return jnp.mean(jnp.square(hidden)), {"size": jnp.mean(jnp.abs(hidden))}

    return jax.value_and_grad(loss, has_aux=True)(params)


@pytest.fixture(scope="module")
def problem():
    draw = np.random.default_rng(0).standard_normal
    params = [draw((WIDTH, WIDTH), np.float32) / WIDTH**0.5 for _ in range(DEPTH)]
    return params, {"x": draw((ROWS, WIDTH), np.float32)}


def test_the_parts_add_up_to_the_whole(problem):
    whole = jax.jit(deep)(*problem, None)
    parts = jax.jit(accumulate(deep, 8))(*problem, None)
    for one, other in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        # float32 means over 256 rows, added in another order
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_activations_are_those_of_one_part(problem):
    def held(local):
        return jax.jit(local).lower(*problem, None).compile().memory_analysis().temp_size_in_bytes

    activations = DEPTH * ROWS * WIDTH * 4
    gradient = DEPTH * WIDTH * WIDTH * 4
    assert held(deep) >= activations
    # an eighth of them, beside the batch in its parts, the sum and one part's gradient
    assert held(accumulate(deep, 8)) <= activations / 4 + ROWS * WIDTH * 4 + 3 * gradient


def test_each_part_takes_every_kth_row_and_a_key_of_its_own(problem):
    params, batch = problem
    key = jax.random.key(5)
    (loss, _), _ = accumulate(deep, 4)(params, batch, key)
    each = [
        deep(params, {"x": batch["x"][i::4]}, jax.random.fold_in(key, i))[0][0] for i in range(4)
    ]
    np.testing.assert_allclose(loss, np.mean(each), rtol=1e-6)


def test_a_16_bit_gradient_is_added_up_in_32_bits():
    """256 times 1 + 2⁻⁷ in bfloat16's own sums would stall at 256, where its spacing is 2."""

    def local(params, batch, key):
        return (jnp.float32(0), {}), jnp.sum(batch).astype(jnp.bfloat16)

    batch = np.full(512, 1 + 2**-7, np.float32) / 2
    _, gradient = accumulate(local, 256)(jnp.bfloat16(0), batch, None)
    assert gradient.dtype == jnp.bfloat16
    assert float(gradient) == 1 + 2**-7


def test_a_replay_in_microbatches_is_the_replay():
    task, timeline = tasks.digits(hidden=[16]), timelines.fixed_delay(2, updates=10)
    whole, parts = (
        training.replay(task, rules.sgd(0.1), timeline, microbatches=count) for count in (None, 4)
    )
    np.testing.assert_allclose(parts.loss, whole.loss, rtol=1e-5)
    assert not np.array_equal(parts.loss, whole.loss)


def test_rows_that_do_not_divide_are_refused():
    task, timeline = tasks.digits(hidden=[16]), timelines.fixed_delay(0, updates=1)
    with pytest.raises(ValueError, match="32 rows can't be cut into 5 each; .* can: 30 or 35"):
        training.replay(task, rules.sgd(0.1), timeline, microbatches=5)
