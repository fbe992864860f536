"""K-sync SGD, and backup workers: the barrier that doesn't wait for the slowest.

Reference: Dutta, Joshi, Ghosh, Dube and Nagpurkar, "Slow and Stale Gradients Can Win the Race",
2018, who stop the others at an update (`stop=True`); Chen, Pan, Monga, Bengio and Jozefowicz,
"Revisiting Distributed Synchronous SGD", 2016, whose backup workers run on and whose late
gradients are dropped (`stop=False`).

The second is taken from the documentation of TensorFlow's `SyncReplicasOptimizer`, by which that
paper's method was released: the first so many gradients of the current step are averaged and stale
ones dropped. Its queue of tokens can also let a fast worker in twice; here each counts once.
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
    """Average the first K workers at the current version; each counts once an update.

    Attributes:
      k: K.
      stop: at an update, stop the others and start everyone; else the others run on, and what
        they bring is refused as stale before they read afresh.
    """

    name = "k_sync"
    k: K
    stop: bool = True

    def check(self, cluster: Cluster) -> None:
        """K distinct workers must exist."""
        check_at_most_workers(self, "k", cluster)

    def is_complete(self, engine: Engine) -> bool:
        """K are in, or all who are there where fewer are left."""
        return len(self.held) >= self.k or self.all_wait(engine)

    def arrive(self, engine: Engine, worker: int, message: int) -> None:
        """Let the worker of a fresh message wait for the update; refuse a stale one."""
        if engine.staleness(message) > 0:
            engine.drop(message)
            engine.start(worker)
        else:
            super().arrive(engine, worker, message)

    def release(self, engine: Engine) -> None:
        """Apply what is held; who waited, or everyone, starts at the version that results."""
        if self.stop:
            held, self.held, self.waiting = self.held, [], set()
            engine.apply(held)
            engine.restart_everyone()
        else:
            super().release(engine)


def k_sync(
    cluster: Cluster,
    *,
    k: K,
    stop: bool = True,
    updates: int | None = None,
    seconds: float | None = None,
    gradients: int | None = None,
    seed: int = 0,
) -> Timeline:
    """Wait for the first K workers at every update.

    The others are stopped (`stop=True`), or run on, and what they bring is refused as stale
    (`stop=False`, backup workers). With exponential times of mean μ an update takes
    μ(H_N − H_{N−K}) seconds in the mean, H the harmonic numbers, or, without stopping, as long as
    the K-th of N that must each end one work, K of them, or two, the N − K that were late. K = N
    is `synchronous`. `k` ≤ N; the other arguments, result and errors are those of `simulate`.
    """
    return simulate(
        cluster, KSync(k, stop), updates=updates, seconds=seconds, gradients=gradients, seed=seed
    )
