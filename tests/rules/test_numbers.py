"""A number has the same effect however it enters a rule: from Python or as a mapped array."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgdlab.rules import update_rules
from sgdlab.rules.table import RULES

RATES = {"heavy_ball": 0.02, "nesterov": 0.02, "rmsprop": 0.003, "adam": 0.003, "adamw": 0.003}
TARGETS = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)


def numbers_of(name):
    """Every hyperparameter of the rule."""
    parameters = inspect.signature(getattr(update_rules, name)).parameters
    defaults = {key: each.default for key, each in parameters.items()}
    return defaults | {"learning_rate": RATES.get(name, 0.1)}


def descend(rule, dtype=jnp.float32):
    """Twenty steps towards as many targets in turn."""

    def step(carry, target):
        w, state = carry
        updates, state = rule.update(w - target, state, w)
        return (w + updates, state), None

    start = jnp.ones(3, dtype)
    targets = jnp.asarray(TARGETS, dtype)
    return jax.lax.scan(step, (start, rule.init(start)), targets)[0][0]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
def test_python_numbers_and_arrays_give_the_same_bits(name, dtype):
    make, numbers = getattr(update_rules, name), numbers_of(name)
    with jax.numpy_dtype_promotion("standard"):
        from_python = jax.jit(lambda: descend(make(**numbers), dtype))()
        arrays = {key: jnp.float32(value) for key, value in numbers.items()}
        mapped = jax.jit(lambda arrays: descend(make(**arrays), dtype))(arrays)
    assert np.asarray(from_python).tobytes() == np.asarray(mapped).tobytes()
    assert from_python.dtype == dtype


@pytest.mark.parametrize("name", ["adagrad", "rmsprop", "adam", "adamw"])
def test_a_gradient_of_zero_moves_nothing_in_float16(name):
    """ε = 10⁻⁸ is 0 in float16, where 0/(0 + ε) would not be a number."""
    rule, w = getattr(update_rules, name)(0.1), jnp.zeros(2, jnp.float16)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = rule.update(jnp.zeros_like(w), rule.init(w), w)
    np.testing.assert_array_equal(updates, 0.0)
