"""What every protocol keeps to, whatever the cluster: one table, one contract."""

import inspect
import json

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from sgdlab.timelines import (
    CANCELLED,
    DROPPED,
    IN_FLIGHT,
    PROTOCOLS,
    Cluster,
    Timeline,
    TimelineError,
    constant,
    engine,
    exponential,
    lognormal,
    markov,
    pareto,
    plan,
    uniform,
)
from sgdlab.timelines.arguments import find_examples

WITHOUT_CLUSTER = {"fixed_delay", "random_delay", "from_trace"}
NAMES = [name for name in PROTOCOLS if name not in WITHOUT_CLUSTER]  # a new one is among them


def arguments_of(name, workers):
    """What the protocol's own annotations say is worth trying."""
    return find_examples(PROTOCOLS[name], workers)


MODELS = [
    constant(1.0),
    exponential(1.0),
    lognormal(mean=1.0, sigma=1.0),
    pareto(mean=2.0, shape=1.5),
    markov(fast=0.5, slow=5.0, to_slow=0.2, to_fast=0.5),
    uniform(0.5, 1.5),
]


@st.composite
def clusters(draw):
    workers = draw(st.integers(1, 6))
    models = st.sampled_from(MODELS)
    compute = draw(st.one_of(models, st.lists(models, min_size=workers, max_size=workers)))
    network = st.fixed_dictionaries(
        {
            "latency": st.sampled_from([0.0, 0.05]),
            "bandwidth": st.sampled_from([None, 10.0]),
            "message_bytes": st.just(1.0),
            "service_time": st.sampled_from([0.0, 0.3]),
            "collective": st.sampled_from(["server", "ring", "tree"]),
        }
    )
    failures = st.fixed_dictionaries({"mtbf": st.just(8.0), "repair": st.sampled_from([0.0, 1.5])})
    away = st.dictionaries(st.integers(0, workers - 1), st.sampled_from([2.0, 3.7]), max_size=2)
    # Worker 0 never leaves, so that some work always goes on.
    leaving = st.sets(st.integers(1, max(1, workers - 1)), max_size=2)
    return Cluster(
        workers=workers,
        compute=compute,
        network=draw(st.none() | network),
        failures=draw(st.none() | failures),
        gradients_per_message=draw(st.sampled_from([1, 2])),
        joins=draw(st.just({}) | away),
        leaves={w: 9.2731 + w for w in draw(leaving)} if workers > 1 else {},
    )


def horizons():
    return st.sampled_from([{"updates": 12}, {"seconds": 25.0}, {"gradients": 40}])


class CountingEngine(engine.Engine):
    """Counts, at every update, the messages that are outstanding beside those that it uses."""

    total = 0
    settled = 0

    def apply(self, messages, *, keep=False):
        self.settled += len(messages)
        type(self).total += len(self.ledger.update) - self.settled
        super().apply(messages, keep=keep)

    def drop(self, message):
        self.settled += 1
        super().drop(message)

    def stop(self, worker):
        self.settled += self._job[worker] >= 0
        super().stop(worker)


def test_the_protocols_without_a_cluster_are_these():
    takes = {name: inspect.signature(PROTOCOLS[name]).parameters for name in PROTOCOLS}
    assert {name for name in PROTOCOLS if "cluster" not in takes[name]} == WITHOUT_CLUSTER


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=25)
@given(cluster=clusters(), horizon=horizons(), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_contract(name, cluster, horizon, seed, data):
    arguments = data.draw(st.sampled_from(arguments_of(name, cluster.workers)))
    CountingEngine.total = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "Engine", CountingEngine)
        timeline = PROTOCOLS[name](cluster, **arguments, **horizon, seed=seed)
    timeline.validate()  # monotone times, no future reads, nobody in two places, updates are fed
    check_end(timeline, horizon)
    check_accounts(timeline)
    check_one_round_at_a_time(timeline)
    merged = name == "asynchronous" and cluster.is_plain  # by another path than the engine
    if not merged and not has_ties(timeline):
        assert versions_lived_through(timeline, cluster) == CountingEngine.total
    assert timeline.metadata["protocol"] == name
    assert set(timeline.metadata["parameters"]) == set(arguments)
    json.dumps(timeline.metadata, allow_nan=False)
    if timeline.num_updates:
        plan(timeline)


def check_end(timeline, horizon):
    arrived = np.isfinite(timeline.arrival_time) & (timeline.update != CANCELLED)
    gradients = arrived.sum() * timeline.gradients_per_message
    if "updates" in horizon:
        assert timeline.num_updates == horizon["updates"]
    elif "seconds" in horizon:
        assert timeline.seconds == horizon["seconds"]
    else:
        wanted = horizon["gradients"]
        assert wanted <= gradients < wanted + timeline.gradients_per_message
    times = (timeline.start_time, timeline.compute_end, timeline.arrival_time, timeline.apply_time)
    for time in times:
        assert np.all((time <= timeline.seconds) | np.isinf(time))


def check_accounts(timeline):
    """For each worker: messages begun = used + dropped + cancelled + in flight, at most one of
    these unarrived."""
    for worker in range(timeline.num_workers):
        update = timeline.update[timeline.worker == worker]
        kinds = [
            (update >= 0).sum(),
            *((update == k).sum() for k in (DROPPED, IN_FLIGHT, CANCELLED)),
        ]
        assert len(update) == sum(kinds)
        own = timeline.worker == worker
        assert np.isinf(timeline.arrival_time[own]).sum() <= 1
        np.testing.assert_array_equal(timeline.local_index[own], np.arange(own.sum()))


def check_one_round_at_a_time(timeline):
    """A worker's messages that serve one update together stop serving together."""
    for worker in range(timeline.num_workers):
        own = np.flatnonzero((timeline.worker == worker) & (timeline.update >= 0))
        first, last = timeline.update[own], timeline.last_update[own]
        overlap = first[1:] <= last[:-1]
        assert np.all(last[1:][overlap] == last[:-1][overlap])


def has_ties(timeline):
    """Whether the times alone don't tell which of two things at one instant came first."""
    refused = timeline.arrival_time[timeline.update == DROPPED]
    return bool(
        np.isin(refused, timeline.apply_time).any() | (np.diff(timeline.apply_time) == 0).any()
    )


def versions_lived_through(timeline, cluster):
    """Σ over messages of the versions that passed from read to use, refusal, stop or the end.

    What is stopped at the instant of an update is stopped by it, and so has lived through it;
    the work of who leaves at that instant has not, since leaving may have caused the update.
    """
    version = np.searchsorted(timeline.apply_time, timeline.arrival_time, side="right")
    leaving = np.array([cluster.leaves.get(i, -1.0) for i in range(timeline.num_workers)])
    left = timeline.arrival_time == leaving[timeline.worker]
    version[left] = np.searchsorted(timeline.apply_time, timeline.arrival_time[left])
    version[timeline.update == IN_FLIGHT] = timeline.num_updates
    used = timeline.update >= 0
    version[used] = timeline.update[used]
    return int(np.sum(version - timeline.read_version))


@pytest.mark.parametrize("name", NAMES)
def test_a_longer_horizon_extends_a_shorter_one(name):
    cluster = Cluster(
        workers=5,
        compute=lognormal(mean=1.0, sigma=0.7),
        failures={"mtbf": 20.0, "repair": 2.0},
        network={"latency": 0.01},
    )
    for arguments in arguments_of(name, 5):
        long = PROTOCOLS[name](cluster, **arguments, seconds=60.0, seed=3)
        short = PROTOCOLS[name](cluster, **arguments, seconds=25.0, seed=3)
        updates = short.num_updates
        assert 0 < updates < long.num_updates
        np.testing.assert_array_equal(short.apply_time, long.apply_time[:updates])
        ended = np.isfinite(short.arrival_time)
        for field in ("worker", "read_version", "start_time", "compute_end", "arrival_time"):
            np.testing.assert_array_equal(
                getattr(short, field)[ended], getattr(long, field)[: ended.sum()]
            )
        settled = short.update != IN_FLIGHT
        index = np.flatnonzero(settled)
        np.testing.assert_array_equal(short.update[index], long.update[index])
        last = np.minimum(long.last_update[index], updates - 1)
        np.testing.assert_array_equal(short.last_update[index], last)


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_timeline_and_another_seed_another(name, assert_same):
    cluster = Cluster(workers=4, compute=exponential(1.0))
    arguments = arguments_of(name, 4)[0]
    first, again, other = (
        PROTOCOLS[name](cluster, **arguments, updates=10, seed=seed) for seed in (7, 7, 8)
    )
    assert_same(first, again)
    assert not np.array_equal(first.apply_time, other.apply_time)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("horizon", "allowed"),
    [
        ({}, "exactly one of updates, seconds, gradients"),
        ({"updates": 3, "seconds": 1.0}, "exactly one of updates, seconds, gradients"),
        ({"updates": 0}, "updates is 0; allowed: an integer >= 1"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"gradients": 1.5}, "gradients is 1.5"),
        ({"updates": 1, "seed": -1}, "seed is -1"),
        ({"updates": 1, "seed": 2**32}, "seed is 4294967296"),
    ],
)
def test_a_wrong_horizon_is_one_line(name, horizon, allowed):
    with pytest.raises(TimelineError, match=allowed) as error:
        PROTOCOLS[name](Cluster(workers=2), **arguments_of(name, 2)[0], **horizon)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "arguments", "line"),
    [
        ("k_sync", {"k": 3}, "k_sync: k is 3; allowed: <= the cluster's 2 workers"),
        ("k_async", {"k": 0}, "k_async: k is 0; allowed: an integer >= 1"),
        ("k_batch_sync", {"k": True}, "k_batch_sync: k is True; allowed: an integer >= 1"),
        ("k_batch_sync", {"k": 1, "stop": 1}, "k_batch_sync: stop is 1; allowed: true or false"),
        ("window", {"wait": -1.0}, "window: wait is -1.0; allowed: a number >= 0, inf too"),
        ("window", {"wait": float("nan")}, "window: wait is nan; allowed: a number >= 0, inf too"),
        (
            "ringmaster",
            {"threshold": 0.5},
            "ringmaster: threshold is 0.5; allowed: a number >= 1, inf too",
        ),
        (
            "bounded_staleness",
            {"bound": "2"},
            "bounded_staleness: bound is '2'; allowed: an integer >= 0",
        ),
    ],
)
def test_a_wrong_parameter_is_one_line(name, arguments, line):
    with pytest.raises(TimelineError) as error:
        PROTOCOLS[name](Cluster(workers=2), **arguments, updates=1)
    assert str(error.value) == line


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_is_documented_and_annotated(name):
    function = PROTOCOLS[name]
    module = inspect.getmodule(function)
    assert module is not None
    assert module.__name__ == f"sgdlab.timelines.protocols.{name}"
    assert module.__doc__
    assert function.__doc__
    signature = inspect.signature(function, eval_str=True)
    assert signature.return_annotation is Timeline
    assert all(p.annotation is not p.empty for p in signature.parameters.values())


@pytest.mark.parametrize("stop", [False, True])
def test_a_million_lost_messages_are_an_error_and_no_endless_loop(monkeypatch, stop):
    monkeypatch.setattr(engine, "_MAX_LOSSES", 1000)
    cluster = Cluster(workers=2, compute=constant(100.0), failures={"mtbf": 0.5, "repair": 0.1})
    with pytest.raises(TimelineError, match="failures lost the last 1000 messages"):
        PROTOCOLS["ringmaster"](cluster, threshold=1, stop=stop, updates=1)


def test_an_end_that_cannot_be_reached_is_an_error():
    cluster = Cluster(workers=2, leaves={0: 5.0, 1: 5.0})
    with pytest.raises(TimelineError, match="nothing more happens, with 0 of 2 workers there"):
        PROTOCOLS["asynchronous"](cluster, updates=100)
