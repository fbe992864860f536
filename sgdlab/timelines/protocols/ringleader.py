"""Ringleader ASGD: asynchronous, with the same say for every worker's data.

Reference: Maranjyan and Richtárik, "Ringleader ASGD: The First Asynchronous SGD with Optimal Time
Complexity under Data Heterogeneity", 2025, and the authors' simulator.

A round has two phases, and a table with Gᵢ, the sum of worker i's bᵢ gradients.

1. Gather: messages go to the table, their workers read on at once (the version doesn't change),
   until every worker has at least one there.
2. Serve: N updates, each with (1/N) Σᵢ Gᵢ/bᵢ over the table as it stands. The first happens as
   the gathering completes and serves the worker that completed it; then one happens as each of the
   others comes in, whose message joins the table first and who reads the version that results.
   What workers bring that have been served already opens the table of the next round, and they
   read on.

The worker that is served last has nothing in the next table yet, so a gathering never completes
before it began. Only where somebody leaves can the next table be full when a round ends; its first
update then comes with the next arrival, which is the one that it serves.
"""

from dataclasses import dataclass, field

from sgdlab.timelines.cluster import Cluster
from sgdlab.timelines.engine import Engine, simulate
from sgdlab.timelines.policy import Policy
from sgdlab.timelines.timeline import Timeline


@dataclass
class Ringleader(Policy):
    """Rounds of one update for every worker, with a table of everyone's gradients.

    Attributes:
      present: the workers that are there.
      table: the messages of this round, in use from their first update to the end of the round.
      missing: gathering, the workers with nothing in the table; nobody asks while serving.
      unserved: serving, the workers that this round's updates still wait for; else empty.
      ahead: the messages for the next round's table.
      gathered: their workers.
    """

    name = "ringleader"
    average = "workers"
    present: set[int] = field(default_factory=set, init=False)
    table: list[int] = field(default_factory=list, init=False)
    missing: set[int] = field(default_factory=set, init=False)
    unserved: set[int] = field(default_factory=set, init=False)
    ahead: list[int] = field(default_factory=list, init=False)
    gathered: set[int] = field(default_factory=set, init=False)

    def join(self, engine: Engine, worker: int) -> None:
        """Be waited for in the gathering that is under way, or in the next one."""
        self.present.add(worker)
        self.missing.add(worker)
        engine.start(worker)

    def leave(self, engine: Engine, worker: int) -> None:
        """Be waited for no longer; what is in the table stays there."""
        self.present.discard(worker)
        self.missing.discard(worker)
        if self.unserved:
            self._serve(engine, worker)

    def arrive(self, engine: Engine, worker: int, message: int) -> None:
        """Gather, or serve; the worker reads on either way."""
        if not self.unserved:
            self._gather(engine, worker, message)
        elif worker in self.unserved:
            self.table.append(message)
            engine.apply((message,), keep=True)
            self._serve(engine, worker)
        else:
            self.ahead.append(message)
            self.gathered.add(worker)
        engine.start(worker)

    def _gather(self, engine: Engine, worker: int, message: int) -> None:
        self.table.append(message)
        self.missing.discard(worker)
        if not self.missing:
            engine.apply(self.table, keep=True)
            self.unserved = set(self.present)
            self._serve(engine, worker)

    def _serve(self, engine: Engine, worker: int) -> None:
        """The worker has had its update; after the last one the next round begins."""
        self.unserved.discard(worker)
        if not self.unserved:
            engine.release(self.table)
            self.table, self.missing = self.ahead, self.present - self.gathered
            self.ahead, self.gathered = [], set()


def ringleader(
    cluster: Cluster,
    *,
    updates: int | None = None,
    seconds: float | None = None,
    gradients: int | None = None,
    seed: int = 0,
) -> Timeline:
    """Rounds of N updates, one as each worker comes in, over a table of everyone's gradients.

    No message is dropped. A message serves every update from `update` to `last_update`, the last
    of its round, and an update is the mean over workers of each worker's mean. Arguments, result
    and errors are those of `simulate`.
    """
    return simulate(
        cluster, Ringleader(), updates=updates, seconds=seconds, gradients=gradients, seed=seed
    )
