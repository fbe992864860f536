import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgdlab.precision import get_policy
from sgdlab.training.devices.collectives import COLLECTIVES, Average
from sgdlab.training.devices.mesh import make_mesh
from sgdlab.training.devices.sharding import init_sharded, total_bytes
from sgdlab.training.devices.traffic import find_collectives, find_copies

pytestmark = pytest.mark.slow

RATE = 0.1


def make_step(value_and_grad):
    def step(params, batch):
        aux, gradient = value_and_grad(params, batch, None)
        return jax.tree.map(lambda w, g: w - RATE * g, params, gradient), aux

    return step


@pytest.fixture(scope="session")
def one_device(network):
    params = jax.device_get(jax.jit(network.init)(jax.random.key(0)))
    return params, *jax.device_get(
        jax.jit(make_step(network.value_and_grad))(params, network.batch)
    )


@pytest.mark.parametrize(
    ("sizes", "collective"),
    [
        ((8, 1, 1), "jit"),
        ((8, 1, 1), "shard_map"),
        ((8, 1, 1), "pmap"),
        ((2, 2, 2), "jit"),
        ((4, 2, 1), "shard_map"),
        ((1, 8, 1), "jit"),
    ],
)
def test_a_step_on_eight_devices_is_the_step_on_one(
    network, relative_error, one_device, sizes, collective
):
    """The update's relative error: float32 sums in another order differ by a few 2⁻²⁴ ≈ 6e-8."""
    before, after, aux = one_device
    mesh = make_mesh(*sizes)
    params = init_sharded(network.init, jax.random.key(0), mesh, network.axes, smallest=256)
    average = Average(mesh, collective)
    whole = jax.tree.map(lambda leaf: leaf.sharding, params)
    step = jax.jit(make_step(average(network.value_and_grad)), out_shardings=(whole, None))
    moved, shared_aux = jax.block_until_ready(step(params, network.batch))

    def update(tree):
        return jax.tree.map(lambda new, old: np.asarray(new, np.float64) - old, tree, before)

    assert relative_error(update(moved), update(after)) <= 1e-6
    assert relative_error(shared_aux, aux) <= 1e-6


def noisy(params, batch, key):
    """A loss on `[B]` rows that draws, small enough to compile at once."""

    def loss(params):
        draw = 0.0 if key is None else jax.random.normal(key, batch.shape)
        return jnp.mean(jnp.square(params * batch + draw)), {}

    return jax.value_and_grad(loss, has_aux=True)(params)


def test_the_collective_runs_inside_loops_and_side_by_side(relative_error):
    """The replay calls it in a loop of traced length, and `vmap`s it over messages."""
    batches = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)

    def run(value_and_grad):
        def body(index, params):
            return make_step(value_and_grad)(params, batches[0])[0]

        @jax.jit
        def loop(length):
            return jax.lax.fori_loop(0, length, body, jnp.float32(1))

        each = jax.jit(jax.vmap(lambda batch: value_and_grad(jnp.float32(1), batch, None)[1]))
        return jax.block_until_ready(loop(3)), jax.block_until_ready(each(batches))

    expected = run(noisy)
    averages = [Average(make_mesh(data=2), collective) for collective in COLLECTIVES]
    for average in [*averages, Average(make_mesh(data=2), reduction="canonical")]:
        got = run(average(noisy))
        assert relative_error(got, expected) <= 1e-6


@pytest.mark.parametrize("leaves", [1, 2, 3])
def test_pmap_replicates_parameters_however_many_leaves_there_are(leaves):
    def local(params, batch, key):
        return (jnp.mean(batch), {}), jax.tree.map(lambda leaf: leaf * jnp.mean(batch), params)

    params = [np.arange(8, dtype=np.float32)] * leaves
    average = Average(make_mesh(), "pmap")
    _, gradient = jax.jit(average(local))(params, np.arange(16, dtype=np.float32), None)
    for leaf in gradient:
        np.testing.assert_allclose(leaf, 7.5 * params[0], rtol=1e-6)


def test_shard_map_sends_one_gradient_and_scalars_and_copies_no_parameter(network):
    mesh = make_mesh()
    step = make_step(Average(mesh, "shard_map")(network.value_and_grad))
    params = init_sharded(network.init, jax.random.key(0), mesh)
    text = jax.jit(step, donate_argnums=0).lower(params, network.batch).compile().as_text()
    found = find_collectives(text)
    assert {each.kind for each in found} == {"all-reduce"}
    assert {(each.group, each.times) for each in found} == {(8, 1)}
    arrays = [shape for each in found for _, shape in each.arrays]
    leaves = [leaf.shape for leaf in jax.tree.leaves(params)]
    assert sorted(shape for shape in arrays if shape) == sorted(leaves)
    assert len([shape for shape in arrays if not shape]) == 2  # loss, accuracy
    size = total_bytes(params)
    assert sum(each.sent_bytes for each in found) == pytest.approx(2 * (size + 8) * 7 / 8)
    copied = {tuple(sorted(shape)) for _, shape in find_copies(text)}  # transposed ones too
    assert copied.isdisjoint(tuple(sorted(shape)) for shape in leaves)


@pytest.mark.parametrize("collective", ["shard_map", "pmap"])
@pytest.mark.parametrize(
    ("policy", "travels"),
    [("mixed_bfloat16", "f32"), ("params=float32,compute=bfloat16,reduce=bfloat16", "bf16")],
)
def test_the_gradient_travels_in_the_reduce_dtype(network, collective, policy, travels):
    policy = get_policy(policy)

    def local(params, batch, key):
        aux, gradient = network.value_and_grad(*policy.cast_to_compute((params, batch)), key)
        return policy.cast_to_output(aux), policy.cast_to_reduce(gradient)

    params = jax.eval_shape(network.init, jax.random.key(0))
    average = Average(make_mesh(), collective)
    lowered = jax.jit(average(local)).lower(params, network.batch, None).as_text()
    types = [
        line.split(": (")[-1]
        for block in lowered.split('"stablehlo.all_reduce"')[1:]
        for line in block.splitlines()
        if line.strip().startswith("})")
    ]
    sent = [kind.split("x")[-1].split(">")[0] for kind in types[: lowered.count("all_reduce")]]
    gradients = [kind for kind, text in zip(sent, types, strict=False) if "x" in text.split(">")[0]]
    assert gradients == [travels] * len(jax.tree.leaves(params))


def test_a_key_gives_jit_the_draws_of_one_device_and_the_others_their_own(relative_error):
    batch, key, one = np.arange(8, dtype=np.float32), jax.random.key(7), jnp.float32(1)
    same = jax.jit(Average(make_mesh(), "jit")(noisy))
    assert relative_error(same(one, batch, key), noisy(one, batch, key)) <= 1e-6
    each = [noisy(one, batch[4 * i :][:4], jax.random.fold_in(key, i)) for i in range(2)]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *each)
    for collective in ("shard_map", "pmap"):
        own = jax.jit(Average(make_mesh(data=2), collective)(noisy))
        assert relative_error(own(one, batch, key), mean) <= 1e-6


def test_an_average_is_hashable_and_equal_by_value():
    assert Average(make_mesh(), "pmap") == Average(make_mesh(), "pmap")
    assert hash(Average(make_mesh(), "pmap")) == hash(Average(make_mesh(), "pmap"))
    assert Average(make_mesh(), "pmap") != Average(make_mesh(), "jit")


@pytest.mark.parametrize(
    ("sizes", "options", "says"),
    [
        ((8,), {"collective": "pjit"}, "'pjit' is unknown; allowed: jit, shard_map, pmap"),
        ((8,), {"reduction": "exact"}, "'exact' is unknown; allowed: fast, canonical"),
        ((4, 2), {"collective": "pmap"}, "collective: pmap needs whole parameters"),
    ],
)
def test_what_cannot_be_averaged_is_refused_in_one_line(sizes, options, says):
    with pytest.raises(ValueError, match="^(collective|reduction): ") as caught:
        Average(make_mesh(*sizes), **options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("collective", COLLECTIVES)
def test_a_batch_that_does_not_divide_is_refused_before_a_compile(network, collective):
    batch = jax.tree.map(lambda leaf: leaf[:30], network.batch)
    params = jax.eval_shape(network.init, jax.random.key(0))
    with pytest.raises(ValueError, match="30 rows can't be spread over 8 devices"):
        jax.eval_shape(
            Average(make_mesh(), collective)(network.value_and_grad), params, batch, None
        )
