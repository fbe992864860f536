"""Ringmaster ASGD: asynchronous, with a threshold on staleness.

Reference: Maranjyan, Tyurin and Richtárik, "Ringmaster ASGD: The First Asynchronous SGD with
Optimal Time Complexity", 2025, which discards what is too old or, as in the authors' simulator,
stops it before it is finished (`stop=True`).
"""

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge

from sgdlab.arguments import MayBeInfinite
from sgdlab.timelines.arguments import Examples
from sgdlab.timelines.cluster import Cluster
from sgdlab.timelines.engine import Engine, simulate
from sgdlab.timelines.policy import Policy
from sgdlab.timelines.timeline import Timeline

Threshold = Annotated[float, Ge(1), MayBeInfinite, Examples(lambda n: [3 * n // 2 or 1, 2])]


@dataclass
class Ringmaster(Policy):
    """Apply a message iff its staleness is below the threshold, else send its worker on.

    Attributes:
      threshold: R, in updates.
      stop: after every update, also restart the workers whose work has become too old.
      oldest: no message before this one is both running and young enough. Messages are numbered
        in the order of their reads, so those that grow too old do so in that order.
    """

    name = "ringmaster"
    threshold: Threshold
    stop: bool = False
    oldest: int = field(default=0, init=False)

    def arrive(self, engine: Engine, worker: int, message: int) -> None:
        """One young message, one update."""
        if engine.staleness(message) >= self.threshold:
            engine.drop(message)
        else:
            engine.apply((message,))
            if self.stop:
                self._restart_the_old(engine)
        engine.start(worker)

    def _restart_the_old(self, engine: Engine) -> None:
        numbered = engine.ledger.worker
        while self.oldest < len(numbered) and engine.staleness(self.oldest) >= self.threshold:
            if engine.is_running(self.oldest):
                engine.restart(numbered[self.oldest])
            self.oldest += 1


def ringmaster(
    cluster: Cluster,
    *,
    threshold: Threshold,
    stop: bool = False,
    updates: int | None = None,
    seconds: float | None = None,
    gradients: int | None = None,
    seed: int = 0,
) -> Timeline:
    """Apply each message as it arrives if its staleness is below a threshold.

    No staleness exceeds ⌈threshold⌉ − 1; `threshold=inf` is `asynchronous`. The other arguments,
    result and errors are those of `simulate`.
    """
    return simulate(
        cluster,
        Ringmaster(threshold, stop),
        updates=updates,
        seconds=seconds,
        gradients=gradients,
        seed=seed,
    )
