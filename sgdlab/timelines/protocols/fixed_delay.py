"""The classical queue of stale gradients: every gradient is the same number of updates late.

Reference: Agarwal and Duchi, "Distributed Delayed Stochastic Optimization", 2011; Langford, Smola
and Zinkevich, "Slow Learners are Fast", 2009.
"""

from typing import Annotated

import numpy as np
from annotated_types import Ge, Lt

from sgdlab.timelines.arguments import MAX_WORKERS, Examples, Updates, check_argument
from sgdlab.timelines.protocols.random_delay import queue
from sgdlab.timelines.timeline import Timeline

Delay = Annotated[int, Ge(0), Lt(MAX_WORKERS), Examples(lambda n: [n - 1])]


def fixed_delay(delay: Delay, *, updates: Updates) -> Timeline:
    """Update t uses the gradient at version max(0, t − delay); no cluster.

    One update a second by delay + 1 workers in turn, each message's worker reading on as it
    arrives. `delay=0` is plain SGD.

    Args:
      delay: τ, in updates.
      updates: T.

    Returns:
      The timeline; message t is worker t mod (delay + 1)'s.

    Raises:
      TimelineError: an argument is out of range.
    """
    delay = check_argument("fixed_delay", "delay", Delay, delay)
    updates = check_argument("fixed_delay", "updates", Updates, updates)
    delays = np.full(updates + delay + 1, delay)
    metadata = {"protocol": "fixed_delay", "parameters": {"delay": delay}, "seed": 0}
    return queue(delays, delay, updates, metadata)
