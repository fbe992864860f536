"""Nobody waits for anybody, but an update needs everybody.

Ours, and no paper's: the classic sentence that the global update is made only when the gradients of
all nodes have come, taken alone, without the barrier; so what a worker brings may be stale. Malenia
SGD (`malenia`) needs everybody and averages by worker too, but uses fresh messages only.
"""

from dataclasses import dataclass, field

from sgdlab.timelines.cluster import Cluster
from sgdlab.timelines.engine import Engine, simulate
from sgdlab.timelines.policy import Policy
from sgdlab.timelines.timeline import Timeline


@dataclass
class WaitForAll(Policy):
    """Collect until every present worker has contributed; each worker reads on at once."""

    name = "wait_for_all"
    average = "workers"
    held: list[int] = field(default_factory=list, init=False)
    missing: set[int] = field(default_factory=set, init=False)
    present: set[int] = field(default_factory=set, init=False)

    def join(self, engine: Engine, worker: int) -> None:
        """One more to wait for, from now on."""
        self.present.add(worker)
        self.missing.add(worker)
        engine.start(worker)

    def arrive(self, engine: Engine, worker: int, message: int) -> None:
        """Hold the message; its worker computes on, at the new version if there is one."""
        self.held.append(message)
        self.missing.discard(worker)
        self._update_if_complete(engine)
        engine.start(worker)

    def leave(self, engine: Engine, worker: int) -> None:
        """One fewer to wait for."""
        self.present.discard(worker)
        self.missing.discard(worker)
        self._update_if_complete(engine)

    def _update_if_complete(self, engine: Engine) -> None:
        if self.held and not self.missing:
            engine.apply(self.held)
            self.held, self.missing = [], set(self.present)


def wait_for_all(
    cluster: Cluster,
    *,
    updates: int | None = None,
    seconds: float | None = None,
    gradients: int | None = None,
    seed: int = 0,
) -> Timeline:
    """Update once every worker has contributed at least one message since the last update.

    The update is the mean over workers of each worker's mean, so a fast worker contributes more
    samples and no more weight. Arguments, result and errors are those of `simulate`.
    """
    return simulate(
        cluster, WaitForAll(), updates=updates, seconds=seconds, gradients=gradients, seed=seed
    )
