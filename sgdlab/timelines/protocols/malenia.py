"""Malenia SGD: a fresh batch in which every worker has the same say.

Reference: Tyurin and Richtárik, "Optimal Time Complexities of Parallel Stochastic Optimization
Methods Under a Fixed Computation Model", 2023, as Tyurin, "Bridging the Gap Between Homogeneous and
Heterogeneous Asynchronous Optimization is Surprisingly Difficult", 2026, restates it: Algorithm 1,
whose loop ends only above S/n.

The first paper's own text could not be looked up, so whether it ends at equality already is not
known here; it matters where equal workers reach S/n exactly. The simulator of Maranjyan and
Richtárik, "Ringleader ASGD", 2025, is the case of few samples: `samples=1, stop=True`. The worker
that completes a batch reads the version that results.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated

from sgdlab.timelines.arguments import Count, Examples
from sgdlab.timelines.cluster import Cluster
from sgdlab.timelines.engine import Engine, simulate
from sgdlab.timelines.policy import FreshBatch
from sgdlab.timelines.timeline import Timeline

Samples = Annotated[Count, Examples(lambda n: [2 * n, 1])]


@dataclass
class Malenia(FreshBatch):
    """Collect at the current version until the workers' counts have a large harmonic mean.

    Attributes:
      samples: S.
      counts: Bᵢ, of the workers that are there and have brought something in this round.
      inverse: Σᵢ 1/Bᵢ over these, exactly, since equality decides.
    """

    name = "malenia"
    average = "workers"
    samples: Samples
    counts: dict[int, int] = field(default_factory=dict, init=False)
    inverse: Fraction = field(default=Fraction(), init=False)

    def leave(self, engine: Engine, worker: int) -> None:
        """One fewer to wait for; its messages stay, and it could add no more to its count."""
        if worker in self.counts:
            self.inverse -= Fraction(1, self.counts.pop(worker))
        self.update_if_complete(engine)

    def take(self, worker: int, message: int) -> None:
        """Hold the message and count it."""
        super().take(worker, message)
        before = self.counts.get(worker, 0)
        self.counts[worker] = before + 1
        self.inverse += Fraction(-1, before * (before + 1)) if before else 1

    def is_complete(self, engine: Engine) -> bool:
        """(1/n Σ 1/Bᵢ)⁻¹ > S/n; it is 0 while one of the n that are there has brought nothing."""
        workers = len(self.counts)
        return workers == engine.num_present and workers**2 > self.samples * self.inverse

    def release(self, engine: Engine) -> None:
        """Update, and count from nothing."""
        self.counts, self.inverse = {}, Fraction()
        super().release(engine)


def malenia(
    cluster: Cluster,
    *,
    samples: Samples,
    stop: bool = False,
    updates: int | None = None,
    seconds: float | None = None,
    gradients: int | None = None,
    seed: int = 0,
) -> Timeline:
    """Collect fresh messages until the harmonic mean of the workers' counts exceeds samples/N.

    The counts are Bᵢ, and the update is the mean over workers of each worker's mean: unbiased
    where data differ by worker, with the variance of S messages or less. Then everyone starts
    afresh (`stop=True`), or runs on, and what comes from earlier versions is refused
    (`stop=False`). `samples` < N waits for one message of each. With fixed times an update takes
    at most max(h, 2·h̄·S/N) seconds, h the slowest and h̄ the mean time, if all are stopped. The
    other arguments, result and errors are those of `simulate`.
    """
    return simulate(
        cluster,
        Malenia(samples, stop=stop),
        updates=updates,
        seconds=seconds,
        gradients=gradients,
        seed=seed,
    )
