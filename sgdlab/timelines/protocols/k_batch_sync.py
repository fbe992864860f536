"""K-batch-sync SGD and Rennala SGD: a fresh batch of K messages, whoever computes them.

Reference: Dutta, Joshi, Ghosh, Dube and Nagpurkar, "Slow and Stale Gradients Can Win the Race",
2018, who stop the others at an update (`stop=True`); Tyurin and Richtárik, "Optimal Time
Complexities of Parallel Stochastic Optimization Methods Under a Fixed Computation Model", 2023,
Rennala SGD, where they are stopped or else what they bring is ignored (`stop=False`).

Rennala SGD is taken from Tyurin, "Bridging the Gap Between Homogeneous and Heterogeneous
Asynchronous Optimization is Surprisingly Difficult", 2026, Algorithm 1, and from the simulator of
Maranjyan and Richtárik, which gathers exactly K where that algorithm goes on to K + 1. The worker
that completes a batch reads the version that results.
"""

from dataclasses import dataclass
from typing import Annotated

from sgdlab.timelines.arguments import Count, Examples
from sgdlab.timelines.cluster import Cluster
from sgdlab.timelines.engine import Engine, simulate
from sgdlab.timelines.policy import FreshBatch
from sgdlab.timelines.timeline import Timeline

K = Annotated[Count, Examples(lambda n: [n, n + 2])]


@dataclass
class KBatchSync(FreshBatch):
    """Update on K messages computed at the current version, from any workers."""

    name = "k_batch_sync"
    k: K

    def is_complete(self, engine: Engine) -> bool:
        """K are in."""
        return len(self.held) == self.k


def k_batch_sync(
    cluster: Cluster,
    *,
    k: K,
    stop: bool = False,
    updates: int | None = None,
    seconds: float | None = None,
    gradients: int | None = None,
    seed: int = 0,
) -> Timeline:
    """Update on K messages computed at the current version, a fast worker's several times.

    With fixed times h₁ ≤ h₂ ≤ ... and `stop`, K messages take at most min_m (K + m)/Σ_{i≤m} 1/hᵢ
    seconds, and at most twice that without. `k` may exceed N; the other arguments, result and
    errors are those of `simulate`.
    """
    return simulate(
        cluster,
        KBatchSync(k, stop=stop),
        updates=updates,
        seconds=seconds,
        gradients=gradients,
        seed=seed,
    )
