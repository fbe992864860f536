"""Asynchronous SGD: nobody waits for anybody.

Reference: Tsitsiklis, Bertsekas and Athans, "Distributed Asynchronous Deterministic and Stochastic
Gradient Optimization Algorithms", 1986; Dean et al., "Large Scale Distributed Deep Networks", 2012,
whose Downpour SGD this is where a worker pulls and pushes at every step.

A message is applied whole, at one instant: lock-free writes to shared memory aren't simulated.
"""

from dataclasses import dataclass

from sgdlab.timelines.cluster import Cluster
from sgdlab.timelines.engine import Engine, simulate
from sgdlab.timelines.merge import merge
from sgdlab.timelines.policy import Policy
from sgdlab.timelines.timeline import Timeline


@dataclass
class Asynchronous(Policy):
    """Apply each message as it arrives, and send its worker on at the version that results."""

    name = "asynchronous"

    def arrive(self, engine: Engine, worker: int, message: int) -> None:
        """One message, one update."""
        engine.apply((message,))
        engine.start(worker)


def asynchronous(
    cluster: Cluster,
    *,
    updates: int | None = None,
    seconds: float | None = None,
    gradients: int | None = None,
    seed: int = 0,
) -> Timeline:
    """Apply each message as it arrives.

    With N workers always busy, the staleness of K messages and the age of the work in flight add
    up to (N − 1)·K exactly. Arguments, result and errors are those of `simulate`; where nothing
    but compute times matters, the timeline is merged from the workers' clocks without an event.
    """
    run = merge if cluster.is_plain else simulate
    return run(
        cluster, Asynchronous(), updates=updates, seconds=seconds, gradients=gradients, seed=seed
    )
