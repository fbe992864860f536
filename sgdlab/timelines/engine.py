"""The event engine: one heap of things to come, and one policy that decides what follows.

The engine knows clocks, the network, failures, and who joins and leaves. When the server has a
message it asks the policy, which applies or drops messages and starts workers. The policy never
learns of a failure: a worker that is down reads afresh when it is repaired.

At one instant events happen in this order: workers leave, fail, join, come back from repair; timers
fire; messages arrive, in the order of their workers.
"""

import math
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace

import numpy as np

from sgdlab.timelines.arguments import (
    Count,
    Positive,
    Seed,
    TimelineError,
    Updates,
    check_argument,
    check_fields,
)
from sgdlab.timelines.cluster import Cluster
from sgdlab.timelines.failures import FailureClock
from sgdlab.timelines.ledger import Ledger
from sgdlab.timelines.limits import (
    check_length,
    most_messages,
    refuse_length,
    refuse_standing,
)
from sgdlab.timelines.network import Network
from sgdlab.timelines.policy import Policy
from sgdlab.timelines.timeline import CANCELLED, DROPPED, Timeline

# Kinds of events: at one instant the higher goes first. An event is (time, worker − kind·N, token),
# so that tuples compare in the right order and an arrival is told by its sign.
_ARRIVE, _REACH, _WAKE, _RESUME, _JOIN, _FAIL, _LEAVE = range(7)

# What a worker does, where it isn't the number of the message that it works on.
_IDLE, _DOWN, _ABSENT = -1, -2, -3

_BLOCK = 64  # times drawn at once; a worker's stream doesn't depend on it
_MAX_LOSSES = 1_000_000  # failures without one arrival between them: work that cannot be done


@dataclass(frozen=True)
class Horizon:
    """When a timeline ends: after so many updates, seconds, or gradients at the server.

    Raises:
      TimelineError: not exactly one of the three is given, or it is out of range.
    """

    updates: Updates | None = None
    seconds: Positive | None = None
    gradients: Count | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) != 1:
            names = ", ".join(given) or "none"
            raise TimelineError(
                f"timeline: exactly one of updates, seconds, gradients is allowed; given: {names}"
            )
        check_fields(self, "timeline")

    def messages(self, per_message: int) -> float:
        """How many messages, of so many gradients each, may arrive; inf if that ends nothing."""
        return math.inf if self.gradients is None else math.ceil(self.gradients / per_message)


def simulate(
    cluster: Cluster,
    policy: Policy,
    *,
    updates: int | None = None,
    seconds: float | None = None,
    gradients: int | None = None,
    seed: int = 0,
) -> Timeline:
    """Run a cluster under a protocol until exactly one of three ends is reached.

    Args:
      cluster: the machines.
      policy: the protocol, in a fresh object.
      updates: T; the timeline ends with the T-th update.
      seconds: it ends at this time, with everything up to it done.
      gradients: it ends when so many gradients have arrived, used or not.
      seed: of the workers' clocks, in [0, 2³²).

    Returns:
      The timeline.

    Raises:
      TimelineError: an argument is out of range, or the end cannot be reached.
    """
    horizon = Horizon(updates, seconds, gradients)
    seed = check_argument(policy.name, "seed", Seed, seed)
    check_fields(policy, policy.name)
    policy.check(cluster)
    together = cluster.workers if policy.collective else 1
    check_length(cluster, getattr(policy, "k", together), **vars(horizon))
    engine = Engine(cluster, policy, seed)
    end = engine.run(horizon)
    return engine.ledger.timeline(
        num_workers=cluster.workers,
        gradients_per_message=cluster.gradients_per_message,
        average=policy.average,
        seconds=end,
        metadata=describe(cluster, policy, seed, end),
    )


def describe(cluster: Cluster, policy: Policy, seed: int, seconds: float) -> dict:
    """The metadata of a timeline."""
    return {
        "protocol": policy.name,
        "parameters": policy.parameters,
        "cluster": cluster.to_dict(),
        "seed": int(seed),
        "seconds": float(seconds),
    }


class Engine:
    """One run. A policy reads the attributes and calls the public methods; the rest is inside.

    Attributes:
      now: the current time, seconds.
      version: the current version: how many updates have been applied.
      num_workers: N.
      num_present: how many workers have joined and not left.
      ledger: everything recorded; `ledger.read_version[m]` is the version of message m.
    """

    def __init__(self, cluster: Cluster, policy: Policy, seed: int) -> None:
        self.now = 0.0
        self.version = 0
        self.num_workers = cluster.workers
        self.num_present = 0
        self.ledger = Ledger()
        self._policy = policy
        self._gradients = cluster.gradients_per_message
        self._heap: list[tuple[float, int, int]] = []
        self._is_spent = False  # whether the event at the top has happened, or is happening
        self._job = [_ABSENT] * cluster.workers
        self._limit = most_messages(cluster)
        self._standing: set[int] = set()  # workers whose last message took no time
        self._arrived = self._losses = 0
        workers = range(cluster.workers)
        self._draw = [cluster.message_times(worker, seed) for worker in workers]
        self._ahead = [array("d") for _ in workers]  # times drawn ahead, the next one last
        self._failures = (
            [FailureClock(cluster.uptimes(w, seed), cluster.failures.repair) for w in workers]
            if cluster.failures
            else None
        )
        network = cluster.network or Network()
        self._collective = network if policy.collective and network.collective != "server" else None
        self._transfer = 0.0 if self._collective else network.transfer_seconds
        self._service = 0.0 if self._collective else network.service_time
        self._server_free = 0.0
        for worker in workers:
            if worker in cluster.leaves:
                self._push(cluster.leaves[worker], worker, _LEAVE)
            self._push(cluster.joins.get(worker, 0.0), worker, _JOIN)

    # What a policy may call.

    def start(self, worker: int) -> None:
        """The idle worker reads the current version now and computes at it.

        A worker that is down does so once it is repaired; one that has left never will.
        """
        job = self._job[worker]
        if job != _IDLE:
            if job >= 0:
                raise TimelineError(f"worker {worker} is started while it computes message {job}")
            return
        now, failures = self.now, self._failures
        if failures and (repaired := failures[worker].down_until(now)):
            self._wait_for_repair(worker, repaired)
            return
        ahead = self._ahead[worker]
        if not ahead:
            times = np.asarray(self._draw[worker](_BLOCK), np.float64)
            ahead.frombytes(times[::-1].tobytes())
        computed = now + self._transfer + ahead.pop()
        reached = computed + self._transfer
        self._job[worker] = message = self.ledger.begin(worker, self.version, now, computed)
        if message >= self._limit:
            refuse_length(now, self._limit)
        if reached <= now:
            self._look_at_clock(worker)
        elif self._standing:
            self._standing.discard(worker)
        if failures and failures[worker].next_failure < reached:
            self._push(failures[worker].next_failure, worker, _FAIL, message)
        elif self._service:
            self._push(reached, worker, _REACH, message)
        else:
            self._schedule((reached, worker, message))

    def _look_at_clock(self, worker: int) -> None:
        """One message without a duration may be drawn; a second one is a clock that stands."""
        if worker in self._standing:
            refuse_standing(worker, self.now)
        self._standing.add(worker)

    def stop(self, worker: int) -> None:
        """What the worker is computing or sending is CANCELLED, and it is idle."""
        message = self._job[worker]
        if message >= 0:
            self.ledger.settle((message,), CANCELLED)
            self.ledger.end(message, self.now)
        if message != _ABSENT:
            self._job[worker] = _IDLE

    def restart(self, worker: int) -> None:
        """Stop the worker, if it is at work, and start it."""
        self.stop(worker)
        self.start(worker)

    def restart_everyone(self) -> None:
        """Restart all workers that are there."""
        for worker in range(self.num_workers):
            self.restart(worker)

    def apply(self, messages: Sequence[int], *, keep: bool = False) -> None:
        """One update, now, with messages that have arrived.

        Args:
          messages: their numbers.
          keep: they serve the later updates too, until they are given to `release`.
        """
        ledger = self.ledger
        ledger.settle(messages, self.version)
        if keep:
            ledger.keep(list(messages))
        ledger.apply_time.append(self.now)
        self.version += 1

    def release(self, messages: list[int]) -> None:
        """The latest update was the last that these messages serve."""
        self.ledger.release(messages)

    def drop(self, message: int) -> None:
        """Refuse a message that has arrived."""
        self.ledger.settle((message,), DROPPED)

    def wake(self, time: float, token: int = 0) -> None:
        """Have `policy.wake(engine, token)` called at a time."""
        self._push(time, 0, _WAKE, token)

    def staleness(self, message: int) -> int:
        """The staleness that a message has if it is applied in the next update."""
        return self.version - self.ledger.read_version[message]

    def is_running(self, message: int) -> bool:
        """Whether the message is still being computed or sent."""
        return self._job[self.ledger.worker[message]] == message

    def collective_seconds(self) -> float:
        """Seconds of an all-reduce between the present workers; 0 where the server averages."""
        return self._collective.collective_seconds(self.num_present) if self._collective else 0.0

    # What happens by itself.

    def run(self, horizon: Horizon) -> float:
        """Let events happen until the horizon.

        Returns:
          When the timeline ends, seconds.

        Raises:
          TimelineError: nothing more will happen, or no work is ever finished.
        """
        heap, job, arrive = self._heap, self._job, self._policy.arrive
        last_update = math.inf if horizon.updates is None else horizon.updates
        # What lies at infinity, a sum that overflowed, never happens.
        last_time = sys.float_info.max if horizon.seconds is None else horizon.seconds
        last_arrival = horizon.messages(self._gradients)
        ended, end_time = self.ledger.ended.append, self.ledger.end_time.append
        while heap and heap[0][0] <= last_time:
            time, worker, token = heap[0]
            self._is_spent = True
            self.now = time
            if worker < 0:
                self._happen(worker, token)
            elif job[worker] == token:
                job[worker] = _IDLE
                ended(token)
                end_time(time)
                self._arrived += 1
                self._losses = 0
                arrive(self, worker, token)
            if self._is_spent:
                self._is_spent = False
                heappop(heap)
            if self.version >= last_update or self._arrived >= last_arrival:
                return self.now
        if horizon.seconds is None:
            raise TimelineError(
                f"{self._policy.name}: after {self.now} s nothing more happens, with "
                f"{self.num_present} of {self.num_workers} workers there, {self.version} updates "
                f"and {self._arrived} messages; allowed: an end that is reached before"
            )
        return float(last_time)

    def _happen(self, code: int, token: int) -> None:
        kind, worker = -(code // self.num_workers), code % self.num_workers
        if kind == _REACH:
            self._queue(worker, token)
        elif kind == _WAKE:
            self._policy.wake(self, token)
        elif kind == _RESUME:
            if self._job[worker] == _DOWN:
                self._job[worker] = _IDLE
                self.start(worker)
        elif kind == _JOIN:
            self._job[worker] = _IDLE
            self.num_present += 1
            self._policy.join(self, worker)
        elif kind == _FAIL:
            self._fail(worker, token)
        elif kind == _LEAVE:
            self.stop(worker)
            self._job[worker] = _ABSENT
            self.num_present -= 1
            self._policy.leave(self, worker)

    def _queue(self, worker: int, message: int) -> None:
        """A message has reached the server, which takes one at a time."""
        if self._job[worker] == message:
            self._server_free = max(self.now, self._server_free) + self._service
            self._push(self._server_free, worker, _ARRIVE, message)

    def _fail(self, worker: int, message: int) -> None:
        if self._job[worker] != message or self._failures is None:
            return
        self.stop(worker)
        self._losses += 1
        if self._losses >= _MAX_LOSSES:
            raise TimelineError(
                f"{self._policy.name}: failures lost the last {_MAX_LOSSES} messages; "
                "allowed: mtbf and compute times with which work is finished"
            )
        self._wait_for_repair(worker, self._failures[worker].down_until(self.now) or self.now)

    def _wait_for_repair(self, worker: int, repaired: float) -> None:
        self._job[worker] = _DOWN
        self._push(repaired, worker, _RESUME)

    def _push(self, time: float, worker: int, kind: int, token: int = 0) -> None:
        self._schedule((time, worker - kind * self.num_workers, token))

    def _schedule(self, event: tuple[float, int, int]) -> None:
        """Add an event; the first that an event gives rise to takes its place at the top."""
        if self._is_spent:
            self._is_spent = False
            heapreplace(self._heap, event)
        else:
            heappush(self._heap, event)
