"""Stale synchronous parallel: the fast may run ahead of the slowest, but not too far.

Reference: Ho et al., "More Effective Distributed ML via a Stale Synchronous Parallel Parameter
Server", 2013, whose slowest and fastest workers are at most s clocks apart. A worker reads the
server's current version here; theirs may read from a cache that is up to s clocks old.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge

from sgdlab.timelines.arguments import Examples
from sgdlab.timelines.cluster import Cluster
from sgdlab.timelines.engine import Engine, simulate
from sgdlab.timelines.policy import Policy
from sgdlab.timelines.timeline import Timeline

Bound = Annotated[int, Ge(0), Examples(lambda n: [2, 0])]


@dataclass
class BoundedStaleness(Policy):
    """Apply each message alone; worker i starts clock cᵢ only while cᵢ − min c ≤ bound.

    Attributes:
      bound: s, in clocks; a worker's clock is the number of messages it has completed.
      clock: of every present worker. Who joins does so at the slowest clock.
      slowest: min c.
      at_clock: how many present workers stand at each clock.
      waiting: by clock, the workers that have run too far ahead.
    """

    name = "bounded_staleness"
    bound: Bound
    clock: dict[int, int] = field(default_factory=dict, init=False)
    slowest: int = field(default=0, init=False)
    at_clock: Counter[int] = field(default_factory=Counter, init=False)
    waiting: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list), init=False)

    def join(self, engine: Engine, worker: int) -> None:
        """Start at the slowest clock, so that the newcomer holds nobody back."""
        self.clock[worker] = self.slowest
        self.at_clock[self.slowest] += 1
        engine.start(worker)

    def arrive(self, engine: Engine, worker: int, message: int) -> None:
        """Apply the message and let start who may."""
        engine.apply((message,))
        clock = self.clock[worker]
        self.at_clock[clock] -= 1
        self.at_clock[clock + 1] += 1
        self.clock[worker] = clock + 1
        self.waiting[clock + 1].append(worker)
        self._start_who_may(engine, clock + 1)

    def leave(self, engine: Engine, worker: int) -> None:
        """The others may have waited for it."""
        self.at_clock[self.clock.pop(worker)] -= 1
        self._start_who_may(engine, self.slowest)

    def _start_who_may(self, engine: Engine, clock: int) -> None:
        """Start the workers waiting at a clock, and at those that a faster minimum sets free."""
        free = [clock] if clock - self.slowest <= self.bound else []
        while self.clock and not self.at_clock[self.slowest]:
            del self.at_clock[self.slowest]
            self.slowest += 1
            free.append(self.slowest + self.bound)
        ready = {worker for clock in free for worker in self.waiting.pop(clock, [])}
        for worker in sorted(ready):
            engine.start(worker)


def bounded_staleness(
    cluster: Cluster,
    *,
    bound: Bound,
    updates: int | None = None,
    seconds: float | None = None,
    gradients: int | None = None,
    seed: int = 0,
) -> Timeline:
    """Apply each message as it arrives, but let no worker run far ahead of the slowest.

    Completed clocks differ by at most bound + 1. `bound=0` is a barrier in time, yet messages are
    applied one by one, with staleness 0 ... N − 1 in each round. `bound` is in messages; the other
    arguments, result and errors are those of `simulate`.
    """
    return simulate(
        cluster,
        BoundedStaleness(bound),
        updates=updates,
        seconds=seconds,
        gradients=gradients,
        seed=seed,
    )
