"""Messages computed when their workers have read make the updates that they make in their turn."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st

from sgdlab import precision, rules, tasks, timelines, training, workers
from sgdlab.timelines import IN_FLIGHT
from sgdlab.timelines.early import go_early, reads_in_turn
from sgdlab.timelines.plan import plan
from sgdlab.training import replaying
from sgdlab.training.batches import draw_rows, make_shards
from tests.training.walks import walk

MODELS = {
    "gamma": timelines.gamma(mean=1.0, shape=2.0),
    "equal": timelines.constant(1.0),
    "exponential": timelines.exponential(1.0),
}
CLUSTER = timelines.Cluster(workers=4, compute=MODELS["gamma"])
DIGITS = tasks.digits(hidden=[8])


def asynchronous(updates, seed=1, cluster=CLUSTER):
    return timelines.asynchronous(cluster, updates=updates, seed=seed)


def form_of(timeline, task=DIGITS, rule=None, **options):
    """In which form a replay computes its messages."""
    rule = rule or rules.momentum(0.1)
    prepared = replaying.prepare(task, replaying.FixedRule(rule), timeline, seeds=[0], **options)
    return prepared.program.form


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(MODELS)), st.integers(1, 9), st.integers(1, 60), st.integers(0, 5))
def test_a_message_waits_in_its_slot_until_its_update(kind, workers, updates, seed):
    cluster = timelines.Cluster(workers=workers, compute=MODELS[kind])
    timeline = asynchronous(updates, seed, cluster)
    early = go_early(timeline, plan(timeline))
    slots, most = np.full(early.num_slots, -1), 0
    for step, message in enumerate(early.computed):
        update = step - early.lead
        assert timeline.read_version[message] == max(update, 0)  # the version that is current
        slots[early.write_slot[step]] = message
        if update >= 0:
            assert slots[early.read_slot[update]] == early.message[update]
        began = timeline.read_version <= max(update, 0)
        under_way = began & ((timeline.update >= update) | (timeline.update == IN_FLIGHT))
        most = max(most, np.count_nonzero(under_way[early.computed[: step + 1]]))
    assert len(set(early.computed.tolist())) == len(early.computed) == early.lead + updates
    assert early.num_slots == most <= workers


def without_what_is_under_way(timeline):
    """As a log holds it that knows the messages which arrived: the last versions have no reader."""
    names = ("worker", "read_version", "start_time", "compute_end", "arrival_time", "update")
    used = {name: getattr(timeline, name)[timeline.update >= 0] for name in names}
    return dataclasses.replace(timeline, **used, last_update=used["update"])


@pytest.mark.parametrize(
    "make",
    [
        lambda: without_what_is_under_way(asynchronous(40)),
        lambda: timelines.random_delay([0.5, 0.2, 0.3], updates=40, seed=0),
        lambda: timelines.window(CLUSTER, wait=0.7, updates=40, seed=0),
        lambda: timelines.ringmaster(CLUSTER, threshold=2, updates=40, seed=0),
    ],
    ids=[
        "some versions are read by nobody",
        "some versions are read twice",
        "several messages an update",
        "messages are dropped",
    ],
)
def test_other_timelines_do_not_read_in_turn(make):
    assert not reads_in_turn(make())


def matrix_quadratic():
    """½ Σ Λ W², W of 2 × 3: the smallest parameters that are a matrix."""
    curvature = jnp.arange(1.0, 7.0).reshape(2, 3) / 6

    def loss(params, batch, key):
        del batch, key
        return 0.5 * jnp.sum(curvature * params**2), {}

    rows = {"input": np.zeros((1, 1), np.float32)}
    return tasks.Task("matrix", lambda key: jnp.ones((2, 3)), loss, rows, rows)


@pytest.mark.parametrize("aware", [False, True], ids=["plain", "by staleness"])
def test_every_version_is_that_of_a_plain_walk(aware):
    timeline, rate = asynchronous(120), 0.2
    receive = rules.scale_by_staleness(power=1.0) if aware else None
    assert form_of(timeline, matrix_quadratic(), rules.sgd(rate), receive=receive) == "early"
    history = training.replay(
        matrix_quadratic(),
        rules.sgd(rate),
        timeline,
        receive=receive,
        record=lambda params: {"params": params},
    )
    versions = walk(
        timeline,
        np.ones(6),
        lambda worker, index, w: np.arange(1.0, 7.0) / 6 * w,
        rate,
        (lambda message, staleness: message / (1 + staleness)) if aware else None,
    )
    # Every update rounds a few times in float32, and the errors of a contraction do not grow.
    tolerance = 120 * 4 * np.finfo(np.float32).eps
    found = np.asarray(history.records["params"]).reshape(-1, 6)
    np.testing.assert_allclose(found, versions[1:], atol=tolerance)
    curvature = np.arange(1.0, 7.0) / 6
    read = timeline.read_version[plan(timeline).message]
    losses = 0.5 * np.sum(curvature * versions[read] ** 2, axis=1)
    np.testing.assert_allclose(history.loss, losses, atol=tolerance * 6)


PROGRAMS = {
    "gradient": {},
    "Adam": {"rule": rules.adam(0.01)},
    "a chain that remembers": {
        "receive": optax.chain(rules.scale_by_worker_delay(num_workers=4), optax.trace(0.5))
    },
    "local steps": {"worker": workers.local_steps(3, rules.sgd(0.05))},
    "noise": {
        "worker": workers.compressed(workers.gradient(), workers.quantize(4), error_feedback=False)
    },
    "a loss scale": {"loss_scale": precision.StaticLossScale(2.0**10)},
    "skipping": {"on_nonfinite": "skip"},
    "bfloat16": {"precision": "bfloat16"},
}


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_early_changes_rounding_and_nothing_else(name, monkeypatch):
    options = {"batch_size": 8, "evaluate_every": 30, **PROGRAMS[name]}
    steps = getattr(options.get("worker"), "gradients_per_message", 1)
    cluster = timelines.Cluster(workers=4, compute=MODELS["gamma"], gradients_per_message=steps)
    timeline, rule = asynchronous(100, cluster=cluster), options.pop("rule", rules.momentum(0.05))
    assert form_of(timeline, rule=rule, **options) == "early"
    early = training.replay(DIGITS, rule, timeline, **options)
    monkeypatch.setattr(replaying, "pays_early", lambda timelines: False)
    assert form_of(timeline, rule=rule, **options) == "single"
    in_turn = training.replay(DIGITS, rule, timeline, **options)
    # Updates of at most 0.05, rounded otherwise by a few units in the last place, 100 times.
    unit = jnp.finfo(jnp.bfloat16 if name == "bfloat16" else jnp.float32).eps
    tolerance = 100 * 0.05 * 8 * float(unit)
    np.testing.assert_allclose(early.loss, in_turn.loss, atol=4 * tolerance)
    pairs = zip(jax.tree.leaves(early.params), jax.tree.leaves(in_turn.params), strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(
            *(np.asarray(x, np.float32) for x in (one, other)), atol=tolerance
        )
    assert list(early.evaluations["update"]) == list(in_turn.evaluations["update"])


def test_a_message_that_is_not_finite_is_left_out_when_its_turn_comes():
    """Whoever draws the bad one of four rows has an infinite gradient; the plain walk sends 0."""
    bad, rate = 2, 0.2
    rows = {"factor": np.where(np.arange(4) == bad, np.inf, 1.0).astype(np.float32)}

    def loss(params, batch, key):
        del key
        return 0.5 * jnp.sum(params**2) * jnp.mean(batch["factor"]), {}

    task = tasks.Task("one bad row", lambda key: jnp.ones((2, 2)), loss, rows, rows)
    timeline, shards = asynchronous(120), make_shards(None, 4, 4)
    options = {"batch_size": 1, "on_nonfinite": "skip"}
    assert form_of(timeline, task, rules.sgd(rate), **options) == "early"
    history = training.replay(task, rules.sgd(rate), timeline, seed=3, **options)

    def is_bad(worker, index):
        drawn = draw_rows(jax.random.key(3), shards, jnp.int32(worker), jnp.int32(index), (1, 1))
        return int(drawn[0, 0]) == bad

    used = plan(timeline).message
    expected = [is_bad(timeline.worker[m], timeline.local_index[m]) for m in used]
    assert 0 < sum(expected) < 120
    assert history.skipped.tolist() == [int(each) for each in expected]
    versions = walk(
        timeline,
        np.ones(4),
        lambda worker, index, w: np.zeros(4) if is_bad(worker, index) else w,
        rate,
    )
    tolerance = 120 * 4 * np.finfo(np.float32).eps
    np.testing.assert_allclose(np.ravel(history.params), versions[-1], atol=tolerance)


def test_what_needs_the_version_itself_is_computed_in_its_turn():
    timeline = asynchronous(100)
    assert form_of(timeline) == "early"
    assert form_of(timeline, measures=["distance"]) == "single"
    assert form_of(timeline, receive=rules.compensate_delay(0.04)) == "single"
    assert form_of(timeline, precision="mixed_bfloat16") == "single"  # 16-bit slots are narrower
    assert form_of(timeline, task=tasks.quadratic([1.0, 0.5])) == "single"  # no matrix product
    feedback = workers.compressed(workers.gradient(), workers.top_k(0.2), error_feedback=True)
    assert form_of(timeline, worker=feedback) == "single"
    assert form_of(asynchronous(99)) == "single"  # 25 updates a worker make up for the lead


def test_members_side_by_side_and_one_by_one_agree():
    options = {"seeds": [0, 1], "hyperparameters": {"learning_rate": [0.05, 0.1]}}
    timeline = [asynchronous(100, seed) for seed in (1, 2)]
    alone = training.replay_many(DIGITS, rules.momentum, timeline, members="threads", **options)
    together = training.replay_many(DIGITS, rules.momentum, timeline, members="vmap", **options)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one.loss, other.loss, atol=100 * 0.1 * 8 * 1.2e-7)
