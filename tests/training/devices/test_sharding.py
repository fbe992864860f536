import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgdlab.training.devices.collectives import Average
from sgdlab.training.devices.mesh import batch_sharding, make_mesh, replicated
from sgdlab.training.devices.sharding import (
    device_bytes,
    init_rule_sharded,
    init_sharded,
    shard_like,
    shard_params,
    total_bytes,
)
from sgdlab.training.devices.traffic import find_collectives

pytestmark = pytest.mark.slow


def specs(shardings):
    return jax.tree.map(lambda sharding: tuple(sharding.spec), shardings)


def floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_fsdp_takes_the_largest_axis_that_it_divides_and_leaves_small_leaves_whole():
    shapes = {
        "wide": floats(64, 512),
        "tall": floats(1024, 512),
        "odd": floats(1023, 64),
        "prime": floats(1021, 67),
        "square": floats(256, 256),
        "small": floats(512),
    }
    found = shard_params(shapes, make_mesh(data=2, fsdp=4))
    assert specs(found) == {
        "wide": (None, "fsdp"),
        "tall": ("fsdp", None),
        "odd": (None, "fsdp"),
        "prime": (None, None),
        "square": (None, "fsdp"),
        "small": (None,),
    }


def test_tensor_takes_the_axes_with_its_names_and_fsdp_one_of_the_others():
    shapes = {"up": floats(6, 128, 512), "down": floats(6, 512, 128), "scale": floats(6, 128)}
    axes = {
        "up": ("layers", "embed", "mlp"),
        "down": ("layers", "mlp", "embed"),
        "scale": None,
    }
    found = shard_params(shapes, make_mesh(fsdp=2, tensor=2), axes)
    assert specs(found) == {
        "up": (None, "fsdp", "tensor"),
        "down": (None, "tensor", "fsdp"),
        "scale": (None, None),
    }


@pytest.mark.parametrize(
    ("axes", "says"),
    [
        ({"up": ("embed",)}, r"up has 2 axes \[128, 6\] and 1 names"),
        ({"up": ("embed", "heads")}, "axis 'heads' of up has size 6; tensor=4 does not divide it"),
    ],
)
def test_names_that_do_not_fit_are_refused(axes, says):
    with pytest.raises(ValueError, match=says):
        shard_params({"up": floats(128, 6)}, make_mesh(tensor=4), axes)


@pytest.mark.parametrize("name", ["adam", "adafactor", "schedule_free", "sgd"])
def test_a_rule_state_lies_like_its_parameters(name):
    rule = {
        "adam": optax.adam(0.1),
        "adafactor": optax.adafactor(0.1),
        "schedule_free": optax.contrib.schedule_free_adamw(0.1),
        "sgd": optax.sgd(0.1, momentum=0.9),
    }[name]
    params = {"a": {"kernel": floats(256, 64)}, "b": floats(512)}
    shardings = shard_params(params, make_mesh(fsdp=8))
    state = jax.eval_shape(rule.init, params)
    found = shard_like(state, params, shardings)
    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(found), strict=True)
    seen = {leaf.shape: tuple(sharding.spec) for leaf, sharding in pairs}
    if name != "adafactor":
        assert seen[256, 64] == ("fsdp", None)
    assert {spec for shape, spec in seen.items() if shape != (256, 64)} <= {(), (None,)}


def test_slots_and_rows_of_workers_keep_their_leading_axis_whole():
    params = {"kernel": floats(256, 64)}
    shardings = shard_params(params, make_mesh(fsdp=8))
    state = {"slots": {"kernel": floats(3, 256, 64)}, "count": floats(), "key": floats(2)}
    assert specs(shard_like(state, params, shardings)) == {
        "slots": {"kernel": (None, "fsdp", None)},
        "count": (),
        "key": (),
    }


def test_bare_parameters_have_a_state_too():
    shardings = shard_params(floats(8192), make_mesh(fsdp=8))
    state = jax.eval_shape(optax.adam(0.1).init, floats(8192))
    found = shard_like(state, floats(8192), shardings)
    assert [tuple(s.spec) for s in jax.tree.leaves(found)] == [(), ("fsdp",), ("fsdp",)]


def test_parameters_are_created_in_parts_with_the_bits_of_whole_ones(network):
    mesh = make_mesh(fsdp=8)
    params = init_sharded(network.init, jax.random.key(0), mesh, smallest=256)
    whole = jax.jit(network.init)(jax.random.key(0))
    for part, full in zip(jax.tree.leaves(params), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(part, full)
    assert device_bytes(params) == total_bytes(params) / 8


WIDTH, DEPTH, ROWS = 256, 32, 64
BUDGET = 8_000_000  # bytes a device; the state of Adam and the parameters are 25 million


@pytest.fixture(scope="session")
def big_step():
    """Adam on a deep network with recomputed layers, compiled for eight devices of `BUDGET`."""
    from flax import linen

    mesh, rule = make_mesh(fsdp=8), optax.adam(1e-3)

    def init(key):
        return {"kernel": jax.random.normal(key, (DEPTH, WIDTH, WIDTH)) * WIDTH**-0.5}

    def loss(params, batch, key):
        @jax.checkpoint
        def layer(hidden, kernel):
            hidden = hidden + jnp.tanh(hidden @ kernel)
            return linen.with_logical_constraint(hidden, ("batch", None)), None

        hidden, _ = jax.lax.scan(layer, batch, params["kernel"])
        return jnp.mean(jnp.square(hidden)), {}

    def local(params, batch, key):
        return jax.value_and_grad(loss, has_aux=True)(params, batch, key)

    def step(params, state, batch):
        aux, gradient = Average(mesh)(local)(params, batch, None)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = rule.update(gradient, state, params)
            return optax.apply_updates(params, updates), state, aux

    axes = {"kernel": ("layers", "embed", "mlp")}
    params = init_sharded(init, jax.random.key(0), mesh, axes)
    state = init_rule_sharded(rule, params)
    lie = jax.tree.map(lambda leaf: leaf.sharding, (params, state))
    compiled = (
        jax.jit(
            step,
            donate_argnums=(0, 1),
            in_shardings=(*lie, batch_sharding(mesh)),
            out_shardings=(*lie, replicated(mesh)),
        )
        .lower(params, state, jax.ShapeDtypeStruct((ROWS, WIDTH), jnp.float32))
        .compile()
    )
    create = jax.jit(init, out_shardings=lie[0]).lower(jax.random.key(0)).compile()
    return create, params, state, compiled


def test_no_device_holds_more_than_its_share_of_a_model_that_would_not_fit_one(big_step):
    create, params, state, step = big_step
    total = total_bytes((params, state))
    assert total > 3 * BUDGET
    held = device_bytes((params, state))
    assert held <= 1.15 * total / 8
    memory = step.memory_analysis()
    batch = ROWS // 8 * WIDTH * 4
    assert memory.argument_size_in_bytes <= held + batch + 1024
    peak = (
        memory.argument_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
    )
    # Activations: what the scan keeps for the backward pass, a row block a layer, beside the
    # gradient's own share and four buffers of one gathered layer (its kernel, that transposed, its
    # gradient, that reduced).
    layer, saved = WIDTH * WIDTH * 4, DEPTH * batch
    activations = 2 * saved + total_bytes(params) / 8 + 4 * layer
    assert peak <= 1.15 * total / 8 + activations
    assert peak < BUDGET
    creation = create.memory_analysis()
    assert creation.temp_size_in_bytes + creation.output_size_in_bytes < total_bytes(params)


def test_fsdp_gathers_each_layer_twice_and_reduces_its_gradient_once(big_step):
    """ZeRO-3's traffic; on the CPU the partitioner writes the reduce-scatter as an all-reduce."""
    *_, step = big_step
    found = [each for each in find_collectives(step.as_text()) if each.result_bytes > 64]
    by_kind = {}
    for each in found:
        by_kind[each.kind] = by_kind.get(each.kind, 0) + each.times * each.result_bytes
    size = DEPTH * WIDTH * WIDTH * 4
    assert by_kind == {"all-gather": 2 * size, "all-reduce": size}
