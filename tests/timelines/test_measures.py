"""Participation, staleness by worker and discarded work, on timelines one can count by hand."""

import numpy as np

from sgdlab import timelines
from sgdlab.timelines import measures


def two_speeds(**horizon):
    """Worker 0 needs one second for a gradient, worker 1 three."""
    models = [timelines.constant(1.0), timelines.constant(3.0)]
    return timelines.Cluster(workers=2, compute=models), horizon


def test_a_worker_three_times_as_fast_takes_part_three_times_as_often():
    cluster, horizon = two_speeds(seconds=30.0)
    timeline = timelines.asynchronous(cluster, **horizon)
    np.testing.assert_allclose(measures.participation(timeline), [30 / 40, 10 / 40])


def test_the_slow_worker_is_the_stale_one():
    cluster, horizon = two_speeds(seconds=30.0)
    by_worker = measures.staleness_by_worker(timelines.asynchronous(cluster, **horizon))
    # three updates of worker 0 pass in each of worker 1's gradients; one of worker 1's passes in
    # those that worker 0 reads at t = 3, 6, …, 27, just before it
    np.testing.assert_allclose(by_worker, [9 / 30, 3.0])


def test_a_worker_that_is_never_used_has_no_staleness():
    cluster, horizon = two_speeds(updates=3)
    timeline = timelines.k_sync(cluster, k=1, **horizon)
    assert np.isnan(measures.staleness_by_worker(timeline)[1])
    np.testing.assert_array_equal(measures.participation(timeline), [1.0, 0.0])


def test_backup_workers_waste_what_they_had_computed():
    cluster, horizon = two_speeds(updates=3)
    wasted = measures.discarded(timelines.k_sync(cluster, k=1, **horizon))
    assert wasted.seconds == 3.0  # worker 1 is stopped after one second, three times
    assert wasted.share == 0.5


def test_nothing_is_wasted_where_every_message_is_used():
    cluster, horizon = two_speeds(seconds=30.0)
    assert measures.discarded(timelines.asynchronous(cluster, **horizon)) == (0.0, 0.0)


def test_the_head_of_a_timeline_is_what_had_happened_by_then():
    cluster, _ = two_speeds()
    whole = timelines.asynchronous(cluster, seconds=30.0)
    head = timelines.head(whole, 4)
    head.validate()
    # worker 0 arrives at 1, 2, 3, worker 1 at 3: four updates in three seconds, nobody waited
    assert (head.num_updates, head.seconds) == (4, 3.0)
    np.testing.assert_allclose(head.utilisation(), 1.0)
    np.testing.assert_array_equal(head.staleness[head.update >= 0], [0, 0, 0, 3])
    # both have read again at 3 s, the one that was first before the other's update
    assert (head.update == timelines.IN_FLIGHT).sum() >= 1


def test_the_head_of_any_timeline_is_a_timeline():
    cluster = timelines.Cluster(workers=5, compute=timelines.exponential(1.0))
    for protocol in (timelines.synchronous, timelines.asynchronous, timelines.ringleader):
        whole = protocol(cluster, updates=20, seed=3)
        for updates in range(21):
            head = timelines.head(whole, updates)
            head.validate()
            assert head.num_updates == updates
        assert head is whole


def test_the_head_may_end_among_updates_of_one_instant():
    cluster = timelines.Cluster(workers=3, compute=timelines.constant(1.0))
    head = timelines.head(timelines.asynchronous(cluster, updates=6), 1)
    head.validate()
    # all arrive at 1 s; the first has read version 1 then, and nobody what the others bring
    assert sorted(head.read_version.tolist()) == [0, 0, 0, 1]
    assert sorted(head.update.tolist()) == [timelines.IN_FLIGHT] * 3 + [0]


def test_the_head_of_rounds_keeps_their_waiting():
    cluster, _ = two_speeds(updates=5)
    head = timelines.head(timelines.synchronous(cluster, updates=5), 2)
    assert head.seconds == 6.0
    np.testing.assert_allclose(head.utilisation(), [1 / 3, 1.0])
