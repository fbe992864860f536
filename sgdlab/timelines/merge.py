"""Asynchronous timelines without an event: the workers' clocks, summed and merged.

When every message is applied alone as it arrives and nobody waits for anything, worker i's k-th
message arrives at the sum of its first k times, whatever the others do. So its arrivals are a
cumulative sum, all arrivals are one sort, and a message's place in the sort is its update. The
result equals the engine's, message for message.
"""

import math

import numpy as np

from sgdlab.timelines.arguments import MAX_MESSAGES, Seed, check_argument
from sgdlab.timelines.cluster import Cluster
from sgdlab.timelines.compute import Sampler
from sgdlab.timelines.engine import Horizon, describe
from sgdlab.timelines.limits import (
    check_length,
    most_messages,
    refuse_infinity,
    refuse_length,
    refuse_standing,
)
from sgdlab.timelines.policy import Policy
from sgdlab.timelines.timeline import IN_FLIGHT, Timeline

_FIRST_BLOCK = 16


def merge(
    cluster: Cluster,
    policy: Policy,
    *,
    updates: int | None = None,
    seconds: float | None = None,
    gradients: int | None = None,
    seed: int = 0,
) -> Timeline:
    """The asynchronous timeline of a plain cluster; arguments as those of `simulate`."""
    horizon = Horizon(updates, seconds, gradients)
    seed = check_argument(policy.name, "seed", Seed, seed)
    check_length(cluster, **vars(horizon))
    seconds, most = horizon.seconds, most_messages(cluster)
    if seconds is not None:  # nobody waits, so that all workers' means count
        rate = float((1 / (cluster.mean_seconds * cluster.gradients_per_message)).sum())
        if seconds * rate > 2 * most:
            refuse_length(seconds, most)
    clocks = [_Clock(w, cluster.message_times(w, seed), most) for w in range(cluster.workers)]
    limit = horizon.updates or horizon.messages(cluster.gradients_per_message)
    arrival, worker = _arrivals(clocks, seconds, limit)
    end = float(arrival[-1]) if seconds is None else float(seconds)
    start, read = _reads(arrival, worker)
    begun = np.bincount(worker, minlength=cluster.workers)
    flying = np.arange(cluster.workers)
    last = np.full(cluster.workers, -1)
    last[worker] = np.arange(len(worker))  # of equal indices the last one counts
    # The engine numbers work in the order in which it was begun, which is by last arrival.
    flying = flying[np.lexsort((flying, last))]
    update = np.arange(len(worker))
    finish = np.concatenate([arrival, np.full(cluster.workers, np.inf)])
    return Timeline(
        num_workers=cluster.workers,
        gradients_per_message=cluster.gradients_per_message,
        worker=np.concatenate([worker, flying]),
        read_version=np.concatenate([read, last[flying] + 1]),
        start_time=np.concatenate(
            [start, np.where(begun[flying] > 0, np.append(arrival, 0.0)[last[flying]], 0.0)]
        ),
        compute_end=finish,
        arrival_time=finish,
        update=np.concatenate([update, np.full(cluster.workers, IN_FLIGHT)]),
        apply_time=arrival,
        average=policy.average,
        metadata=describe(cluster, policy, seed, end),
    )


def _reads(arrival: np.ndarray, worker: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """When each message was begun and at which version: just after its worker's last arrival."""
    order = np.argsort(worker, kind="stable")
    follows = np.flatnonzero(worker[order[1:]] == worker[order[:-1]])
    start, read = np.zeros(len(worker)), np.zeros(len(worker), np.int64)
    start[order[follows + 1]] = arrival[order[follows]]
    read[order[follows + 1]] = order[follows] + 1
    return start, read


def _arrivals(
    clocks: list["_Clock"], seconds: float | None, limit: float
) -> tuple[np.ndarray, np.ndarray]:
    """The arrivals up to a time, or the first `limit` of them, and their workers."""
    until = seconds if seconds is not None else min(clock.last for clock in clocks)
    while True:
        times, count = [], 0
        for clock in clocks:
            times.append(clock.up_to(until))
            count += len(times[-1])
            if count > 2 * MAX_MESSAGES:
                refuse_length(until, MAX_MESSAGES)
        if seconds is not None or count >= limit:
            break
        until *= min(2.0, 1.02 * limit / max(count, 1))
    arrival = np.concatenate(times)
    worker = np.repeat(np.arange(len(clocks)), [len(t) for t in times])
    order = np.lexsort((worker, arrival))
    if seconds is None:
        order = order[: int(limit)]
    return arrival[order], worker[order]


class _Clock:
    """One worker's arrival times, drawn as far as they are asked for."""

    def __init__(self, worker: int, draw: Sampler, most: int) -> None:
        self._worker, self._draw, self._most = worker, draw, most
        self._times = np.zeros(1)
        self._extend()

    @property
    def last(self) -> float:
        """The last time that is finite."""
        return float(self._times[self._times < math.inf][-1])

    def up_to(self, until: float) -> np.ndarray:
        while self._times[-1] <= until:
            self._extend()
        return self._times[1 : np.searchsorted(self._times, until, side="right")]

    def _extend(self) -> None:
        last = self.last
        if len(self._times) > self._most:
            refuse_length(last, self._most)
        if self._times[-1] > last:
            refuse_infinity(self._worker, last)
        block = np.array(self._draw(max(_FIRST_BLOCK, len(self._times))))
        block[0] += last  # so that the sum runs exactly as one clock would
        with np.errstate(over="ignore"):
            times = np.concatenate([self._times, np.cumsum(block)])
        standing = times[len(self._times) :] == times[len(self._times) - 1 : -1]
        twice = np.flatnonzero(standing[1:] & standing[:-1])
        if len(twice) and (where := float(times[len(self._times) + twice[0]])) < math.inf:
            refuse_standing(self._worker, where)
        self._times = times
