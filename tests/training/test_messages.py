"""What a message leaves behind, and how much it counts, in timelines written by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgdlab import precision, rules, tasks, timelines, training, workers
from sgdlab.training.batches import draw, make_shards


def counting():
    """A `receive` that multiplies by how many messages it has seen."""

    def update(updates, count, params=None):
        count = count + 1
        return jax.tree.map(lambda leaf: leaf * count.astype(leaf.dtype), updates), count

    return optax.GradientTransformation(lambda params: jnp.int32(0), update)


def test_a_refused_message_leaves_no_trace_in_what_receive_remembers(handmade):
    """Message 1 is refused; it is computed for the error that its worker keeps, and the server
    never sees it: 1 − η·1·1, then 0.75 − η·0.75·2."""
    history = training.replay(
        tasks.quadratic(1.0, start=1.0),
        rules.sgd(0.25),
        handmade([0, 1, 0], [0, 0, 1], [0, -1, 1]),
        worker=workers.compressed(workers.gradient(), workers.top_k(fraction=1.0)),
        receive=counting(),
    )
    np.testing.assert_array_equal(history.params, [0.375])


def test_nor_does_one_that_is_left_out(handmade):
    """Worker 1's gradient, 4·3·10³⁸, is out of float32's range. Of worker 0's, 4(w − 2), the first
    moves w from 0 to 8/16, and the second, at 0.5, by 2·6/16."""
    history = training.replay(
        tasks.quadratic(4.0, start=0.0, targets=[[2.0], [-3e38]]),
        rules.sgd(2.0**-4),
        handmade([0, 1, 0], [0, 0, 1], [0, 0, 1]),
        receive=counting(),
        partition=[np.array([0]), np.array([1])],
        batch_size=1,
        on_nonfinite="skip",
    )
    np.testing.assert_array_equal(history.params, [0.5 + 2 * 6.0 / 16])
    np.testing.assert_array_equal(history.skipped, [1, 0])


def test_receive_is_told_each_messages_own_staleness(handmade):
    """Update 1 has 1·1/2 of staleness 1 and 0.75 of staleness 0; with their mean both would have a
    factor of 2/3."""
    history = training.replay(
        tasks.quadratic(1.0, start=1.0),
        rules.sgd(0.25),
        handmade([0, 1, 0], [0, 0, 1], [0, 1, 1]),
        receive=rules.scale_by_staleness(power=1.0),
    )
    np.testing.assert_array_equal(history.params, [0.75 - 0.25 * (0.5 + 0.75) / 2])


def test_an_update_of_nothing_leaves_the_rules_velocity(handmade):
    """Worker 1 is out of range. v is −8 and stays so; worker 0, at 1/2, adds −6 to its half."""
    history = training.replay(
        tasks.quadratic(4.0, start=0.0, targets=[[2.0], [-3e38]]),
        rules.heavy_ball(2.0**-4, 0.5),
        handmade([0, 1, 0], [0, 0, 1], [0, 1, 2]),
        partition=[np.array([0]), np.array([1])],
        batch_size=1,
        on_nonfinite="skip",
        measures=["cosine"],
    )
    np.testing.assert_array_equal(history.params, [0.5 + (8 / 2 + 6) / 16])
    np.testing.assert_array_equal(np.isnan(history.measures["cosine"]), [False, True, False])


def test_a_message_that_is_left_out_leaves_its_worker_as_it_was(handmade):
    """−60·S fits into float16 up to S = 2¹⁰. An error fed back from 2¹¹ would be no number."""
    history = training.replay(
        tasks.quadratic(1.0, start=0.0, targets=[[60.0], [60.0]]),
        rules.sgd(0.25),
        handmade([0, 0], [0, 1], [0, 1]),
        worker=workers.compressed(workers.gradient(), workers.top_k(fraction=1.0)),
        batch_size=1,
        precision="mixed_float16",
        loss_scale=precision.DynamicLossScale(2.0**11),
    )
    np.testing.assert_array_equal(history.skipped, [1, 0])
    np.testing.assert_array_equal(history.params, [0.25 * 60.0])


def test_the_loss_of_an_update_of_nothing_is_that_of_what_was_left_out(handmade):
    """60·S overflows float16 from S = 2¹¹ on, the loss, 60²/2, doesn't. Update 1 refuses one."""
    history = training.replay(
        tasks.quadratic(1.0, start=0.0, targets=[[60.0], [60.0]]),
        rules.sgd(0.25),
        handmade([0, 1, 0], [0, 0, 1], [0, -1, 1]),
        batch_size=1,
        precision="mixed_float16",
        loss_scale=precision.DynamicLossScale(2.0**13),
    )
    np.testing.assert_array_equal(history.skipped, [1, 1])
    np.testing.assert_array_equal(history.loss, [1800.0, 1800.0])


def test_a_loss_that_is_not_finite_is_named_by_its_update_in_any_chunk():
    """w is (−2¹⁰)ᵘ, so the loss, 2²⁰ᵘ⁻¹, leaves the range of float32 with update 7."""
    timeline = timelines.synchronous(timelines.Cluster(workers=1), updates=12)
    for every in (4, 5, 12):
        with pytest.raises(training.NumericalError, match=r"^update 7: the loss is inf"):
            training.replay(
                tasks.quadratic(1.0, start=1.0), rules.sgd(1025.0), timeline, evaluate_every=every
            )


def test_a_worker_that_remembers_makes_its_messages_of_one_update_in_turn(handmade):
    """With error feedback and top-1 of 2 a worker's gradients (1, 0.75), twice, are sent as (1, 0)
    and, with the error (0, 0.75) added, as (0, 1.5): not as (1, 0) twice."""
    history = training.replay(
        tasks.quadratic([1.0, 0.75], start=1.0),
        rules.sgd(0.5),
        handmade([0, 0], [0, 0], [0, 0]),
        worker=workers.compressed(workers.gradient(), workers.top_k(fraction=0.5)),
    )
    np.testing.assert_array_equal(history.params, [1 - 0.5 * 1.0 / 2, 1 - 0.5 * 1.5 / 2])


def test_a_messages_noise_is_not_drawn_from_the_bits_that_chose_its_rows():
    workers_of, index = jnp.arange(4, dtype=jnp.int32), jnp.zeros(4, jnp.int32)
    shards = make_shards(None, 2**16, 4)
    drawn = draw(jax.random.key(0), shards, workers_of, index, shape=(1, 8), with_keys=True)
    assert drawn.keys is not None
    bits = jax.vmap(lambda data: jax.random.bits(jax.random.wrap_key_data(data), (8,)))(drawn.keys)
    assert not np.any(np.asarray(bits % 2**16) == np.asarray(drawn.rows[:, 0]))


def test_every_row_of_a_shard_is_drawn_and_no_other():
    """Of 5 rows one is missing in 64 draws with a probability of at most 5·0.8⁶⁴ < 4·10⁻⁶."""
    shards = make_shards([np.array([0]), np.arange(1, 6)], 6, 2)
    who, index = jnp.arange(2, dtype=jnp.int32), jnp.zeros(2, jnp.int32)
    drawn = draw(jax.random.key(0), shards, who, index, shape=(1, 64), with_keys=False)
    assert [set(rows) for rows in drawn.rows[:, 0].tolist()] == [{0}, {1, 2, 3, 4, 5}]


def test_as_many_messages_in_every_update_are_no_plain_mean_where_workers_have_equal_say(handmade):
    """Worker 0 sends two messages, worker 1 one, to an update: each worker has half of the say."""
    history = training.replay(
        tasks.quadratic(1.0, start=0.0, targets=[[1.0], [4.0]]),
        rules.sgd(0.5),
        handmade([0, 0, 1], [0, 0, 0], [0, 0, 0], average="workers"),
        partition=[np.array([0]), np.array([1])],
        batch_size=1,
    )
    np.testing.assert_allclose(history.params, [0.5 * (1.0 + 4.0) / 2], rtol=2.0**-22)
