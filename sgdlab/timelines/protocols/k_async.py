"""K-async SGD: an update for every K distinct workers; the others carry on.

Reference: Dutta, Joshi, Ghosh, Dube and Nagpurkar, "Slow and Stale Gradients Can Win the Race",
2018.
"""

from dataclasses import dataclass
from typing import Annotated

from sgdlab.timelines.arguments import Count, Examples
from sgdlab.timelines.cluster import Cluster
from sgdlab.timelines.engine import Engine, simulate
from sgdlab.timelines.policy import Gathering, check_at_most_workers
from sgdlab.timelines.timeline import Timeline

K = Annotated[Count, Examples(lambda n: [(n + 3) // 4, 1, n])]


@dataclass
class KAsync(Gathering):
    """Average the first K workers, who wait for that and then read."""

    name = "k_async"
    k: K

    def check(self, cluster: Cluster) -> None:
        """K distinct workers must exist."""
        check_at_most_workers(self, "k", cluster)

    def is_complete(self, engine: Engine) -> bool:
        """K are in, or all who are there where fewer are left."""
        return len(self.held) >= self.k or self.all_wait(engine)


def k_async(
    cluster: Cluster,
    *,
    k: K,
    updates: int | None = None,
    seconds: float | None = None,
    gradients: int | None = None,
    seed: int = 0,
) -> Timeline:
    """Update on the first K distinct workers, who wait; the others carry on.

    K = 1 is `asynchronous` and K = N is `synchronous` through a server. `k` ≤ N; the other
    arguments, result and errors are those of `simulate`.
    """
    return simulate(
        cluster, KAsync(k), updates=updates, seconds=seconds, gradients=gradients, seed=seed
    )
