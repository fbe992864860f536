"""The facts that each protocol is known for: closed forms, bounds and limits."""

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from sgdlab.timelines import (
    CANCELLED,
    DROPPED,
    IN_FLIGHT,
    Cluster,
    Timeline,
    TimelineError,
    asynchronous,
    bounded_staleness,
    constant,
    exponential,
    fixed_delay,
    from_trace,
    gamma,
    k_async,
    k_batch_async,
    k_batch_sync,
    k_sync,
    lognormal,
    malenia,
    pareto,
    random_delay,
    ringleader,
    ringmaster,
    shifted_exponential,
    synchronous,
    wait_for_all,
    window,
)

MIXED = Cluster(
    workers=4,
    compute=[
        constant(1.0),
        exponential(2.0),
        lognormal(mean=1.0, sigma=1.0),
        gamma(3.0, shape=2.0),
    ],
)
FAULTY = Cluster(
    workers=4,
    compute=lognormal(mean=1.0, sigma=0.5),
    network={"latency": 0.05, "service_time": 0.1},
    failures={"mtbf": 15.0, "repair": 2.0},
    joins={3: 4.0},
    leaves={2: 30.0},
)
CLUSTERS = pytest.mark.parametrize("cluster", [MIXED, FAULTY], ids=["mixed", "faulty"])


def used(timeline):
    return timeline.staleness[timeline.update >= 0]


def step_times(timeline):
    return np.diff(timeline.apply_time, prepend=0.0)


@CLUSTERS
def test_synchronous_messages_are_fresh(cluster):
    for network in (cluster.network, {"latency": 0.1, "collective": "ring"}):
        other = Cluster.from_dict(cluster.to_dict() | {"network": network})
        assert not used(synchronous(other, seconds=50.0)).any()


def test_a_collective_adds_its_time_to_the_slowest_gradient():
    """Four workers, the slowest takes 3 s; 8 bytes at 2 bytes/s, 0.5 s latency.

    Ring: 2·3 transfers of a quarter: 6·(0.5 + 1) = 9 s. Tree: 2·log₂4 of all: 4·(0.5 + 4) = 18 s.
    """
    for collective, seconds in (("ring", 9.0), ("tree", 18.0)):
        network = {"latency": 0.5, "bandwidth": 2.0, "message_bytes": 8.0, "collective": collective}
        cluster = Cluster(workers=4, compute=[constant(s) for s in (1, 2, 3, 1)], network=network)
        timeline = synchronous(cluster, updates=5)
        np.testing.assert_allclose(timeline.apply_time, (3 + seconds) * np.arange(1, 6), rtol=1e-12)


@CLUSTERS
def test_window_of_no_time_is_asynchronous(cluster, assert_same):
    assert_same(window(cluster, wait=0.0, seconds=60.0), asynchronous(cluster, seconds=60.0))


@CLUSTERS
def test_window_of_unlimited_time_is_synchronous(cluster, assert_same):
    assert_same(window(cluster, wait=math.inf, updates=20), synchronous(cluster, updates=20))


@CLUSTERS
def test_k_async_of_one_is_asynchronous(cluster, assert_same):
    assert_same(k_async(cluster, k=1, gradients=100), asynchronous(cluster, gradients=100))


@CLUSTERS
def test_k_async_of_all_is_synchronous(cluster, assert_same):
    assert_same(k_async(cluster, k=4, seconds=60.0), synchronous(cluster, seconds=60.0))


@CLUSTERS
@pytest.mark.parametrize("stop", [False, True])
def test_k_sync_of_all_is_synchronous(cluster, stop, assert_same):
    assert_same(k_sync(cluster, k=4, stop=stop, seconds=60.0), synchronous(cluster, seconds=60.0))


@CLUSTERS
def test_k_batch_async_of_one_is_asynchronous(cluster, assert_same):
    assert_same(k_batch_async(cluster, k=1, updates=80), asynchronous(cluster, updates=80))


@CLUSTERS
@pytest.mark.parametrize("stop", [False, True])
def test_ringmaster_without_a_threshold_is_asynchronous(cluster, stop, assert_same):
    unlimited = ringmaster(cluster, threshold=math.inf, stop=stop, updates=80)
    assert_same(unlimited, asynchronous(cluster, updates=80))


@CLUSTERS
def test_bounded_staleness_without_a_bound_is_asynchronous(cluster, assert_same):
    assert_same(
        bounded_staleness(cluster, bound=10**6, updates=80), asynchronous(cluster, updates=80)
    )


def test_a_window_ends_before_an_arrival_at_its_closing_time():
    # A window of 1 s opens with worker 0 at 1 and closes at 2, before worker 2 arrives.
    cluster = Cluster(workers=3, compute=[constant(1.0), constant(1.5), constant(2.0)])
    timeline = window(cluster, wait=1.0, updates=2)
    assert timeline.apply_time.tolist() == [2.0, 3.0]
    assert [set(timeline.worker[timeline.update == u].tolist()) for u in (0, 1)] == [{0, 1}, {2}]
    # Worker 0, restarted at 2, would arrive at 3: again at the closing time, and so too late.
    assert timeline.staleness[timeline.update == 1].tolist() == [1]


def test_a_window_closes_early_when_everybody_is_in():
    cluster = Cluster(workers=2, compute=[constant(1.0), constant(1.5)])
    assert window(cluster, wait=10.0, updates=3).apply_time.tolist() == [1.5, 3.0, 4.5]


def test_a_window_that_closed_early_ends_no_later_one():
    """Windows of 5.5 s open at 1, 3.5, 6, ...; all are in 1.5 s later. At 6.5 the first is over."""
    cluster = Cluster(workers=2, compute=[constant(1.0), constant(2.5)])
    timeline = window(cluster, wait=5.5, updates=4)
    assert timeline.apply_time.tolist() == [2.5, 5.0, 7.5, 10.0]
    np.testing.assert_array_equal(np.bincount(timeline.update[timeline.update >= 0]), [2] * 4)


def test_k_sync_step_of_exponential_workers():
    """E = μ(H_N − H_{N−K}), Var = μ² Σ_{N−K<i≤N} 1/i²: within 5 standard errors (p < 1e-6)."""
    workers, k, mean, updates = 8, 5, 2.0, 4000
    orders = np.arange(workers - k + 1, workers + 1)
    expected, deviation = mean * np.sum(1 / orders), mean * np.sqrt(np.sum(1.0 / orders**2))
    for shift in (0.0, 1.5):
        compute = shifted_exponential(mean=mean + shift, shift=shift)
        timeline = k_sync(Cluster(workers=workers, compute=compute), k=k, updates=updates)
        error = step_times(timeline).mean() - (expected + shift)
        assert abs(error) < 5 * deviation / math.sqrt(updates)
        assert not used(timeline).any()
        assert set(np.unique(timeline.update[timeline.update < 0])) == {IN_FLIGHT, CANCELLED}


@pytest.mark.parametrize(("k", "seconds"), [(14, 2.1154), (12, 1.6367)])
def test_backup_workers_that_run_on_take_longer_for_an_update(k, seconds):
    """16 memoryless workers: the k-th of 16 that end one work, k of them, or two, 16 − k.

    The first update finds nobody late; all others begin alike and are independent. 5 standard
    errors, and the last digit of the number.
    """
    updates = 6000
    timeline = k_sync(
        Cluster(workers=16, compute=exponential(1.0)), k=k, stop=False, updates=updates
    )
    steps = step_times(timeline)[1:]
    assert abs(steps.mean() - seconds) < 5 * steps.std() / math.sqrt(updates) + 1e-4
    assert not used(timeline).any()
    assert set(np.unique(timeline.update[timeline.update < 0])) == {IN_FLIGHT, DROPPED}
    for update in range(100):  # a worker counts once an update
        assert len(set(timeline.worker[timeline.update == update].tolist())) == k


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(1, 30))
def test_malenia_time_bound(times, samples):
    """At fixed times an update takes ≤ max(h, 2·h̄·S/N); ≤ 2× without stopping."""
    bound = max(max(times), 2 * np.mean(times) * samples / len(times))
    cluster = Cluster(workers=len(times), compute=[constant(float(t)) for t in times])
    for stop, factor in ((True, 1), (False, 2)):
        timeline = malenia(cluster, samples=samples, stop=stop, updates=6)
        assert step_times(timeline).max() <= factor * bound * (1 + 1e-12)
        assert not used(timeline).any()
        assert np.any(timeline.update == CANCELLED) <= stop
        assert np.any(timeline.update == DROPPED) <= (not stop)
        for update in range(6):
            counts = np.bincount(timeline.worker[timeline.update == update])
            assert len(times) / np.sum(1 / counts) > samples / len(times) * (1 - 1e-12)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(1, 12))
def test_rennala_time_bound(times, batch):
    """B fresh messages at fixed times take ≤ min_m (B + m)/Σ_{i≤m} 1/hᵢ; ≤ 2× without stopping."""
    speeds = np.cumsum(1 / np.sort(times))
    bound = np.min((batch + np.arange(1, len(times) + 1)) / speeds)
    cluster = Cluster(workers=len(times), compute=[constant(float(t)) for t in times])
    for stop, factor in ((True, 1), (False, 2)):
        timeline = k_batch_sync(cluster, k=batch, stop=stop, updates=6)
        assert step_times(timeline).max() <= factor * bound * (1 + 1e-12)
        assert not used(timeline).any()
        assert np.all(np.bincount(timeline.update[timeline.update >= 0]) == batch)
        assert np.any(timeline.update == CANCELLED) <= stop
        assert np.any(timeline.update == DROPPED) <= (not stop)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 7), st.sampled_from([exponential(1.0), pareto(2.0, 1.2), constant(1.0)]),
       st.integers(0, 1000), st.integers(1, 300))  # fmt: skip
def test_conservation_law(workers, compute, seed, updates):
    """Σ τ over K applied + Σ over in flight of (K − read) = (N − 1)·K, exactly."""
    timeline = asynchronous(Cluster(workers=workers, compute=compute), updates=updates, seed=seed)
    flying = timeline.read_version[timeline.update == IN_FLIGHT]
    assert len(flying) == workers
    assert used(timeline).sum() + np.sum(updates - flying) == (workers - 1) * updates


def test_equal_deterministic_workers_have_staleness_one_less_than_their_number():
    timeline = asynchronous(Cluster(workers=6, compute=constant(0.3)), updates=60)
    np.testing.assert_array_equal(used(timeline), np.minimum(np.arange(60), 5))


def test_memoryless_workers_have_geometric_staleness():
    """P(τ = l) = (1/N)(1 − 1/N)^l; frequencies within 5 standard errors.

    Neighbouring staleness values are correlated over about N updates; every 20 N-th is used, which
    are independent to e^{−20}.
    """
    workers, stride = 5, 100
    timeline = asynchronous(Cluster(workers=workers, compute=exponential(1.0)), updates=200_000)
    sample = used(timeline)[stride::stride]
    for value in range(8):
        chance = (1 - 1 / workers) ** value / workers
        error = np.mean(sample == value) - chance
        assert abs(error) < 5 * math.sqrt(chance * (1 - chance) / len(sample))


def test_a_buffer_of_k_has_mean_staleness_n_minus_one_over_k():
    """At each update N − 1 others are at work and none is held: Σ τ + Σ in flight = (N − 1)·T."""
    workers, updates = 12, 5000
    for k in (1, 3, 8):
        cluster = Cluster(workers=workers, compute=exponential(1.0))
        timeline = k_batch_async(cluster, k=k, updates=updates)
        flying = np.sum(updates - timeline.read_version[timeline.update == IN_FLIGHT])
        assert used(timeline).sum() + flying == (workers - 1) * updates
        expected, slack = (workers - 1) / k, flying / (k * updates)
        assert expected - slack <= used(timeline).mean() <= expected


@CLUSTERS
def test_bounded_staleness_bounds_the_gap_of_clocks(cluster):
    for bound in (0, 2):
        timeline = bounded_staleness(
            MIXED if cluster is MIXED else cluster, bound=bound, seconds=80.0
        )
        if cluster is FAULTY:  # clocks of those who join and leave aren't comparable
            continue
        clock = np.zeros(4, int)
        for worker in timeline.worker[timeline.update >= 0]:
            clock[worker] += 1
            assert clock.max() - clock.min() <= bound + 1


def test_bounded_staleness_of_zero_applies_one_by_one_in_rounds():
    timeline = bounded_staleness(MIXED, bound=0, updates=40)
    np.testing.assert_array_equal(used(timeline), np.arange(40) % 4)
    rounds = timeline.worker[timeline.update >= 0].reshape(10, 4)
    np.testing.assert_array_equal(np.sort(rounds, axis=1), np.tile(np.arange(4), (10, 1)))


def test_who_waits_for_a_worker_goes_on_when_that_one_leaves():
    """w0 takes 1 s and may be 1 message ahead of w1, which takes 100 s and leaves at 5."""
    cluster = Cluster(workers=2, compute=[constant(1.0), constant(100.0)], leaves={1: 5.0})
    timeline = bounded_staleness(cluster, bound=1, updates=5)
    assert timeline.apply_time.tolist() == [1, 2, 6, 7, 8]


@CLUSTERS
@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("threshold", [1, 2, 2.5])
def test_ringmaster_keeps_staleness_below_its_threshold(cluster, stop, threshold):
    timeline = ringmaster(cluster, threshold=threshold, stop=stop, seconds=100.0)
    assert used(timeline).max() == math.ceil(threshold) - 1
    refused = DROPPED if not stop else CANCELLED
    assert np.any(timeline.update == refused)
    assert stop <= (not np.any(timeline.update == DROPPED))


def test_wait_for_all_uses_everybody_in_every_update():
    slow = Cluster(workers=3, compute=[constant(1.0), constant(1.0), constant(4.0)])
    timeline = wait_for_all(slow, updates=5)
    assert timeline.average == "workers"
    np.testing.assert_array_equal(timeline.apply_time, [4, 8, 12, 16, 20])
    for update in range(5):
        counts = np.bincount(timeline.worker[timeline.update == update], minlength=3)
        assert counts.tolist() == [4, 4, 1]
    assert np.all(timeline.update != DROPPED)


@CLUSTERS
def test_ringleader_drops_nothing_and_serves_everyone_once_a_round(cluster):
    timeline = ringleader(cluster, seconds=100.0)
    assert timeline.average == "workers"
    assert np.all(timeline.update != DROPPED)
    ends = np.unique(timeline.last_update[timeline.update >= 0])
    lengths = np.diff(ends, prepend=-1)
    if cluster is MIXED:
        assert np.all(lengths[:-1] == 4)
    for first, last in zip(ends - lengths + 1, ends, strict=True):
        table = (timeline.last_update == last) & (timeline.update >= 0)
        gathered = table & (timeline.update == first)
        assert np.all(timeline.update[table] >= first)
        if cluster is MIXED:  # the table is full from the round's first update on
            assert set(timeline.worker[gathered].tolist()) == {0, 1, 2, 3}
        later = timeline.worker[table & ~gathered]
        assert len(set(later.tolist())) == len(later)  # one message, one update, one worker


def test_ringleader_by_hand():
    """Two workers of 2 and 3 s.

    Round 1 gathers w0 at 2 and w1 at 3: update 0 at 3, serving w1. w0 comes in at 4: update 1 ends
    the round. Round 2 gathers from then: w1 (read 1, from 3) and w0 (read 2, from 4) both at 6;
    w0 goes first, w1 completes: update 2. w0 comes in at 8: update 3.
    """
    cluster = Cluster(workers=2, compute=[constant(2.0), constant(3.0)])
    timeline = ringleader(cluster, updates=4)
    assert timeline.apply_time.tolist() == [3.0, 4.0, 6.0, 8.0]
    assert timeline.worker.tolist() == [0, 1, 0, 0, 1, 0, 1, 0]
    assert timeline.update.tolist() == [0, 0, 1, 2, 2, 3, IN_FLIGHT, IN_FLIGHT]
    assert timeline.last_update.tolist() == [1, 1, 1, 3, 3, 3, IN_FLIGHT, IN_FLIGHT]
    assert timeline.read_version.tolist() == [0, 0, 0, 2, 1, 2, 3, 4]


def test_ringleader_of_one_worker_is_plain_sgd():
    timeline = ringleader(Cluster(workers=1, compute=exponential(1.0)), updates=30)
    np.testing.assert_array_equal(timeline.last_update, timeline.update)
    assert not used(timeline).any()


def test_a_next_table_that_is_full_at_once_is_served_with_the_next_arrival():
    """w0 and w2 take 1 s, w1 7.5 s; w2 joins at 7, w1 leaves at 12.5.

    w2 completes the first table at 8, w0 comes in at 9, and w1 is waited for until it leaves. By
    then the next table has w0's of 10, 11, 12 and w2's of 9 ... 12. w0's at 13 is served with it.
    """
    compute = [constant(1.0), constant(7.5), constant(1.0)]
    cluster = Cluster(workers=3, compute=compute, joins={2: 7.0}, leaves={1: 12.5})
    timeline = ringleader(cluster, updates=4)
    assert timeline.apply_time.tolist() == [8.0, 9.0, 13.0, 13.0]
    tables = [timeline.worker[timeline.update == update] for update in range(4)]
    assert np.bincount(tables[0], minlength=3).tolist() == [8, 1, 1]
    assert np.bincount(tables[2], minlength=3).tolist() == [4, 0, 4]
    assert tables[3].tolist() == [2]


def test_fixed_delay_reads_that_many_versions_back():
    timeline = fixed_delay(3, updates=20)
    timeline.validate()
    assert timeline.num_workers == 4
    np.testing.assert_array_equal(used(timeline), np.minimum(np.arange(20), 3))
    np.testing.assert_array_equal(timeline.worker[:20], np.arange(20) % 4)
    np.testing.assert_array_equal(timeline.apply_time, np.arange(1, 21))
    assert timeline.peak_live_versions() == 4


def test_no_delay_is_one_worker(assert_same):
    queue = fixed_delay(0, updates=12)
    assert_same(queue, asynchronous(Cluster(workers=1, compute=constant(1.0)), updates=12))


def test_random_delay_of_a_point_mass_is_fixed_delay(assert_same):
    assert_same(random_delay([0.0, 0.0, 1.0], updates=15, seed=3), fixed_delay(2, updates=15))


def test_random_delays_have_their_law():
    probabilities, updates = [0.5, 0.2, 0.3], 20_000
    timeline = random_delay(probabilities, updates=updates, seed=1)
    timeline.validate()
    for delay, chance in enumerate(probabilities):
        share = np.mean(used(timeline)[2:] == delay)
        assert abs(share - chance) < 5 * math.sqrt(chance * (1 - chance) / updates)
    longer = random_delay(probabilities, updates=updates + 50, seed=1)
    np.testing.assert_array_equal(longer.read_version[:updates], timeline.read_version[:updates])


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: fixed_delay(-1, updates=3), "fixed_delay: delay is -1"),
        (lambda: fixed_delay(1, updates=0), "fixed_delay: updates is 0"),
        (lambda: random_delay([], updates=3), "probabilities is []; allowed: a list"),
        (lambda: random_delay([0.5, 0.4], updates=3), "probabilities sum to 0.9"),
        (lambda: random_delay([1.5, -0.5], updates=3), "probabilities[0] is 1.5"),
        (lambda: random_delay([1.0, 0.0], updates=3), "end with 0.0"),
        (lambda: random_delay([1.0], updates=3, seed=-2), "seed is -2"),
    ],
)
def test_a_wrong_delay_is_one_line(call, line):
    with pytest.raises(TimelineError) as error:
        call()
    assert line in str(error.value)


@pytest.mark.parametrize("suffix", ["npz", "csv", "parquet"])
@pytest.mark.parametrize("make", [ringleader, wait_for_all, lambda c, **k: k_sync(c, k=2, **k)])
def test_a_recorded_timeline_is_replayed_as_recorded(tmp_path, suffix, make, assert_same):
    timeline = make(MIXED, seconds=30.0)
    path = tmp_path / f"run.{suffix}"
    if suffix == "npz":
        timeline.save(path)
    else:
        table = timeline.to_dataframe()
        table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path)
    recorded = from_trace(str(path), average=timeline.average)
    if suffix == "npz":
        assert_same(recorded, timeline)
        return
    order = np.lexsort((timeline.worker, timeline.arrival_time))
    for name in ("worker", "read_version", "start_time", "arrival_time", "update", "last_update"):
        np.testing.assert_array_equal(getattr(recorded, name), getattr(timeline, name)[order])
    np.testing.assert_array_equal(recorded.apply_time, timeline.apply_time)


def test_a_minimal_recording(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text(
        "worker,read_version,start_time,arrival_time,update\n1,0,0.0,2.5,1\n0,0,0.0,1.5,0\n0,1,1.5,inf,-2\n"
    )
    timeline = from_trace(str(path))
    assert timeline.num_workers == 2
    assert timeline.apply_time.tolist() == [1.5, 2.5]
    assert timeline.staleness.tolist() == [0, 1, -1]
    assert isinstance(timeline, Timeline)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("0,0,0.0,x,0", "line 3: arrival_time is 'x'"),
        ("0,0.5,0.0,3.0,0", "line 3: read_version is '0.5'; allowed: an integer"),
        ("2000000000,0,0.0,3.0,0", "line 3: worker is 2000000000; allowed: < 2"),
        ("0,0,0.0,3.0,2000000000", "line 3: update is 2000000000; allowed: < 2"),
        ("0,0,0.0", "line 3 has 3 columns; allowed: 5"),
        ("1,0,0.5,0.1,0", "compute_end[0] is 0.1; allowed: a time >= its start_time"),
    ],
)
def test_a_broken_recording_names_its_line(tmp_path, row, words):
    path = tmp_path / "run.csv"
    path.write_text(f"worker,read_version,start_time,arrival_time,update\n0,0,0.0,1.0,0\n{row}\n")
    with pytest.raises(TimelineError) as error:
        from_trace(str(path))
    assert words in str(error.value)
    assert str(path) in str(error.value)
