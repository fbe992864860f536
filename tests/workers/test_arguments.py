"""Worker programs and compressors: a NumPy user's arguments are taken, or refused by their name."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgdlab import rules, workers

made: Any = workers  # what a type checker would tell, before the call is made
RULE = optax.sgd(0.1)
PARAMS = jnp.array([1.0, -2.0, 3.0, -4.0])


@pytest.mark.parametrize("number", [np.int64, np.uint8, np.array, jnp.int32])
def test_numpys_whole_numbers_are_whole_numbers(number):
    steps = made.local_steps(number(3), RULE, keep_state=np.bool_(True))
    assert type(steps.gradients_per_message) is int
    assert steps.gradients_per_message == 3
    key = jax.random.key(0)
    for one, other in [
        (made.quantize(number(4)), made.quantize(4)),
        (made.top_k(k=number(2)), made.top_k(k=2)),
    ]:
        np.testing.assert_array_equal(one.compress(PARAMS, key), other.compress(PARAMS, key))


@pytest.mark.parametrize("number", [np.float32, np.array, jnp.float32])
def test_numpys_numbers_are_numbers(number):
    kept = made.top_k(number(0.5)).compress(PARAMS, None)
    np.testing.assert_array_equal(kept, [0, 0, 3, -4])
    program = made.compressed(made.gradient(), made.sign(), False, number(0.5))
    message = program.compute(lambda w, *_: ((w[0], {}), w), PARAMS, (), PARAMS[None], None)[0]
    np.testing.assert_array_equal(message, [0.5, -0.5, 0.5, -0.5])


GRADIENT, SIGN = workers.gradient(), workers.sign()
REFUSED = {
    "half a step": (lambda: made.local_steps(2.5, RULE), "local_steps: steps is 2.5"),
    "steps": (lambda: made.local_steps(np.array([2, 3]), RULE), "local_steps: steps is array([2,"),
    "steps in words": (lambda: made.local_steps("2", RULE), "local_steps: steps is '2'"),
    "too many steps": (lambda: made.local_steps(10**6, RULE), "integer >= 1 and <= 100000"),
    "a factory": (lambda: made.local_steps(2, rules.sgd), "local_steps: rule is <function sgd"),
    "a rate": (lambda: made.local_steps(2, 0.1), "local_steps: rule is 0.1"),
    "a flag": (lambda: made.local_steps(2, RULE, keep_state=1), "local_steps: keep_state is 1"),
    "bits": (lambda: made.quantize(np.array([2, 4])), "quantize: bits is array([2, 4])"),
    "half a bit": (lambda: made.quantize(np.float32(2.5)), "quantize: bits is 2.5"),
    "a bit that is a flag": (lambda: made.quantize(True), "quantize: bits is True"),
    "a fraction in words": (lambda: made.top_k("0.1"), "top_k: fraction is '0.1'"),
    "fractions": (lambda: made.top_k([0.1]), "top_k: fraction is [0.1]"),
    "no fraction": (lambda: made.top_k(np.nan), "top_k: fraction is nan"),
    "half an entry": (lambda: made.top_k(k=1.5), "top_k: k is 1.5"),
    "a program's function": (
        lambda: made.compressed(workers.gradient, SIGN),
        "compressed: program is <function gradient",
    ),
    "a compressor's function": (
        lambda: made.compressed(GRADIENT, workers.sign),
        "compressed: compressor is <function sign",
    ),
    "a name": (lambda: made.compressed(GRADIENT, "sign"), "compressed: compressor is 'sign'"),
    "rates": (
        lambda: made.compressed(GRADIENT, SIGN, True, np.ones(2)),
        "compressed: learning_rate is array([1., 1.])",
    ),
    "feedback": (lambda: made.compressed(GRADIENT, SIGN, 1), "compressed: error_feedback is 1"),
    "names": (lambda: made.make_worker(["gradient"]), "worker: the name ['gradient'] is unknown"),
    "a made worker": (lambda: made.make_worker("gradient", compressor="sign"), "compressor is"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_means_something_else_is_refused_in_one_line(case):
    make, line = REFUSED[case]
    with pytest.raises(ValueError, match="allowed: |must be ") as error:
        make()
    assert line in str(error.value)
    assert "\n" not in str(error.value)
