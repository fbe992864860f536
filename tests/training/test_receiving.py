"""Transforms that take the rule's rate, or mix models, inside a replay."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgdlab.rules import adam, gap_aware, heavy_ball, make_receive, mix_models, sgd
from sgdlab.tasks import quadratic
from sgdlab.timelines import Cluster, asynchronous, exponential, k_async
from sgdlab.training import replay, replay_many
from sgdlab.workers import local_steps

CLUSTER = Cluster(workers=3, compute=exponential(1.0))
TASK = quadratic([1.0, 0.3], noise=0.5, start=1.0)


def receive_of(learning_rate):
    return make_receive(
        [{"name": "gap_aware"}], rule={"name": "heavy_ball", "learning_rate": learning_rate}
    )


def test_a_swept_rate_reaches_the_gap():
    timeline, rates = asynchronous(CLUSTER, updates=40, seed=0), [0.01, 0.1]
    swept = replay_many(
        TASK,
        heavy_ball,
        timeline,
        seeds=[0],
        hyperparameters={"learning_rate": rates},
        receive=receive_of,
        batch_size=1,
    )
    for history, rate in zip(swept, rates, strict=True):
        receive = gap_aware(rate, decay=0.9)
        alone = replay(TASK, heavy_ball(rate), timeline, receive=receive, batch_size=1)
        # A rate that is data is rounded once more than one that is text.
        np.testing.assert_allclose(history.params, alone.params, rtol=0, atol=1e-5)
    assert not np.allclose(swept[0].params, swept[1].params, atol=1e-2)


def test_fedasync_is_its_algorithm():
    """Workers descend from what they have read, the server mixes their models into its own."""
    rate, alpha, power, steps = 0.2, 0.5, 0.5, 3
    curvature = np.array([1.0, 0.3])
    cluster = Cluster(workers=3, compute=exponential(1.0), gradients_per_message=steps)
    timeline = asynchronous(cluster, updates=30, seed=1)
    versions = [np.ones(2)]
    order = np.argsort(np.where(timeline.update >= 0, timeline.update, 10**6), kind="stable")
    for m in order[:30]:
        model = versions[timeline.read_version[m]]
        for _ in range(steps):
            model = model - rate * curvature * model
        share = alpha * (timeline.staleness[m] + 1.0) ** -power
        versions.append((1 - share) * versions[-1] + share * model)
    history = replay(
        quadratic(curvature.tolist(), start=1.0),
        sgd(1.0),
        timeline,
        worker=local_steps(steps, optax.sgd(rate)),
        receive=mix_models(alpha, power=power),
        batch_size=1,
    )
    # Numbers of at most 1, some ten roundings of half a unit in each of 30 updates.
    np.testing.assert_allclose(history.params, versions[-1], rtol=0, atol=300 * 2.0**-25)


@pytest.mark.parametrize("rule", [sgd(0.5), adam(1.0), optax.sgd(1.0, momentum=0.9)])
def test_models_are_mixed_beside_a_rule_that_changes_nothing_only(rule):
    timeline = asynchronous(CLUSTER, updates=5, seed=0)
    with pytest.raises(ValueError, match=r"^receive: mix_models .*allowed: the rule sgd\(1.0\)$"):
        replay(TASK, rule, timeline, receive=mix_models(0.5))


def test_models_are_mixed_one_an_update_only():
    timeline = k_async(CLUSTER, k=2, updates=5, seed=0)
    receive = optax.chain(mix_models(0.5), optax.identity())
    with pytest.raises(ValueError, match="^receive: mix_models takes one model an update"):
        replay(TASK, sgd(1.0), timeline, receive=receive)


def test_optax_has_a_rule_that_changes_nothing_too():
    timeline = asynchronous(CLUSTER, updates=5, seed=0)
    ours = replay(TASK, sgd(1.0), timeline, receive=mix_models(0.5))
    other = replay(TASK, optax.sgd(1.0), timeline, receive=mix_models(0.5))
    assert jnp.array_equal(ours.params, other.params)
