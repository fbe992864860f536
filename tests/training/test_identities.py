"""The identities of what the server does with stale messages, through `replay`."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgdlab import rules, tasks, timelines, training
from sgdlab.rules.table import TRANSFORMS
from sgdlab.timelines import Cluster, Stragglers, constant, exponential
from tests.training.walks import walk

slow = pytest.mark.slow

EPS = 2.0**-24  # of float32, half the spacing above 1
CURVATURE = np.array([1.0, 0.3, 2.0])
START = np.array([1.0, -2.0, 0.5])
MEMORYLESS = Cluster(workers=4, compute=exponential(1.0))

# Each row: a transform that every message passes. A new transform adds a row.
RECEIVE = {
    "scale_by_staleness": {"power": 0.7},
    "divide_by_staleness": {},
    "hinge_staleness": {"a": 3.0, "b": 0.0},
    "clip_by_delay": {"concurrency": 1.0},
    "drop_stale": {"bound": 0.0},
    "compensate_delay": {"strength": 0.5},
    "gap_aware": {"learning_rate": 0.1},
    "scale_by_worker_delay": {"num_workers": 4},
}
ADAPTIVE = {"compensate_delay": {"strength": 2.0, "adaptive": True}}
VARIANTS = [
    *RECEIVE.items(),
    *ADAPTIVE.items(),
    ("clip_by_delay", {"concurrency": 1, "drop": True}),
]


def make_receive(name, arguments):
    return rules.make_receive([{"name": name, **arguments}])


def side_by_side(transforms):
    """Each transform on a block of coordinates of its own: one program for all of them."""
    transforms = [optax.with_extra_args_support(transform) for transform in transforms]

    def init(params):
        return [t.init(block) for t, block in zip(transforms, blocks(params), strict=True)]

    def update(updates, state, params=None, *, stale_params=None, **extra):
        parts = zip(blocks(updates), state, blocks(params), blocks(stale_params), strict=True)
        made: list[Any] = [
            transform.update(g, own, w, stale_params=read, **extra)
            for transform, (g, own, w, read) in zip(transforms, parts, strict=True)
        ]
        return jnp.concatenate([g for g, _ in made]), [own for _, own in made]

    def blocks(vector):
        return jnp.split(vector, len(transforms))

    return optax.GradientTransformationExtraArgs(init, update)


def one_multiplication():
    """It changes no bit, and is no identity to a replay, which then makes no other program."""
    return optax.stateless(lambda updates, params: jax.tree.map(lambda u: u * 1.0, updates))


def test_every_transform_has_its_row():
    """Except the one whose fresh message is the mixed model, not what was sent."""
    assert set(RECEIVE) == set(TRANSFORMS) - {"mix_models"}


# Fresh messages: no staleness, no gap.


def one_by_one(delay, updates=24):
    """One message an update from four workers in turn, each so many updates stale."""
    message = np.arange(updates)
    return timelines.Timeline(
        num_workers=4,
        worker=message % 4,
        read_version=np.maximum(0, message - delay),
        start_time=np.maximum(0.0, message - delay),
        compute_end=message + 1.0,
        arrival_time=message + 1.0,
        update=message,
        apply_time=message + 1.0,
    )


class _Followed(NamedTuple):
    """Final parameters after fresh messages and after stale ones, a block for each variant."""

    fresh: list[np.ndarray]
    stale: list[np.ndarray]


def follow(task, rule, receive):
    """Both in one program."""
    both = training.replay_many(
        task,
        lambda: rule,
        [one_by_one(0), one_by_one(3)],
        seeds=[0],
        receive=receive,
        batch_size=4,
    )
    return _Followed(*(np.split(np.asarray(h.params), len(VARIANTS)) for h in both))


@pytest.fixture(scope="module")
def task():
    """A quadratic with three coordinates for every variant.

    The products of a step are by powers of two, hence exact, so a step is one rounding whether or
    not the compiler joins a product and a sum: programs that do the same have the same bits.
    """
    curvature, start = [1.0, 0.5, 2.0], [1.1, -2.3, 0.7]
    return tasks.quadratic(np.tile(curvature, len(VARIANTS)), start=np.tile(start, len(VARIANTS)))


@pytest.fixture(scope="module")
def transforms():
    return [make_receive(name, arguments) for name, arguments in VARIANTS]


@pytest.fixture(scope="module")
def untouched(task):
    return follow(task, rules.sgd(0.25), one_multiplication())


@pytest.fixture(scope="module")
def received(task, transforms):
    return follow(task, rules.sgd(0.25), side_by_side(transforms))


@slow
@pytest.mark.parametrize("index", range(len(VARIANTS)), ids=[name for name, _ in VARIANTS])
def test_a_fresh_message_passes_bit_for_bit_and_a_stale_one_does_not(index, received, untouched):
    np.testing.assert_array_equal(received.fresh[index], untouched.fresh[index])
    assert np.abs(received.stale[index] - untouched.stale[index]).max() > 1e-3


@slow
def test_fresh_messages_pass_all_transforms_inside_a_rule_bit_for_bit(task, transforms, untouched):
    rule = optax.chain(*transforms, rules.sgd(0.25))
    inside = follow(task, rule, one_multiplication())
    np.testing.assert_array_equal(inside.fresh, untouched.fresh)


@slow
def test_fresh_messages_pass_all_transforms_before_they_are_averaged(transforms):
    """With the same bits as another program that walks them, and to rounding as the one gradient
    over 128 rows that they are without a transform."""
    targets = np.random.default_rng(0).normal(size=(64, 3))
    task = tasks.quadratic(CURVATURE, start=START, targets=targets)
    timeline = timelines.synchronous(MEMORYLESS, updates=12)
    plain, walked, received = (
        np.asarray(training.replay(task, optax.sgd(0.1), timeline, receive=receive).params)
        for receive in (None, one_multiplication(), optax.chain(*transforms))
    )
    np.testing.assert_array_equal(received, walked)
    # a step moves w by 0.1 of a mean of 128 rows, each at most 4 from it and of curvature 2, whose
    # sum rounds at most 128 times
    np.testing.assert_allclose(received, plain, atol=12 * 0.1 * 8 * 128 * EPS)
    assert np.abs(received - START).max() > 0.1


# Stale messages.


def test_delay_compensation_with_the_hessian_is_zero_delay():
    """All T messages read version 0, so g = λw₀ in each. With λᵢ·w₀ᵢ² = 1 and strength 1 the
    compensation g⊙g⊙(wₜ − w₀) is λ⊙(wₜ − w₀): what a fresh gradient would have added."""
    curvature, updates, rate = np.array([1.0, 0.25, 4.0]), 9, 0.2
    start = curvature**-0.5
    timeline = _all_read_version_0(updates)
    task = tasks.quadratic(curvature, start=start)
    history = training.replay(
        task, optax.sgd(rate), timeline, receive=rules.compensate_delay(strength=1.0)
    )
    assert timeline.staleness.max() == updates - 1
    expected = start * (1 - rate * curvature) ** updates
    # a step rounds five times at the size of w₀ at most
    chex.assert_trees_all_close(
        np.asarray(history.params, np.float64), expected, atol=10 * updates * EPS * start.max()
    )
    uncompensated = start * (1 - rate * curvature * updates)
    assert np.abs(uncompensated - expected).max() > 0.1


def _all_read_version_0(updates):
    """N = T workers that start together and come in one after another, once."""
    finish = np.arange(1.0, updates + 1)
    return timelines.Timeline(
        num_workers=updates,
        worker=np.arange(updates),
        read_version=np.zeros(updates, int),
        start_time=np.zeros(updates),
        compute_end=finish,
        arrival_time=finish,
        update=np.arange(updates),
        apply_time=finish,
    )


@slow
def test_a_transform_with_the_exact_hessian_takes_any_delay_away():
    """Any transform may look at `stale_params`: with H⊙(w − w_read) on top a quadratic's stale
    gradient is its fresh one."""

    def update(updates, state, params: Any = None, *, stale_params: Any = None, **_):
        moved = jnp.subtract(params, stale_params)
        return updates + CURVATURE.astype(np.float32) * moved, state

    exact = optax.GradientTransformationExtraArgs(optax.init_empty_state, update)
    timeline = timelines.asynchronous(MEMORYLESS, updates=40, seed=1)
    assert timeline.staleness.max() > 3
    task = tasks.quadratic(CURVATURE, start=START)
    history = training.replay(task, optax.sgd(0.2), timeline, receive=exact)
    expected = START * (1 - 0.2 * CURVATURE) ** 40
    np.testing.assert_allclose(history.params, expected, atol=10 * 40 * EPS * 2)


@slow
def test_a_worker_a_hundred_times_slower_does_no_harm_once_clipped():
    """Its message was computed far away, at version 0, and comes just before the end."""
    slow = Cluster(workers=9, compute=constant(1.0), stragglers=Stragglers(factor=100.0, count=1))
    without = Cluster(workers=9, compute=constant(1.0), joins={8: 1000.0})
    task = tasks.quadratic(np.ones(500), noise=0.1)

    def final_losses(clusters, receive=None):
        draws = [timelines.asynchronous(cluster, seconds=100.0) for cluster in clusters]
        histories = training.replay_many(
            task, lambda: optax.sgd(0.1), draws, seeds=[0], receive=receive, batch_size=1
        )
        return [float(history.evaluations["loss"].iloc[-1]) for history in histories]

    best, unclipped = final_losses([without, slow])
    (clipped,) = final_losses([slow], rules.clip_by_delay(concurrency=9.0))
    assert clipped <= 1.05 * best
    assert unclipped > 1.05 * best


@slow
def test_equal_deterministic_workers_are_weighed_by_constants():
    """Under the barrier of `bounded_staleness` equal workers come in by index, so worker i's
    messages all have staleness i, its mean is i from the first on, and its weight (1 + i)^−a."""
    timeline = timelines.bounded_staleness(
        Cluster(workers=4, compute=constant(1.0)), bound=0, updates=32
    )
    used = timeline.update >= 0
    np.testing.assert_array_equal(timeline.staleness[used], timeline.worker[used])
    both = [rules.scale_by_worker_delay(4, power=0.5), rules.scale_by_staleness(power=0.5)]
    history = training.replay(
        tasks.quadratic(np.tile(CURVATURE, 2), start=np.tile(START, 2)),
        optax.sgd(0.1),
        timeline,
        receive=side_by_side(both),
    )
    by_worker, by_message = np.split(np.asarray(history.params), 2)
    np.testing.assert_array_equal(by_worker, by_message)
    weights = (1 + np.arange(4)) ** -0.5
    expected = walk(timeline, START, lambda i, _, w: weights[i] * CURVATURE * w, 0.1)[-1]
    np.testing.assert_allclose(by_worker, expected, atol=10 * 32 * EPS * 2)


@slow
def test_a_workers_weight_settles_where_its_staleness_does():
    """N equal workers in turn: worker i's first message is i updates stale, all others N − 1."""
    timeline = timelines.asynchronous(Cluster(workers=4, compute=constant(1.0)), updates=40)
    later = (timeline.local_index > 0) & (timeline.update >= 0)
    np.testing.assert_array_equal(timeline.staleness[later], 3)
    history = training.replay(
        tasks.quadratic(CURVATURE, start=START),
        optax.sgd(0.1),
        timeline,
        receive=rules.scale_by_worker_delay(4),
    )

    def send(i, k, w):
        return CURVATURE * w / (1 + (i + 3 * k) / (k + 1))

    expected = walk(timeline, START, send, 0.1)[-1]
    np.testing.assert_allclose(history.params, expected, atol=10 * 40 * EPS * 2)
