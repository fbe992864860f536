"""K-batch-async SGD: an update on every K-th message, and nobody waits.

Reference: Dutta, Joshi, Ghosh, Dube and Nagpurkar, "Slow and Stale Gradients Can Win the Race",
2018; Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation" (FedBuff), 2022;
Zhang, Gupta, Lian and Liu, "Staleness-aware Async-SGD for Distributed Deep Learning", 2016, whose
n-softsync has K = ⌊N/n⌋.
"""

from dataclasses import dataclass, field
from typing import Annotated

from sgdlab.timelines.arguments import Count, Examples
from sgdlab.timelines.cluster import Cluster
from sgdlab.timelines.engine import Engine, simulate
from sgdlab.timelines.policy import Policy
from sgdlab.timelines.timeline import Timeline

K = Annotated[Count, Examples(lambda n: [(n + 3) // 4, 1, n + 1])]


@dataclass
class KBatchAsync(Policy):
    """A buffer of K messages, from any workers and of any staleness."""

    name = "k_batch_async"
    k: K
    held: list[int] = field(default_factory=list, init=False)

    def arrive(self, engine: Engine, worker: int, message: int) -> None:
        """Empty the buffer into an update when it is full; the worker reads on at once."""
        self.held.append(message)
        if len(self.held) == self.k:
            engine.apply(self.held)
            self.held = []
        engine.start(worker)


def k_batch_async(
    cluster: Cluster,
    *,
    k: K,
    updates: int | None = None,
    seconds: float | None = None,
    gradients: int | None = None,
    seed: int = 0,
) -> Timeline:
    """Update on every K-th message; workers read on at once.

    The mean staleness is (N − 1)/K. `k` may exceed N; the other arguments, result and errors are
    those of `simulate`.
    """
    return simulate(
        cluster, KBatchAsync(k), updates=updates, seconds=seconds, gradients=gradients, seed=seed
    )
