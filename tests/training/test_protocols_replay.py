"""Every protocol, replayed, is the plain walk of its timeline."""

import dataclasses

import numpy as np
import optax
import pytest

from sgdlab import tasks, timelines, training
from sgdlab.timelines import CANCELLED, DROPPED, PROTOCOLS, Cluster, Failures, Network, gamma
from tests.training.walks import walk

WORKERS, SECONDS, RATE = 5, 35.0, 0.15
CURVATURE = np.array([1.0, 0.3, 2.0])
START = np.array([1.0, -2.0, 0.5])
# Every worker pulls to a place of its own, so that nobody's message can stand in for another's.
TARGETS = np.random.default_rng(0).normal(size=(WORKERS, 3)).astype(np.float32)
TASK = tasks.quadratic(CURVATURE, start=START, targets=TARGETS)
SHARDS = [np.array([worker]) for worker in range(WORKERS)]

FAST_AND_SLOW = [gamma(mean=mean, shape=4.0) for mean in (0.5, 0.7, 1.0, 1.2, 3.0)]
CLUSTERS = {
    "plain": Cluster(workers=WORKERS, compute=FAST_AND_SLOW),
    "unreliable": Cluster(
        workers=WORKERS,
        compute=FAST_AND_SLOW,
        network=Network(latency=0.05, bandwidth=10.0, message_bytes=1.0, service_time=0.02),
        failures=Failures(mtbf=5.0, repair=0.6),
    ),
    "changing": Cluster(
        workers=WORKERS, compute=FAST_AND_SLOW, joins={1: 2.3}, leaves={0: 9.1, 3: 6.0}
    ),
}

# Each row: the arguments of a protocol. A new protocol that needs some adds a row.
ARGUMENTS = {
    "k_sync": {"k": 3},
    "k_batch_sync": {"k": 4},
    "malenia": {"samples": 7},
    "k_async": {"k": 2},
    "k_batch_async": {"k": 3},
    "bounded_staleness": {"bound": 2},
    "window": {"wait": 0.4},
    "ringmaster": {"threshold": 4},
}
CASES = {name: (name, ARGUMENTS.get(name, {})) for name in PROTOCOLS} | {
    "k_sync, running on": ("k_sync", {"k": 3, "stop": False}),
    "k_batch_sync, stopping": ("k_batch_sync", {"k": 4, "stop": True}),
    "malenia, stopping": ("malenia", {"samples": 7, "stop": True}),
    "ringmaster, stopping": ("ringmaster", {"threshold": 4, "stop": True}),
}
QUEUES = {
    "fixed_delay": {"delay": 4},
    "random_delay": {"probabilities": [0.3, 0.2, 0.2, 0.2, 0.1]},
}


def make_timelines(case, folder):
    """The case's timelines, all of five workers."""
    name, arguments = CASES[case]
    if name in QUEUES:
        return [PROTOCOLS[name](**QUEUES[name], updates=60)]
    if name == "from_trace":
        recorded = timelines.ringmaster(CLUSTERS["unreliable"], threshold=4, seconds=SECONDS)
        recorded.to_dataframe().to_csv(folder / "run.csv", index=False)
        return [timelines.from_trace(str(folder / "run.csv"))]
    return [
        PROTOCOLS[name](cluster, **arguments, seconds=SECONDS, seed=2)
        for cluster in CLUSTERS.values()
    ]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The timelines of every case."""
    folder = tmp_path_factory.mktemp("traces")
    return {case: make_timelines(case, folder) for case in CASES}


def _treatment(own):
    """What a replay tells apart: tables, one message an update, equal fresh ones, the rest."""
    plans = [timelines.plan(timeline) for timeline in own]
    counts = {plan.messages_per_update for plan in plans}
    fresh = all(plan.is_uniform for plan in plans) and len(counts) == 1
    if any(plan.has_table for plan in plans):
        return "table"
    return ("fresh", *counts) if fresh else "single" if counts == {1} else "several"


@pytest.fixture(scope="module", params=["stop", "skip"])
def replayed(found, request):
    """The histories of every case; cases that a replay treats alike share a program."""
    groups = {}
    for case, own in found.items():
        groups.setdefault(_treatment(own), []).append(case)
    histories = {}
    for cases in groups.values():
        made = training.replay_many(
            TASK,
            optax.sgd,
            [timeline for case in cases for timeline in found[case]],
            seeds=[0],
            hyperparameters={"learning_rate": [RATE]},
            partition=SHARDS,
            batch_size=2,
            on_nonfinite=request.param,
            record=lambda params: {"w": params},
        )
        rest = iter(made)
        histories |= {case: [next(rest) for _ in found[case]] for case in cases}
    return histories


@pytest.mark.parametrize("case", CASES)
def test_replay_is_the_plain_walk_of_the_timeline(case, found, replayed):
    for timeline, history in zip(found[case], replayed[case], strict=True):
        expected = walk(timeline, START, lambda i, _, w: CURVATURE * (w - TARGETS[i]), RATE)
        np.testing.assert_allclose(history.records["w"], expected[1:], rtol=2e-4, atol=2e-6)
        np.testing.assert_array_equal(history.params, history.records["w"][-1])
        assert not history.skipped.any()


def test_the_timelines_hold_what_a_replay_has_to_deal_with(found):
    """Refused, stopped and lost work, tables, stale and fresh messages: no case is an easy one."""
    assert {DROPPED, CANCELLED} <= {u for each in found.values() for t in each for u in t.update}
    assert all(np.any(t.update == CANCELLED) for t in found["ringmaster, stopping"])
    assert np.any(found["ringmaster"][0].update == DROPPED)
    for case in ("k_batch_sync", "k_sync, running on", "malenia"):
        assert np.any(found[case][0].update == DROPPED)
    for timeline in found["ringleader"]:
        assert timeline.average == "workers"
        assert np.any(timeline.last_update > timeline.update)
    assert found["asynchronous"][0].staleness.max() > WORKERS
    assert np.any(found["from_trace"][0].update == CANCELLED)
    assert all(timeline.num_updates >= 4 for each in found.values() for timeline in each)


@pytest.mark.parametrize("case", ["asynchronous", "window", "k_batch_async"])
def test_the_walk_tells_one_worker_from_another(case, found):
    """The reference is no tautology: exchanging two workers changes what it says.

    Not where each has the same say: there the mean over workers is the same, as it should be.
    """
    timeline = found[case][0]
    exchanged = dataclasses.replace(timeline, worker=np.array([1, 0, 2, 3, 4])[timeline.worker])
    ends = [
        walk(each, START, lambda i, _, w: CURVATURE * (w - TARGETS[i]), RATE)[-1]
        for each in (timeline, exchanged)
    ]
    assert np.abs(ends[0] - ends[1]).max() > 1e-2
