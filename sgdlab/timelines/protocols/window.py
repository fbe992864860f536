"""A waiting time: the server collects for a while after the first arrival.

Ours: the server opens a window when a message comes and nothing is held, and averages what arrives
in [t, t + wait). It stands between the two extremes: Zhang, Gupta, Lian and Liu, "Staleness-aware
Async-SGD for Distributed Deep Learning", 2016, count messages where this one counts seconds.
"""

import math
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge

from sgdlab.arguments import MayBeInfinite
from sgdlab.timelines.arguments import Examples
from sgdlab.timelines.cluster import Cluster
from sgdlab.timelines.engine import Engine, simulate
from sgdlab.timelines.policy import Gathering
from sgdlab.timelines.timeline import Timeline

Wait = Annotated[float, Ge(0), MayBeInfinite, Examples(lambda n: [0.3, 0.0, math.inf])]


@dataclass
class Window(Gathering):
    """Update when the window closes or everybody is in; the senders wait, the others carry on."""

    name = "window"
    wait: Wait
    opened: int = field(default=0, init=False)

    def is_complete(self, engine: Engine) -> bool:
        """Everybody is in, or there is no window to wait for."""
        return self.wait == 0 or self.all_wait(engine)

    def arrive(self, engine: Engine, worker: int, message: int) -> None:
        """The first message opens a window, which ends before an arrival at its closing time."""
        if not self.held:
            self.opened += 1
            if 0 < self.wait < math.inf:
                engine.wake(engine.now + self.wait, self.opened)
        super().arrive(engine, worker, message)

    def wake(self, engine: Engine, token: int) -> None:
        """The window's time is over, unless it closed early."""
        if self.held and token == self.opened:
            self.release(engine)


def window(
    cluster: Cluster,
    *,
    wait: Wait,
    updates: int | None = None,
    seconds: float | None = None,
    gradients: int | None = None,
    seed: int = 0,
) -> Timeline:
    """Collect what comes within a waiting time after the first arrival.

    `wait=0` is `asynchronous`; `wait=inf` is `synchronous` through a server. `wait` is in seconds;
    the other arguments, result and errors are those of `simulate`.
    """
    return simulate(
        cluster, Window(wait), updates=updates, seconds=seconds, gradients=gradients, seed=seed
    )
