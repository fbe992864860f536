"""Facts of compressed messages: what a compressor keeps, and that error feedback loses nothing."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgdlab.workers import compressed, gradient, quantize, scaled_sign, sign, top_k

COMPRESSORS = {
    "top_k": top_k(k=2),
    "sign": sign(),
    "scaled_sign": scaled_sign(),
    "quantize": quantize(3),
}


top_k_jitted = jax.jit(lambda x, k: top_k(k=k).compress(x, None), static_argnums=1)


def leaves():
    elements = st.floats(-100, 100, width=32, allow_subnormal=False)
    shapes = st.sampled_from([(7,), (2, 3)])
    return hnp.arrays(np.float32, shapes, elements=elements)


@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(leaves(), st.sampled_from([1, 3, 10]))
def test_top_k_keeps_exactly_the_k_largest_magnitudes(x, k):
    x = np.where(x == 0, np.float32(1), x)  # so that what is kept can be counted
    sent = np.asarray(top_k_jitted(x, k))
    kept = sent != 0
    assert np.count_nonzero(kept) == min(k, x.size)
    np.testing.assert_array_equal(sent[kept], x[kept])
    if not kept.all():
        assert np.abs(x[kept]).min() >= np.abs(x[~kept]).max()


def test_top_k_of_equal_magnitudes_keeps_the_first():
    sent = top_k(k=2).compress(jnp.array([1.0, -1.0, 1.0, -1.0]), None)
    np.testing.assert_array_equal(sent, [1.0, -1.0, 0.0, 0.0])


def test_top_k_fraction_counts_each_leaf_and_keeps_at_least_one():
    tree = {"matrix": jnp.arange(1.0, 101.0).reshape(10, 10), "bias": jnp.arange(1.0, 4.0)}
    sent = top_k(fraction=0.05).compress(tree, None)
    assert int(jnp.count_nonzero(sent["matrix"])) == 5
    np.testing.assert_array_equal(sent["bias"], [0.0, 0.0, 3.0])


@pytest.mark.parametrize(("fraction", "kept"), [(0.29, 29), (0.254, 25), (0.256, 26)])
def test_top_k_keeps_the_nearest_number_to_its_fraction(fraction, kept):
    # 0.29 · 100 is 28.999999999999996 in binary.
    sent = top_k(fraction=fraction).compress(jnp.arange(1.0, 101.0), None)
    assert int(jnp.count_nonzero(sent)) == kept


def test_signs_are_signs_and_scaled_signs_keep_the_mean_magnitude():
    p = jnp.array([3.0, -1.0, 0.0, 4.0])
    np.testing.assert_array_equal(sign().compress(p, None), [1.0, -1.0, 0.0, 1.0])
    np.testing.assert_array_equal(scaled_sign().compress(p, None), [2.0, -2.0, 0.0, 2.0])


@pytest.mark.parametrize("bits", [2, 8])
def test_quantisation_is_unbiased_on_its_levels_and_its_error_is_below_one_level(bits):
    p = jnp.array([1.0, -0.7, 0.3, 0.1, -0.01, 0.0])
    draws, levels = 4000, 2 ** (bits - 1) - 1
    keys = jax.random.split(jax.random.key(bits), draws)
    compress = jax.jit(jax.vmap(quantize(bits).compress, in_axes=(None, 0)))
    sent = np.asarray(compress(p, keys), np.float64)
    unit = 1.0 / levels
    np.testing.assert_allclose(sent / unit, np.round(sent / unit), atol=levels * 2**-22)
    assert np.abs(sent - np.asarray(p)).max() < unit * (1 + 2**-20)
    # A draw's variance is at most (unit/2)²: five standard deviations of the mean.
    np.testing.assert_allclose(sent.mean(axis=0), p, atol=5 * unit / 2 / np.sqrt(draws))


def test_quantisation_of_a_zero_leaf_is_zero_and_leaves_draw_apart():
    tree = {"a": jnp.full(64, 0.5), "b": jnp.full(64, 0.5), "top": jnp.zeros(3)}
    tree = {**tree, "a": tree["a"].at[0].set(1.0), "b": tree["b"].at[0].set(1.0)}
    sent = jax.jit(quantize(2).compress)(tree, jax.random.key(0))
    np.testing.assert_array_equal(sent["top"], np.zeros(3))
    assert not np.array_equal(sent["a"], sent["b"])


@pytest.mark.parametrize("name", COMPRESSORS)
def test_compressors_keep_shapes_and_dtypes(name):
    shapes, dtypes = [(), (0,), (4,), (2, 3)], [jnp.float32, jnp.bfloat16]
    tree = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes for dtype in dtypes]
    sent = jax.eval_shape(COMPRESSORS[name].compress, tree, jax.random.key(0))
    assert sent == tree


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("name", COMPRESSORS)
def test_what_is_not_finite_stays_visible_in_the_message(name, bad):
    sent = COMPRESSORS[name].compress(jnp.array([1.0, bad, 2.0]), jax.random.key(0))
    assert not np.isfinite(sent).all()


def given_gradients(params, batch, key):
    """The batch's mean is the gradient: a loss that is linear in the parameters."""
    del key
    return (jnp.sum(params * jnp.mean(batch, axis=0)), {}), jnp.mean(batch, axis=0)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_error_feedback_conserves_the_sum_of_gradients_one_message_an_update(name):
    workers, dim, updates, rate = 3, 5, 40, 0.1
    program = compressed(gradient(), COMPRESSORS[name])
    draw = np.random.default_rng(1)
    gradients = draw.normal(size=(updates, 1, 1, dim)).astype(np.float32)
    w = start = jnp.asarray(draw.normal(size=dim).astype(np.float32))
    states = [program.init(w) for _ in range(workers)]
    compute = jax.jit(lambda w, s, g, k: program.compute(given_gradients, w, s, g, k))
    keys = jax.random.split(jax.random.key(0), updates)
    for u in range(updates):
        message, states[u % workers], _ = compute(w, states[u % workers], gradients[u], keys[u])
        w = w - rate * message
    left = np.asarray(w) - rate * sum(np.float64(state.error) for state in states)
    right = np.asarray(start) - rate * gradients.astype(np.float64).sum(axis=(0, 1, 2))
    # 3·40 roundings of numbers below 16 (half a unit is 2⁻²¹), times the rate at most: below 1e-5.
    np.testing.assert_allclose(left, right, atol=1e-5)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_error_feedback_conserves_the_sum_of_mean_gradients_of_all_workers(name):
    workers, dim, updates, rate = 4, 5, 40, 0.1
    program = compressed(gradient(), COMPRESSORS[name])
    draw = np.random.default_rng(2)
    gradients = draw.normal(size=(updates, workers, 1, 1, dim)).astype(np.float32)
    w = start = jnp.asarray(draw.normal(size=dim).astype(np.float32))
    state = jax.vmap(lambda _: program.init(w))(jnp.arange(workers))

    def one(w, state, batches, key):
        return program.compute(given_gradients, w, state, batches, key)[:2]

    compute = jax.jit(jax.vmap(one, in_axes=(None, 0, 0, 0)))
    keys = jax.random.split(jax.random.key(0), (updates, workers))
    for u in range(updates):
        messages, state = compute(w, state, gradients[u], keys[u])
        w = w - rate * jnp.mean(messages, axis=0)
    left = np.asarray(w) - rate / workers * np.float64(state.error).sum(axis=0)
    right = np.asarray(start) - rate * gradients.astype(np.float64).mean(axis=1).sum(axis=(0, 1, 2))
    np.testing.assert_allclose(left, right, atol=1e-5)


def test_without_error_feedback_what_is_lost_stays_lost():
    program = compressed(gradient(), top_k(k=1), error_feedback=False)
    batches = jnp.array([[[1.0, 2.0]]])
    message, state, _ = program.compute(given_gradients, jnp.zeros(2), (), batches, None)
    np.testing.assert_array_equal(message, [0.0, 2.0])
    assert state == ()


def test_error_feedback_takes_up_the_rounding_of_a_16_bit_message():
    program = compressed(gradient(), top_k(fraction=1.0))
    w = jnp.zeros(1, jnp.bfloat16)
    error = jnp.array([2.0**-12])  # half a unit of 1 in bfloat16 is 2⁻⁹: lost in the message
    state = program.init(w)._replace(error=error)
    message, state, _ = program.compute(
        given_gradients, w, state, jnp.ones((1, 1, 1), jnp.bfloat16), None
    )
    assert message.dtype == jnp.bfloat16
    np.testing.assert_array_equal(message.astype(jnp.float32), [1.0])
    np.testing.assert_array_equal(state.error, error)


@pytest.mark.parametrize(
    ("compressor", "feedback", "limit"),
    [(sign(), False, 1.0), (sign(), True, -1.0), (scaled_sign(), True, -1.0)],
    ids=["sign", "sign with feedback", "scaled sign with feedback"],
)
def test_sign_goes_to_the_wrong_end_and_error_feedback_to_the_right_one(
    compressor, feedback, limit
):
    """Two copies of g ∈ {4 w.p. ¼, −1 w.p. ¾} on [−1, 1]: E[g] = ¼ > 0, so the optimum is −1.

    The sign moves up with probability ¾: a drift of +η/2. With feedback the sum of what was sent
    follows the sum of the gradients, a drift of −η/4. Against the wall, steps of variance v and
    drift m keep a mean distance of ηv/2m: (16/4 + 3/4)η/(1/2) = 0.02 at η = 2⁻⁹; 0.1 is five times.
    """
    updates, rate = 16_000, 2.0**-9
    program = compressed(gradient(), compressor, feedback)
    large = np.random.default_rng(5).random((updates, 2)) < 0.25
    gradients = jnp.where(large, 4.0, -1.0).astype(jnp.float32)

    def step(carry, g):
        w, state = carry
        message, state, _ = program.compute(given_gradients, w, state, g[None, None], None)
        w = jnp.clip(w - rate * message, -1.0, 1.0)
        return (w, state), w

    w = jnp.zeros(2)
    _, path = jax.jit(lambda: jax.lax.scan(step, (w, program.init(w)), gradients))()
    np.testing.assert_allclose(np.asarray(path[updates // 2 :]).mean(axis=0), limit, atol=0.1)


def test_a_drawing_compressor_without_a_key_is_refused_in_one_line():
    program = compressed(gradient(), quantize(4))
    assert program.needs_key
    w = jnp.zeros(2)
    with pytest.raises(ValueError, match=r"^compressed: .*key is None$"):
        program.compute(given_gradients, w, program.init(w), jnp.ones((1, 1, 2)), None)


@pytest.mark.parametrize(
    ("make", "pattern"),
    [
        (lambda: top_k(), r"^top_k: .*exactly one"),
        (lambda: top_k(fraction=0.1, k=1), r"^top_k: .*exactly one"),
        (
            lambda: top_k(fraction=0.0),
            r"^top_k: fraction is 0.0; allowed: .*> 0 and <= 1 or none$",
        ),
        (lambda: top_k(k=0), r"^top_k: k is 0; allowed: an integer >= 1 or none$"),
        (lambda: quantize(1), r"^quantize: bits is 1; allowed: an integer >= 2 and <= 16$"),
    ],
)
def test_arguments_out_of_range_are_refused_in_one_line(make, pattern):
    with pytest.raises(ValueError, match=pattern) as caught:
        make()
    assert "\n" not in str(caught.value)


def descend(program, gradient_row, updates, rate=1.0):
    """The parameters and the worker's state after `updates` messages of one gradient."""
    w = jnp.zeros(len(gradient_row))
    state, batches = program.init(w), jnp.asarray(gradient_row, jnp.float32)[None, None]
    compute = jax.jit(lambda w, s, k: program.compute(given_gradients, w, s, batches, k)[:2])
    for key in jax.random.split(jax.random.key(0), updates):
        message, state = compute(w, state, key)
        w = w - rate * message
    return np.asarray(w, np.float64), state


def test_under_a_schedule_the_rate_stands_inside_the_feedback():
    # η = 1/t from t = 1, the larger of two coordinates, g = (1, 0.9). p = (1, .9) sends 1; then
    # (.5, 1.35) sends 1.35; (.8333, .3) sends .8333; (.25, .525) sends .525.
    program = compressed(gradient(), top_k(k=1), learning_rate=lambda count: 1.0 / (count + 1.0))
    w, state = descend(program, [1.0, 0.9], 4)
    np.testing.assert_allclose(w, [-1.0 - 5 / 6, -1.35 - 0.525], atol=2.0**-20)
    exact = -(1 + 1 / 2 + 1 / 3 + 1 / 4) * np.array([1.0, 0.9])
    np.testing.assert_allclose(w - np.asarray(state.error), exact, atol=2.0**-20)
    assert int(state.messages) == 4


@pytest.mark.parametrize("name", COMPRESSORS)
def test_with_a_schedule_nothing_is_lost_whatever_the_rates(name):
    rates = np.array([0.5, 0.5, 0.1, 0.1, 0.02, 0.3], np.float32)
    program = compressed(
        gradient(), COMPRESSORS[name], learning_rate=lambda count: jnp.asarray(rates)[count]
    )
    row = np.array([1.0, -0.7, 0.2, 0.05])
    w, state = descend(program, row, len(rates))
    np.testing.assert_allclose(w - np.asarray(state.error), -rates.sum() * row, atol=1e-5)


@pytest.mark.parametrize("name", COMPRESSORS)
@pytest.mark.parametrize("feedback", [True, False])
def test_a_constant_rate_inside_is_the_same_rate_outside(name, feedback):
    row, rate = [1.0, -0.7, 0.2, 0.05], 0.25  # a power of two, so that it rounds nothing
    inside = compressed(gradient(), COMPRESSORS[name], feedback, learning_rate=rate)
    outside = compressed(gradient(), COMPRESSORS[name], feedback)
    np.testing.assert_array_equal(
        descend(inside, row, 5)[0], descend(outside, row, 5, rate=rate)[0]
    )


def test_a_rate_that_falls_spoils_the_feedback_that_is_in_gradient_units():
    """What was lost at a large rate is sent at a small one: that is why `learning_rate` is there.

    The second coordinate, 0.9, waits for its turn at the rate 1 and is sent at 1/2.
    """
    program = compressed(gradient(), top_k(k=1))
    w, state = jnp.zeros(2), program.init(jnp.zeros(2))
    batches = jnp.array([[[1.0, 0.9]]])
    for rate in (1.0, 0.5):
        message, state, _ = program.compute(given_gradients, w, state, batches, None)
        w = w - rate * message
    np.testing.assert_allclose(w, [-1.0, -0.9], atol=2.0**-22)  # exact SGD is at (−1.5, −1.35)
    np.testing.assert_allclose(state.error, [1.0, 0.0], atol=2.0**-22)  # and 1/2 of it is ½ only


def test_a_scheduled_step_keeps_the_dtype_of_the_parameters():
    program = compressed(
        gradient(), scaled_sign(), error_feedback=False, learning_rate=lambda count: 0.5
    )
    w = jnp.zeros(2, jnp.bfloat16)
    message, state, _ = program.compute(
        given_gradients, w, program.init(w), jnp.ones((1, 1, 2), jnp.bfloat16), None
    )
    assert message.dtype == jnp.bfloat16
    np.testing.assert_array_equal(message.astype(jnp.float32), 0.5)
    assert state.error == ()
