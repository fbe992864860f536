"""A plan keeps every version that is still to be read, in the fewest slots."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from sgdlab import timelines
from sgdlab.timelines import TimelineError
from sgdlab.timelines.plan import plan
from tests.training.reference import most_versions_alive


def cluster_of(workers, kind):
    model = {"gamma": timelines.gamma(mean=1.0, shape=2.0), "equal": timelines.constant(1.0)}[kind]
    return timelines.Cluster(workers=workers, compute=model)


ANY_TIMELINE = {
    "asynchronous": lambda c, u, s: timelines.asynchronous(c, updates=u, seed=s),
    "window": lambda c, u, s: timelines.window(c, wait=0.7, updates=u, seed=s),
    "wait_for_all": lambda c, u, s: timelines.wait_for_all(c, updates=u, seed=s),
    "random_delay": lambda c, u, s: timelines.random_delay([0.5, 0.2, 0.3], updates=u, seed=s),
}


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(ANY_TIMELINE)),
    st.sampled_from(["gamma", "equal"]),
    st.integers(1, 9),
    st.integers(1, 60),
    st.integers(0, 5),
)
def test_a_slot_still_holds_its_version_when_it_is_read(name, kind, workers, updates, seed):
    timeline = ANY_TIMELINE[name](cluster_of(workers, kind), updates, seed)
    planned = plan(timeline)
    if planned.num_slots == 0:
        assert np.all(timeline.staleness[planned.message] == 0)
        return
    slots = np.full(planned.num_slots, -1)
    for update in range(planned.num_updates):
        slots[planned.write_slot[update]] = update
        for m in range(planned.start[update], planned.start[update + 1]):
            assert slots[planned.read_slot[m]] == timeline.read_version[planned.message[m]]
    assert planned.num_slots == most_versions_alive(timeline)
    # Whoever is at work at the end has read something that is there still, or the last version.
    under_way = timeline.read_version[timeline.update == timelines.IN_FLIGHT]
    assert {*under_way.tolist()} <= {*slots.tolist(), updates}


def test_a_synchronous_timeline_needs_no_slot():
    timeline = timelines.synchronous(cluster_of(5, "gamma"), updates=10, seed=0)
    planned = plan(timeline)
    assert planned.num_slots == 0
    assert planned.messages_per_update == 5
    assert planned.is_uniform


def test_one_slot_a_worker_suffices_under_asynchrony():
    timeline = timelines.asynchronous(cluster_of(16, "gamma"), updates=3000, seed=0)
    assert timeline.staleness.max() > 32
    assert plan(timeline).num_slots <= 16


def test_weights_of_an_update_sum_to_one(handmade):
    timeline = handmade([0, 0, 1, 1, 0], [0, 0, 0, 1, 1], [0, 0, 0, 1, 1])
    np.testing.assert_allclose(plan(timeline).weight, [1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2])


def test_a_worker_mean_weighs_a_fast_worker_no_more(handmade):
    timeline = handmade([0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 1], average="workers")
    np.testing.assert_allclose(plan(timeline).weight, [1 / 4, 1 / 4, 1 / 2, 1])


def test_a_refused_message_is_walked_by_the_update_that_its_refusal_comes_before():
    """Of two equal workers the second comes when the first has made the update: it is too late."""
    cluster = cluster_of(2, "equal")
    timeline = timelines.k_sync(cluster, k=1, stop=False, updates=3)
    planned = plan(timeline, include_dropped=True)
    assert planned.start.tolist() == [0, 1, 3, 5]
    walked = timeline.update[planned.message].tolist()
    assert walked == [0, timelines.DROPPED, 1, timelines.DROPPED, 2]


def test_mean_staleness_is_over_the_messages_in_use(handmade):
    timeline = handmade([0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 1, 2])
    np.testing.assert_array_equal(plan(timeline).staleness, [0, 0, 2])
    table = handmade([0, 1, 1], [0, 0, 1], [0, 1, 2], last=[2, 2, 2])
    np.testing.assert_allclose(plan(table).staleness, [0, (1 + 1) / 2, (2 + 2 + 1) / 3])


def test_an_update_without_a_message_of_its_own_is_refused(handmade):
    timeline = handmade([0, 1], [0, 0], [0, 0])
    fields = {name: getattr(timeline, name) for name in ("worker", "read_version", "start_time")}
    fields |= {name: getattr(timeline, name) for name in ("compute_end", "arrival_time", "update")}
    broken = timelines.Timeline(
        num_workers=2, **fields, last_update=np.array([1, 1]), apply_time=np.array([2.0, 3.0])
    )
    with pytest.raises(TimelineError, match="update 1: no message enters it"):
        plan(broken)


def test_rows_that_would_lose_one_message_and_keep_another_are_refused(handmade):
    timeline = handmade([0, 0, 0], [0, 0, 0], [0, 1, 2], last=[1, 2, 2])
    with pytest.raises(TimelineError, match="message 1"):
        plan(timeline)


def longest_wave(timeline, first, width):
    """By definition: where the updates from `first` on begin to read what they make."""
    messages = 0
    for update in range(first, timeline.num_updates):
        used = timeline.update == update
        messages += used.sum()
        if update > first and (timeline.read_version[used].max() > first or messages > width):
            return update
    return timeline.num_updates


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(ANY_TIMELINE)),
    st.sampled_from(["gamma", "equal"]),
    st.integers(1, 9),
    st.integers(1, 40),
    st.integers(0, 5),
    st.integers(1, 12),
)
def test_every_wave_is_as_long_as_its_messages_allow(name, kind, workers, updates, seed, width):
    timeline = ANY_TIMELINE[name](cluster_of(workers, kind), updates, seed)
    wave = plan(timeline, width=width).wave
    assert wave[0] == 0
    assert wave[-1] == timeline.num_updates
    if width == 1:
        assert np.array_equal(wave, np.arange(timeline.num_updates + 1))
        return
    for first, after in itertools.pairwise(wave.tolist()):
        assert after == longest_wave(timeline, first, width)


def test_equal_workers_come_in_waves_of_all_of_them():
    timeline = timelines.asynchronous(cluster_of(8, "equal"), updates=64, seed=0)
    assert plan(timeline, width=8).wave.tolist() == list(range(0, 65, 8))


def test_a_width_of_no_message_is_refused():
    timeline = timelines.fixed_delay(1, updates=3)
    with pytest.raises(ValueError, match="width: 0 is too small; at least 1"):
        plan(timeline, width=0)
