import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgdlab.training.devices.collectives import Average
from sgdlab.training.devices.mesh import make_mesh

pytestmark = pytest.mark.slow


def train(network, params, average, steps):
    """Adam for some steps; parameters, rule state and the last loss on the host."""
    rule = optax.adam(1e-2)
    value_and_grad = average(network.value_and_grad)

    # Fully optimised, since contractions of a·b + c are what the barriers guard against.
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 3})
    def run(params, batch):
        def step(_, carry):
            params, state, _ = carry
            (loss, _), gradient = value_and_grad(params, batch, None)
            with jax.numpy_dtype_promotion("standard"):
                updates, state = rule.update(gradient, state, params)
                return optax.apply_updates(params, updates), state, loss

        return jax.lax.fori_loop(0, steps, step, (params, rule.init(params), jnp.float32(0)))

    return jax.device_get(jax.block_until_ready(run(params, network.batch)))


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def test_canonical_runs_have_the_same_bits_on_1_2_4_and_8_devices(network):
    params = jax.device_get(jax.jit(network.init)(jax.random.key(0)))
    runs = [
        train(network, params, Average(make_mesh(data=n), reduction="canonical"), steps=100)
        for n in (1, 2, 4, 8)
    ]
    assert [bits(run) == bits(runs[0]) for run in runs] == [True] * 4
    assert bits(runs[0]) != bits(
        train(network, params, Average(make_mesh(data=1), "jit"), steps=100)
    )


def test_canonical_draws_are_those_of_the_microbatch_whoever_computes_it():
    def local(params, batch, key):
        return (jnp.sum(batch), {}), params * jax.random.normal(key)

    def draw(devices):
        average = Average(make_mesh(data=devices), reduction="canonical", microbatches=8)
        return jax.jit(average(local))(jnp.float32(1), np.zeros(8, np.float32), jax.random.key(3))

    keys = [jax.random.fold_in(jax.random.key(3), index) for index in range(8)]
    expected = np.mean([float(jax.random.normal(key)) for key in keys])
    assert bits(draw(1)) == bits(draw(4))
    np.testing.assert_allclose(draw(4)[1], expected, atol=8 * 2**-24 * 8)  # eight float32 roundings


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_the_sum_is_the_balanced_tree_over_the_microbatches(devices):
    """A NumPy tree of float32 additions; in these numbers every other order differs."""
    values = np.float32([1e8, 3.7, -1e8, 5.3, 2.9e7, -0.3, -2.9e7, 1.1])

    def local(params, batch, key):
        return (jnp.sum(batch), {}), params * jnp.sum(batch)

    average = Average(make_mesh(data=devices), reduction="canonical", microbatches=8)
    (loss, _), gradient = jax.jit(average(local))(jnp.float32(1), values, None)
    tree = values
    while len(tree) > 1:
        tree = tree[0::2] + tree[1::2]
    assert np.asarray(loss) == np.asarray(gradient) == tree[0] / np.float32(8)
    assert tree[0] != np.add.accumulate(values)[-1]


@pytest.mark.parametrize(
    ("devices", "microbatches", "says"),
    [
        (8, 4, "can't be spread over 8 devices; set microbatches=8"),
        (3, 8, "can't be spread over 3 devices; use 1, 2, 4, 8, … devices"),
        (2, 6, "6 is not a power of two, which a pairwise tree needs; 8 is"),
    ],
)
def test_a_tree_that_would_not_be_balanced_is_refused(devices, microbatches, says):
    mesh = make_mesh(data=devices)
    with pytest.raises(ValueError, match="^microbatches: ") as caught:
        Average(mesh, reduction="canonical", microbatches=microbatches)
    assert says in str(caught.value)


def test_rows_that_microbatches_do_not_divide_are_refused(network):
    average = Average(make_mesh(data=2), reduction="canonical", microbatches=32)
    params = jax.eval_shape(network.init, jax.random.key(0))
    with pytest.raises(ValueError, match="48 rows can't be cut into 32 .* can: 32 or 64"):
        jax.eval_shape(average(network.value_and_grad), params, network.batch, None)


def test_canonical_needs_whole_parameters():
    with pytest.raises(ValueError, match="reduction: canonical needs whole .* has fsdp=2"):
        Average(make_mesh(data=4, fsdp=2), reduction="canonical")
