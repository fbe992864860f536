"""K-sync SGD, or backup workers: the barrier that doesn't wait for the slowest.

Reference: Chen, Pan, Monga, Bengio and Jozefowicz, "Revisiting Distributed Synchronous SGD", 2016;
Dutta, Joshi, Ghosh, Dube and Nagpurkar, "Slow and Stale Gradients Can Win the Race", 2018.
"""

from dataclasses import dataclass
from typing import Annotated

from sgdlab.timelines.arguments import Count, Examples
from sgdlab.timelines.cluster import Cluster
from sgdlab.timelines.engine import Engine, simulate
from sgdlab.timelines.policy import Gathering, check_at_most_workers
from sgdlab.timelines.timeline import Timeline

K = Annotated[Count, Examples(lambda n: [n - n // 4, 1, n])]


@dataclass
class KSync(Gathering):
    """Average the first K workers, stop the rest, start everyone."""

    name = "k_sync"
    k: K

    def check(self, cluster: Cluster) -> None:
        """K distinct workers must exist."""
        check_at_most_workers(self, "k", cluster)

    def is_complete(self, engine: Engine) -> bool:
        """K are in, or all who are there where fewer are left."""
        return len(self.held) >= self.k or self.all_wait(engine)

    def release(self, engine: Engine) -> None:
        """Apply what is held; everyone starts at the version that results."""
        held, self.held, self.waiting = self.held, [], set()
        engine.apply(held)
        for worker in range(engine.num_workers):
            engine.restart(worker)


def k_sync(
    cluster: Cluster,
    *,
    k: K,
    updates: int | None = None,
    seconds: float | None = None,
    gradients: int | None = None,
    seed: int = 0,
) -> Timeline:
    """Wait for the first K workers at every update and stop the rest.

    With exponential times of mean μ an update takes μ(H_N − H_{N−K}) seconds in the mean, H the
    harmonic numbers; K = N is `synchronous`. `k` ≤ N; the other arguments, result and errors are
    those of `simulate`.
    """
    return simulate(
        cluster, KSync(k), updates=updates, seconds=seconds, gradients=gradients, seed=seed
    )
