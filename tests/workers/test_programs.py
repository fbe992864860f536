"""Facts of what a worker sends: gradients, local steps, and their info."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgdlab.workers import compressed, gradient, local_steps, sign, top_k

STEPS, BATCH, DIM = 4, 8, 3


@jax.jit
def value_and_grad(params, batch, key):
    """Least squares on a tree of two leaves; with a key, noise on the gradient."""

    def loss(params, batch, key):
        noise = 0.0 if key is None else jnp.sum(params["w"] * jax.random.normal(key, (DIM,)))
        residual = batch["x"] @ params["w"] + params["b"] - batch["y"]
        return 0.5 * jnp.mean(residual**2) + noise, {}

    return jax.value_and_grad(loss, has_aux=True)(params, batch, key)


@pytest.fixture
def params():
    return {"w": jnp.array([0.5, -1.0, 2.0]), "b": jnp.float32(0.25)}


@pytest.fixture
def batches():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(STEPS, BATCH, DIM)).astype(np.float32)
    y = draw.normal(size=(STEPS, BATCH)).astype(np.float32)
    return {"x": jnp.asarray(x), "y": jnp.asarray(y)}


def first(batches, count=1):
    return jax.tree.map(lambda leaf: leaf[:count], batches)


def assert_close(left, right, atol=0.0):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol), left, right)


PROGRAMS = {
    "gradient": gradient(),
    "local_steps": local_steps(STEPS, optax.adamw(0.1)),
    "local_steps, state kept": local_steps(STEPS, optax.adamw(0.1), keep_state=True),
    "compressed": compressed(gradient(), top_k(k=1)),
    "compressed local steps": compressed(local_steps(STEPS, optax.sgd(0.1)), sign()),
    "compressed, error forgotten": compressed(gradient(), sign(), error_feedback=False),
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_message_and_state_keep_their_structure_shapes_and_dtypes(name, dtype, params, batches):
    program = PROGRAMS[name]
    params, batches = jax.tree.map(lambda leaf: leaf.astype(dtype), (params, batches))
    batches = first(batches, program.gradients_per_message)
    state = program.init(params)

    def specify(tree):
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)

    def compute(params, state, batches):
        return program.compute(value_and_grad, params, state, batches, None)

    message, new_state, info = jax.eval_shape(compute, params, state, batches)
    assert specify(message) == specify(params)
    assert specify(new_state) == specify(state)
    assert specify(info) == {"loss": ((), jnp.float32)}


@jax.debug_key_reuse(False)  # one key, two ways to the same number
def test_gradient_is_the_gradient_of_the_first_batch_under_the_key_itself(params, batches):
    key = jax.random.key(3)
    message, state, info = gradient().compute(value_and_grad, params, (), batches, key)
    batch = jax.tree.map(lambda leaf: leaf[0], batches)
    (loss, _), expected = value_and_grad(params, batch, key)
    assert_close(message, expected)
    assert state == ()
    assert info["loss"] == loss


def test_two_gradient_programs_are_equal_and_share_a_compile():
    assert gradient() == gradient()
    assert hash(gradient()) == hash(gradient())


@jax.debug_key_reuse(False)  # one key, two ways to the same number
def test_one_local_step_of_sgd_under_outer_sgd_of_rate_one_is_sgd(params, batches):
    program, rate = local_steps(1, optax.sgd(0.1)), 0.1
    key = jax.random.key(7)
    message, _, _ = program.compute(value_and_grad, params, (), first(batches), key)
    updates, _ = optax.sgd(1.0).update(message, optax.sgd(1.0).init(params))
    outer = optax.apply_updates(params, updates)
    plain, _, _ = gradient().compute(value_and_grad, params, (), first(batches), key)
    expected = jax.tree.map(lambda w, g: w - rate * g, params, plain)
    # Values below 4 and three roundings of half a unit in the last place (2⁻²³·2) each.
    assert_close(outer, expected, atol=3 * 2**-22)


def test_local_steps_of_sgd_descend_batch_by_batch(params, batches):
    rate = 0.05
    message, _, info = local_steps(STEPS, optax.sgd(rate)).compute(
        value_and_grad, params, (), batches, None
    )
    w, b = np.asarray(params["w"], np.float64), float(params["b"])
    losses = []
    for x, y in zip(np.float64(batches["x"]), np.float64(batches["y"]), strict=True):
        residual = x @ w + b - y
        losses.append(0.5 * np.mean(residual**2))
        w, b = w - rate * x.T @ residual / BATCH, b - rate * np.mean(residual)
    # About fifty float32 roundings of numbers below 8 in the chain of four steps.
    tolerance = 50 * 8 * 2**-24
    np.testing.assert_allclose(message["w"], np.asarray(params["w"]) - w, atol=tolerance)
    np.testing.assert_allclose(message["b"], float(params["b"]) - b, atol=tolerance)
    np.testing.assert_allclose(info["loss"], np.mean(losses), rtol=50 * 2**-24)


def test_each_local_step_draws_from_its_own_key(params, batches):
    key, rate = jax.random.key(1), 0.1
    still = jax.tree.map(jnp.zeros_like, batches)  # only the noise on w moves the parameters
    start = {"w": params["w"], "b": jnp.float32(0.0)}
    program = local_steps(2, optax.sgd(rate))
    message, _, _ = program.compute(value_and_grad, start, (), first(still, 2), key)
    noise = sum(jax.random.normal(jax.random.fold_in(key, h), (DIM,)) for h in range(2))
    np.testing.assert_allclose(message["w"], rate * noise, atol=2**-21)  # 2 roundings of |w| < 4


def test_kept_inner_state_continues_and_fresh_state_does_not(params, batches):
    early, late = (jax.tree.map(lambda leaf, h=h: leaf[h : h + 2], batches) for h in (0, 2))
    rule = optax.sgd(0.05, momentum=0.9)
    whole, _, _ = local_steps(4, rule).compute(value_and_grad, params, (), batches, None)

    def two_messages(keep_state):
        program = local_steps(2, rule, keep_state=keep_state)
        one, state, _ = program.compute(value_and_grad, params, program.init(params), early, None)
        read = jax.tree.map(jnp.subtract, params, one)  # the outer rule is SGD(1)
        two, _, _ = program.compute(value_and_grad, read, state, late, None)
        return jax.tree.map(jnp.add, one, two)

    assert_close(two_messages(keep_state=True), whole, atol=8 * 2**-22)  # roundings of |w| < 4
    fresh = two_messages(keep_state=False)
    assert float(jnp.max(jnp.abs(fresh["w"] - whole["w"]))) > 1e-3


def test_inner_rule_with_bias_correction_and_schedule_runs_under_strict_promotion(params, batches):
    rule = optax.adamw(optax.cosine_decay_schedule(0.1, 10))
    message, _, _ = local_steps(STEPS, rule).compute(value_and_grad, params, (), batches, None)
    # Adam's first step moves each weight by about the learning rate, against the gradient.
    assert float(jnp.max(jnp.abs(message["w"]))) > 0.05


@pytest.mark.parametrize("steps", [0, -1, 1.5, True])
def test_a_number_of_steps_that_is_not_a_positive_integer_is_refused(steps):
    with pytest.raises(ValueError, match=r"^local_steps: steps is .*; allowed: an integer >= 1$"):
        local_steps(steps, optax.sgd(0.1))
