"""A replay tells its rule when an update happens, and how many gradients came before."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgdlab import rules, tasks, timelines, training, workers
from sgdlab.rules import CountedSchedule
from sgdlab.timelines import Timeline, plan
from sgdlab.training import replaying
from sgdlab.training.chunks import cut, find_capacity

CLUSTER = timelines.Cluster(workers=4, compute=timelines.gamma(mean=0.8, shape=2.0))
DATA = {"input": np.zeros((4, 1), np.float32)}


def slope(shape):
    """Loss Σw: every gradient is one everywhere, so w is w₀ less the sum of the rates."""
    return tasks.Task(
        "slope", lambda key: jnp.zeros(shape), lambda w, batch, key: (jnp.sum(w), {}), DATA, DATA
    )


RATE = optax.exponential_decay(0.5, transition_steps=20, decay_rate=0.5)
# Each form by a protocol that asks for it, and the shape of its parameters.
FORMS = {
    "fused": (timelines.synchronous, {}, (2,), {}),
    "single": (timelines.asynchronous, {}, (2,), {}),
    "waves": (timelines.asynchronous, {}, (2,), {"width": 4}),
    "early": (timelines.asynchronous, {}, (2, 2), {}),
    "walk": (timelines.window, {"wait": 0.3}, (2,), {}),
    "table": (timelines.ringleader, {}, (2,), {}),
    "mapped": (
        timelines.synchronous,
        {},
        (2,),
        {
            "worker": workers.compressed(
                workers.gradient(), workers.top_k(1.0), error_feedback=False
            )
        },
    ),
}


@pytest.mark.parametrize("count", ["seconds", "gradients"])
@pytest.mark.parametrize("form", FORMS)
def test_the_parameters_have_moved_by_the_sum_of_the_rates(form, count):
    protocol, arguments, shape, options = FORMS[form]
    timeline = protocol(CLUSTER, **arguments, updates=120, seed=1)
    rule, task = rules.sgd(CountedSchedule(RATE, count)), slope(shape)
    prepared = replaying.prepare(
        task, replaying.FixedRule(rule), timeline, seeds=[0], batch_size=2, **options
    )
    assert prepared.program.form == ("walk" if form == "table" else form)
    assert prepared.program.has_table == (form == "table")
    history = training.replay(
        task, rule, timeline, batch_size=2, record=lambda w: {"w": w}, **options
    )
    entered = [np.count_nonzero(timeline.update == u) for u in range(120)]
    before = np.concatenate([[0], np.cumsum(entered)[:-1]])
    counted = {"seconds": timeline.apply_time, "gradients": before}[count]
    expected = -np.cumsum(0.5 * 0.5 ** (counted / 20.0))
    found = np.asarray(history.records["w"]).reshape(120, -1)
    # Each of 120 steps of at most a half is rounded, and so is the sum, of at most 60.
    tolerance = 120 * 60 * np.finfo(np.float32).eps
    np.testing.assert_allclose(
        found, np.broadcast_to(expected[:, None], found.shape), atol=tolerance
    )


def test_a_message_of_local_steps_is_as_many_gradients():
    cluster = timelines.Cluster(workers=2, compute=timelines.constant(1.0), gradients_per_message=3)
    timeline = timelines.synchronous(cluster, updates=5)
    rule = rules.sgd(CountedSchedule(optax.linear_schedule(1.0, 0.0, 60), "gradients"))
    worker = workers.local_steps(3, rules.sgd(0.1))
    history = training.replay(slope((1,)), rule, timeline, worker=worker, batch_size=2)
    # An inner step of 0.1 three times; before update u there were 6u gradients of 60.
    assert float(history.params[0]) == pytest.approx(-0.3 * sum(1 - u / 10 for u in range(5)))


def test_one_gradient_an_update_counts_as_updates_do():
    timeline = timelines.asynchronous(CLUSTER, updates=60, seed=1)
    task = tasks.quadratic([1.0, 0.3], noise=0.5)
    by_gradients = training.replay(task, rules.sgd(CountedSchedule(RATE, "gradients")), timeline)
    by_updates = training.replay(task, rules.sgd(RATE), timeline)
    np.testing.assert_array_equal(by_gradients.params, by_updates.params)


def test_a_transform_that_follows_the_rules_rate_is_told_too():
    """Under a rate that halves at 8 s gap_aware keeps the largest it has seen: the first."""
    timeline = timelines.asynchronous(CLUSTER, updates=80, seed=1)
    task = tasks.quadratic([1.0, 0.3], noise=0.5)
    steps = optax.piecewise_constant_schedule(0.1, {8: 0.5})
    rule = rules.sgd(CountedSchedule(steps, "seconds"))
    told = rules.gap_aware(CountedSchedule(steps, "seconds"))
    one, other = (
        training.replay(task, rule, timeline, receive=receive)
        for receive in (told, rules.gap_aware(0.1))
    )
    assert timeline.apply_time[0] < 8 < timeline.apply_time[-1]
    np.testing.assert_array_equal(one.params, other.params)


def test_an_inner_rule_is_told_nothing():
    cluster = timelines.Cluster(workers=2, compute=timelines.constant(1.0), gradients_per_message=3)
    worker = workers.local_steps(3, rules.sgd(CountedSchedule(RATE, "seconds")))
    with pytest.raises(ValueError, match="needs seconds=, .* an inner rule is not"):
        training.replay(
            slope((1,)), rules.sgd(1.0), timelines.synchronous(cluster, updates=2), worker=worker
        )


def timeline_of(per_message, times=(1.0, 2.0, 3.0)):
    """Worker 0 alone, an update each time."""
    order = np.arange(len(times))
    return Timeline(
        num_workers=1,
        gradients_per_message=per_message,
        worker=np.zeros(len(times), int),
        read_version=order,
        start_time=np.array([0.0, *times[:-1]]),
        compute_end=np.array(times),
        arrival_time=np.array(times),
        update=order,
        apply_time=np.array(times),
    )


def test_large_counts_are_exact_and_large_times_rounded_once():
    timeline = timeline_of(2**24 + 1, times=(0.1, 1e7 + 0.3, 1e7 + 0.6))
    planned = plan(timeline)
    chunk = next(cut(timeline, planned, 3, find_capacity([planned], 3, None), None))
    assert chunk.gradients.tolist() == [0, 2**24 + 1, 2**25 + 2]  # which float32 does not hold
    assert (chunk.gradients.dtype, chunk.seconds.dtype) == (np.int32, np.float32)
    assert chunk.seconds.tolist() == [np.float32(0.1), 1e7, 1e7 + 1]  # whole seconds up there


def test_more_gradients_than_an_int32_holds_are_refused_where_they_are_counted():
    worker = workers.gradient()._replace(gradients_per_message=2**30)
    options = {"worker": worker, "seeds": [0], "batch_size": 1}

    def prepare(count, updates):
        rule = replaying.FixedRule(rules.sgd(CountedSchedule(RATE, count)))
        times = tuple(float(u + 1) for u in range(updates))
        return replaying.prepare(slope((1,)), rule, timeline_of(2**30, times), **options)

    prepare("gradients", 2)
    prepare("seconds", 3)
    with pytest.raises(ValueError, match=r"counts gradients, and there are 2147483648; allowed: b"):
        prepare("gradients", 3)
