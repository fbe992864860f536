"""Flat draws give the numbers that Flax's own initializers give."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from sgdlab.tasks.initializers import embedding_normal, fan_in_normal

# (ours, Flax's, shape): both draw the same bits and scale by factors that may differ by one eps.
CASES = {
    "linear": (fan_in_normal(2.0), nn.initializers.he_normal(), (16, 8)),
    "head": (fan_in_normal(1.0), nn.initializers.lecun_normal(), (16, 8)),
    "convolution": (fan_in_normal(2.0), nn.initializers.he_normal(), (3, 1, 1, 8)),
    "embedding": (
        embedding_normal,
        nn.initializers.variance_scaling(1.0, "fan_out", "truncated_normal"),
        (16, 8),
    ),
    "one of several input axes": (
        fan_in_normal(0.5, inputs=1),
        nn.initializers.variance_scaling(
            0.5, "fan_in", "truncated_normal", in_axis=0, out_axis=(1, 2)
        ),
        (8, 2, 4),
    ),
}


@pytest.mark.parametrize("name", CASES)
@jax.debug_key_reuse(False)  # one key, two ways to the same numbers
def test_numbers_are_those_of_flax(name):
    ours, theirs, shape = CASES[name]
    key = jax.random.key(7)
    np.testing.assert_allclose(ours(key, shape), theirs(key, shape), rtol=3e-7)
