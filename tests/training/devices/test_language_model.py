"""A Transformer on a mesh: one step of it, what it sends, and what a device holds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgdlab.precision import NoOpLossScale, get_policy
from sgdlab.tasks.language import language_model
from sgdlab.tasks.transformer import TransformerConfig
from sgdlab.training.devices.collectives import Average
from sgdlab.training.devices.mesh import batch_sharding, make_mesh, replicated
from sgdlab.training.devices.sharding import (
    device_bytes,
    init_rule_sharded,
    init_sharded,
    total_bytes,
)
from sgdlab.training.devices.traffic import find_collectives
from sgdlab.training.gradients import make_value_and_grad

pytestmark = pytest.mark.slow

WIDTH, LAYERS, ROWS, LENGTH = 64, 3, 32, 16
RULE = optax.sgd(0.1, momentum=0.9)


@pytest.fixture(scope="module")
def task():
    rows = np.random.default_rng(0).integers(0, 256, (ROWS, LENGTH + 1)).astype(np.uint8)
    config = TransformerConfig(width=WIDTH, layers=LAYERS, heads=4, rematerialise=True)
    return language_model(config, rows, rows)


def make_step(task, average, microbatches=1):
    value_and_grad = make_value_and_grad(
        task, get_policy("float32"), NoOpLossScale(), average, microbatches
    )

    def step(params, state, batch):
        aux, gradient = value_and_grad(params, batch, None)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = RULE.update(gradient, state, params)
            return optax.apply_updates(params, updates), state, aux

    return step


def compile_on(task, mesh, microbatches=1):
    params = init_sharded(task.init, jax.random.key(0), mesh, task.logical_axes)
    carried = params, init_rule_sharded(RULE, params)
    lie = jax.tree.map(lambda leaf: leaf.sharding, carried)
    step = jax.jit(
        make_step(task, Average(mesh), microbatches),
        donate_argnums=(0, 1),
        in_shardings=(*lie, batch_sharding(mesh)),
        out_shardings=(*lie, replicated(mesh)),
    )
    return carried, step.lower(*carried, task.train).compile()


@pytest.fixture(scope="module")
def spread(task):
    return compile_on(task, make_mesh(fsdp=8))


def test_fsdp_gathers_weights_and_no_rows(task, spread):
    """ZeRO-3: each layer's weights twice, the embedding's for the lookup and for the head."""
    (params, _), step = spread
    weights = {leaf.shape for leaf in jax.tree.leaves(params)}
    layers = {shape[1:] for shape in weights if shape[0] == LAYERS}
    matrices = {tuple(sorted(shape)) for shape in weights | layers}
    gathers = [c for c in find_collectives(step.as_text()) if c.kind != "all-reduce"]
    assert {c.kind for c in gathers} == {"all-gather"}
    assert {tuple(sorted(shape)) for c in gathers for _, shape in c.arrays} <= matrices
    assert sum(c.times * c.result_bytes for c in gathers) <= 2 * total_bytes(params)


def test_a_device_holds_its_share(spread):
    (params, state), step = spread
    total = total_bytes((params, state))
    assert device_bytes((params, state)) <= 1.15 * total / 8
    tokens = ROWS // 8 * (LENGTH + 1)
    assert step.memory_analysis().argument_size_in_bytes <= 1.15 * total / 8 + tokens + 1024


@pytest.mark.parametrize(("sizes", "microbatches"), [((1, 8, 1), 1), ((2, 2, 2), 2)])
def test_a_step_on_eight_devices_is_the_step_on_one(
    task, spread, relative_error, sizes, microbatches
):
    before = jax.device_get(jax.jit(task.init)(jax.random.key(0)))
    _, expected, aux = jax.jit(make_step(task, None))(before, RULE.init(before), task.train)
    compiled = spread if microbatches == 1 else compile_on(task, make_mesh(*sizes), microbatches)
    carried, step = compiled
    batch = jax.device_put(task.train, batch_sharding(make_mesh(*sizes)))
    _, state, shared = jax.block_until_ready(step(*jax.tree.map(jnp.copy, carried), batch))
    # After one step the momentum is the gradient, and the update −0.1 of it; read off the
    # parameters, which are a thousand times larger, it would show their rounding.
    assert relative_error(state, expected) <= 1e-6
    assert relative_error(shared[0], aux[0]) <= 1e-6  # the loss; a perplexity is no mean of parts
